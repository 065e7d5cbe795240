"""Absolute pose from 2D-3D matches, with pycolmap; RANSAC with poselib where asked for.

Solvers see the points in a frame of their own, see ``local_frame``. Poses come and go in the map's
frame.
"""

import copy
import hashlib
import importlib.util
from typing import Any

import numpy as np
import pycolmap

from ..choices import POSE_ESTIMATORS
from ..errors import InputError
from ..scene.projection import in_front
from .confidence import covariance_in_map
from .focal import ransac_focal
from .local_frame import LocalFrame

# Those of COLMAP's camera models that poselib knows; with others it finds nothing.
POSELIB_MODELS = {
    "SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV",
    "OPENCV_FISHEYE",
}  # fmt: skip
MIN_INLIERS = 4  # three points always fit some pose
LOCAL_STEPS = 2  # refinements of a pose whose focal length a sample told


def check_pose_estimator(name: str) -> None:
    """Check that an estimator is known and installed.

    Raises:
        InputError: it is not.
    """
    if name not in POSE_ESTIMATORS:
        raise InputError(f"--pose_estimator {name}: expected one of {', '.join(POSE_ESTIMATORS)}")
    if name == "poselib" and importlib.util.find_spec("poselib") is None:
        raise InputError("--pose_estimator poselib: pip install 'hloc_dpqed[poselib]'")


def query_seed(seed: int, name: str) -> int:
    """Seed of a query's RANSAC, from the run's seed and the query's name.

    A query's pose then depends neither on the order of the queries nor on parallelism.
    """
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:4], "little") & 0x7FFFFFFF


def estimation_options(ransac_thresh: float, config: dict[str, Any] | None) -> dict[str, Any]:
    """hloc's ``config``: ``estimation`` and ``refinement`` as nested dictionaries of options.

    As in hloc, an ``estimation`` entry replaces ``ransac_thresh``.
    """
    config = config or {}
    return {
        "estimation": config.get("estimation", {"ransac": {"max_error": float(ransac_thresh)}}),
        "refinement": config.get("refinement", {}),
    }


def estimate_pose(
    points2D: np.ndarray,
    points3D: np.ndarray,
    camera: pycolmap.Camera,
    options: dict[str, Any],
    seed: int,
    estimator: str = "pycolmap",
) -> dict[str, Any] | None:
    """LO-RANSAC and refinement.

    Args:
        points2D: (n, 2) float64 pixels in COLMAP's convention.
        points3D: (n, 3) float64 map units.
        camera: intrinsics of the query.
        options: as ``estimation_options`` gives them.
        seed: of RANSAC.
        estimator: of ``POSE_ESTIMATORS``, whose RANSAC it is; pycolmap refines.

    Returns:
        pycolmap's dictionary (``cam_from_world``, ``num_inliers``, ``inlier_mask``, ``covariance``
        as ``confidence.covariance_in_map`` gives it), or None where no pose was found.

    Raises:
        InputError: poselib does not know the camera's model.
    """
    if len(points2D) == 0:
        return None
    frame, points3D, options = _in_frame(points3D, options)
    answer = _estimate_pose(points2D, points3D, camera, options, seed, estimator)
    return _in_map(frame, answer)


def _in_frame(
    points3D: np.ndarray, options: dict[str, Any]
) -> tuple[LocalFrame, np.ndarray, dict[str, Any]]:
    """A frame around (n, 3) points, with them and the options of estimation in it."""
    frame = LocalFrame.around(points3D)
    options = {**options, "refinement": frame.refinement(options["refinement"])}
    return frame, frame.points(points3D), options


def _in_map(frame: LocalFrame, answer: dict[str, Any] | None) -> dict[str, Any] | None:
    if answer is None:
        return None
    local = answer["cam_from_world"]
    covariance = covariance_in_map(answer["covariance"], local.matrix(), frame.unit)
    return {**answer, "cam_from_world": frame.pose_in_map(local), "covariance": covariance}


def _estimate_pose(
    points2D: np.ndarray,
    points3D: np.ndarray,
    camera: pycolmap.Camera,
    options: dict[str, Any],
    seed: int,
    estimator: str,
) -> dict[str, Any] | None:
    """``estimate_pose`` in the frame that it is given."""
    if estimator == "poselib":
        first = ransac_poselib(points2D, points3D, camera, options, seed)
        if first is None:
            return None
        return _refine(*first, points2D, points3D, camera, options)
    return pycolmap.estimate_and_refine_absolute_pose(
        points2D,
        points3D,
        camera,
        estimation_options=_seeded_estimation(options, seed),
        refinement_options=options["refinement"],
        return_covariance=True,
    )


def _seeded_estimation(options: dict[str, Any], seed: int) -> Any:
    """pycolmap's options of RANSAC, with a seed unless they have one."""
    estimation = copy.deepcopy(options["estimation"])
    estimation.setdefault("ransac", {}).setdefault("random_seed", seed)
    return estimation


def estimate_pose_best_first(
    points2D: np.ndarray,
    points3D: np.ndarray,
    best: np.ndarray,
    camera: pycolmap.Camera,
    options: dict[str, Any],
    seed: int,
    estimator: str = "pycolmap",
) -> dict[str, Any] | None:
    """RANSAC on the best matches alone, then refinement on all matches that agree with its pose.

    A keypoint that matches several points is right about one of them at most: with the best match
    of each keypoint RANSAC has half as many matches to score, and twice the share of inliers. The
    refinement then takes back the right ones among the rest. Ours.

    Args:
        points2D, points3D, camera, options, seed, estimator: as in ``estimate_pose``.
        best: (k,) rows of the matches that RANSAC looks at.

    Returns:
        As ``estimate_pose``; the inliers are counted among all matches.
    """
    if len(points2D) == 0:
        return None
    frame, points3D, options = _in_frame(points3D, options)
    if estimator == "poselib":
        found = ransac_poselib(points2D[best], points3D[best], camera, options, seed)
        pose = None if found is None else found[0]
    else:
        first = _estimate_pose(points2D[best], points3D[best], camera, options, seed, estimator)
        pose = None if first is None else first["cam_from_world"]
    if pose is None:
        return None
    threshold = ransac_options(options)["max_error"]
    inliers = reprojects(pose, points2D, points3D, camera, threshold)
    return _in_map(frame, _refine(pose, inliers, points2D, points3D, camera, options))


def ransac_pose(
    points2D: np.ndarray,
    points3D: np.ndarray,
    camera: pycolmap.Camera,
    options: dict[str, Any],
    seed: int,
    estimator: str = "pycolmap",
) -> tuple[np.ndarray, np.ndarray] | None:
    """LO-RANSAC alone: a pose that is not refined.

    Args:
        points2D, points3D, camera, options, seed, estimator: as in ``estimate_pose``.

    Returns:
        (3, 4) float64 camera from world and (n,) bool inliers, or None where no pose was found.

    Raises:
        InputError: poselib does not know the camera's model.
    """
    if len(points2D) < MIN_INLIERS:
        return None
    frame = LocalFrame.around(points3D)
    points3D = frame.points(points3D)
    if estimator == "poselib":
        found = ransac_poselib(points2D, points3D, camera, options, seed)
        return None if found is None else (frame.pose_in_map(found[0]).matrix(), found[1])
    answer = pycolmap.estimate_absolute_pose(
        points2D, points3D, camera, _seeded_estimation(options, seed)
    )
    if answer is None:
        return None
    pose = frame.pose_in_map(answer["cam_from_world"]).matrix()
    return pose, np.asarray(answer["inlier_mask"], bool)


def refine_from(
    cam_from_world: np.ndarray,
    points2D: np.ndarray,
    points3D: np.ndarray,
    camera: pycolmap.Camera,
    options: dict[str, Any],
) -> dict[str, Any] | None:
    """Refinement of a (3, 4) pose on the matches that agree with it.

    Args:
        points2D, points3D, camera, options: as in ``estimate_pose``.

    Returns:
        As ``estimate_pose``; the inliers are those of the refined pose.
    """
    if len(points2D) < MIN_INLIERS:
        return None
    frame, points3D, options = _in_frame(points3D, options)
    pose = frame.pose_in_frame(cam_from_world)
    threshold = ransac_options(options)["max_error"]
    inliers = reprojects(pose, points2D, points3D, camera, threshold)
    if inliers.sum() < MIN_INLIERS:
        return None
    answer = _refine(pose, inliers, points2D, points3D, camera, options)
    if answer is None:
        return None
    inliers = reprojects(answer["cam_from_world"], points2D, points3D, camera, threshold)
    answer |= {"num_inliers": int(inliers.sum()), "inlier_mask": inliers}
    return _in_map(frame, answer)


def ransac_poselib(
    points2D: np.ndarray,
    points3D: np.ndarray,
    camera: pycolmap.Camera,
    options: dict[str, Any],
    seed: int,
) -> tuple[pycolmap.Rigid3d, np.ndarray] | None:
    """PoseLib's LO-RANSAC, with the threshold, trials and confidence of pycolmap's options.

    Source: Larsson and contributors, "PoseLib - Minimal Solvers for Camera Pose Estimation", 2020.

    Args:
        points2D, points3D, camera, options, seed: as in ``estimate_pose``.

    Returns:
        The pose and (n,) bool inliers, or None where fewer than ``MIN_INLIERS`` agree.

    Raises:
        InputError: poselib does not know the camera's model.
    """
    import poselib

    known = poselib_camera(camera)
    if len(points2D) < MIN_INLIERS:
        return None
    if options["estimation"].get("estimate_focal_length"):
        return _ransac_focal(points2D, points3D, camera, options, seed)
    pose, told = poselib.estimate_absolute_pose(
        points2D, points3D, known, poselib_ransac(options, seed), {}
    )
    if told["num_inliers"] < MIN_INLIERS:
        return None
    return pycolmap.Rigid3d(pose.Rt), np.array(told["inliers"], bool)


def _ransac_focal(
    points2D: np.ndarray,
    points3D: np.ndarray,
    camera: pycolmap.Camera,
    options: dict[str, Any],
    seed: int,
) -> tuple[pycolmap.Rigid3d, np.ndarray] | None:
    """``ransac_poselib`` that writes the focal length into ``camera``."""
    ransac = ransac_options(options)
    found = ransac_focal(points2D, points3D, camera, ransac, ransac.get("random_seed", seed))
    if found is None:
        return None
    pose, focal = found
    params = camera.params.copy()
    params[list(camera.focal_length_idxs())] = focal
    camera.params = params.tolist()
    # Samples of four are noisy: the pose is refined on what agrees with it, and that again.
    for _ in range(LOCAL_STEPS):
        inliers = reprojects(pose, points2D, points3D, camera, ransac["max_error"])
        if inliers.sum() < MIN_INLIERS:
            return None
        refined = _refine(pose, inliers, points2D, points3D, camera, options)
        if refined is None:
            return None
        pose = refined["cam_from_world"]
    inliers = reprojects(pose, points2D, points3D, camera, ransac["max_error"])
    return (pose, inliers) if inliers.sum() >= MIN_INLIERS else None


def poselib_camera(camera: pycolmap.Camera) -> dict[str, Any]:
    """The camera as poselib takes it.

    Raises:
        InputError: poselib does not know the camera's model.
    """
    if camera.model.name not in POSELIB_MODELS:
        raise InputError(
            f"--pose_estimator poselib: it does not know cameras of model {camera.model.name}"
        )
    return {
        "model": camera.model.name,
        "width": camera.width,
        "height": camera.height,
        "params": camera.params.tolist(),
    }


def poselib_ransac(options: dict[str, Any], seed: int) -> dict[str, Any]:
    """poselib's options of RANSAC: those of pycolmap under its names."""
    ransac = ransac_options(options)
    return {
        "max_reproj_error": ransac["max_error"],
        "min_iterations": ransac["min_num_trials"],
        "max_iterations": ransac["max_num_trials"],
        "success_prob": ransac["confidence"],
        "seed": ransac.get("random_seed", seed),
    }


def ransac_options(options: dict[str, Any]) -> dict[str, Any]:
    """The options of RANSAC, pycolmap's defaults where nothing else is asked for."""
    defaults = pycolmap.AbsolutePoseEstimationOptions().ransac
    names = ("max_error", "min_num_trials", "max_num_trials", "confidence")
    return {name: getattr(defaults, name) for name in names} | options["estimation"].get(
        "ransac", {}
    )


def _refine(
    pose: pycolmap.Rigid3d,
    inliers: np.ndarray,
    points2D: np.ndarray,
    points3D: np.ndarray,
    camera: pycolmap.Camera,
    options: dict[str, Any],
) -> dict[str, Any] | None:
    """Refinement on the (n,) bool ``inliers``: as ``estimate_pose`` returns it."""
    refined = pycolmap.refine_absolute_pose(
        pose, points2D, points3D, inliers, camera, options["refinement"], True
    )
    if refined is None:
        return None
    return {**refined, "num_inliers": int(inliers.sum()), "inlier_mask": inliers}


def reprojects(
    cam_from_world: pycolmap.Rigid3d,
    points2D: np.ndarray,
    points3D: np.ndarray,
    camera: pycolmap.Camera,
    max_error: float,
) -> np.ndarray:
    """(n,) bool: the point lies in front of the camera and projects within ``max_error`` pixels."""
    pose = cam_from_world.matrix()
    in_camera = points3D @ pose[:, :3].T + pose[:, 3]
    if len(in_camera) == 0:
        return np.zeros(0, bool)
    projected = np.asarray(camera.img_from_cam(in_camera), np.float64)
    # Not a number where the camera model cannot project; compares as false.
    near = np.linalg.norm(projected - points2D, axis=1) <= max_error
    return near & in_front(in_camera, camera)
