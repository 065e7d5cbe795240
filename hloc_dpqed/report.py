"""A report of map files: what each byte buys, as one HTML file that opens offline."""

import platform
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import h5py
import numpy as np
import pycolmap
import torch
from tqdm import tqdm

from . import __version__
from .codecs import fit_codec
from .compress import CompressConf, Compressor
from .compressed_map import CompressedMap
from .errors import InputError
from .evaluate import DEFAULT_THRESHOLDS, format_length, parse_thresholds, pose_error
from .io.atomic import check_output, write_text
from .io.features import feature_kind, open_hdf5
from .io.model import read_observations, read_reference
from .io.posed_queries import read_posed_queries
from .io.sizes import format_size
from .localization.localizer import Correspondences, Localizer
from .localization.pose import check_pose_estimator
from .logger import logger
from .mapfile import map_info, read_map
from .matching.nearest_neighbor import Matches
from .measures import Measures, PosedQuery, bootstrap, correct_pairs, match_query, pose_of
from .options import MAX_SEEDS, check_matcher, check_number, check_ransac_thresh, refuse_existing
from .reference import ReferenceMap
from .report_figures import (
    bytes_figure,
    check_plotly,
    error_figure,
    figure_html,
    plotly_script,
    scene_figure,
)
from .report_html import Picture, document, escape, match_picture, picture_definitions, table
from .report_images import check_pillow, load_pictures
from .same_features import check_extractor
from .threads import check_device, check_seed, set_num_threads, steady_products

UNCOMPRESSED = "float (uncompressed)"


@dataclass(frozen=True)
class QueryOutcome:
    """What one map gave for one query.

    Attributes:
        images: rows of the retrieved images; empty for the whole map.
        matches: with each of them, or one entry for the whole map.
        found: the distinct pairs.
        correct: (n,) bool, which of them are correct.
        poses: (S, 3, 4) for each RANSAC seed, not a number where there is none.
    """

    images: list[int]
    matches: list[Matches]
    found: Correspondences
    correct: np.ndarray
    poses: np.ndarray


@dataclass(frozen=True)
class MapOutcome:
    """A map and what it gave for all queries.

    Attributes:
        label: its name in the report.
        compressed: the map.
        info: as ``mapfile.map_info`` gives it, or None for the uncompressed map.
        total_bytes, descriptor_bytes: of the file, of the descriptors or codes.
        queries: an outcome for each query.
    """

    label: str
    compressed: CompressedMap
    info: dict[str, Any] | None
    total_bytes: int
    descriptor_bytes: int
    queries: list[QueryOutcome]

    def measures(self, queries: Sequence[PosedQuery]) -> Measures:
        """Against the poses of ``queries``."""
        errors = [
            [
                pose_error(pose, query.cam_from_world)
                if np.isfinite(pose).all()
                else (np.inf, np.inf)
                for pose in outcome.poses
            ]
            for query, outcome in zip(queries, self.queries, strict=True)
        ]
        return Measures(
            np.array([int(o.correct.sum()) for o in self.queries]),
            np.array([len(np.unique(o.found.keypoint_index[o.correct])) for o in self.queries]),
            np.array([len(o.found) for o in self.queries]),
            np.array(errors, float),
        )


@steady_products()
def main(
    maps: Sequence[Path],
    queries: Path,
    features: Path,
    retrieval: Path | str,
    output: Path,
    reference_sfm: Path | None = None,
    reference_features: Path | None = None,
    reference_poses: Path | None = None,
    images: Path | None = None,
    matcher: str = "NN-mutual",
    ransac_thresh: float = 12,
    ransac_seeds: int = 10,
    thresholds: str = DEFAULT_THRESHOLDS,
    threads: int | None = None,
    device: str = "cpu",
    progress: bool = True,
    matcher_weights: Path | None = None,
    pose_estimator: str = "pycolmap",
    codec_file: Path | None = None,
    allow_other_extractor: bool = False,
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Write the report of one or more map files of the same scene.

    Args:
        maps: the map files.
        queries, features, retrieval: query list, its features and pairs (or 'none'), as for
            ``localize``.
        output: the HTML file.
        reference_sfm: COLMAP model of the uncompressed map, to show which points were dropped.
        reference_features: its feature file, to localize with the uncompressed map too.
        reference_poses: poses of the queries, or a COLMAP model that holds them. Without, errors
            are differences from the poses that the uncompressed map gives.
        images: folder of the database and query images, for the pictures of matches.
        matcher, ransac_thresh, thresholds: as for ``localize`` and ``evaluate``.
        matcher_weights, pose_estimator, codec_file, allow_other_extractor: as for ``localize``.
        ransac_seeds: RANSAC runs for each query.
        seed: of the first of them.
        overwrite: replace ``output``; otherwise an existing file is an error.
        threads, device, progress: of the work.

    Returns:
        ``output``.

    Raises:
        InputError: an input is missing or wrong, or an optional package is missing.
    """
    maps = [Path(path) for path in maps]
    if not maps:
        raise InputError("no map file was given")
    check_number("--ransac_seeds", ransac_seeds, 1, MAX_SEEDS)
    check_ransac_thresh(ransac_thresh)
    check_seed(seed)
    check_pose_estimator(pose_estimator)
    check_matcher(matcher, matcher_weights)
    if reference_features is not None and reference_sfm is None:
        raise InputError("--reference_features needs --reference_sfm DIR")
    if reference_poses is None and reference_features is None:
        raise InputError(
            "nothing to compare with: pass --reference_poses, or --reference_sfm and "
            "--reference_features"
        )
    if images is not None and not Path(images).is_dir():
        raise InputError(f"{images}: no such folder, expected the images")
    limits = parse_thresholds(thresholds)
    check_output(output)
    refuse_existing(output, overwrite)
    check_device(device)
    check_plotly()
    if images is not None:
        check_pillow()
    set_num_threads(threads)

    infos = [map_info(path, codec_file) for path in maps]
    loaded = [read_map(path, codec_file) for path in maps]
    for one in loaded:
        check_extractor(one, feature_kind(features), str(features), allow_other_extractor)
    names = sorted({name for one in loaded for name in one.image_names})
    posed = read_posed_queries(queries, features, retrieval, reference_poses, names)
    if not any(q.retrieved is None or set(names).intersection(q.retrieved) for q in posed):
        raise InputError(f"{retrieval}: no pair of a query with an image of the maps")
    reference = None if reference_sfm is None else read_reference(reference_sfm)

    todo: list[tuple[str, CompressedMap, dict[str, Any] | None, int, int]] = []
    if reference is not None and reference_features is not None:
        sizes = reference_bytes(Path(str(reference_sfm)), reference_features, reference)
        full = uncompressed_map(reference, reference_features, progress)
        todo.append((UNCOMPRESSED, full, None, *sizes))
    for label, one, own in zip(map_labels(maps), loaded, infos, strict=True):
        todo.append((label, one, own, own["total_bytes"], own["descriptor_bytes"]))

    localizers = [
        Localizer(
            one[1],
            matcher,
            matcher_weights=matcher_weights,
            ransac_thresh=ransac_thresh,
            pose_estimator=pose_estimator,
            seed=seed,
            device=device,
        )
        for one in todo
    ]
    if reference_poses is None:
        posed = posed_by(localizers[0], posed)
    outcomes = []
    with tqdm(total=len(todo) * len(posed), desc="Localizing", disable=not progress) as bar:
        for (label, one, info, total, codes), localizer in zip(todo, localizers, strict=True):
            found = []
            for query in posed:
                found.append(localize_query(localizer, query, ransac_seeds, seed))
                bar.update()
            outcomes.append(MapOutcome(label, one, info, total, codes, found))

    optional = {
        "matcher_weights": matcher_weights,
        "codec_file": codec_file,
        "seed": seed or None,
        "pose_estimator": None if pose_estimator == "pycolmap" else pose_estimator,
    }
    arguments = {
        "queries": queries,
        "features": features,
        "retrieval": retrieval,
        "reference_sfm": reference_sfm,
        "reference_features": reference_features,
        "reference_poses": reference_poses,
        "images": images,
        "matcher": matcher,
        "ransac_thresh": ransac_thresh,
        "ransac_seeds": ransac_seeds,
        **optional,
        "thresholds": thresholds,
        "output": output,
    }
    sections = [
        ("Accuracy", accuracy_section(outcomes, posed, limits, reference_poses is not None)),
        ("Bytes", bytes_section(outcomes)),
        ("Points and cameras", scene_section(outcomes, posed, reference)),
        ("Errors", error_section(outcomes, posed)),
        ("Matches", match_section(outcomes, posed, images)),
        ("Commands and versions", command_section(maps, outcomes, arguments)),
    ]
    write_text(output, document("Map report", sections, plotly_script()))
    logger.info(f"Wrote {output}: {format_size(Path(output).stat().st_size)}")
    return Path(output)


def map_labels(maps: Sequence[Path]) -> list[str]:
    """A label for each file: its name without the ending where these differ, else its path."""
    stems = [path.name.removesuffix(".dpqed") for path in maps]
    return [
        stem if stems.count(stem) == 1 and stem != UNCOMPRESSED else str(path)
        for stem, path in zip(stems, maps, strict=True)
    ]


def uncompressed_map(reference: ReferenceMap, features: Path, progress: bool) -> CompressedMap:
    """The whole map in memory, a float16 descriptor for each observation, as hloc has it."""
    observations = read_observations(reference, features, progress)
    codec = fit_codec("none", observations, 0)
    conf = CompressConf("all", "none", codec.code_size, "observation")
    compressor = Compressor(reference, observations, conf, codec=codec)
    return compressor.with_points(np.arange(reference.num_points))


def reference_bytes(sfm: Path, features: Path, reference: ReferenceMap) -> tuple[int, int]:
    """Bytes of the model and of the database images' features, and of their descriptors alone.

    Features count as the arrays that they are, whether or not the file packs them.
    """
    model = sum(path.stat().st_size for path in sfm.iterdir() if path.suffix in (".bin", ".txt"))
    local = descriptors = 0
    with open_hdf5(features) as file:
        for name in reference.image_names:
            for key, dataset in file[name].items():
                if isinstance(dataset, h5py.Dataset):
                    local += dataset.nbytes
                    descriptors += dataset.nbytes if key == "descriptors" else 0
    return model + local, descriptors


def localize_query(
    localizer: Localizer, query: PosedQuery, ransac_seeds: int, first: int = 0
) -> QueryOutcome:
    """Match once, estimate the pose with each RANSAC seed."""
    images, matches = match_query(localizer, query)
    found = Correspondences.collect(matches, localizer.map.num_points)
    poses = np.full((ransac_seeds, 3, 4), np.nan)
    for seed in range(ransac_seeds):
        answer = pose_of(found, query, localizer, first + seed)
        if answer is not None:
            poses[seed] = answer["cam_from_world"].matrix()
    correct = correct_pairs(found, query, localizer.map.xyz)
    return QueryOutcome(images, matches, found, correct, poses)


def posed_by(localizer: Localizer, queries: Sequence[PosedQuery]) -> list[PosedQuery]:
    """The queries that ``localizer`` localizes, with the pose that it gives.

    Raises:
        InputError: there is none.
    """
    posed = []
    for query in queries:
        found = Correspondences.collect(match_query(localizer, query)[1], localizer.map.num_points)
        answer = pose_of(found, query, localizer, 0)
        if answer is not None:
            posed.append(replace(query, cam_from_world=answer["cam_from_world"].matrix()))
    if not posed:
        raise InputError("the uncompressed map localizes no query; pass --reference_poses")
    if len(posed) < len(queries):
        logger.warning(
            f"the uncompressed map localizes {len(posed)} of {len(queries)} queries; the others "
            "are left out"
        )
    return posed


def accuracy_section(
    outcomes: Sequence[MapOutcome],
    queries: Sequence[PosedQuery],
    limits: Sequence[tuple[float, float]],
    known_poses: bool,
) -> str:
    """A line for each map; where there is the uncompressed map, the difference from it."""
    measured = [outcome.measures(queries) for outcome in outcomes]
    baseline = measured[0] if outcomes[0].label == UNCOMPRESSED else None
    header = ["map", "points", "file", "codes", "localized", "correct matches", "precision"]
    header += ["median error (units / degrees)"]
    header += [f"recall {t:g} / {r:g}" for t, r in limits]
    if baseline is not None:
        header.insert(6, "minus float, 95 %")
    rows = []
    for outcome, own in zip(outcomes, measured, strict=True):
        translation, rotation = own.median_errors()
        row = [
            outcome.label,
            f"{outcome.compressed.num_points:,}",
            format_size(outcome.total_bytes),
            format_size(outcome.descriptor_bytes),
            f"{np.isfinite(own.errors[..., 0]).mean():.3f}",
            f"{own.correct.mean():.1f}",
            f"{own.precision.mean():.3f}",
            f"{format_length(translation)} / {rotation:.3f}",
            *(f"{own.recall(*limit):.3f}" for limit in limits),
        ]
        if baseline is not None:
            difference = own.correct - baseline.correct
            low, high = bootstrap(difference)
            row.insert(6, "" if own is baseline else f"{low:+.1f} .. {high:+.1f}")
        rows.append(row)
    seeds = measured[0].errors.shape[1]
    against = "the reference poses" if known_poses else "the poses that the uncompressed map gives"
    text = (
        f"<p>{len(queries)} queries, {seeds} RANSAC runs each, errors against {against}. Correct "
        "matches are the distinct pairs of a keypoint and a 3D point that reproject within 4 "
        "pixels, the mean over queries; precision is their share. The interval is over queries, "
        "paired. Recall is the share of runs with both errors strictly under the thresholds.</p>"
    )
    if baseline is not None:
        text += (
            "<p>The uncompressed map's file size is that of the COLMAP model and of the database "
            "images' local features as plain arrays.</p>"
        )
    return text + table(header, rows)


def bytes_section(outcomes: Sequence[MapOutcome]) -> str:
    """Bytes of each section of each map file."""
    sizes = {o.label: o.info["sections"] for o in outcomes if o.info is not None}
    points = {o.label: max(o.compressed.num_points, 1) for o in outcomes}
    names = list(dict.fromkeys(name for sections in sizes.values() for name in sections))
    header = ["section", *(f"{label}, bytes (a point)" for label in sizes)]
    rows = [
        [
            name,
            *(
                f"{sections[name]:,} ({sections[name] / points[label]:.2f})"
                if name in sections
                else ""
                for label, sections in sizes.items()
            ),
        ]
        for name in names
    ]
    totals = {label: sum(sections.values()) for label, sections in sizes.items()}
    rows.append(
        ["whole file", *(f"{n:,} ({n / points[label]:.2f})" for label, n in totals.items())]
    )
    return figure_html(bytes_figure(sizes), "bytes") + table(header, rows)


def scene_section(
    outcomes: Sequence[MapOutcome], queries: Sequence[PosedQuery], reference: ReferenceMap | None
) -> str:
    """Kept and dropped points, database and query cameras."""
    maps = [outcome for outcome in outcomes if outcome.info is not None]
    kept = {o.label: o.compressed.xyz for o in maps}
    dropped: dict[str, np.ndarray] = {}
    if reference is not None:
        for outcome in maps:
            assert outcome.info is not None
            far = dropped_points(reference.xyz, outcome.compressed.xyz, outcome.info["xyz_error"])
            dropped[outcome.label] = reference.xyz[far]
    first = maps[0].compressed
    cameras = [first.cameras[i] for i in first.camera_index]
    estimated = {o.label: np.array([q.poses[0] for q in o.queries]) for o in outcomes}
    figure, hidden = scene_figure(
        kept,
        dropped,
        (first.cam_from_world, cameras, first.image_names),
        (
            np.array([q.cam_from_world for q in queries]),
            [q.camera for q in queries],
            [q.name for q in queries],
        ),
        estimated,
    )
    text = "<p>Click an entry of the legend to show or hide it; drag to turn."
    if reference is not None:
        text += f" The uncompressed map has {reference.num_points:,} points."
    if hidden:
        text += f" {hidden:,} points far outside, or more than can be drawn, are not shown."
    return text + "</p>" + figure_html(figure, "scene")


def dropped_points(xyz: np.ndarray, kept: np.ndarray, tolerance: float) -> np.ndarray:
    """Which points of a map have no kept point near them.

    Map files hold no ids of points, so that kept points are recognized by their coordinates. A
    dropped point within four times ``tolerance`` of a kept one may be taken for it, and a kept
    point that is stored with a greater error than ``tolerance`` (far outside) for dropped.

    Args:
        xyz: (P, 3) float64 all points.
        kept: (K, 3) float64 the kept ones, each coordinate within ``tolerance`` of the original.

    Returns:
        (P,) bool.
    """
    size = 4.004 * max(tolerance, np.finfo(float).tiny)  # a little more, for rounding
    origin = xyz.min(0, initial=0)

    def voxels(points: np.ndarray, shift: np.ndarray) -> np.ndarray:
        # Adding zero turns a -0.0 into 0.0, so that equal cells have equal bytes.
        cells = np.floor((points - origin) / size + shift) + 0.0
        return np.ascontiguousarray(cells).view(np.dtype((np.void, 24))).ravel()

    corners = np.array(np.meshgrid(*[[-0.25, 0.25]] * 3)).reshape(3, -1).T
    near = np.concatenate([voxels(kept, corner) for corner in corners])
    return ~np.isin(voxels(xyz, np.zeros(3)), near)


def error_section(outcomes: Sequence[MapOutcome], queries: Sequence[PosedQuery]) -> str:
    """Histograms, and the median error of each query."""
    errors = {outcome.label: outcome.measures(queries).errors for outcome in outcomes}
    medians = [np.median(own, axis=1) for own in errors.values()]
    header = ["query", *(f"{label} (units / degrees)" for label in errors)]
    rows = [
        [
            query.name,
            *(f"{format_length(own[k, 0])} / {own[k, 1]:.3f}" for own in medians),
        ]
        for k, query in enumerate(queries)
    ]
    return (
        figure_html(error_figure({k: v.reshape(-1, 2) for k, v in errors.items()}), "errors")
        + "<details><summary>Median error of each query</summary>"
        + table(header, rows)
        + "</details>"
    )


def chosen_queries(errors: np.ndarray) -> list[tuple[str, int]]:
    """Best, median and worst query by (Q, S) errors; fewer where there are fewer queries."""
    order = np.argsort(np.median(errors, axis=1), kind="stable")
    rows: dict[int, str] = {}
    for title, rank in (("best", 0), ("worst", len(order) - 1), ("median", (len(order) - 1) // 2)):
        rows.setdefault(int(order[rank]), title)
    place = {"best": 0, "median": 1, "worst": 2}
    return sorted(((title, k) for k, title in rows.items()), key=lambda item: place[item[0]])


def match_section(
    outcomes: Sequence[MapOutcome], queries: Sequence[PosedQuery], folder: Path | None
) -> str:
    """Pictures of the matches of three queries with one database image, by each map."""
    ranking = next(o for o in outcomes if o.info is not None)
    chosen = chosen_queries(ranking.measures(queries).errors[..., 0])
    shown = []
    for title, k in chosen:
        image = most_matched_image(outcomes[0], k)
        if image is not None:
            shown.append((title, k, image))
    names = dict.fromkeys(name for _, k, image in shown for name in (queries[k].name, image))
    pictures: dict[str, Picture] = {}
    if folder is not None:
        pictures = load_pictures(Path(folder), list(names))
    parts = [
        f"<p>The best, median and worst query by the translation error of {escape(ranking.label)}, "
        f"with the database image that has most correct matches in {escape(outcomes[0].label)}. "
        '<span class="correct">Green</span>: correct, <span class="wrong">red</span>: wrong.</p>',
        picture_definitions(pictures),
    ]
    for title, k, name in shown:
        parts.append(f"<h3>{escape(title)}: {escape(queries[k].name)} and {escape(name)}</h3>")
        for outcome in outcomes:
            parts.append(_match_picture(outcome, queries[k], k, name, pictures))
    if not shown:
        parts.append("<p>No database image has a match with these queries.</p>")
    return "\n".join(parts)


def most_matched_image(outcome: MapOutcome, k: int) -> str | None:
    """Name of the image with most correct matches of query ``k``, then most matches."""
    own = outcome.queries[k]
    visibility = outcome.compressed.visibility
    points = own.found.point_index
    images = own.images or range(outcome.compressed.num_images)
    best, best_count = None, (0, 0)
    for image in images:
        seen = np.isin(points, visibility[image])
        count = (int((seen & own.correct).sum()), int(seen.sum()))
        if count > best_count:
            best, best_count = outcome.compressed.image_names[image], count
    return best


def _match_picture(
    outcome: MapOutcome, query: PosedQuery, k: int, name: str, pictures: dict[str, Picture]
) -> str:
    own, compressed = outcome.queries[k], outcome.compressed
    caption = f"{outcome.label} ({format_size(outcome.total_bytes)})"
    if name not in compressed.image_names:
        return f"<p>{escape(caption)}: the map has no such image.</p>"
    image = compressed.image_names.index(name)
    if image in own.images:
        pairs = own.matches[own.images.index(image)].pairs
    else:
        pairs = np.stack([own.found.keypoint_index, own.found.point_index], 1)
        pairs = pairs[np.isin(pairs[:, 1], compressed.visibility[image])]
    base = max(compressed.num_points, 1)
    good_keys = own.found.keypoint_index * base + own.found.point_index
    correct = np.isin(pairs[:, 0] * base + pairs[:, 1], good_keys[own.correct])
    xy, visible = compressed.project(image)
    row = np.searchsorted(compressed.visibility[image], pairs[:, 1])
    drawn = visible[row]
    # Keypoints have pixel centres at integers, projections and the picture at halves.
    left = query.features.keypoints[pairs[:, 0]] + 0.5
    camera = compressed.cameras[compressed.camera_index[image]]
    caption += f": {len(pairs)} matches, {int(correct.sum())} of them correct"
    return match_picture(
        (query.name, query.camera.width, query.camera.height),
        (name, camera.width, camera.height),
        left[drawn],
        xy[row][drawn],
        correct[drawn],
        caption,
        pictures,
    )


def command_section(
    maps: Sequence[Path], outcomes: Sequence[MapOutcome], arguments: dict[str, Any]
) -> str:
    """The commands that make the maps, these figures and this report; and all versions."""
    by_label = [o for o in outcomes if o.info is not None]
    lines = []
    for path, outcome in zip(maps, by_label, strict=True):
        lines += map_commands(path, outcome, arguments)
    lines.append(command_line("report", [str(path) for path in maps], arguments))
    versions = {
        o.label: o.compressed.metadata.get("versions", {})
        for o in by_label
        if isinstance(o.compressed.metadata.get("versions", {}), dict)
    } | {"this report": present_versions()}
    names = list(dict.fromkeys(name for own in versions.values() for name in own))
    rows = [[name, *(str(own.get(name, "")) for own in versions.values())] for name in names]
    conf = [[o.label, repr(o.compressed.metadata.get("conf"))] for o in by_label]
    return (
        "<p>A map keeps its configuration, not the paths of its inputs; CAPITALS stand for paths "
        "that are not known here.</p><pre>"
        + escape("\n".join(lines))
        + "</pre>"
        + table(["package", *versions], rows)
        + table(["map", "configuration"], conf)
    )


def map_commands(path: Path, outcome: MapOutcome, arguments: dict[str, Any]) -> list[str]:
    """How to make the map, localize with it and evaluate, as far as it is known."""
    conf = outcome.compressed.metadata.get("conf")
    lines = [f"# {outcome.label}"]
    if isinstance(conf, dict):
        known = {
            "reference_sfm": arguments["reference_sfm"] or "SFM",
            "features": arguments["reference_features"] or "FEATURES",
            "output": path,
        }
        asked = conf.get("asked")
        asked = dict(asked) if isinstance(asked, dict) else {}
        planned = asked.pop("planned", False)
        names = ["selector", "granularity", "seed"] + ["codec", "code_bytes"] * (not planned)
        known |= {name: conf[name] for name in names if name in conf}
        if asked:
            known |= asked
        elif conf.get("selector") != "all":
            known["num_points"] = outcome.compressed.num_points
        lines.append(command_line("compress", [], known))
        if conf.get("selector_options") or (conf.get("codec_options") and not planned):
            lines.append(
                "# in Python, with the codec_options and selector_options of the configuration"
            )
    else:
        lines.append("# the file does not say how it was made")
    results = f"{outcome.label}.txt"
    localize = {name: arguments[name] for name in ("queries", "features", "retrieval")}
    localize = {"map": path, **localize, "results": results}
    localize |= {name: arguments[name] for name in ("matcher", "ransac_thresh")}
    lines.append(command_line("localize", ["--full_names"], localize))
    evaluate = {
        "results": results,
        "reference": arguments["reference_poses"] or "POSES",
        "thresholds": arguments["thresholds"],
    }
    return [*lines, command_line("evaluate", [], evaluate), ""]


def command_line(command: str, words: Sequence[str], options: dict[str, Any]) -> str:
    """A command as it is typed in a shell."""
    given = [
        word
        for name, value in options.items()
        if value is not None
        for word in (f"--{name}", f"{value:g}" if isinstance(value, float) else str(value))
    ]
    return shlex.join(["hloc-dpqed", command, *words, *given])


def present_versions() -> dict[str, str]:
    """Versions of what made the report."""
    import plotly

    return {
        "hloc_dpqed": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "faiss": faiss.__version__,
        "pycolmap": pycolmap.__version__,
        "h5py": h5py.__version__,
        "plotly": plotly.__version__,
    }
