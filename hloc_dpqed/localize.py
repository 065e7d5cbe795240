"""Localize queries with a map file: hloc's query list, features and pairs in, poses out."""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
from tqdm import tqdm

from . import __version__
from .choices import DEFAULT_THRESHOLDS, FALLBACKS, LEAST_INLIERS
from .errors import InputError
from .evaluation.pose_errors import parse_thresholds
from .io.atomic import check_output, write_text
from .io.checkpoint import Checkpoint, run_key
from .io.features import ImageFeatures, LocalFeatures, feature_kind, open_features
from .io.lists import read_queries, result_name, write_poses
from .io.rigs import RigFrame, check_rig_scale, frames_of_all, read_rigs
from .io.same_image import features_for_camera, scaling
from .libraries import torch
from .localization.confidence import Calibration
from .localization.doubt import LeastConfidence, without_doubtful
from .localization.intrinsics import check_estimate_focal
from .localization.localizer import Localization, Localizer, Query, RigLocalization, RigQuery
from .localization.pose import check_min_inliers, check_pose_estimator
from .localization.records import query_totals, record_of, rig_records, rig_totals, write_logs
from .localization.results import check_model_output, json_lines, write_model
from .localization.retrieval import retrieve
from .localization.rigs import check_rig_estimator
from .logger import logger
from .mapfile import read_map
from .maps.compressed import CompressedMap
from .maps.same_features import check_dimension, check_extractor
from .options import check_number, check_ransac_thresh, refuse_existing
from .threads import check_device, check_seed, set_num_threads, steady_products


@steady_products()
def main(
    map: Path,
    queries: Path | None,
    features: Path | None,
    results: Path,
    retrieval: Path | str | None = None,
    global_features: Path | None = None,
    num_retrieved: int = 20,
    matcher: str = "NN-mutual",
    matcher_weights: Path | None = None,
    symmetric: bool = False,
    ransac_thresh: float = 12,
    covisibility_clustering: bool = False,
    ransac_all_matches: bool = False,
    pose_estimator: str = "pycolmap",
    min_inliers: int = LEAST_INLIERS,
    prepend_camera_name: bool = False,
    full_names: bool = False,
    fallback: str = "none",
    logs: Path | None = None,
    config: dict[str, Any] | None = None,
    threads: int | None = None,
    device: str = "cpu",
    seed: int = 0,
    progress: bool = True,
    codec_file: Path | None = None,
    allow_other_extractor: bool = False,
    overwrite: bool = False,
    rigs: Path | None = None,
    rig_scale: float = 1.0,
    results_rigs: Path | None = None,
    results_jsonl: Path | None = None,
    results_sfm: Path | None = None,
    images: Path | None = None,
    camera: str | None = None,
    extractor: str | None = None,
    extractor_weights: Path | None = None,
    min_confidence: str | None = None,
    estimate_focal: bool = False,
) -> dict[str, Any]:
    """Localize all queries and write hloc's result file.

    While it runs, each finished query is kept in ``RESULTS.part``. A run that was interrupted
    continues there when it is started again with the same inputs and arguments (but for threads,
    device and the names of the results), and ends with the same bytes.

    Args:
        map: map file.
        queries: hloc's query list with intrinsics; None with ``images``.
        features: hloc's local feature file of the queries, or a COLMAP database; with ``images``,
            where to keep what is extracted, None for no longer than this run.
        results: where to write ``name qw qx qy qz tx ty tz`` for each localized query.
        retrieval: hloc's pairs file; the string 'none' matches against the whole map; 'vlad'
            retrieves by VLAD of the map's own local descriptors and of the query's; None retrieves
            with the map's own global descriptors.
        global_features: the queries' global descriptors, for retrieval with the map's own.
        num_retrieved: database images for a query when the map retrieves.
        matcher: as named in hloc's ``match_features.confs``, or ``hloc:NAME`` for hloc's own
            model; see ``matching.learned.load_matcher``.
        matcher_weights: file of weights of a learned matcher.
        symmetric: quantize the queries' descriptors too.
        ransac_thresh: pixels of the query's camera.
        covisibility_clustering, prepend_camera_name, config: as in hloc's ``localize_sfm``.
        ransac_all_matches: give RANSAC all matches, as hloc does, and not the best of each
            keypoint first.
        pose_estimator: 'pycolmap', or 'poselib' for its RANSAC (extra ``poselib``).
        min_inliers: a pose needs so many inliers, and more where many are expected by chance (see
            ``localization.pose.least_inliers``); one of fewer is rejected: it counts apart and is
            not written. 0 believes every pose, as hloc does.
        full_names: write the queries' whole names.
        fallback: 'closest' writes the pose of the closest retrieved image for a query that was
            not localized; such a query does not count as localized.
        logs: where to write a JSON log of each query.
        threads: of matching and pose estimation, all cores by default.
        device: torch device of the matching.
        seed: of RANSAC.
        progress: show a progress bar.
        codec_file: of a map without a codec of its own; see ``mapfile.read_map``.
        allow_other_extractor: only warn where map and features tell different extractors.
        overwrite: replace ``results`` and ``logs``; otherwise existing files are an error.
        rigs: which queries were taken at once by cameras of a rig, and their poses on it: see
            ``io.rigs.read_rigs``. Each such frame is localized as one; queries in none are
            localized alone.
        rig_scale: map units in a unit of the rigs' translations.
        results_rigs: where to write the pose of each localized frame, the rig's frame from world.
        results_jsonl: where to write a JSON object for each query, a line each.
        results_sfm: folder of a COLMAP model to write: the map, and the localized queries.
        images: folder of photos: all are queries, or those that ``queries`` lists. Features are
            extracted as the map says that its own were; without ``retrieval`` and
            ``global_features``, and where the map cannot retrieve by them, they are matched with
            the whole map.
        camera: MODEL WIDTH HEIGHT PARAMS... of all photos; by default ``queries`` or EXIF tells.
        extractor, extractor_weights: instead of what the map says; see ``map.main``.
        min_confidence: such as ``0.9@0.25/2``: a pose that is less probably within these map units
            and degrees is left out and counted as doubtful; of a map with a calibration.
        estimate_focal: the focal lengths of ``queries`` are not known: each is estimated with the
            pose. Photos whose EXIF tells none are taken.

    Returns:
        The figures of ``localize --json`` (docs/cli.md).

    Raises:
        InputError: an input file is missing or wrong, the features are of another dimension or
            extractor than the map's or of images of another shape than the cameras', or two
            results would have the same name.
    """
    if fallback not in FALLBACKS:
        raise InputError(f"--fallback {fallback}: expected one of {', '.join(FALLBACKS)}")
    check_ransac_thresh(ransac_thresh)
    check_number("--num_retrieved", num_retrieved, 1)
    check_seed(seed)
    check_device(device)
    check_pose_estimator(pose_estimator)
    check_min_inliers(min_inliers)
    check_rig_scale(rig_scale, rigs, results_rigs)
    if results_sfm is not None:
        check_model_output(results_sfm, overwrite)
    for path in (p for p in (results, logs, results_rigs, results_jsonl) if p is not None):
        check_output(path)
        refuse_existing(path, overwrite)
    least_sure = None if min_confidence is None else LeastConfidence.parse(min_confidence)
    check_estimate_focal(estimate_focal, pose_estimator, rigs is not None)
    used_threads = set_num_threads(threads)
    if images is not None:
        from .mapping.photos import photo_queries

        query_list = photo_queries(Path(images), queries, camera, guess=estimate_focal)
        if retrieval is None and global_features is None:
            retrieval = "none"
    elif queries is None or features is None:
        raise InputError("--queries and --features are needed, or --images")
    elif camera is not None or extractor is not None:
        raise InputError("--camera and --extractor need --images")
    else:
        query_list = read_queries(queries)
    names = result_names([name for name, _ in query_list], prepend_camera_name, full_names)
    frames: list[RigFrame] | None = None
    if rigs is not None:
        check_rig_estimator(pose_estimator)
        frames = read_rigs(rigs, [name for name, _ in query_list], rig_scale)

    start = time.perf_counter()
    compressed = read_map(map, codec_file)
    calibration = Calibration.from_json(compressed.confidence)
    if least_sure is not None and calibration is None:
        raise InputError(
            f"--min_confidence: {map} has no calibration, make it with compress --calibrate"
        )
    options: dict[str, Any] = {
        "matcher": matcher,
        "symmetric": symmetric,
        "ransac_thresh": ransac_thresh,
        "covisibility_clustering": covisibility_clustering,
        "best_first": not ransac_all_matches,
        "pose_estimator": pose_estimator,
        "config": config,
        "min_inliers": min_inliers,
        "estimate_focal": estimate_focal,
        "seed": seed,
    }
    localizer = Localizer(compressed, matcher_weights=matcher_weights, device=device, **options)
    loaded = time.perf_counter()

    by_vlad = retrieval is not None and str(retrieval) == "vlad"
    retrieved = None
    if not by_vlad:
        retrieved = retrieve(
            compressed, [n for n, _ in query_list], retrieval, global_features, num_retrieved
        )
    # A query for which nothing was retrieved has nothing to be matched with: others of its rig may.
    todo = [(n, c) for n, c in query_list if retrieved is None or retrieved.get(n)]
    cameras = dict(query_list)
    if frames is not None:
        frames = frames_of_all(frames, [n for n, _ in todo])
        todo = [(name, cameras[name]) for frame in frames for name in frame.images]
    with_matches = logs is not None or results_sfm is not None
    kept = features is not None
    features = Path(f"{results}.features.h5") if features is None else Path(features)
    if images is not None:
        from .mapping.extraction import extract, query_extraction  # needs torch

        how = query_extraction(compressed, extractor, map)
        wanted = [name for name, _ in todo]
        extract(how, Path(images), wanted, features, extractor_weights, device, progress)
    if by_vlad:
        check_extractor(compressed, feature_kind(features), str(features), allow_other_extractor)
        retrieved = retrieve_by_vlad(compressed, features, todo, num_retrieved, progress)
    part = Path(f"{results}.part")
    conf = {
        "queries": [[n, str(c.model.name), c.width, c.height, c.params.tolist()] for n, c in todo],
        "retrieval": retrieved,
        "options": options,
        "matches": with_matches,
        "min_confidence": min_confidence,
        "rigs": None if frames is None else [f.described() for f in frames],
        "versions": [
            __version__,
            pycolmap.__version__,
            getattr(torch, "__version__", None),
            np.__version__,
        ],
    }
    weights = [matcher_weights] if matcher_weights is not None else []
    with (
        open_features(features) as file,
        Checkpoint(part, run_key([map], [features, *weights], conf)) as done,
    ):
        file.check_names([name for name, _ in todo])
        check_extractor(compressed, feature_kind(features), str(features), allow_other_extractor)
        if done.num_resumed:
            logger.info(f"{part}: continuing after {done.num_resumed} queries")

        with tqdm(
            total=len(todo if frames is None else frames),
            initial=done.num_resumed,
            desc="Localizing",
            disable=not progress,
        ) as bar:
            outcomes: Iterator[Localization | RigLocalization]
            if frames is None:
                rest = todo[done.num_resumed :]
                outcomes = localizer.localize_many(read_stream(file, rest, compressed, retrieved))
            else:
                left = frames[done.num_resumed :]
                rest = [(name, cameras[name]) for frame in left for name in frame.images]
                stream = read_stream(file, rest, compressed, retrieved)
                outcomes = localizer.localize_rigs(rig_stream(left, stream))
            for outcome in outcomes:
                if least_sure is not None and calibration is not None:
                    outcome = without_doubtful(outcome, calibration, least_sure)
                done.add(record_of(compressed, outcome, with_matches))
                bar.update()

        found, counts = query_totals(done)
        rig_figures = {} if rigs is None else rig_totals(rig_records(done), str(rigs))
        poses: dict[str, np.ndarray] = {}
        for name, _ in query_list:
            pose = found.get(name)
            if pose is not None:
                poses[name] = np.array(pose)
            elif fallback == "closest" and retrieved is not None and retrieved.get(name):
                poses[name] = compressed.cam_from_world[retrieved[name][0]]
        write_poses(results, {names[name]: pose for name, pose in poses.items()})
        if results_jsonl is not None:
            asked = parse_thresholds(DEFAULT_THRESHOLDS)
            if least_sure is not None:
                asked = [(least_sure.translation, least_sure.rotation)]
            write_text(
                results_jsonl, "".join(json_lines(query_list, done, poses, calibration, asked))
            )
        if results_sfm is not None:
            of_frames = {frame.name: frame.cams_from_rig for frame in frames or ()}
            fitted = partial(_fitted, file, cameras)
            write_model(results_sfm, compressed, done, cameras, of_frames, fitted, overwrite)
        finished = time.perf_counter()
        if results_rigs is not None:
            of_rigs = {record["frame"]: record["rig_from_world"] for record in rig_records(done)}
            write_poses(results_rigs, {k: np.array(v) for k, v in of_rigs.items() if v is not None})
        if logs is not None:
            write_logs(logs, done)
        done.finish()
    if not kept:
        features.unlink(missing_ok=True)

    num_localized = sum(pose is not None for pose in found.values())
    figures = {
        "num_queries": len(query_list),
        "num_localized": num_localized,
        "num_rejected": counts["rejected"],
        "mean_matches": counts["matches"] / len(query_list),
        "mean_inliers": counts["inliers"] / len(query_list),
        "seconds_load": loaded - start,
        "seconds_per_query": (finished - loaded) / max(len(query_list) - done.num_resumed, 1),
        "num_resumed": done.num_resumed,
        "threads": used_threads,
        "results": str(results),
    } | rig_figures
    if least_sure is not None:
        figures["num_doubtful"] = counts["doubtful"]
    rejected = counts["rejected"]
    told = f", {rejected} poses rejected for too few inliers" if rejected else ""
    told += f", {counts['doubtful']} left out as doubtful" if counts["doubtful"] else ""
    logger.info(f"Localized {num_localized} / {len(query_list)} queries{told}, poses in {results}")
    return figures


def retrieve_by_vlad(
    compressed: CompressedMap,
    features: Path,
    queries: Sequence[tuple[str, pycolmap.Camera]],
    num_retrieved: int,
    progress: bool,
) -> dict[str, list[int]]:
    """Rows of the map's images most similar to each query, best first.

    Raises:
        InputError: a query has no features, or features of another dimension than the map's.
    """
    from .localization.vlad import MapVlad  # needs faiss

    vlad = MapVlad(compressed)
    found = {}
    with open_features(features) as file:
        file.check_names([name for name, _ in queries])
        for name, _ in tqdm(queries, "Retrieving", disable=not progress):
            local = file.read(name).descriptors
            if len(local):
                check_dimension(compressed, local.shape[1], f"{features}: image {name!r}")
            found[name] = vlad.retrieve(local, num_retrieved) if len(local) else []
    return found


def read_stream(
    file: LocalFeatures,
    queries: Sequence[tuple[str, pycolmap.Camera]],
    compressed: CompressedMap,
    retrieved: dict[str, list[int]] | None,
) -> Iterator[Query]:
    """The queries with their features, read one after the other and checked against the map.

    Features of a resized image are scaled to the camera; the first that are is told.

    Raises:
        InputError: features of another dimension than the map's, or of an image of another shape
            than the camera's.
    """
    told = False
    for name, camera in queries:
        where = f"{file.path}: image {name!r}"
        local = file.read(name)
        if len(local.descriptors):
            check_dimension(compressed, local.descriptors.shape[1], where)
        fitted = features_for_camera(local, camera, where)
        if fitted is not local and not told:
            told = True
            logger.warning(scaling(f"{file.path}: query {name!r}", local, camera))
        yield Query(name, camera, fitted, None if retrieved is None else retrieved.get(name, []))


def _fitted(file: LocalFeatures, cameras: dict[str, pycolmap.Camera], name: str) -> ImageFeatures:
    """A query's features, in pixels of its camera."""
    return features_for_camera(file.read(name), cameras[name], f"{file.path}: image {name!r}")


def rig_stream(frames: Sequence[RigFrame], queries: Iterator[Query]) -> Iterator[RigQuery]:
    """The frames, of a stream of their images one after the other."""
    for frame in frames:
        yield RigQuery(frame.name, [next(queries) for _ in frame.images], frame.cams_from_rig)


def result_names(
    names: list[str], prepend_camera_name: bool = False, full_names: bool = False
) -> dict[str, str]:
    """The name under which each query's pose is written.

    Raises:
        InputError: a query comes twice, or two queries would get the same name.
    """
    results: dict[str, str] = {}
    owner: dict[str, str] = {}
    for name in names:
        if name in results:
            raise InputError(f"query {name!r} comes twice in the query list")
        result = result_name(name, prepend_camera_name, full_names)
        if result in owner:
            raise InputError(
                f"queries {owner[result]!r} and {name!r} would both be written as {result!r}; "
                "pass --full_names"
            )
        owner[result] = name
        results[name] = result
    return results
