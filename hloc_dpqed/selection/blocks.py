"""Cut a map into blocks of co-visible points, for solvers that need small problems."""

import numpy as np

from ..scene.spatial import image_order
from .base import SelectionProblem
from .kcover import cover_order


def covisible_blocks(problem: SelectionProblem, max_points: int) -> list[np.ndarray]:
    """Blocks of at most ``max_points`` points.

    Images are put in the order of a k-d tree over their centres; points are sorted by the middle
    one of their images in that order and cut into blocks of equal size. Source: ours.

    Returns:
        Increasing int64 rows of each block; every point is in one of them.
    """
    visibility = problem.visibility
    position = np.empty(visibility.num_images, np.int64)
    position[image_order(problem.cam_from_world)] = np.arange(visibility.num_images)
    by_point, _ = visibility.transpose()
    lengths = np.diff(by_point.indptr)
    owner = np.repeat(np.arange(problem.num_points), lengths)
    places = position[by_point.indices]
    places = places[np.lexsort((places, owner))]
    middle = np.zeros(problem.num_points, np.int64)
    seen = np.flatnonzero(lengths)
    middle[seen] = places[by_point.indptr[seen] + lengths[seen] // 2]
    order = np.lexsort((np.arange(problem.num_points), middle))
    count = -(-problem.num_points // max_points)
    return [np.sort(block) for block in np.array_split(order, count)]


def share_budget(
    problem: SelectionProblem, blocks: list[np.ndarray], num_points: int
) -> np.ndarray:
    """How many of ``num_points`` each block gets: as many as greedy K-cover takes from it."""
    block_of = np.empty(problem.num_points, np.int64)
    for b, rows in enumerate(blocks):
        block_of[rows] = b
    return np.bincount(block_of[cover_order(problem, num_points)], minlength=len(blocks))
