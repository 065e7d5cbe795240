"""Greedy set K-cover: every image keeps at least K points, as few points as possible.

Source: Li, Snavely, Huttenlocher, "Location Recognition using Prioritized Feature Matching",
ECCV 2010 (section 4), where points are added greedily by how many not yet covered images see them.
"""

import numpy as np

from ..errors import InputError
from .base import SelectionProblem


def select_kcover(problem: SelectionProblem, num_points: int, *, seed: int = 0) -> np.ndarray:
    """Exactly ``num_points`` points by greedy K-cover with a K that grows.

    K is raised in rounds: each round adds points until every image has K of its points (or all of
    them), so that the budget is spent evenly; the gain of a point is the number of images below K
    that see it, and among equal gains the longer track, then the lower row wins.

    Returns:
        (num_points,) int64, increasing.
    """
    return np.sort(cover_order(problem, num_points))


def kcover_order(problem: SelectionProblem, num_points: int, *, seed: int = 0) -> np.ndarray:
    """The first ``num_points`` points in the order in which greedy K-cover adds them: int64."""
    return cover_order(problem, num_points)


def cover_size(problem: SelectionProblem, per_image: int) -> int:
    """How many points greedy K-cover needs to leave every image ``per_image`` points (or all)."""
    return len(cover_order(problem, problem.num_points, max_level=per_image))


def cover_order(
    problem: SelectionProblem,
    num_points: int,
    *,
    chosen: np.ndarray | None = None,
    max_level: int | None = None,
) -> np.ndarray:
    """The points that greedy K-cover adds, in its order.

    Args:
        problem: the map.
        num_points: how many to add at most.
        chosen: rows of points that are kept already and count as coverage, or None.
        max_level: stop when every image has this many points (or all of its points); None goes on
            until the budget is spent, with the points that no image sees last.

    Returns:
        (n,) int64 rows, n <= ``num_points``, none of them in ``chosen``.

    Raises:
        InputError: ``max_level`` is negative.
    """
    if max_level is not None and max_level < 0:
        raise InputError(f"{max_level} points for each image: expected at least 0")
    visibility = problem.visibility
    lengths = visibility.track_lengths()
    # Points are renamed by preference (long tracks, then low rows), so that the greedy choice
    # among equal gains is the lowest name.
    by_rank = np.lexsort((np.arange(problem.num_points), -lengths))
    rank = np.empty_like(by_rank)
    rank[by_rank] = np.arange(len(by_rank))
    by_image = rank[visibility.indices]
    indptr = visibility.indptr
    by_point, _ = visibility.transpose()
    starts = by_point.indptr[by_rank]
    stops = starts + lengths[by_rank]
    images = by_point.indices

    available = np.diff(indptr)
    covered = np.zeros(visibility.num_images, np.int64)
    taken = np.zeros(problem.num_points, bool)
    if chosen is not None:
        taken[rank[np.asarray(chosen, np.int64)]] = True
        in_images = np.add.reduceat(np.r_[taken[by_image], False].astype(np.int64), indptr[:-1])
        covered = np.where(available > 0, in_images, 0)
    num_points = min(num_points, problem.num_points - int(taken.sum()))

    order: list[int] = []
    level = 0
    limit = int(available.max(initial=0)) if max_level is None else max_level
    while len(order) < num_points:
        # The next level that any image can still reach: below it nothing is uncovered.
        open_images = covered < np.minimum(available, limit)
        if not open_images.any():
            break
        level = max(level, int(covered[open_images].min())) + 1
        target = np.minimum(level, available)
        lacking = (target - covered).clip(0)
        gains = _gains(by_image, indptr, lacking > 0, len(taken))
        gains[taken] = -1
        _round(
            gains, taken, lacking, covered, images, starts, stops, by_image, indptr, num_points,
            order,
        )  # fmt: skip
    if max_level is None and len(order) < num_points:  # points that no image sees
        order += np.flatnonzero(~taken)[: num_points - len(order)].tolist()
    return by_rank[np.array(order, np.int64)].astype(np.int64)


def _gains(
    by_image: np.ndarray, indptr: np.ndarray, open_images: np.ndarray, num_points: int
) -> np.ndarray:
    """How many of the open images see each point: (num_points,) int32."""
    seen = by_image[np.repeat(open_images, np.diff(indptr))]
    return np.bincount(seen, minlength=num_points).astype(np.int32)


def _round(
    gains: np.ndarray,
    taken: np.ndarray,
    lacking: np.ndarray,
    covered: np.ndarray,
    images: np.ndarray,
    starts: np.ndarray,
    stops: np.ndarray,
    by_image: np.ndarray,
    indptr: np.ndarray,
    num_points: int,
    order: list[int],
) -> None:
    """One round of the cover: add points until no image lacks any; arrays change in place.

    Gains are kept exact: when an image is covered, those of its points drop by one, so that a
    round touches each observation once. They only shrink, hence no point ever rises into the
    gain that is being worked on, and one pass over the points of each gain is enough.
    """
    still_open = int(np.count_nonzero(lacking))
    for gain in range(int(gains.max(initial=0)), 0, -1):
        candidates = np.flatnonzero(gains == gain)
        position, step = 0, 16
        while position < len(candidates):
            # Skip over the points whose gain has dropped since, in growing steps.
            part = candidates[position : position + step]
            hits = gains[part] == gain
            first = int(hits.argmax())
            if not hits[first]:
                position += len(part)
                step = min(2 * step, 1 << 16)
                continue
            position, step = position + first + 1, 16
            point = int(part[first])
            order.append(point)
            taken[point], gains[point] = True, -1
            for image in images[starts[point] : stops[point]].tolist():
                covered[image] += 1
                if lacking[image] > 0:
                    lacking[image] -= 1
                    if lacking[image] == 0:
                        gains[by_image[indptr[image] : indptr[image + 1]]] -= 1
                        still_open -= 1
            if len(order) == num_points or still_open == 0:
                return
