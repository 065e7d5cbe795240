"""What tracks and descriptors say of a point's chance to be found again in a new image."""

from collections.abc import Callable, Sequence

import numpy as np
import pycolmap
import torch

from ..scene.projection import camera_centres
from ..scene.reference import Observations
from ..scene.visibility import Visibility
from ..threads import spread

_CHUNK = 1 << 16  # observations at a time, bounds the float32 copies of descriptors
_IMAGE_ROWS = 1024  # observations of an image at a time, bounds the matrix of similarities


def track_agreement(observations: Observations) -> np.ndarray:
    """Mean similarity of a point's observations to the mean of its other observations.

    Source: ours. Unlike the similarity to the mean of all, it does not favour short tracks.

    Returns:
        (P,) float32 in -1 .. 1, 0 for points with fewer than two observations.
    """
    count = observations.num_points
    order = np.argsort(observations.point_index, kind="stable")
    points = observations.point_index[order]
    lengths = np.bincount(points, minlength=count)
    ends = np.cumsum(lengths)
    out = np.zeros(count, np.float32)
    first_point = 0
    while first_point < count:
        begin = ends[first_point] - lengths[first_point]
        last_point = max(int(np.searchsorted(ends, begin + _CHUNK, "right")), first_point + 1)
        rows = order[begin : ends[last_point - 1]]
        own = points[begin : ends[last_point - 1]] - first_point
        first_point, base = last_point, first_point
        if len(rows) == 0:
            continue
        x = observations.descriptors[rows].astype(np.float32)
        starts = np.flatnonzero(np.r_[True, own[1:] != own[:-1]])
        n = np.diff(np.r_[starts, len(own)])
        total = _sum_runs(x, starts, n)
        group = np.repeat(np.arange(len(starts)), n)
        # With t the sum of all and x one of them: x (t - x) / |t - x|, without forming t - x.
        dot, norm = np.einsum("nd,nd->n", x, total[group]), np.einsum("nd,nd->n", x, x)
        rest = np.einsum("nd,nd->n", total, total)[group] - 2 * dot + norm
        similarity = (dot - norm) / np.sqrt(np.maximum(rest, 1e-12))
        mean = np.add.reduceat(similarity, starts) / n
        out[base + own[starts]] = np.where(n >= 2, np.clip(mean, -1, 1), 0)
    return out


def survival(observations: Observations, stored: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """How surely a point's observations find what the map stores for it, and it them.

    In each of its images, the point's observation and its stored descriptor are mutual nearest
    neighbours, or not, among the image's observations and what is stored for its points; of n
    observations with k such, (k + 1) / (n + 2). A codec that gives two points of an image nearly
    the same code, or a descriptor that another point has too, lowers it. Source: ours.

    Args:
        observations: L2-normalised.
        stored: gives the L2-normalised (n, D) float32 descriptors of (n,) int64 point rows.

    Returns:
        (P,) float64 in 0 .. 1, 0.5 for points without observations.
    """
    order = np.argsort(observations.image_index, kind="stable")
    cuts = np.flatnonzero(np.diff(observations.image_index[order])) + 1

    def survivors(rows: np.ndarray) -> np.ndarray:
        """Point rows of the observations (of one image) that find and are found."""
        points = observations.point_index[rows].astype(np.int64)
        keys = torch.from_numpy(stored(points)).T
        best = np.full(len(rows), -np.inf, np.float32)
        nearest_row = np.zeros(len(rows), np.int64)  # of each stored descriptor
        nearest_key = np.empty(len(rows), np.int64)
        for begin in range(0, len(rows), _IMAGE_ROWS):
            part = slice(begin, begin + _IMAGE_ROWS)
            described = observations.descriptors[rows[part]].astype(np.float32)
            similarity = (torch.from_numpy(described) @ keys).numpy()
            nearest_key[part] = similarity.argmax(1)
            own = similarity.argmax(0)
            highest = np.take_along_axis(similarity, own[None], 0)[0]
            better = highest > best
            best[better], nearest_row[better] = highest[better], own[better] + begin
        itself = np.arange(len(rows))
        return points[(nearest_key == itself) & (nearest_row == itself)]

    images = np.split(order, cuts) if len(order) else []
    found = np.concatenate([np.zeros(0, np.int64), *spread(survivors, images)])
    lengths = np.bincount(observations.point_index, minlength=observations.num_points)
    return (np.bincount(found, minlength=observations.num_points) + 1) / (lengths + 2)


def _sum_runs(x: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Sums of consecutive rows; much faster than ``np.add.reduceat`` on wide rows."""
    order = np.argsort(-lengths, kind="stable")
    out = x[starts[order]]
    for k in range(1, int(lengths.max(initial=0))):
        longer = int(np.searchsorted(-lengths[order], -k, "left"))
        out[:longer] += x[starts[order[:longer]] + k]
    result = np.empty_like(out)
    result[order] = out
    return result


def could_see(
    visibility: Visibility,
    xyz: np.ndarray,
    cameras: Sequence[pycolmap.Camera],
    camera_index: np.ndarray,
    cam_from_world: np.ndarray,
    *,
    max_angle: float = 30.0,
    max_scale: float = 1.6,
    num_neighbours: int = 20,
) -> np.ndarray:
    """In how many images each point could have been found, found or not.

    An image could see a point that one of its most co-visible images sees, when the point projects
    into it, from within ``max_angle`` degrees of the mean direction from which the point was seen
    and within a factor ``max_scale`` of the mean distance. Source: ours.

    Args:
        visibility, xyz, cameras, camera_index, cam_from_world: as in ``ReferenceMap``.

    Returns:
        (P,) int64, never less than the track's length.
    """
    by_point, _ = visibility.transpose()
    image, point = visibility.image_of_observation(), visibility.indices
    rotation, translation = cam_from_world[:, :, :3], cam_from_world[:, :, 3]
    centres = camera_centres(cam_from_world)
    ray = centres[image] - xyz[point]
    distance = np.maximum(np.linalg.norm(ray, axis=1), 1e-12)
    lengths = visibility.track_lengths()
    shares = np.maximum(lengths, 1)
    mean_ray = np.stack(
        [np.bincount(point, ray[:, k] / distance, minlength=len(xyz)) for k in range(3)], 1
    )
    mean_ray = mean_ray / np.maximum(np.linalg.norm(mean_ray, axis=1, keepdims=True), 1e-12)
    log_distance = np.bincount(point, np.log(distance), minlength=len(xyz)) / shares
    counts = lengths.astype(np.int64).copy()
    cosine = np.cos(np.radians(max_angle))
    for i in range(visibility.num_images):
        mine = visibility[i]
        if len(mine) == 0:
            continue
        rows = ranges(by_point.indptr[mine], by_point.indptr[mine + 1])
        shared = np.bincount(by_point.indices[rows], minlength=visibility.num_images)
        shared[i] = 0
        neighbours = np.argsort(-shared, kind="stable")[:num_neighbours]
        neighbours = neighbours[shared[neighbours] > 0]
        if len(neighbours) == 0:
            continue
        others = np.unique(np.concatenate([visibility[j] for j in neighbours]))
        others = others[~np.isin(others, mine, assume_unique=True)]
        in_camera = xyz[others] @ rotation[i].T + translation[i]
        front = in_camera[:, 2] > 0
        others, in_camera = others[front], in_camera[front]
        if len(others) == 0:
            continue
        camera = cameras[camera_index[i]]
        xy = np.asarray(camera.img_from_cam(in_camera), np.float64)
        inside = (xy >= 0).all(1) & (xy[:, 0] <= camera.width) & (xy[:, 1] <= camera.height)
        direction = centres[i] - xyz[others]
        away = np.maximum(np.linalg.norm(direction, axis=1), 1e-12)
        inside &= np.einsum("nd,nd->n", direction, mean_ray[others]) >= cosine * away
        inside &= np.abs(np.log(away) - log_distance[others]) <= np.log(max_scale)
        counts[others[inside]] += 1
    return counts


def ranges(starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Concatenated ``arange(start, stop)`` of all pairs."""
    lengths = stops - starts
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(total)


def reliability(
    visibility: Visibility,
    xyz: np.ndarray,
    cameras: Sequence[pycolmap.Camera],
    camera_index: np.ndarray,
    cam_from_world: np.ndarray,
    observations: Observations | None = None,
) -> np.ndarray:
    """Relative chance that a point is found and matched again in a new image that faces it.

    Source: ours. A logistic regression of 'is matched correctly in an image that was held out' on
    the statistics of tracks finds three of them useful: the length n of the track, the share
    n / m of the m images that could have seen the point, and the agreement a of its descriptors
    (0 where none are given). The product n^0.5 (n / m)^0.4 exp(2 a) has about their weights.

    Args:
        visibility, xyz, cameras, camera_index, cam_from_world: as in ``ReferenceMap``.
        observations: descriptors of the tracks, where they are known.

    Returns:
        (P,) float64, positive where the point has an observation, with mean 1 over those.
    """
    length = visibility.track_lengths().astype(np.float64)
    share = length / np.maximum(
        could_see(visibility, xyz, cameras, camera_index, cam_from_world), 1
    )
    agreement = np.zeros(len(xyz))
    if observations is not None:
        agreement = track_agreement(observations).astype(np.float64)
    value = np.sqrt(length) * (share + 0.02) ** 0.4 * np.exp(2 * agreement)
    seen = length > 0
    return np.where(seen, value / max(value[seen].mean(), 1e-12) if seen.any() else 0.0, 0.0)
