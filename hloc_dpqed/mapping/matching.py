"""Matches between the photos of a map."""

from collections.abc import Callable

import numpy as np
import pycolmap
import torch
from tqdm import tqdm

from ..io.features import ImageFeatures

RATIO = 0.85  # Lowe's ratio test between photos of the database, of SIFT
LEARNED_RATIO = 0.95  # of networks, whose wrong matches geometry sorts out
_EPIPOLAR = 3.0  # pixels off the epipolar line, where the poses are known


def ratio_of(extractor: str) -> float:
    """The ratio test for an extractor of ``mapping.extraction``."""
    return RATIO if "sift" in extractor else LEARNED_RATIO


def match_features(first: ImageFeatures, second: ImageFeatures, ratio: float = RATIO) -> np.ndarray:
    """Mutual nearest neighbours that pass the ratio test: (n, 2) int64 rows of both."""
    if min(len(first.descriptors), len(second.descriptors)) < 2:
        return np.zeros((0, 2), np.int64)
    similarity = torch.from_numpy(first.descriptors) @ torch.from_numpy(second.descriptors).T
    best, forward = similarity.max(1)
    backward = similarity.argmax(0)
    rows = torch.arange(len(forward))
    similarity[rows, forward] = -1
    distance, next_distance = 2 - 2 * best, 2 - 2 * similarity.max(1).values
    good = (backward[forward] == rows) & (distance < ratio**2 * next_distance)
    return torch.stack([rows[good], forward[good]], 1).numpy()


def match_pairs(
    features: dict[str, ImageFeatures],
    pairs: list[tuple[str, str]],
    progress: bool = True,
    ratio: float = RATIO,
    known: dict[tuple[str, str], np.ndarray] | None = None,
    found: Callable[[tuple[str, str], np.ndarray], None] | None = None,
) -> dict[tuple[str, str], np.ndarray]:
    """``match_features`` of every pair.

    Args:
        known: matches of pairs that an interrupted run left.
        found: called with each pair that is not among them, and its matches.
    """
    matches = dict(known or {})
    todo = [pair for pair in pairs if pair not in matches]
    with tqdm(
        total=len(pairs),
        initial=len(pairs) - len(todo),
        desc="Matching photos",
        disable=not progress,
    ) as bar:
        for a, b in todo:
            matches[a, b] = match_features(features[a], features[b], ratio)
            if found is not None:
                found((a, b), matches[a, b])
            bar.update()
    return {pair: matches[pair] for pair in pairs}


def epipolar_inliers(
    first: np.ndarray,
    second: np.ndarray,
    cameras: tuple[pycolmap.Camera, pycolmap.Camera],
    poses: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """Which matches lie within ``_EPIPOLAR`` pixels of each other's epipolar lines.

    Args:
        first, second: (n, 2) COLMAP pixels.
        cameras, poses: of the two photos; poses are (3, 4) [R | t], camera from world.

    Returns:
        (n,) bool.
    """
    rotation = poses[1][:, :3] @ poses[0][:, :3].T
    t = poses[1][:, 3] - rotation @ poses[0][:, 3]
    cross = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]])
    essential = cross @ rotation
    rays = []
    for pixels, camera in zip((first, second), cameras, strict=True):
        xy = np.asarray(camera.cam_from_img(np.ascontiguousarray(pixels, np.float64)))
        rays.append(np.column_stack([xy, np.ones(len(xy))]))
    lines = rays[0] @ essential.T, rays[1] @ essential
    residual = np.abs((rays[1] * lines[0]).sum(1))
    good = np.ones(len(first), bool)
    for line, camera in zip(lines, (cameras[1], cameras[0]), strict=True):
        pixels = residual / np.maximum(np.hypot(line[:, 0], line[:, 1]), 1e-12)
        good &= pixels * camera.mean_focal_length() < _EPIPOLAR
    return good
