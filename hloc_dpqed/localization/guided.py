"""Matches of keypoints with the points that a pose projects near them.

Where a camera roughly is tells which few points each keypoint can be: their descriptors alone are
compared, a thousandth of all pairs. As in tracking of SLAM systems, such as Mur-Artal, Montiel and
Tardos, "ORB-SLAM: A Versatile and Accurate Monocular SLAM System", T-RO 2015, section V.
"""

from __future__ import annotations

import numpy as np

from ..matching.nearest_neighbor import Matches


def pairs_within(
    keypoints: np.ndarray, projections: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of (n, 2) keypoints and (m, 2) projections at most ``radius`` pixels apart.

    Keypoints are sorted into square cells; a projection looks into nine of them.

    Returns:
        Rows of keypoints and of projections, (k,) int64 each, by projection.
    """
    if len(keypoints) == 0 or len(projections) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    low = np.minimum(keypoints.min(0), projections.min(0)) - radius
    cells = np.floor((keypoints - low) / radius).astype(np.int64)
    own = np.floor((projections - low) / radius).astype(np.int64)
    across = int(max(cells[:, 0].max(), own[:, 0].max())) + 2
    ids = cells[:, 1] * across + cells[:, 0]
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    # Three cells of a row are one range of the sorted keypoints.
    left = own[:, 1, None] * across + own[:, :1] - 1 + across * np.array([-1, 0, 1])
    first = np.searchsorted(ids, left.ravel())
    count = np.searchsorted(ids, left.ravel() + 3) - first
    rows = np.repeat(first - np.cumsum(count) + count, count) + np.arange(count.sum())
    of_keypoint = order[rows]
    of_projection = np.repeat(np.repeat(np.arange(len(own)), 3), count)
    off = keypoints[of_keypoint] - projections[of_projection]
    near = (off * off).sum(1) <= radius * radius
    return of_keypoint[near], of_projection[near]


def mutually_best(
    keypoints: np.ndarray, points: np.ndarray, similarity: np.ndarray, least: float
) -> Matches:
    """Of pairs those of which each side is the other's most similar one.

    Args:
        keypoints, points: (k,) int64 rows of each pair.
        similarity: (k,) float32; the first of equal ones wins.
        least: similarity that a pair needs.

    Returns:
        The matches, by keypoint.
    """
    best = np.zeros(len(keypoints), bool)
    order = np.argsort(-similarity, kind="stable")
    _, first = np.unique(keypoints[order], return_index=True)
    best[order[first]] = True
    _, first = np.unique(points[order], return_index=True)
    both = np.zeros(len(keypoints), bool)
    both[order[first]] = True
    kept = np.flatnonzero(best & both & (similarity >= least))
    kept = kept[np.argsort(keypoints[kept], kind="stable")]
    return Matches(np.stack([keypoints[kept], points[kept]], 1), similarity[kept])
