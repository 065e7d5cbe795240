"""Triangulate many tracks at once from known poses, in numpy.

Source: linear triangulation (DLT) as in Hartley & Zisserman, "Multiple View Geometry", section
12.2, followed by Gauss-Newton on the reprojection error.
"""

import numpy as np
import pycolmap

_MAX_ELEMENTS = 1 << 22  # bounds the pairwise angles of one batch


def undistort(
    pixels: np.ndarray, cameras: list[pycolmap.Camera], camera_of_pixel: np.ndarray
) -> np.ndarray:
    """(n, 2) COLMAP pixels to (n, 2) float64 on the plane z = 1, distortion removed.

    Pixels that a camera model cannot undistort give rows of NaN.
    """
    out = np.full((len(pixels), 2), np.nan)
    for row, camera in enumerate(cameras):
        mine = np.flatnonzero(camera_of_pixel == row)
        if len(mine):
            out[mine] = camera.cam_from_img(np.ascontiguousarray(pixels[mine], np.float64))
    return out


def triangulate_tracks(
    rays: np.ndarray,
    cam_from_world: np.ndarray,
    image_of_ray: np.ndarray,
    indptr: np.ndarray,
    *,
    iterations: int = 10,
) -> tuple[np.ndarray, np.ndarray]:
    """Triangulate tracks that are given as compressed sparse rows.

    Args:
        rays: (n, 2) float64, observations on the plane z = 1 of their cameras.
        cam_from_world: (I, 3, 4) float64 poses.
        image_of_ray: (n,) image of each observation.
        indptr: (T + 1,) int64, where each track's observations start.
        iterations: of Gauss-Newton, at most.

    Returns:
        (T, 3) float64 points, NaN where a track has fewer than two observations, lies behind one
        of its cameras or has no solution; and (T,) float64, the largest angle in degrees between
        two of its rays (0 where the point is NaN).
    """
    lengths = np.diff(indptr)
    xyz = np.full((len(lengths), 3), np.nan)
    angles = np.zeros(len(lengths))
    for length in np.unique(lengths[lengths >= 2]):
        tracks = np.flatnonzero(lengths == length)
        step = max(1, _MAX_ELEMENTS // int(length) ** 2)
        for start in range(0, len(tracks), step):
            part = tracks[start : start + step]
            rows = indptr[part][:, None] + np.arange(length)
            xyz[part], angles[part] = _triangulate_equal(
                rays[rows], cam_from_world[image_of_ray[rows]], iterations
            )
    return xyz, angles


def _triangulate_equal(
    rays: np.ndarray, poses: np.ndarray, iterations: int
) -> tuple[np.ndarray, np.ndarray]:
    """Tracks of one length n: (m, n, 2) rays and (m, n, 3, 4) poses to (m, 3) and (m,)."""
    rotation, translation = poses[..., :3], poses[..., 3]
    centres = -np.einsum("mnji,mnj->mni", rotation, translation)
    # Around the track's own cameras and in units of their spread the normal equations below are
    # well conditioned, wherever the map has its origin.
    origin = centres.mean(1)
    scale = np.maximum(np.linalg.norm(centres - origin[:, None], axis=-1).max(1), 1e-12)
    shifted = np.einsum("mnij,mj->mni", rotation, origin) + translation
    local = np.concatenate([rotation * scale[:, None, None, None], shifted[..., None]], -1)
    usable = np.isfinite(rays).all((1, 2)) & np.isfinite(local).all((1, 2, 3))
    rays, local = (
        np.where(usable[:, None, None], rays, 0),
        np.where(usable[:, None, None, None], local, 0),
    )
    equations = rays[..., None] * local[..., 2:3, :] - local[..., :2, :]  # (m, n, 2, 4)
    normal = np.einsum("mnki,mnkj->mij", equations, equations)
    _, vectors = np.linalg.eigh(normal)
    smallest = vectors[:, :, 0]
    with np.errstate(all="ignore"):
        x = smallest[:, :3] / smallest[:, 3:]
        x = _refine(x, rays, local, iterations)
        in_camera = np.einsum("mnij,mj->mni", local[..., :3], x) + local[..., 3]
        usable &= np.isfinite(x).all(1) & (in_camera[..., 2] > 0).all(1)
        point = origin + scale[:, None] * x
        directions = point[:, None] - centres
        directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
        cosine = np.einsum("mai,mbi->mab", directions, directions).min((1, 2))
    point[~usable] = np.nan
    angle = np.degrees(np.arccos(np.clip(np.nan_to_num(cosine, nan=1.0), -1, 1)))
    return point, np.where(usable, angle, 0.0)


def _refine(x: np.ndarray, rays: np.ndarray, poses: np.ndarray, iterations: int) -> np.ndarray:
    """Gauss-Newton on the plane z = 1, keeping for each track only the steps that help."""

    def residuals(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        in_camera = np.einsum("mnij,mj->mni", poses[..., :3], x) + poses[..., 3]
        projected = in_camera[..., :2] / in_camera[..., 2:]
        r = projected - rays
        cost = np.where((in_camera[..., 2] > 0).all(1), (r**2).sum((1, 2)), np.inf)
        return r, in_camera, np.where(np.isfinite(cost), cost, np.inf)

    r, in_camera, cost = residuals(x)
    for _ in range(iterations):
        jacobian = (
            poses[..., :2, :3]
            - (in_camera[..., :2] / in_camera[..., 2:])[..., None] * poses[..., 2:3, :3]
        ) / in_camera[..., 2:, None]
        hessian = np.einsum("mnki,mnkj->mij", jacobian, jacobian)
        gradient = np.einsum("mnki,mnk->mi", jacobian, r)
        good = np.isfinite(hessian).all((1, 2)) & np.isfinite(gradient).all(1) & np.isfinite(cost)
        hessian[~good], gradient[~good] = np.eye(3), 0
        damping = 1e-9 * np.trace(hessian, axis1=1, axis2=2)
        step = np.linalg.solve(hessian + damping[:, None, None] * np.eye(3), gradient[..., None])
        trial = x - step[..., 0]
        r_new, in_camera_new, cost_new = residuals(trial)
        better = good & (cost_new < cost)
        if not better.any():
            break
        x = np.where(better[:, None], trial, x)
        r = np.where(better[:, None, None], r_new, r)
        in_camera = np.where(better[:, None, None], in_camera_new, in_camera)
        cost = np.where(better, cost_new, cost)
    return x


def reprojection_errors(
    xyz: np.ndarray,
    pixels: np.ndarray,
    cameras: list[pycolmap.Camera],
    camera_index: np.ndarray,
    cam_from_world: np.ndarray,
    image_of_pixel: np.ndarray,
) -> np.ndarray:
    """Distance in pixels of each observation from its point's projection.

    Args:
        xyz: (n, 3) float64, the point of each observation.
        pixels: (n, 2) observations, COLMAP's convention.
        cameras, camera_index, cam_from_world: of the I images, as in ``ReferenceMap``.
        image_of_pixel: (n,) image of each observation.

    Returns:
        (n,) float64; infinite for points behind the camera.
    """
    out = np.full(len(xyz), np.inf)
    poses = cam_from_world[image_of_pixel]
    in_camera = np.einsum("nij,nj->ni", poses[:, :, :3], xyz) + poses[:, :, 3]
    for row, camera in enumerate(cameras):
        mine = np.flatnonzero((camera_index[image_of_pixel] == row) & (in_camera[:, 2] > 0))
        if len(mine):
            projected = np.asarray(camera.img_from_cam(in_camera[mine]), np.float64)
            out[mine] = np.linalg.norm(projected - pixels[mine], axis=1)
    return np.where(np.isfinite(out), out, np.inf)
