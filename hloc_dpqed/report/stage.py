"""A report of map files: what each byte buys, as one HTML file that opens offline."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..choices import DEFAULT_THRESHOLDS
from ..errors import InputError
from ..evaluation.pose_errors import parse_thresholds
from ..evaluation.posed_queries import read_posed_queries
from ..io.atomic import check_output, write_text
from ..io.features import feature_kind
from ..io.model import read_reference
from ..io.sizes import format_size
from ..localization.localizer import Localizer
from ..localization.pose import check_pose_estimator
from ..logger import logger
from ..mapfile import map_info, read_map
from ..maps.compressed import CompressedMap
from ..maps.same_features import check_extractor
from ..options import MAX_SEEDS, check_matcher, check_number, check_ransac_thresh, refuse_existing
from ..threads import check_device, check_seed, set_num_threads, steady_products
from .commands import command_section
from .figures import check_plotly, plotly_script
from .html import document
from .images import check_pillow
from .outcomes import (
    UNCOMPRESSED,
    MapOutcome,
    localize_query,
    map_labels,
    posed_by,
    reference_bytes,
    uncompressed_map,
)
from .sections import accuracy_section, bytes_section, error_section, match_section, scene_section


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
