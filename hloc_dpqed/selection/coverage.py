"""A floor under every database image, whatever selector chose the points."""

import numpy as np

from .base import SelectionProblem
from .kcover import cover_order


def coverage_level(problem: SelectionProblem, rows: np.ndarray) -> int:
    """The largest K for which every image has K of the points ``rows``, or all of its points."""
    visibility = problem.visibility
    chosen = np.zeros(problem.num_points, bool)
    chosen[rows] = True
    image = visibility.image_of_observation()
    kept = np.bincount(image[chosen[visibility.indices]], minlength=visibility.num_images)
    available = np.diff(visibility.indptr)
    open_images = kept < available
    return int(kept[open_images].min() if open_images.any() else available.max(initial=0))


def ensure_coverage(
    problem: SelectionProblem, rows: np.ndarray, num_points: int, per_image: int
) -> np.ndarray:
    """Change a selection as little as needed to leave every image ``per_image`` of its points.

    Points are added by greedy K-cover; where that exceeds the budget, chosen points that no image
    needs go, short tracks first. An image with fewer points keeps all of them. Where the budget is
    below what greedy K-cover needs, the result is the greedy K-cover of the budget.

    Args:
        problem: the map.
        rows: (k,) the points chosen so far, k <= ``num_points``.
        num_points: the budget.
        per_image: points that every image must keep.

    Returns:
        (n,) int64, increasing, n <= ``num_points`` and n >= k.
    """
    rows = np.unique(np.asarray(rows, np.int64))
    added = cover_order(problem, problem.num_points, chosen=rows, max_level=per_image)
    excess = len(rows) + len(added) - num_points
    if len(added) == 0 or excess <= 0:
        return np.sort(np.r_[rows, added])
    both = np.sort(np.r_[rows, added])
    kept = _drop(problem, both, rows, excess, per_image)
    if len(kept) <= num_points:
        return kept
    cover = cover_order(problem, num_points, max_level=per_image)
    others = np.setdiff1d(rows, cover)
    others = others[_by_length(problem, others)][: num_points - len(cover)]
    return np.sort(np.r_[cover, others])


def _by_length(problem: SelectionProblem, rows: np.ndarray) -> np.ndarray:
    """Order of ``rows``: long tracks first, then low rows."""
    return np.lexsort((rows, -problem.visibility.track_lengths()[rows]))


def _drop(
    problem: SelectionProblem,
    rows: np.ndarray,
    candidates: np.ndarray,
    excess: int,
    per_image: int,
) -> np.ndarray:
    """Drop up to ``excess`` of the candidates from ``rows``, none that an image needs."""
    visibility = problem.visibility
    by_point, _ = visibility.transpose()
    chosen = np.zeros(problem.num_points, bool)
    chosen[rows] = True
    image = visibility.image_of_observation()
    kept = np.bincount(image[chosen[visibility.indices]], minlength=visibility.num_images)
    spare = kept - np.minimum(per_image, np.diff(visibility.indptr))
    for point in candidates[_by_length(problem, candidates)[::-1]]:
        if excess == 0:
            break
        images = by_point[point]
        if (spare[images] > 0).all():
            spare[images] -= 1
            chosen[point] = False
            excess -= 1
    return np.flatnonzero(chosen)
