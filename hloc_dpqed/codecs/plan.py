"""How drqed spends its bytes: number and size of codebooks, their dimension, the decoder. Ours."""

from dataclasses import dataclass, field, replace

import numpy as np

from ..errors import InputError
from ..training.kmeans import latent_basis, left_over, residual_codebooks
from .shrink import GROUPS, basis_step

MISSING_ENERGY = 2e-3  # of the descriptors' energy, what the latent space may leave out
MISSING_SHARE = 0.2  # or this share of what the codes leave over, where that is more
MAX_BITS = 12  # of an index: a beam search over more centroids takes too long
POINTS_PER_CENTROID = 2  # at least, or the codebook is the map
NOISE_SHARE = 0.12  # of what the codes leave over, for the noise of coarsely stored entries
ENTRY_BITS = 1.4  # of an entropy-coded codebook entry at a step of one, as measured


@dataclass(frozen=True)
class CodebookPlan:
    """What ``plan_codebooks`` decided, and where training starts.

    Attributes:
        bits: of each index.
        latent: L, dimension of the centroids.
        budget: bytes of the stored codec.
        books: float32 (K_m, L) for each index: residual k-means.
        basis: (D, L) float32: principal axes.
    """

    bits: tuple[int, ...]
    latent: int
    budget: int
    books: list[np.ndarray] = field(repr=False, compare=False)
    basis: np.ndarray = field(repr=False, compare=False)


def planned_bytes(bits: tuple[int, ...], latent: int, dim: int, step: float) -> int:
    """About what the stored codec takes with entries of ``step``, in their root mean squares."""
    rows = sum(1 << b for b in bits)
    entry_bits = ENTRY_BITS - np.log2(step)
    basis_bits = 2.05 - np.log2(basis_step(step, rows, dim))  # entropy of a normal variable
    entries = rows * latent * entry_bits + dim * latent * np.clip(basis_bits, 1, 8)
    tables = 50 * GROUPS + 4 * len(bits) + 200
    return int(entries / 8) + tables


def planned_step(left: float) -> float:
    """The step whose noise, a twelfth of its square, is ``NOISE_SHARE`` of what codes leave over.

    Args:
        left: share of the descriptors' energy.
    """
    return (12 * NOISE_SHARE * max(left, 1e-3)) ** 0.5


def split_bits(total: int, largest: int) -> tuple[int, ...]:
    """``total`` bits as indices of ``largest`` bits and one of the rest."""
    rest = (total % largest,) if total % largest else ()
    return (largest,) * (total // largest) + rest


def plan_codebooks(
    rows: np.ndarray,
    code_bytes: int,
    budget: int | None = None,
    *,
    seed: int = 0,
    bits: list[int] | None = None,
    latent: int | None = None,
    used_bits: int | None = None,
) -> CodebookPlan:
    """The largest codebooks that fit the codec's byte budget.

    At a given code size a few large residual codebooks quantize better than many small ones, and
    cost more bytes. The latent dimension is the least that leaves out ``MISSING_ENERGY``, or
    ``MISSING_SHARE`` of what the codes leave over anyway; where not even the smallest codebooks
    fit, it shrinks further.

    Args:
        rows: (N, D) descriptors that will be encoded, N at least 1.
        code_bytes: bytes of one code.
        budget: bytes of the stored codec; by default those of float16 codebooks of 8-bit indices.
        seed: of the codebooks.
        bits, latent: given instead of planned.
        used_bits: of the ``code_bytes``, all by default.

    Raises:
        InputError: ``code_bytes`` is below 1, ``bits`` or ``used_bits`` do not fill it, or the
            budget holds nothing.
    """
    dim = rows.shape[1]
    if code_bytes < 1:
        raise InputError(f"--code_bytes {code_bytes}: drqed needs at least 1")
    total = 8 * code_bytes if used_bits is None else used_bits
    if not 8 * (code_bytes - 1) < total <= 8 * code_bytes:
        raise InputError(
            f"codec drqed: used_bits {used_bits}: expected {8 * code_bytes - 7} to "
            f"{8 * code_bytes} with --code_bytes {code_bytes}"
        )
    if bits is not None and (sum(bits) != total or not all(1 <= b <= 16 for b in bits)):
        raise InputError(f"codec drqed: bits {list(bits)} do not add up to {total}")
    if budget is None:
        budget = total * 32 * dim * 2
    choices = [tuple(bits or ())]
    if bits is None:
        widest = int(np.log2(max(len(rows) / POINTS_PER_CENTROID, 2)))
        largest = min(MAX_BITS, max(widest, 4), total)
        choices = [split_bits(total, b) for b in range(largest, 3, -1)]
    basis = latent_basis(rows, dim)
    projected = rows @ basis
    energy = (projected.astype(np.float64) ** 2).sum(0)
    missing = 1 - np.cumsum(energy) / max(energy.sum(), 1e-300)
    full = _whole_groups(latent or _least(missing, MISSING_ENERGY), dim)

    def start(split: tuple[int, ...], dims: int) -> list[np.ndarray]:
        sizes = [min(1 << b, len(rows)) for b in split]
        return residual_codebooks(np.ascontiguousarray(projected[:, :dims]), sizes, seed)

    # The fewest dimensions and the coarsest step that any outcome of the k-means could allow.
    fewest = full if latent else min(full, _whole_groups(_least(missing, MISSING_SHARE), dim))
    coarsest = planned_step(1.0)
    for split in choices:
        if planned_bytes(split, fewest, dim, coarsest) > budget:
            continue
        books = start(split, full)
        left = left_over(projected[:, :full], books, seed)
        dims = full
        if not latent:
            dims = min(full, _whole_groups(_least(missing, MISSING_SHARE * left), dim))
        if planned_bytes(split, dims, dim, planned_step(left)) <= budget:
            sliced = [np.ascontiguousarray(book[:, :dims]) for book in books]
            kept = np.ascontiguousarray(basis[:, :dims])
            return _filled(CodebookPlan(split, dims, budget, sliced, kept), code_bytes)
    # Nothing fits whole: the smallest codebooks in fewer dimensions.
    for split in choices[::-1]:
        for dims in range(full, 0, -GROUPS):
            if planned_bytes(split, dims, dim, coarsest) <= budget:
                kept = np.ascontiguousarray(basis[:, :dims])
                smallest = CodebookPlan(split, dims, budget, start(split, dims), kept)
                return _filled(smallest, code_bytes)
    raise InputError(f"codec drqed: no codec of {dim} dimensions fits {budget} bytes")


def _filled(plan: CodebookPlan, code_bytes: int) -> CodebookPlan:
    """The plan with an index that is always 0 for the bits of the last byte that it leaves.

    Its codebook has one centroid, of zeros to begin with. The map file's entropy coder stores bits
    that are always zero in nothing.
    """
    rest = 8 * code_bytes - sum(plan.bits)
    if rest == 0:
        return plan
    empty = np.zeros((1, plan.latent), np.float32)
    return replace(plan, bits=(*plan.bits, rest), books=[*plan.books, empty])


def _least(missing: np.ndarray, share: float) -> int:
    """How many principal axes leave out at most ``share`` of the energy."""
    return min(int(np.argmax(missing <= share)) + 1, len(missing))


def _whole_groups(latent: int, dim: int) -> int:
    """``latent`` rounded up to whole groups of columns, where ``dim`` has as many."""
    return min(-(-latent // GROUPS) * GROUPS, max(dim // GROUPS * GROUPS, min(dim, GROUPS)))
