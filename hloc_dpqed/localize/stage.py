"""The stage: reads, asks the localizer, writes."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..choices import AUTO_CAMERA, FALLBACKS, LEAST_INLIERS
from ..errors import InputError
from ..io.checkpoint import Checkpoint
from ..io.features import feature_kind, open_features
from ..io.rigs import check_rig_scale
from ..localization.belief import check_min_inliers
from ..localization.confidence import Calibration
from ..localization.doubt import LeastConfidence
from ..localization.intrinsics import check_estimate_focal
from ..localization.localizer import Localizer
from ..localization.pose import check_pose_estimator
from ..localization.records import query_records, query_totals, rig_records, rig_totals
from ..logger import logger
from ..mapfile import read_map
from ..maps.compressed import CompressedMap
from ..maps.same_features import check_extractor
from ..options import check_number, check_ransac_thresh
from ..threads import check_device, check_seed, set_num_threads, steady_products
from .figures import figures_of, tell
from .inputs import Photos, check_sources, find_work, read_inputs, with_rigs, with_vlad
from .loop import key_of, localize_all
from .outputs import Outputs, poses_of, result_names, write_outputs
from .priors import check_prior_arguments, prior_totals, priors_of


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
    priors: Path | None = None,
    prior_radius: float | None = None,
    prior_angle: float | None = None,
    map_gravity: Sequence[float] | None = None,
    track: bool = False,
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
            ``localization.belief.least_inliers``); one of fewer is rejected: it counts apart and is
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
            'auto' guesses the camera of each query from EXIF, else from the size of the image, and
            estimates its focal length and distortion with the pose; ``queries`` then is a list of
            names.
        extractor, extractor_weights: instead of what the map says; see ``map.main``.
        min_confidence: such as ``0.9@0.25/2``: a pose that is less probably within these map units
            and degrees is left out and counted as doubtful; of a map with a calibration.
        estimate_focal: the focal lengths of ``queries`` are not known: each is estimated with the
            pose. Photos whose EXIF tells none are taken.
        priors: what is known of queries' poses: see ``io.priors.read_priors``. They narrow what is
            matched, and are compared with the poses that are found.
        prior_radius: map units that a position may be off, where the file tells none.
        prior_angle: degrees that a whole pose's rotation (10 by default) or gravity (5) may be off.
        map_gravity: down in the map, for priors of gravity.
        track: the queries are a sequence, in the order of the list: each is looked for where the
            last one was, and localized as ever where it is not surely there.

    Returns:
        The figures of ``localize --json`` (docs/cli.md).

    Raises:
        InputError: an input file is missing or wrong, the features are of another dimension or
            extractor than the map's or of images of another shape than the cameras', or two
            results would have the same name.
    """
    _check_choices(
        fallback, ransac_thresh, num_retrieved, seed, device, pose_estimator, min_inliers
    )
    check_rig_scale(rig_scale, rigs, results_rigs)
    outputs = Outputs(results, results_rigs, results_jsonl, results_sfm, logs, overwrite)
    outputs.check()
    check_prior_arguments(priors, prior_radius, prior_angle, map_gravity, rigs is not None)
    _check_track(track, rigs, priors, min_confidence)
    least_sure = None if min_confidence is None else LeastConfidence.parse(min_confidence)
    estimate_focal = estimate_focal or camera == AUTO_CAMERA
    check_estimate_focal(estimate_focal, rigs is not None)
    used_threads = set_num_threads(threads)
    check_sources(images, queries, features, camera, extractor)
    photos = None
    if images is not None:
        photos = Photos(Path(images), camera, extractor, extractor_weights)
    inputs = read_inputs(
        queries,
        features,
        results,
        photos,
        retrieval,
        has_global_features=global_features is not None,
        guess_cameras=estimate_focal,
        camera=camera,
    )
    names = result_names(inputs.names, prepend_camera_name, full_names)
    if rigs is not None:
        inputs = with_rigs(inputs, rigs, rig_scale, pose_estimator)

    if priors is not None:
        known = priors_of(priors, inputs.names, prior_radius, prior_angle, map_gravity)
        inputs = replace(inputs, priors=known)
    inputs = replace(inputs, track=track)

    start = time.perf_counter()
    compressed = read_map(map, codec_file)
    calibration = _calibration(compressed, map, least_sure)
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
    if camera == AUTO_CAMERA:
        options["estimate_lens"] = True
    localizer = Localizer(compressed, matcher_weights=matcher_weights, device=device, **options)
    loaded = time.perf_counter()

    work = find_work(inputs, compressed, global_features, num_retrieved)
    if photos is not None:
        photos.extract(compressed, map, work.names, inputs.features, device, progress)
    if inputs.by_vlad:
        work = with_vlad(work, inputs, compressed, num_retrieved, allow_other_extractor, progress)
    stamps = [inputs.features, *([matcher_weights] if matcher_weights is not None else [])]
    with_matches = outputs.with_matches or track  # a sequence goes on from what was seen last
    told = (options, with_matches, min_confidence)
    with (
        open_features(inputs.features) as file,
        Checkpoint(outputs.part, key_of(work, map, stamps, *told)) as done,
    ):
        file.check_names(work.names)
        check_extractor(
            compressed, feature_kind(inputs.features), str(inputs.features), allow_other_extractor
        )
        if done.num_resumed:
            logger.info(f"{outputs.part}: continuing after {done.num_resumed} queries")
        localize_all(work, localizer, file, done, with_matches, calibration, least_sure, progress)
        found, counts = query_totals(done)
        beside = {} if rigs is None else rig_totals(rig_records(done), str(rigs))
        if priors is not None and inputs.priors is not None:
            beside |= prior_totals(query_records(done), inputs.priors, priors)
        closest = work.retrieved if fallback == "closest" else None
        poses = poses_of(inputs.listed, found, closest, compressed)
        write_outputs(
            outputs,
            inputs.listed,
            names,
            work,
            done,
            file,
            poses,
            compressed,
            calibration,
            least_sure,
        )
        finished = time.perf_counter()
        done.finish()
    if not inputs.keep_features:
        inputs.features.unlink(missing_ok=True)

    figures = figures_of(
        len(inputs.listed), found, counts, done.num_resumed, loaded - start, finished - loaded
    )
    if track:
        figures["num_tracked"] = counts["tracked"]
    figures |= {"threads": used_threads, "results": str(results)} | beside
    if least_sure is not None:
        figures["num_doubtful"] = counts["doubtful"]
    tell(figures, counts)
    return figures


def _check_track(
    track: bool, rigs: Path | None, priors: Path | None, min_confidence: str | None
) -> None:
    """Check what a sequence goes together with.

    Raises:
        InputError: rigs, other priors than the last frame, or a probability: calibrations are of
            queries that are localized alone.
    """
    others = {"rigs": rigs, "priors": priors, "min_confidence": min_confidence}
    for name, value in others.items():
        if track and value is not None:
            raise InputError(f"--track: excludes --{name}")


def _check_choices(
    fallback: str,
    ransac_thresh: float,
    num_retrieved: int,
    seed: int,
    device: str,
    pose_estimator: str,
    min_inliers: int,
) -> None:
    """Refuse what cannot be, before anything is read.

    Raises:
        InputError: in one line.
    """
    if fallback not in FALLBACKS:
        raise InputError(f"--fallback {fallback}: expected one of {', '.join(FALLBACKS)}")
    check_ransac_thresh(ransac_thresh)
    check_number("--num_retrieved", num_retrieved, 1)
    check_seed(seed)
    check_device(device)
    check_pose_estimator(pose_estimator)
    check_min_inliers(min_inliers)


def _calibration(
    compressed: CompressedMap, path: Path, least_sure: LeastConfidence | None
) -> Calibration | None:
    """The map's calibration.

    Raises:
        InputError: it is needed and there is none.
    """
    calibration = Calibration.from_json(compressed.confidence)
    if least_sure is not None and calibration is None:
        raise InputError(
            f"--min_confidence: {path} has no calibration, make it with compress --calibrate"
        )
    return calibration
