"""One pose of several cameras whose poses on a rig are known (generalized absolute pose)."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pycolmap

from ..choices import LEAST_INLIERS
from ..errors import InputError
from ..scene.projection import camera_centre, camera_centres
from ..scene.rigid import compose, inverse
from .belief import least_inliers, least_inliers_together
from .confidence import covariance_in_map, covariance_on_rig, coverage, evidence_of
from .local_frame import LocalFrame
from .pose import (
    MIN_INLIERS,
    poselib_camera,
    poselib_ransac,
    ransac_options,
    reprojects,
)
from .queries import Localization, RigLocalization, RigQuery

# pycolmap before 4 takes milliseconds for each trial of its solver, hundreds of times as many as
# later ones, and 4.0 crashes where many matches are wrong: tests/test_rigs.py has such matches.
SLOW_TRIALS = 1000
# An image that keeps less than this share of its own inliers in the rig's pose, and too few to be
# believed there, contradicts the rig.
KEPT_SHARE = 0.5
SAME_PLACE = 1e-6  # of the rig's size: cameras that stand closer have no distance to compare

Matched = list[tuple[np.ndarray, np.ndarray]]  # (n, 2) pixels and (n, 3) points of each camera


def check_rig_estimator(estimator: str) -> None:
    """Check that the installed library can estimate the pose of a rig.

    Raises:
        InputError: pycolmap 4.0, whose solver crashes.
    """
    if estimator == "pycolmap" and pycolmap.__version__.startswith("4.0."):
        raise InputError(
            f"--rigs: the solver of pycolmap {pycolmap.__version__} crashes; install 4.1 or newer, "
            "or pass --pose_estimator poselib"
        )


def solve_rig(
    rig: RigQuery,
    alone: Sequence[Localization],
    xyz: np.ndarray,
    best_first: bool,
    options: dict[str, Any],
    min_inliers: int,
    seed: int,
    estimator: str,
) -> RigLocalization:
    """Pose of a rig from the matches of its images.

    The pose is believed where its inliers over all cameras are as many as
    ``least_inliers_together`` wants, or those in one camera as many as that one would need alone.

    Args:
        rig: the frame.
        alone: the outcome of each image localized alone, with its matches.
        xyz: (P, 3) points of the map.
        best_first, options, min_inliers, seed, estimator: as in ``Localizer``.
    """
    if len(alone) == 1:
        pose = alone[0].cam_from_world
        if pose is not None:
            pose = compose(inverse(rig.cams_from_rig[0]), pose)
        return RigLocalization(rig.name, pose, alone[0].num_inliers, list(alone), alone[0].rejected)
    check_rig_estimator(estimator)
    matched = [_matched(rig, alone, xyz, k) for k in range(len(alone))]
    found = [one.correspondences for one in alone]
    best = [f.best_of_keypoints() if best_first else np.arange(len(f)) for f in found]
    cameras = [query.camera for query in rig.queries]
    answer = estimate_rig_pose(matched, best, rig.cams_from_rig, cameras, options, seed, estimator)
    sizes = [len(one.correspondences) for one in alone]
    ratio = baseline_ratio(rig, alone, options)
    if answer is None:
        return RigLocalization(rig.name, None, 0, list(alone), baseline_ratio=ratio)
    rig_from_world, inliers, of_rig = answer
    counts = [int(mask.sum()) for mask in inliers]
    wanted = [
        least_inliers(n, camera, options, min_inliers)
        for n, camera in zip(sizes, cameras, strict=True)
    ]
    together = least_inliers_together(sizes, cameras, options, min_inliers)
    believed = sum(counts) >= together or any(c >= w for c, w in zip(counts, wanted, strict=True))
    good = _sure(rig, alone, options)
    lost = [
        k
        for k in good
        if counts[k] < KEPT_SHARE * alone[k].num_inliers
        and counts[k] < least_inliers(sizes[k], cameras[k], options, LEAST_INLIERS)
    ]
    disagrees = len(good) > 1 and 2 * len(lost) >= len(good)
    if not believed or disagrees:
        return RigLocalization(
            rig.name, None, sum(counts), list(alone), not believed, disagrees, ratio
        )
    # An image is as sure as the rig that it stands on.
    covered = max(
        coverage(pixels[mask], camera)
        for (pixels, _), mask, camera in zip(matched, inliers, cameras, strict=True)
    )
    outcomes = [
        replace(
            one,
            cam_from_world=compose(pose, rig_from_world),
            num_inliers=count,
            inliers=mask,
            rejected=False,
            covariance=(covariance := covariance_on_rig(of_rig, rig_from_world, pose)),
            evidence=evidence_of(covariance, sum(counts), sum(sizes), covered),
        )
        for one, pose, count, mask in zip(alone, rig.cams_from_rig, counts, inliers, strict=True)
    ]
    return RigLocalization(rig.name, rig_from_world, sum(counts), outcomes, baseline_ratio=ratio)


def _matched(
    rig: RigQuery, alone: Sequence[Localization], xyz: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    found = alone[k].correspondences
    # hloc's keypoints have pixel centres at integers, COLMAP's at +0.5: added here, once.
    keypoints = rig.queries[k].features.keypoints[found.keypoint_index].astype(np.float64) + 0.5
    return keypoints, xyz[found.point_index]


def _sure(rig: RigQuery, alone: Sequence[Localization], options: dict[str, Any]) -> list[int]:
    """Which images are localized alone, and would be by the usual standard."""
    return [
        k
        for k, one in enumerate(alone)
        if one.cam_from_world is not None
        and one.num_inliers
        >= least_inliers(len(one.correspondences), rig.queries[k].camera, options, LEAST_INLIERS)
    ]


def baseline_ratio(
    rig: RigQuery, alone: Sequence[Localization], options: dict[str, Any]
) -> float | None:
    """How far apart the cameras stand by their own poses, over how far by the rig: the median.

    None where no two images are localized, or all stand in one place on the rig. Away from 1 the
    rig's translations are in another unit than the map.
    """
    centres = camera_centres(np.asarray(rig.cams_from_rig, np.float64))
    size = np.abs(centres - centres.mean(0)).max()
    ratios = []
    for i, j in combinations(_sure(rig, alone, options), 2):
        first, second = alone[i].cam_from_world, alone[j].cam_from_world
        assert first is not None and second is not None
        baseline = float(np.linalg.norm(centres[i] - centres[j]))
        if baseline > SAME_PLACE * size:
            apart = np.linalg.norm(camera_centre(first) - camera_centre(second))
            ratios.append(float(apart) / baseline)
    return float(np.median(ratios)) if ratios else None


def estimate_rig_pose(
    matched: Matched,
    best: Sequence[np.ndarray],
    cams_from_rig: np.ndarray,
    cameras: Sequence[pycolmap.Camera],
    options: dict[str, Any],
    seed: int,
    estimator: str = "pycolmap",
) -> tuple[np.ndarray, list[np.ndarray], np.ndarray] | None:
    """LO-RANSAC over the best matches of all cameras, then refinement on all that agree.

    pycolmap's solver is GP3P of Lee, Li, Heng, Pollefeys and Sattler, "Minimal Solutions for the
    Multi-Camera Pose Estimation Problem", IJRR 2016; poselib's that of Kukelova, Heller and
    Fitzgibbon, "Efficient Intersection of Three Quadrics and Applications in Computer Vision",
    CVPR 2016. As for one camera, solvers see points in a ``LocalFrame``, and here the rig about the
    middle of its cameras, wherever its own origin is.

    Args:
        matched: for each camera (n, 2) float64 pixels in COLMAP's convention and (n, 3) float64
            points in map units.
        best: for each camera (k,) rows of the matches that RANSAC looks at.
        cams_from_rig: (c, 3, 4) float64 [R | t] in map units.
        cameras: intrinsics.
        options: as ``pose.estimation_options`` gives them.
        seed: of RANSAC.
        estimator: of ``POSE_ESTIMATORS``.

    Returns:
        (3, 4) float64 rig from world, for each camera (n,) bool inliers, and the covariance of
        the rig's rotation and origin as ``confidence.covariance_in_map`` gives it; None where no
        pose was found.

    Raises:
        InputError: poselib does not know a camera's model; options hold a prior of the position of
            a camera.
    """
    if options["refinement"].get("use_position_prior"):
        raise InputError("config: use_position_prior is of one camera, not of a rig")
    points3D = np.concatenate([points for _, points in matched])
    used = [k for k, rows in enumerate(best) if len(rows)]
    if not used:
        return None
    frame = LocalFrame.around(points3D)
    middle = np.concatenate([np.eye(3), camera_centres(cams_from_rig).mean(0)[:, None]], 1)
    poses = np.array([compose(pose, middle) for pose in cams_from_rig])
    poses[:, :, 3] /= frame.unit
    local = [(pixels, frame.points(points)) for pixels, points in matched]
    rigid = [pycolmap.Rigid3d(pose) for pose in poses]

    first = _ransac(
        [(local[k][0][best[k]], local[k][1][best[k]]) for k in used],
        [rigid[k] for k in used],
        [cameras[k] for k in used],
        options,
        seed,
        estimator,
    )
    if first is None:
        return None
    threshold = ransac_options(options)["max_error"]
    inliers = [
        reprojects(pose * first, *one, camera, threshold)
        for pose, one, camera in zip(rigid, local, cameras, strict=True)
    ]
    refined = pycolmap.refine_generalized_absolute_pose(
        first,
        np.concatenate([pixels for pixels, _ in local]),
        np.concatenate([points for _, points in local]),
        np.concatenate(inliers),
        np.repeat(np.arange(len(local)), [len(mask) for mask in inliers]).tolist(),
        rigid,
        list(cameras),
        pycolmap.AbsolutePoseRefinementOptions(frame.refinement(options["refinement"])),
        True,
    )
    if refined is None:
        return None
    inner_from_world = frame.pose_in_map(refined["rig_from_world"]).matrix()
    covariance = covariance_in_map(
        refined["covariance"], refined["rig_from_world"].matrix(), frame.unit
    )
    rig_from_world = compose(middle, inner_from_world)
    return rig_from_world, inliers, covariance_on_rig(covariance, inner_from_world, middle)


def _ransac(
    matched: Matched,
    cams_from_rig: list[pycolmap.Rigid3d],
    cameras: list[pycolmap.Camera],
    options: dict[str, Any],
    seed: int,
    estimator: str,
) -> pycolmap.Rigid3d | None:
    """Pose of the rig, None where fewer than ``MIN_INLIERS`` agree."""
    if sum(len(pixels) for pixels, _ in matched) < MIN_INLIERS:
        return None
    if estimator == "poselib":
        import poselib

        extrinsics = []
        for known in cams_from_rig:
            pose = poselib.CameraPose()
            pose.q, pose.t = known.rotation.quat[[3, 0, 1, 2]], known.translation
            extrinsics.append(pose)
        found, told = poselib.estimate_generalized_absolute_pose(
            [pixels for pixels, _ in matched],
            [points for _, points in matched],
            extrinsics,
            [poselib_camera(camera) for camera in cameras],
            poselib_ransac(options, seed),
            {},
        )
        return pycolmap.Rigid3d(found.Rt) if told["num_inliers"] >= MIN_INLIERS else None
    # The solver's own defaults are 4 pixels and 100,000 trials: those of one camera are meant.
    ransac = pycolmap.AbsolutePoseEstimationOptions().ransac.todict() | {"random_seed": seed}
    ransac |= options["estimation"].get("ransac", {})
    if pycolmap.__version__.startswith("3."):
        for name in ("min_num_trials", "max_num_trials"):
            ransac[name] = min(ransac[name], SLOW_TRIALS)
    answer = pycolmap.estimate_generalized_absolute_pose(
        np.concatenate([pixels for pixels, _ in matched]),
        np.concatenate([points for _, points in matched]),
        np.repeat(np.arange(len(matched)), [len(pixels) for pixels, _ in matched]).tolist(),
        cams_from_rig,
        cameras,
        pycolmap.RANSACOptions(ransac),
    )
    if answer is None or answer["num_inliers"] < MIN_INLIERS:
        return None
    return answer["rig_from_world"]
