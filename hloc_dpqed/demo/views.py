"""Where the demo's photos are taken from, and in what light."""

import numpy as np
import pycolmap

from ..scene.projection import camera_centre
from .render import Light, Renderer

QUERY_CLEARANCE = 0.8  # metres between a query and every database camera
_FULL_WALK = 44  # views all around the monument
_SEEN = 0.6  # share of a query's pixels that two database views must see
_THUMBNAIL = (64, 48)


def look(centre: np.ndarray, yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Pose of a camera.

    Args:
        centre: (3,) in metres.
        yaw: heading in radians, from x towards y.
        pitch: radians upwards.
        roll: radians about the optical axis.

    Returns:
        (3, 4) float64 [R | t], camera from world; the camera looks along its z, y is down.
    """
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    down = np.cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    rotation = np.stack([c * right + s * down, c * down - s * right, forward])
    return np.column_stack([rotation, -rotation @ centre])


def pinhole(width: int, height: int, focal: float) -> pycolmap.Camera:
    """A PINHOLE camera whose focal length is ``focal`` times its width."""
    f = focal * width
    params = [f, f, width / 2, height / 2]
    return pycolmap.Camera(model="PINHOLE", width=width, height=height, params=params)


def database_poses(count: int, seed: int = 0) -> list[np.ndarray]:
    """A walk around the monument at eye height, looking past it, and at the walls ahead.

    Few views walk a part of the way, so that neighbours always overlap.
    """
    rng = np.random.default_rng([seed, 3])
    headings = (np.pi + 0.35, -0.28 * np.pi)
    poses = []
    for i in range(count):
        angle = 2 * np.pi * i / max(count, _FULL_WALK)
        centre = np.array([5.3 * np.cos(angle), 3.9 * np.sin(angle), 1.65])
        outwards = np.arctan2(centre[1], centre[0])
        centre += rng.normal(0, [0.15, 0.15, 0.05])
        yaw = outwards + headings[i % 2] + rng.normal(0, 0.06)
        poses.append(look(centre, yaw, 0.1 + rng.normal(0, 0.03), rng.normal(0, 0.01)))
    return poses


def query_poses(
    count: int,
    database: list[np.ndarray],
    database_camera: pycolmap.Camera,
    renderer: Renderer,
    camera: pycolmap.Camera,
    seed: int = 0,
) -> list[np.ndarray]:
    """Anywhere in the yard, at many headings and other heights, away from the database's walk.

    A pose is drawn again when it is within ``QUERY_CLEARANCE`` of a database camera, when
    something stands too near in front of it, or when it looks where the database did not.
    """
    rng = np.random.default_rng([seed, 4])
    centres = np.stack([camera_centre(pose) for pose in database])
    seen_by = _Thumbnails(renderer, database_camera, database)
    small = _thumbnail(camera)
    poses: list[np.ndarray] = []
    tries = 0
    while len(poses) < count:
        tries += 1
        centre = np.array([rng.uniform(-7.5, 7.5), rng.uniform(-5.6, 4.8), rng.uniform(1.0, 3.2)])
        yaw = 2 * np.pi * rng.random()
        pose = look(centre, yaw, rng.uniform(-0.1, 0.18), rng.normal(0, 0.05))
        if np.linalg.norm(centres - centre, axis=1).min() < QUERY_CLEARANCE:
            continue
        # Queries keep away from one another too, the less so the longer it takes.
        others = [np.linalg.norm(camera_centre(p) - centre) for p in poses]
        headings = [float(p[2, :3] @ pose[2, :3]) for p in poses]
        spread = 3.0 * 0.995**tries
        if any(d < spread and h > 0.5 for d, h in zip(others, headings, strict=True)):
            continue
        depth = renderer.depth(small, pose)
        surface = np.isfinite(depth)
        if surface.mean() < 0.6 or np.median(depth[surface]) < 5.0:
            continue
        if np.percentile(depth[surface], 2) < 1.0:
            continue
        if (seen_by.count(_points(small, pose, depth)[::7]) >= 2).mean() >= _SEEN:
            poses.append(pose)
    return poses


def _thumbnail(camera: pycolmap.Camera) -> pycolmap.Camera:
    """The same field of view with ``_THUMBNAIL`` pixels."""
    width, height = _THUMBNAIL
    scale = np.array([width / camera.width, height / camera.height] * 2)
    return pycolmap.Camera(
        model="PINHOLE", width=width, height=height, params=np.asarray(camera.params) * scale
    )


def _points(camera: pycolmap.Camera, pose: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """World points (n, 3) of the pixels that have a depth."""
    y, x = np.nonzero(np.isfinite(depth))
    rays = np.column_stack([x + 0.5, y + 0.5, np.ones(len(x))])
    local = rays @ np.linalg.inv(camera.calibration_matrix()).T * depth[y, x][:, None]
    return (local - pose[:, 3]) @ pose[:, :3]


class _Thumbnails:
    """Depth of the database views in few pixels, to count who sees a point."""

    def __init__(self, renderer: Renderer, camera: pycolmap.Camera, poses: list[np.ndarray]):
        self.camera = _thumbnail(camera)
        self.poses = poses
        self.depths = [renderer.depth(self.camera, pose) for pose in poses]

    def count(self, points: np.ndarray) -> np.ndarray:
        """How many views see each world point (n, 3), occlusion considered: (n,) int64."""
        total = np.zeros(len(points), np.int64)
        calibration = self.camera.calibration_matrix()
        for pose, depth in zip(self.poses, self.depths, strict=True):
            local = (points @ pose[:, :3].T + pose[:, 3]) @ calibration.T
            z = np.maximum(local[:, 2], 1e-6)
            x, y = np.clip(local[:, :2].T / z, -1, 1e4).astype(int)
            inside = (local[:, 2] > 0.1) & (x >= 0) & (y >= 0)
            inside &= (x < self.camera.width) & (y < self.camera.height)
            rows = np.flatnonzero(inside)
            total[rows] += z[rows] < 1.1 * depth[y[rows], x[rows]] + 0.1
        return total


def random_light(rng: np.random.Generator) -> Light:
    """Sun or overcast, warm or cold, a little over- or underexposed."""
    warm = rng.uniform(-0.08, 0.08)
    strength = rng.uniform(0.6, 1.8)
    return Light(
        sun=int(rng.integers(3)),
        sunlight=strength * np.array([1.08 + warm, 1.0, 0.9 - warm]),
        skylight=rng.uniform(0.4, 0.6) * np.array([0.92, 1.0, 1.1]),
        exposure=float(rng.uniform(1.3, 1.9) / (0.6 + 0.4 * strength)),
        gamma=float(rng.uniform(1.9, 2.4)),
        noise=float(rng.uniform(0.01, 0.025)),
        vignetting=float(rng.uniform(0.05, 0.25)),
    )
