"""The baselines: everything, a random subset, the longest tracks."""

import numpy as np

from .base import SelectionProblem


def select_all(problem: SelectionProblem, num_points: int, *, seed: int = 0) -> np.ndarray:
    """Every point: (P,) int64."""
    return np.arange(problem.num_points, dtype=np.int64)


def select_random(problem: SelectionProblem, num_points: int, *, seed: int = 0) -> np.ndarray:
    """A uniform random subset of ``num_points`` points: (num_points,) int64, increasing."""
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(problem.num_points, num_points, replace=False)).astype(np.int64)


def select_track_length(problem: SelectionProblem, num_points: int, *, seed: int = 0) -> np.ndarray:
    """The points with the longest tracks; among equals the lowest reprojection error, then row.

    Returns:
        (num_points,) int64, increasing.
    """
    error = problem.reprojection_error
    error = np.where(error < 0, np.inf, error)  # unknown errors go last
    order = np.lexsort((np.arange(problem.num_points), error, -problem.visibility.track_lengths()))
    return np.sort(order[:num_points]).astype(np.int64)
