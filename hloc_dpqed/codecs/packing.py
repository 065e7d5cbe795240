"""Codebook indices to bytes and back, and how many centroids a map can carry."""

import warnings

import numpy as np

from ..errors import InputError


def codebooks_for(code_bytes: int, bits: int, name: str) -> int:
    """Number of indices of ``bits`` bits that fill ``code_bytes`` bytes.

    Raises:
        InputError: ``bits`` is neither 4 nor 8, or there is no byte.
    """
    if bits not in (4, 8):
        raise InputError(f"codec {name}: {bits} bits an index, expected 4 or 8")
    if code_bytes < 1:
        raise InputError(f"--code_bytes {code_bytes}: {name} needs at least 1")
    return code_bytes * 8 // bits


def num_centroids(rows: int, bits: int, name: str) -> int:
    """2 ** ``bits``, or fewer (with a warning) where there are fewer rows to fit them on.

    Raises:
        InputError: there is no row.
    """
    if rows == 0:
        raise InputError("the map has no observation to fit a codec on")
    wanted = 1 << bits
    if rows < wanted:
        warnings.warn(
            f"codec {name}: {rows} descriptors for {wanted} centroids, {rows} are used instead",
            stacklevel=3,
        )
    return min(wanted, rows)


def unpack_indices(codes: np.ndarray, bits: int) -> np.ndarray:
    """(N, M * bits / 8) uint8 codes to (N, M) uint8; with 4 bits the lower half comes first."""
    codes = np.asarray(codes, np.uint8)
    if bits == 8:
        return codes
    return np.stack([codes & 15, codes >> 4], 2).reshape(len(codes), -1)


def pack_bits(indices: np.ndarray, bits: list[int]) -> np.ndarray:
    """(N, M) indices of ``bits`` bits each (1 to 16) to (N, sum(bits) / 8) uint8.

    Index by index from the lowest bit of the first byte up.
    """
    codes = np.zeros((len(indices), sum(bits) // 8 + 2), np.uint8)
    start = 0
    for m, width in enumerate(bits):
        byte, shift = divmod(start, 8)
        value = indices[:, m].astype(np.uint32) << shift
        for i in range(3):
            if byte + i < codes.shape[1]:
                codes[:, byte + i] |= (value >> (8 * i) & 255).astype(np.uint8)
        start += width
    return np.ascontiguousarray(codes[:, :-2])


def unpack_bits(codes: np.ndarray, bits: list[int]) -> np.ndarray:
    """The inverse of ``pack_bits``: (N, M) int64."""
    padded = np.pad(np.asarray(codes, np.uint8), ((0, 0), (0, 2)))
    indices = np.empty((len(codes), len(bits)), np.int64)
    start = 0
    for m, width in enumerate(bits):
        byte, shift = divmod(start, 8)
        value = padded[:, byte].astype(np.uint32)
        value |= padded[:, byte + 1].astype(np.uint32) << 8
        value |= padded[:, byte + 2].astype(np.uint32) << 16
        indices[:, m] = value >> shift & ((1 << width) - 1)
        start += width
    return indices
