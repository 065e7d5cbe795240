"""The demo: photos, a map, its compression by several codecs, localization, a table, pictures."""

import importlib.util
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import compress, evaluate, localize
from ..choices import DEMO_OUTPUT
from ..codecs import CODECS
from ..errors import InputError
from ..io.atomic import check_output, write_text
from ..io.features import open_features
from ..io.lists import read_poses, read_queries
from ..io.sizes import format_size
from ..logger import logger
from ..mapfile import map_info, read_map
from ..scene.projection import project_points
from ..threads import set_num_threads, steady_products
from .dataset import Dataset, photos_dataset, render_dataset

# The paper's codec is trained for half of its steps, so that the whole stays under three minutes.
CODEC_OPTIONS: dict[str, dict[str, Any]] = {"dpqed": {"steps": 500}}
RANSAC_THRESHOLD = 4.0  # pixels; the photos are small and their cameras known
THRESHOLDS = "0.005/0.05,0.02/0.2,0.25/2"
MOST = {"num_database": 10_000, "num_queries": 10_000}  # views of a scene that is this small
_MARKER = "README.txt"
_ABOUT = """Made by `hloc-dpqed demo`, which replaces this folder's files when it runs again.

images/              the photos, rendered or copied
sfm/                 the COLMAP model of the database photos
features.h5          their SIFT features, in hloc's layout
features-query.h5    the queries' features
queries.txt          the queries with their intrinsics
pairs-query.txt      the database photos retrieved for each query
poses_gt.txt         the queries' true poses
maps/                one map file for each codec
results/             the estimated poses, and a log of each query's matches
table.txt, demo.json the figures
map.jpg, matches.jpg, overview.jpg  the pictures
"""


@dataclass(frozen=True)
class Variant:
    """One way to store the map: a row of the table."""

    label: str
    codec: str
    granularity: str

    @property
    def file_name(self) -> str:
        return f"{self.codec}-{self.granularity}"


VARIANTS = (
    Variant("none, each observation", "none", "observation"),
    Variant("none, each point", "none", "point"),
    Variant("pq", "pq", "point"),
    Variant("dpqed", "dpqed", "point"),
    Variant("drqed", "drqed", "point"),
)


@steady_products()
def main(
    output: Path = Path(DEMO_OUTPUT),
    images: Path | None = None,
    num_database: int = 48,
    num_queries: int = 12,
    query_every: int = 5,
    code_bytes: int = 4,
    seed: int = 0,
    threads: int | None = None,
    image_size: tuple[int, int] = (640, 480),
    texels: float = 90.0,
    codec_options: dict[str, dict[str, Any]] | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Run the whole demo.

    Args:
        output: folder for everything; an earlier demo's folder is replaced, others are refused.
        images: folder of photos to use instead of rendered views.
        num_database, num_queries: how many views to render.
        query_every: with ``images``, every n-th photo is a query.
        code_bytes: bytes of one code, for the codecs that quantize.
        seed: of the scene, the views and the codecs.
        threads: all cores by default.
        image_size: (width, height) of rendered views in pixels.
        texels: resolution of the scene's textures, texels per metre.
        codec_options: options for a codec, by its name, in place of ``CODEC_OPTIONS``.
        progress: show progress bars.

    Returns:
        JSON-able: ``uncompressed_bytes``, ``num_points``, ``unit``, and ``rows``, one for each
        codec, with the map's sizes, ``mean_correct`` and the figures of ``evaluate``.

    Raises:
        InputError: an argument is wrong, or the photos do not make a map.
    """
    output = Path(output)
    _check(images, num_database, num_queries, query_every, code_bytes, seed, threads)
    set_num_threads(threads)
    plots = importlib.util.find_spec("matplotlib") is not None
    if not plots:
        logger.warning("No pictures without matplotlib: pip install 'hloc_dpqed[plot]'")
    _prepare(output, images)
    logger.info(f"Everything goes to {output}")
    if images is None:
        dataset = render_dataset(
            output, num_database, num_queries, image_size, texels, seed, progress
        )
    else:
        dataset = photos_dataset(output, Path(images), query_every, seed, progress)
    rows = []
    for variant in VARIANTS:
        if variant.codec in CODECS:
            options = {**CODEC_OPTIONS, **(codec_options or {})}.get(variant.codec, {})
            rows.append(
                _run(output, dataset, variant, code_bytes, seed, threads, options, progress)
            )
    figures = {
        "uncompressed_bytes": dataset.map_bytes,
        "num_points": rows[0]["num_points"],
        "num_images": rows[0]["num_images"],
        "unit": dataset.unit,
        "rows": rows,
    }
    table = format_table(figures)
    write_text(output / "demo.json", json.dumps(figures, indent=1) + "\n")
    write_text(output / "table.txt", table + "\n")
    print(table)
    if plots:
        from . import plot

        plot.save_pictures(output, dataset, [(v.label, v.file_name) for v in VARIANTS[1:]])
        logger.info(f"Pictures: {output / 'map.jpg'}, {output / 'matches.jpg'}")
    return figures


def _check(
    images: Path | None,
    num_database: int,
    num_queries: int,
    query_every: int,
    code_bytes: int,
    seed: int,
    threads: int | None,
) -> None:
    for name, value, least in (
        ("num_database", num_database, 6),
        ("num_queries", num_queries, 1),
        ("query_every", query_every, 2),
        ("code_bytes", code_bytes, 1),
        ("seed", seed, 0),
        ("threads", 1 if threads is None else threads, 1),
    ):
        if value < least:
            raise InputError(f"--{name} {value}: expected at least {least}")
        if value > MOST.get(name, value):
            raise InputError(f"--{name} {value}: expected {least} to {MOST[name]}")
    if 128 % code_bytes:
        raise InputError(f"--code_bytes {code_bytes}: expected a divisor of 128, SIFT's dimension")
    if images is not None and not Path(images).is_dir():
        raise InputError(f"{images}: no such folder, expected photos")


def _prepare(output: Path, images: Path | None) -> None:
    """An empty output folder that says what it is."""
    if images is not None and output.resolve() in (
        Path(images).resolve(),
        *Path(images).resolve().parents,
    ):
        raise InputError(f"--output {output}: must not be or hold the folder of photos {images}")
    check_output(output / _MARKER)
    if output.exists():
        ours = output.is_dir() and (output / _MARKER).is_file()
        if ours and (output / _MARKER).read_text(encoding="utf-8", errors="replace") == _ABOUT:
            shutil.rmtree(output)
        elif not output.is_dir() or any(output.iterdir()):
            raise InputError(f"--output {output}: exists already and was not made by this demo")
    write_text(output / _MARKER, _ABOUT)


def _run(
    output: Path,
    dataset: Dataset,
    variant: Variant,
    code_bytes: int,
    seed: int,
    threads: int | None,
    codec_options: dict[str, Any],
    progress: bool,
) -> dict[str, Any]:
    """Compress, localize and evaluate one row of the table."""
    map_path = output / "maps" / f"{variant.file_name}.dpqed"
    results = output / "results" / f"{variant.file_name}.txt"
    logs = results.with_suffix(".json")
    compress.main(
        dataset.sfm,
        dataset.features,
        map_path,
        selector="all",
        codec=variant.codec,
        code_bytes=code_bytes,
        granularity=variant.granularity,
        seed=seed,
        threads=threads,
        progress=progress,
        codec_options=codec_options,
    )
    localized = localize.main(
        map_path,
        dataset.queries,
        dataset.query_features,
        results,
        retrieval=dataset.pairs,
        ransac_thresh=RANSAC_THRESHOLD,
        logs=logs,
        threads=threads,
        seed=seed,
        progress=progress,
    )
    info = map_info(map_path)
    correct = correct_matches(map_path, logs, dataset)
    return {
        "label": variant.label,
        "map": map_path.name,
        **{k: info[k] for k in ("code_bytes", "num_points", "num_images", "total_bytes")},
        "descriptor_bytes": info["descriptor_bytes"],
        "mean_matches": localized["mean_matches"],
        "mean_correct": float(np.mean(correct)),
        **evaluate.main(results, dataset.poses, THRESHOLDS),
    }


def correct_matches(map_path: Path, logs: Path, dataset: Dataset) -> list[int]:
    """Distinct matches of each query whose point reprojects within ``RANSAC_THRESHOLD`` pixels.

    The reprojection is by the true pose; the point must lie in front of the camera.
    """
    compressed = read_map(map_path)
    truth = read_poses(dataset.poses)
    logged = json.loads(Path(logs).read_text(encoding="utf-8"))
    counts = []
    with open_features(dataset.query_features) as features:
        for name, camera in read_queries(dataset.queries):
            log = logged.get(name)
            if log is None:
                counts.append(0)
                continue
            keypoints = features.read(name).keypoints[log["keypoint_index"]] + 0.5
            points = compressed.xyz[np.array(log["point_index"], np.int64)]
            xy, visible = project_points(points, camera, truth[name])
            close = np.linalg.norm(xy - keypoints, axis=1) < RANSAC_THRESHOLD
            counts.append(int((visible & close).sum()))
    return counts


def format_table(figures: dict[str, Any]) -> str:
    """The figures for people."""
    unit = figures["unit"]
    before = figures["uncompressed_bytes"]
    limits = figures["rows"][0]["recall"]
    header = ["codec", "B/code", "map file", "of before", "descriptors", "correct", "localized"]
    header += [f"median [{unit}]", "[deg]"]
    header += [f"{r['translation']:g}/{r['rotation']:g}" for r in limits]
    lines = [header]
    for row in figures["rows"]:
        medians = (row["median_translation"], row["median_rotation"])
        lines.append(
            [
                row["label"],
                str(row["code_bytes"]),
                format_size(row["total_bytes"]),
                f"{100 * row['total_bytes'] / before:.1f} %",
                format_size(row["descriptor_bytes"]),
                f"{row['mean_correct']:.0f}",
                f"{row['num_localized']}/{row['num_queries']}",
                *("inf" if m is None else f"{m:.4f}" for m in medians),
                *(f"{100 * r['fraction']:.0f} %" for r in row["recall"]),
            ]
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    text = [
        f"Before: {figures['num_images']} photos, {figures['num_points']:,} points, "
        f"COLMAP model and features.h5: {format_size(before)}",
        f"After, with the recall of the queries within a distance and an angle ({unit} / degrees):",
    ]
    for line in lines:
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        cells[0] = line[0].ljust(widths[0])
        text.append("  ".join(cells))
    text.append("correct: matches a query whose point reprojects within 4 px by the true pose")
    text.append("dpqed is trained for 500 of its 1,000 steps here, to save time")
    return "\n".join(text)
