"""Rigid motions as (3, 4) float64 matrices [R | t]: x in one frame is R x + t in the other."""

import numpy as np


def compose(c_from_b: np.ndarray, b_from_a: np.ndarray) -> np.ndarray:
    """The motion from a to c: first (3, 4) ``b_from_a``, then (3, 4) ``c_from_b``."""
    rotation = c_from_b[:, :3]
    moved = rotation @ b_from_a[:, 3] + c_from_b[:, 3]
    return np.concatenate([rotation @ b_from_a[:, :3], moved[:, None]], 1)


def inverse(b_from_a: np.ndarray) -> np.ndarray:
    """The motion from b to a, of (3, 4) ``b_from_a``."""
    back = b_from_a[:, :3].T
    return np.concatenate([back, -(back @ b_from_a[:, 3])[:, None]], 1)
