"""RANSAC of a pose and a focal length with poselib's minimal solver; poselib itself has none.

P4Pf of Kukelova, Bujnak and Pajdla, "A General Solution to the P4P Problem for Camera with Unknown
Focal Length", CVPR 2008, as poselib implements it; trials are drawn and scored here, many at once.
"""

from typing import Any

import numpy as np
import pycolmap

from ..errors import InputError

BATCH = 64  # samples between two looks at how many are still needed
SAMPLE = 4
NARROWEST, WIDEST = 20.0, 0.25  # focal lengths in longer sides of the image, see ``has_focal``


def ransac_focal(
    points2D: np.ndarray,
    points3D: np.ndarray,
    camera: pycolmap.Camera,
    ransac: dict[str, Any],
    seed: int,
) -> tuple[pycolmap.Rigid3d, float] | None:
    """The pose and the focal length with which most matches agree, distortion left out.

    Args:
        points2D: (n, 2) float64 pixels in COLMAP's convention.
        points3D: (n, 3) float64 near the origin, of about unit size.
        camera: its size and principal point.
        ransac: pycolmap's options: ``max_error``, ``min_num_trials``, ``max_num_trials`` and
            ``confidence``.
        seed: of the samples.

    Returns:
        Camera from world and the focal length in pixels; None where no sample gives a pose.

    Raises:
        InputError: the installed poselib has no such solver.
    """
    import poselib

    if not hasattr(poselib, "p4pf"):
        raise InputError(
            "--pose_estimator poselib: the installed one has no solver of focal lengths; install "
            "2.0.5 or newer, or pass --pose_estimator pycolmap"
        )
    if len(points2D) < SAMPLE:
        return None
    unit = float(max(camera.width, camera.height))
    rays = (points2D - [camera.principal_point_x, camera.principal_point_y]) / unit
    threshold = ransac["max_error"] / unit
    rng = np.random.default_rng(seed)
    best: tuple[int, np.ndarray, float] = (0, np.zeros((3, 4)), 0.0)
    trials, wanted = 0, float(ransac["max_num_trials"])
    while trials < max(wanted, ransac["min_num_trials"]):
        found = []
        for _ in range(BATCH):
            rows = rng.choice(len(rays), SAMPLE, replace=False)
            for pose, focal in zip(*poselib.p4pf(rays[rows], points3D[rows], True), strict=True):
                if WIDEST <= focal <= NARROWEST and np.isfinite(pose.Rt).all():
                    found.append((pose.Rt, focal))
        trials += BATCH
        if found:
            poses, focals = np.array([pose for pose, _ in found]), np.array([f for _, f in found])
            counts = _agreeing(poses, focals, rays, points3D, threshold).sum(1)
            first = int(counts.argmax())
            if counts[first] > best[0]:
                best = int(counts[first]), poses[first], float(focals[first])
                sure = 1 - (best[0] / len(rays)) ** SAMPLE
                needed = np.log(1 - ransac["confidence"]) / np.log(max(sure, 1e-300))
                wanted = min(wanted, needed) if sure < 1 else wanted
    return (pycolmap.Rigid3d(best[1]), best[2] * unit) if best[0] >= SAMPLE else None


def _agreeing(
    poses: np.ndarray, focals: np.ndarray, rays: np.ndarray, points: np.ndarray, threshold: float
) -> np.ndarray:
    """(m, n) bool: which of (n, 3) points (m, 3, 4) poses project near (n, 2) ``rays``."""
    inside = points @ poses[:, :, :3].transpose(0, 2, 1) + poses[:, None, :, 3]
    depth = inside[:, :, 2]
    front = depth > 0
    projected = focals[:, None, None] * inside[:, :, :2] / np.where(front, depth, 1)[:, :, None]
    return front & (((projected - rays) ** 2).sum(2) <= threshold**2)
