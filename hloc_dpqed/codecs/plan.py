"""How a codec spends its bytes: number and size of codebooks, their dimension, the decoder."""

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..training.kmeans import effective_dimension
from .shrink import GROUPS, basis_step

MISSING_ENERGY = 2e-3  # of the descriptors' energy, what the latent space leaves out
TOLERATED_ENERGY = 1e-2  # what it may leave out where that pays for larger codebooks
MAX_BITS = 12  # of an index: a beam search over more centroids takes too long
POINTS_PER_CENTROID = 2  # at least, or the codebook is the map
HIDDEN = 64  # width of the perceptron: 2 million codes a second allow no more
STEP = 0.7  # of a stored entry with codes of one byte, in root mean squares; see planned_step
ENTRY_BITS = 1.4  # of an entropy-coded codebook entry at a step of one, as measured


@dataclass(frozen=True)
class CodebookPlan:
    """What ``plan_codebooks`` decided.

    Attributes:
        bits: of each index.
        latent: dimension of the centroids.
        hidden: width of the perceptron, 0 for none.
        budget: bytes of the stored codec.
    """

    bits: tuple[int, ...]
    latent: int
    hidden: int
    budget: int

    def nbytes(self, dim: int) -> int:
        """About what the stored codec takes with entries of the planned step."""
        rows, step = sum(1 << b for b in self.bits), planned_step(sum(self.bits) // 8)
        entry_bits = ENTRY_BITS - np.log2(step)
        basis_bits = 2.05 - np.log2(basis_step(step, rows, dim))  # entropy of a normal variable
        entries = rows * self.latent * entry_bits + dim * self.latent * np.clip(basis_bits, 1, 8)
        tables = 50 * GROUPS + 4 * len(self.bits) + 200
        perceptron = self.hidden * (self.latent + dim + 2) + 2 * dim if self.hidden else 0
        return int(entries / 8) + tables + perceptron


def planned_step(code_bytes: int) -> float:
    """The step of the entries, in their root mean square, for which codebooks are planned.

    The noise of the entries must shrink with the error that the code leaves: longer codes want
    finer entries, shorter ones more centroids.
    """
    return STEP / max(code_bytes, 1) ** 0.5


def split_bits(total: int, largest: int) -> tuple[int, ...]:
    """``total`` bits as indices of ``largest`` bits and one of the rest."""
    rest = (total % largest,) if total % largest else ()
    return (largest,) * (total // largest) + rest


def plan_codebooks(
    rows: np.ndarray,
    code_bytes: int,
    budget: int | None = None,
    *,
    bits: list[int] | None = None,
    latent: int | None = None,
    hidden: int | None = None,
) -> CodebookPlan:
    """The largest codebooks that fit the codec's byte budget.

    At a given code size a few large residual codebooks quantize better than many small ones, and
    cost more bytes. The latent dimension is what the descriptors fill (``MISSING_ENERGY``), or less
    (``TOLERATED_ENERGY``) where that pays for larger codebooks; where not even the smallest
    codebooks fit, it shrinks further.

    Args:
        rows: (N, D) descriptors that will be encoded.
        code_bytes: bytes of one code.
        budget: bytes of the stored codec; by default those of float16 codebooks of 8-bit indices.
        bits, latent, hidden: given instead of planned.

    Raises:
        InputError: ``code_bytes`` is below 1, ``bits`` do not fill it, or the budget holds nothing.
    """
    dim = rows.shape[1]
    if code_bytes < 1:
        raise InputError(f"--code_bytes {code_bytes}: drqed needs at least 1")
    total = 8 * code_bytes
    if bits is not None and (sum(bits) != total or not all(1 <= b <= 16 for b in bits)):
        raise InputError(f"codec drqed: bits {list(bits)} do not add up to {total}")
    if budget is None:
        budget = code_bytes * 256 * dim * 2
    full = _whole_groups(latent or effective_dimension(rows, MISSING_ENERGY), dim)
    widest = int(np.log2(max(len(rows) / POINTS_PER_CENTROID, 2)))
    choices = [tuple(bits or ())]
    if bits is None:
        largest = min(MAX_BITS, max(widest, 4), total)
        choices = [split_bits(total, b) for b in range(largest, 3, -1)]
    widths = (HIDDEN, HIDDEN // 2, HIDDEN // 4, 0) if hidden is None else (hidden,)
    least = full
    if not latent:
        least = min(full, _whole_groups(effective_dimension(rows, TOLERATED_ENERGY), dim))
    for split in choices:
        for width in widths:
            plan = CodebookPlan(split, full, width, budget)
            if plan.nbytes(dim) <= budget:
                return plan
        for smaller in range(full - GROUPS, least - 1, -GROUPS):
            plan = CodebookPlan(
                split, smaller, hidden if hidden is not None else HIDDEN // 4, budget
            )
            if plan.nbytes(dim) <= budget:
                return plan
    # Nothing fits whole: the smallest codebooks in fewer dimensions.
    for split in choices[::-1]:
        for smaller in range(full - GROUPS, 0, -GROUPS):
            plan = CodebookPlan(split, smaller, widths[-1], budget)
            if plan.nbytes(dim) <= budget:
                return plan
    raise InputError(f"codec drqed: no codec of {dim} dimensions fits {budget} bytes")


def _whole_groups(latent: int, dim: int) -> int:
    """``latent`` rounded up to whole groups of columns, where ``dim`` has as many."""
    return min(-(-latent // GROUPS) * GROUPS, max(dim // GROUPS * GROUPS, min(dim, GROUPS)))
