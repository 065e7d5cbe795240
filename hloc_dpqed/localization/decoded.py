"""The descriptors of a map, decoded once where they fit into memory."""

from __future__ import annotations

import threading

import numpy as np

from ..libraries import torch
from ..maps.compressed import CompressedMap
from ..matching import plain
from ..threads import single_threaded
from .direct import PointIndex

BASIS_ROWS = 1024  # decoded to find the directions that all descriptors lie in
BASIS_ENERGY = 2e-5  # of the descriptors, what those directions leave out
DECODE_ROWS = 1 << 10  # at a time, which bounds the memory


class DecodedMap:
    """Descriptors of a map's distinct codes.

    Points of equal codes decode to equal rows. They share one row here, so that rounding in the
    matrix product cannot break their tie: the lowest row of an image wins, as in hloc.

    Args:
        compressed: the map.
        on_basis: keep coordinates along the directions that the descriptors fill, see
            ``common_basis``.
        device: torch device.
        memory_limit: bytes; all are decoded once, at the first use, where they fit, else those
            that are asked for each time.

    Attributes:
        distinct: (k,) int64 lowest row of each distinct code.
        row_of_code: (N,) int64 position in ``distinct`` of each row of the map's codes.
        held: all descriptors; None before they are used, and where they do not fit.

    Threads may share one.
    """

    def __init__(self, compressed: CompressedMap, on_basis: bool, device: str, memory_limit: int):
        self._map = compressed
        self._device = device
        self.distinct, self.row_of_code = distinct_rows(compressed.codes)
        self._basis: torch.Tensor | None = self._common_basis() if on_basis else None
        self._width = compressed.codec.dim if self._basis is None else self._basis.shape[1]
        self._fits = len(self.distinct) * self._width * 4 <= memory_limit
        self.held: torch.Tensor | None = None
        self._index: PointIndex | None = None
        self._decoding, self._indexing = threading.Lock(), threading.Lock()

    def __len__(self) -> int:
        return len(self.distinct)

    def _common_basis(self) -> torch.Tensor | None:
        """Directions that the map's descriptors fill, (D, r) float32, None for all of them."""
        count = len(self.distinct)
        rows = np.unique(np.linspace(0, count - 1, min(count, BASIS_ROWS)).astype(np.int64))
        sample = self._map.codec.decode(self._map.codes[self.distinct[rows]])
        if torch is None:
            return plain.common_basis(sample, BASIS_ENERGY)
        with single_threaded():  # the basis is the same with any number of threads
            basis = common_basis(torch.from_numpy(sample))
        return None if basis is None else basis.to(self._device)

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        """On the device; the array itself where torch is not installed."""
        return array if torch is None else torch.from_numpy(array).to(self._device)

    def onto_basis(self, descriptors: torch.Tensor) -> torch.Tensor:
        """(n, D) descriptors as the rows here are: (n, r)."""
        return descriptors if self._basis is None else descriptors @ self._basis

    def _decode(self, rows: np.ndarray) -> torch.Tensor:
        """Descriptors of distinct codes, on the basis: (n, r) float32 on the device."""
        shape = len(rows), self._width
        if torch is None:
            out = np.empty(shape, np.float32)
        else:
            out = torch.empty(shape, device=self._device)
        for start in range(0, len(rows), DECODE_ROWS):
            part = slice(start, start + DECODE_ROWS)
            decoded = self._map.codec.decode(self._map.codes[self.distinct[rows[part]]])
            out[part] = self.onto_basis(self.tensor(decoded))
        return out

    def rows(self, rows: np.ndarray) -> torch.Tensor:
        """As ``_decode``, from memory where all descriptors fit there."""
        return self.all()[self.tensor(rows)] if self._fits else self._decode(rows)

    def all(self) -> torch.Tensor:
        """Every row, (k, r); not a copy where they are held."""
        if not self._fits:
            return self._decode(np.arange(len(self.distinct)))
        with self._decoding:
            if self.held is None:
                self.held = self._decode(np.arange(len(self.distinct)))
        return self.held

    def index(self) -> PointIndex:
        """An inverted file of all rows, made at the first use."""
        with self._indexing:
            if self._index is None:
                self._index = PointIndex(self.all().cpu())
        return self._index


def common_basis(descriptors: torch.Tensor) -> torch.Tensor | None:
    """Orthonormal directions that hold all but ``BASIS_ENERGY`` of the rows' energy.

    A codec with centroids of few dimensions decodes to a subspace. Similarities within it are those
    of the descriptors, and the matrix product is as much cheaper as it is smaller. Ours.

    Args:
        descriptors: (n, D) float32.

    Returns:
        (D, r) float32, or None where r would be more than three quarters of D, or n below 4 D.
    """
    count, dim = descriptors.shape
    if count < 4 * dim:
        return None
    energy, directions = torch.linalg.eigh(descriptors.T @ descriptors)
    missing = energy.clamp(min=0).cumsum(0) / energy.sum()  # from the weakest direction on
    rank = int((missing > BASIS_ENERGY).sum())
    return directions[:, dim - rank :].contiguous() if rank <= 0.75 * dim else None


def distinct_rows(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Group equal codes.

    Returns:
        (k,) int64 lowest row of each distinct code, increasing; and (N,) int64 for each row its
        position in that list.
    """
    if len(codes) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    flat = np.ascontiguousarray(codes).view(np.dtype((np.void, codes.shape[1]))).ravel()
    _, first, inverse = np.unique(flat, return_index=True, return_inverse=True)
    order = np.argsort(first)
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    return first[order].astype(np.int64), position[inverse.ravel()]
