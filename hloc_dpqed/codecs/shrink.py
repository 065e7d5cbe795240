"""Codebooks and decoder of drqed as integers with a step as coarse as their bytes demand. Ours.

The map file entropy-codes arrays by columns, so that a coarser step costs fewer bytes without a
fixed number of bits. At equal bytes many coarse centroids quantize better than few fine ones.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..threads import steady_products
from .entries import entries_from_arrays

GROUPS = 8  # of the latent dimensions: those of a group share a table of the entropy coder
EXACT_LATENT = 1024  # up to which sums of products of two int8 are exact in float32
FINEST, COARSEST = 2.0**-6, 4.0  # steps, in root mean squares of the entries
NAMES = {"codebooks", "codebooks_scale", "basis", "basis_scale"}


@dataclass(frozen=True)
class Parameters:
    """What drqed decodes with.

    Attributes:
        books: M float32 arrays (K_m, L).
        basis: (D, L) float32.
    """

    books: Sequence[np.ndarray]
    basis: np.ndarray


def to_arrays(parameters: Parameters, step: float) -> dict[str, np.ndarray]:
    """The arrays that store ``parameters``.

    Args:
        step: of a codebook's entries, in units of their root mean square. That of the basis is
            ``basis_step``.
    """
    books = [_to_steps(book, step) for book in parameters.books]
    entries = np.concatenate([values for values, _ in books])
    rows, latent = entries.shape
    # Dimensions of like spread (the basis starts from principal axes) become one column.
    groups = math.gcd(latent, GROUPS)
    columns = entries.reshape(rows, groups, latent // groups).transpose(0, 2, 1)
    basis, scale = _to_steps(parameters.basis, basis_step(step, rows, len(parameters.basis)))
    return {
        "codebooks": np.ascontiguousarray(columns).reshape(-1, groups),
        "codebooks_scale": np.array([s for _, s in books], np.float32),
        "basis": basis,
        "basis_scale": np.array([scale], np.float32),
    }


def basis_step(step: float, rows: int, dim: int) -> float:
    """The step of the basis that goes with ``step`` for ``rows`` centroids, in its own RMS.

    A step of s adds s^2 / 12 of the energy as noise, and each entry costs -log2(s) bits: the sum of
    the noises at given bytes is least where their ratio is that of the numbers of entries.
    """
    return step * (dim / max(rows, 1)) ** 0.5


def _to_steps(values: np.ndarray, step: float) -> tuple[np.ndarray, float]:
    """int8 multiples of a scale, and that scale."""
    spread = float(np.sqrt((values.astype(np.float64) ** 2).mean()))
    scale = np.float32(max(step * spread, float(np.abs(values).max()) / 127, 1e-12))
    return np.clip(np.round(values / scale), -127, 127).astype(np.int8), float(scale)


def from_arrays(arrays: dict[str, np.ndarray], sizes: Sequence[int]) -> Parameters:
    """The inverse of ``to_arrays``.

    Args:
        sizes: K_m of each codebook.

    Raises:
        InputError: an array is missing, is unknown or has a wrong shape or type.
    """
    if arrays.keys() - NAMES:
        raise InputError(f"the codec has arrays that drqed lacks: {sorted(arrays.keys() - NAMES)}")
    basis = entries_from_arrays("basis", arrays, 2)
    latent = basis.shape[1]
    wrong = InputError("the codec's codebooks are missing or have a wrong shape")
    columns, scales = arrays.get("codebooks"), arrays.get("codebooks_scale")
    groups = math.gcd(latent, GROUPS)
    if columns is None or scales is None:
        raise wrong
    if columns.dtype != np.int8 or columns.shape != (sum(sizes) * latent // groups, groups):
        raise wrong
    if scales.dtype != np.float32 or scales.shape != (len(sizes),):
        raise wrong
    if not np.isfinite(scales).all():
        raise InputError("the codec's codebooks are not finite")
    cubes = columns.reshape(-1, latent // groups, groups).transpose(0, 2, 1)
    entries = cubes.reshape(-1, latent).astype(np.float32)
    parts = np.split(entries, np.cumsum(sizes)[:-1])
    books = [part * scale for part, scale in zip(parts, scales, strict=True)]
    return Parameters(books, basis)


def centroid_table(arrays: dict[str, np.ndarray], sizes: Sequence[int]) -> np.ndarray:
    """What each centroid adds to the descriptor: (sum of K_m, D) float32.

    Of ``arrays`` that ``from_arrays`` takes. The products of integers are exact in any order, so
    that the table has the same bits everywhere (docs/format.md, "Codes and codec").
    """
    basis, scale = arrays["basis"], np.ones(1, np.float32)
    latent = basis.shape[1]
    whole = basis.dtype == np.int8
    if whole:
        scale = arrays["basis_scale"]
    real: Any = np.float32 if whole and latent <= EXACT_LATENT else np.float64
    groups = math.gcd(latent, GROUPS)
    cubes = arrays["codebooks"].reshape(-1, latent // groups, groups).transpose(0, 2, 1)
    with steady_products():
        product = cubes.reshape(-1, latent).astype(real) @ basis.astype(real).T
    table = product.astype(np.float32, copy=False)
    first = 0
    for size, own in zip(sizes, arrays["codebooks_scale"], strict=True):
        table[first : first + size] *= own * scale
        first += size
    return table


def shrink(parameters: Parameters, budget: int) -> dict[str, np.ndarray]:
    """The arrays with the finest step whose bytes in a map file are within ``budget``.

    Where not even the coarsest step is, the arrays of the coarsest.
    """
    # The map file imports the codecs; what an array costs there is its own affair.
    from ..entropy.arrays import encode_arrays

    def cost(arrays: dict[str, np.ndarray]) -> int:
        return len(encode_arrays([arrays[name] for name in sorted(arrays)]))

    low, high = np.log2(FINEST), np.log2(COARSEST)
    best = to_arrays(parameters, FINEST)
    if cost(best) <= budget:
        return best
    best = to_arrays(parameters, COARSEST)
    for _ in range(10):
        middle = (low + high) / 2
        arrays = to_arrays(parameters, 2.0**middle)
        if cost(arrays) <= budget:
            best, high = arrays, middle
        else:
            low = middle
    return best
