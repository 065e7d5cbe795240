"""Rows of different lengths in one array."""

import numpy as np


def ragged(start: np.ndarray, count: np.ndarray) -> np.ndarray:
    """start[0], start[0] + 1, ... (count[0] of them), start[1], ..."""
    return np.arange(count.sum()) + np.repeat(start - (np.cumsum(count) - count), count)
