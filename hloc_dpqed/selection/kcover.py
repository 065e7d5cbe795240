"""Greedy set K-cover: every image keeps at least K points, as few points as possible.

Source: Li, Snavely, Huttenlocher, "Location Recognition using Prioritized Feature Matching",
ECCV 2010 (section 4), where points are added greedily by how many not yet covered images see them.
"""

import heapq

import numpy as np

from .base import SelectionProblem


def select_kcover(problem: SelectionProblem, num_points: int, *, seed: int = 0) -> np.ndarray:
    """Exactly ``num_points`` points by greedy K-cover with a K that grows.

    K is raised in rounds: each round adds points until every image has K of its points (or all of
    them), so that the budget is spent evenly; the gain of a point is the number of images below K
    that see it, and among equal gains the longer track, then the lower row wins. The gains only
    shrink within a round, so a lazy heap gives the exact greedy choice.

    Returns:
        (num_points,) int64, increasing.
    """
    by_point, _ = problem.visibility.transpose()
    starts, images = by_point.indptr, by_point.indices
    lengths = np.diff(starts)
    available = np.diff(problem.visibility.indptr)
    covered = np.zeros(problem.visibility.num_images, np.int64)
    chosen = np.zeros(problem.num_points, bool)
    count, level = 0, 0
    while count < num_points:
        # The next level that any image can still reach: below it nothing is uncovered.
        open_images = covered < available
        if not open_images.any():
            break
        level = max(level, int(covered[open_images].min())) + 1
        target = np.minimum(level, available)
        candidates = np.flatnonzero(~chosen)
        needs = (covered < target).astype(np.int64)
        gains = np.add.reduceat(np.r_[needs[images], 0], starts[:-1]) * (lengths > 0)
        candidates = candidates[gains[candidates] > 0]
        heap = [(-int(gains[p]), -int(lengths[p]), int(p)) for p in candidates]
        heapq.heapify(heap)
        while heap and count < num_points:
            gain, length, point = heapq.heappop(heap)
            seen_by = images[starts[point] : starts[point + 1]]
            current = -int(np.count_nonzero(covered[seen_by] < target[seen_by]))
            if current == 0:
                continue
            if current != gain:
                heapq.heappush(heap, (current, length, point))
                continue
            chosen[point] = True
            covered[seen_by] += 1
            count += 1
    if count < num_points:  # points that no image sees
        rest = np.flatnonzero(~chosen)[: num_points - count]
        chosen[rest] = True
    return np.flatnonzero(chosen)
