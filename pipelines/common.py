"""What the pipelines share: their arguments, the compression step, localization, the table."""

import argparse
import contextlib
import importlib
import sqlite3
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from hloc_dpqed import compress, evaluate, info, localize
from hloc_dpqed.codecs import CODECS
from hloc_dpqed.demo.dataset import Dataset
from hloc_dpqed.errors import InputError
from hloc_dpqed.evaluation.pose_errors import format_length
from hloc_dpqed.io.sizes import format_size
from hloc_dpqed.logger import configure_logging
from hloc_dpqed.options import check_number, check_ransac_thresh
from hloc_dpqed.selection import SELECTORS


def make_parser(text: str, dataset: str | Path, outputs: str) -> argparse.ArgumentParser:
    """A parser with the folders that each pipeline has."""
    parser = argparse.ArgumentParser(description=text)
    for name, default, what in (
        ("--dataset", dataset, "the dataset"),
        ("--outputs", outputs, "the output directory"),
    ):
        parser.add_argument(
            name, type=Path, default=Path(default), help=f"Path to {what}, default: %(default)s"
        )
    return parser


def add_pairs_arguments(parser: argparse.ArgumentParser, num_covis: int, num_loc: int) -> None:
    """hloc's numbers of image pairs; with ``num_loc`` 0 the dataset gives those of the queries."""
    for name, count, what in (("--num_covis", num_covis, "SfM"), ("--num_loc", num_loc, "loc")):
        if count:
            text = f"Number of image pairs for {what}, default: %(default)s"
            parser.add_argument(name, type=int, default=count, help=text)


def add_compression_arguments(
    parser: argparse.ArgumentParser, matcher: str = "superglue", mapping: bool = True
) -> None:
    """What a pipeline has beyond hloc's own: how to compress, and how to match.

    Args:
        parser: to add to.
        matcher: default of the localization.
        mapping: whether hloc maps first, with a matcher of its own.
    """
    default = compress.CompressConf()
    group = parser.add_argument_group("compression")
    group.add_argument("--budget", help="size such as 300KB or 1MB, default: keep all points")
    group.add_argument(
        "--budget_scope",
        choices=compress.BUDGET_SCOPES,
        default="total",
        help="what the budget counts, the whole file or the codes, default: %(default)s",
    )
    group.add_argument(
        "--codec", choices=CODECS, default=default.codec, help="default: %(default)s"
    )
    group.add_argument(
        "--code_bytes", type=int, default=default.code_bytes, help="default: %(default)s"
    )
    group.add_argument(
        "--selector", choices=SELECTORS, default=default.selector, help="default: %(default)s"
    )
    group.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    group.add_argument(
        "--matcher",
        default=matcher,
        help="matches queries with the map, as of hloc-dpqed localize, default: %(default)s",
    )
    group.add_argument("--matcher_weights", type=Path, help="its weights, where it needs a file")
    if mapping:
        group.add_argument(
            "--sfm_matcher",
            default="superglue",
            help="configuration of hloc that matches the database images, default: %(default)s",
        )
    group.add_argument("--threads", type=int, help="default: all cores")


def run_script(run: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> int:
    """Run a pipeline: exit code 0, or 2 and one line on standard error on a user's mistake."""
    configure_logging()
    try:
        for name in ("num_covis", "num_loc", "code_bytes", "threads"):
            value = getattr(args, name, None)
            if value is not None:
                check_number(f"--{name}", value, 1)
        if getattr(args, "ransac_thresh", None) is not None:
            check_ransac_thresh(args.ransac_thresh)
        run(args)
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def require_files(dataset: Path, files: Iterable[str]) -> None:
    """Check that the dataset is laid out as expected; a name may be a pattern (``*_train.txt``).

    Raises:
        InputError: the folder or a file is missing; the line names the first.
    """
    if not Path(dataset).is_dir():
        raise InputError(f"{dataset}: no such folder, expected the dataset (see the README)")
    for name in files:
        if not any(Path(dataset).glob(name)):
            raise InputError(f"{Path(dataset) / name}: missing, expected as the README lists it")


def require_hloc(*modules: str) -> list[ModuleType]:
    """Import modules of hloc, such as ``pipelines.Cambridge.utils``.

    Raises:
        InputError: hloc, or a package that it needs, is not importable.
    """
    try:
        return [importlib.import_module(f"hloc.{name}") for name in modules]
    except ImportError as error:
        raise InputError(
            f"hloc is needed for this pipeline and cannot be imported ({error}); it is not on the "
            "package index: git clone --recursive "
            "https://github.com/cvg/Hierarchical-Localization, then pip install -e that folder, or "
            "put it on PYTHONPATH"
        ) from error


def choose_conf(confs: dict[str, Any], name: str) -> dict[str, Any]:
    """hloc's configuration of a matcher.

    Raises:
        InputError: hloc has none of that name.
    """
    if name not in confs:
        raise InputError(f"--sfm_matcher {name}: unknown, expected one of {', '.join(confs)}")
    return confs[name]


def triangulate(sfm_dir: Path, reference_model: Path, *inputs: Path) -> None:
    """hloc's ``triangulation.main``, with any pycolmap.

    hloc writes verified pairs without a kind of geometry. pycolmap 4 skips such pairs, and no point
    would be triangulated: they are marked as calibrated, which is what hloc has verified.

    Args:
        sfm_dir: the model to write.
        reference_model: gives the poses.
        inputs: the images' folder, pairs, features and matches, as hloc takes them.

    Raises:
        InputError: no point was triangulated.
    """
    (triangulation,) = require_hloc("triangulation")
    run_triangulation = triangulation.run_triangulation

    def run_marked(model: Path, database: Path, *rest: Any, **options: Any) -> Any:
        with contextlib.closing(sqlite3.connect(database)) as db, db:
            db.execute("UPDATE two_view_geometries SET config = 2 WHERE config = 0 AND rows > 0")
        return run_triangulation(model, database, *rest, **options)

    triangulation.run_triangulation = run_marked
    try:
        reconstruction = triangulation.main(sfm_dir, reference_model, *inputs)
    finally:
        triangulation.run_triangulation = run_triangulation
    if reconstruction.num_points3D() == 0:
        raise InputError(f"{sfm_dir}: no point was triangulated; do images and matches fit?")


def map_database(
    args: argparse.Namespace,
    images: Path,
    sift_sfm: Path,
    outputs: Path,
    feature_conf: str = "superpoint_aachen",
    **extraction: Any,
) -> tuple[Path, Path]:
    """hloc's way from a model with poses to one with SuperPoint's points.

    Args:
        args: with ``sfm_matcher`` and ``num_covis``.
        images: folder of the database images.
        sift_sfm: gives poses, and which images see the same.
        outputs: folder of everything that is written.
        feature_conf: of ``hloc.extract_features.confs``.
        extraction: further arguments of ``extract_features.main``.

    Returns:
        The model and the feature file.

    Raises:
        InputError: hloc is missing or knows no such matcher, or no point was triangulated.
    """
    extract_features, match_features, pairs_from_covisibility = require_hloc(
        "extract_features", "match_features", "pairs_from_covisibility"
    )
    reference_sfm = outputs / f"sfm_superpoint+{args.sfm_matcher}"
    sfm_pairs = outputs / f"pairs-db-covis{args.num_covis}.txt"
    conf = extract_features.confs[feature_conf]
    matcher_conf = choose_conf(match_features.confs, args.sfm_matcher)

    features = extract_features.main(conf, images, outputs, **extraction)
    pairs_from_covisibility.main(sift_sfm, sfm_pairs, num_matched=args.num_covis)
    sfm_matches = match_features.main(matcher_conf, sfm_pairs, conf["output"], outputs)
    triangulate(reference_sfm, sift_sfm, images, sfm_pairs, features, sfm_matches)
    return reference_sfm, features


def retrieve_pairs(
    args: argparse.Namespace,
    images: Iterable[Path],
    reference_sfm: Path,
    outputs: Path,
    **queries: Any,
) -> Path:
    """hloc's retrieval with NetVLAD; the pairs file.

    Args:
        args: with ``num_loc``.
        images: folders of the database and query images, one or more.
        reference_sfm: names the database images.
        outputs: folder of everything that is written.
        queries: which images are queries, as ``pairs_from_retrieval.main`` takes it.
    """
    extract_features, pairs_from_retrieval = require_hloc(
        "extract_features", "pairs_from_retrieval"
    )
    loc_pairs = outputs / f"pairs-query-netvlad{args.num_loc}.txt"
    for folder in images:
        descriptors = extract_features.main(extract_features.confs["netvlad"], folder, outputs)
    pairs_from_retrieval.main(
        descriptors, loc_pairs, args.num_loc, db_model=reference_sfm, **queries
    )
    return loc_pairs


def label(args: argparse.Namespace) -> str:
    """The configuration in file names, so that two configurations never share a file."""
    codec = args.codec if args.codec == "none" else f"{args.codec}{args.code_bytes}"
    parts = [codec]
    if args.budget is not None:
        parts += [f"{args.budget}".replace(" ", ""), args.selector]
        parts += ["codes"] if args.budget_scope == "codes" else []
    parts += [f"seed{args.seed}"] if args.seed else []
    return "_".join(parts)


def results_label(args: argparse.Namespace) -> str:
    """``label`` and the matcher, for the names of results."""
    return f"{label(args)}_{args.matcher.replace(':', '-')}"


def compress_map(
    args: argparse.Namespace, reference_sfm: Path, features: Path, outputs: Path
) -> Path:
    """The compression step: hloc's model and features to ``outputs/map_*.dpqed``."""
    return compress.main(
        reference_sfm,
        features,
        outputs / f"map_{label(args)}.dpqed",
        budget=args.budget,
        budget_scope=args.budget_scope,
        selector=args.selector,
        codec=args.codec,
        code_bytes=args.code_bytes,
        seed=args.seed,
        threads=args.threads,
        overwrite=True,
    )


def localize_queries(
    args: argparse.Namespace,
    compressed: Path,
    queries: Path,
    retrieval: Path,
    features: Path,
    results: Path,
    **options: Any,
) -> dict[str, Any]:
    """Localize with the map alone, as hloc's ``localize_sfm`` does with model and matches.

    As in hloc, a query that cannot be localized gets the pose of its closest database image, so
    that the result file has a line for each query.
    """
    return localize.main(
        compressed,
        queries,
        features,
        results,
        retrieval=retrieval,
        matcher=args.matcher,
        matcher_weights=args.matcher_weights,
        seed=args.seed,
        threads=args.threads,
        overwrite=True,
        **{"fallback": "closest", **options},
    )


def evaluation_row(
    name: str,
    compressed: Path,
    results: Path,
    reference: Path,
    queries: Path | None,
    thresholds: str,
    metric: bool = True,
) -> dict[str, str]:
    """One line of the table: a scene, the bytes of its map, its errors.

    Args:
        name: of the scene.
        compressed: the map file.
        results, reference, thresholds, queries: as of ``evaluate.main``.
        metric: the map's unit is the metre, and lengths are shown in centimetres.
    """
    scale, unit = (100, "cm") if metric else (1, "units")
    sizes = info.main(compressed)
    figures = evaluate.main(results, reference, thresholds, queries)
    errors = figures["median_translation"], figures["median_rotation"]
    translation, degrees = (float("inf") if e is None else e for e in errors)
    length = f"{100 * translation:.2f}" if metric else format_length(translation)
    row = {
        "scene": name,
        "points": str(sizes["num_points"]),
        "codes": format_size(sizes["descriptor_bytes"]),
        "file": format_size(sizes["total_bytes"]),
        "poses": f"{figures['num_localized']} of {figures['num_queries']}",
        f"median ({unit} / deg)": f"{length} / {degrees:.3f}",
    }
    for limit in figures["recall"]:
        key = f"{scale * limit['translation']:g} {unit}, {limit['rotation']:g} deg"
        row[key] = f"{100 * limit['fraction']:.1f} %"
    return row


def run_scene(
    args: argparse.Namespace,
    files: Dataset,
    outputs: Path,
    name: str,
    thresholds: str,
    metric: bool = True,
) -> dict[str, str]:
    """Compress, localize and evaluate a scene whose files are there; its line of the table.

    Args:
        args: of ``add_compression_arguments``, and ``ransac_thresh``.
        files: of the scene.
        outputs: folder for the map and the results, made where it is missing.
        name, thresholds, metric: as of ``evaluation_row``.
    """
    outputs.mkdir(exist_ok=True, parents=True)
    results = outputs / f"results_{results_label(args)}.txt"
    compressed = compress_map(args, files.sfm, files.features, outputs)
    localize_queries(
        args,
        compressed,
        files.queries,
        files.pairs,
        files.query_features,
        results,
        ransac_thresh=args.ransac_thresh,
        fallback="none",
    )
    return evaluation_row(name, compressed, results, files.poses, None, thresholds, metric)


def format_table(rows: Sequence[dict[str, str]]) -> str:
    """Rows of equal keys as a Markdown table with aligned columns."""
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text)
