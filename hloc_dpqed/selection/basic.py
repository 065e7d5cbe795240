"""The baselines: everything, a random subset, the longest tracks."""

import numpy as np

from .base import SelectionProblem


def select_all(problem: SelectionProblem, num_points: int, *, seed: int = 0) -> np.ndarray:
    """Every point: (P,) int64."""
    return np.arange(problem.num_points, dtype=np.int64)


def random_order(problem: SelectionProblem, num_points: int, *, seed: int = 0) -> np.ndarray:
    """The first ``num_points`` of a uniform random order of all points: (num_points,) int64."""
    rng = np.random.default_rng(seed)
    return rng.permutation(problem.num_points)[:num_points].astype(np.int64)


def select_random(problem: SelectionProblem, num_points: int, *, seed: int = 0) -> np.ndarray:
    """A uniform random subset of ``num_points`` points: (num_points,) int64, increasing."""
    return np.sort(random_order(problem, num_points, seed=seed))


def track_length_order(problem: SelectionProblem, num_points: int, *, seed: int = 0) -> np.ndarray:
    """The longest tracks first; among equals the lowest reprojection error, then row.

    Returns:
        (num_points,) int64.
    """
    error = problem.reprojection_error
    error = np.where(error < 0, np.inf, error)  # unknown errors go last
    order = np.lexsort((np.arange(problem.num_points), error, -problem.visibility.track_lengths()))
    return order[:num_points].astype(np.int64)


def select_track_length(problem: SelectionProblem, num_points: int, *, seed: int = 0) -> np.ndarray:
    """The head of ``track_length_order``: (num_points,) int64, increasing."""
    return np.sort(track_length_order(problem, num_points, seed=seed))
