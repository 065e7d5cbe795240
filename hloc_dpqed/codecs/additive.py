"""Additive quantizers of faiss: residual, local search and product-residual quantization.

Sources: Babenko and Lempitsky, "Additive Quantization for Extreme Vector Compression", CVPR 2014
(beam search); Martinez et al., "LSQ++", ECCV 2018 (local search).
"""

from typing import Any, ClassVar

import faiss
import numpy as np

from ..errors import InputError
from ..scene.reference import Observations
from ..threads import single_threaded
from .base import ArrayCodec, unit_rows
from .entries import entries_from_arrays, entries_to_arrays
from .packing import codebooks_for, num_centroids, unpack_indices
from .pq import pad_centroids, training_rows

_CHUNK = 8192


class AdditiveCodec(ArrayCodec):
    """A descriptor is the normalised sum of one centroid of each codebook.

    Attributes:
        codebooks: (M, K, D / splits) float32, the values that are stored.
        bits: of an index.
        splits: sub-spaces, one after the other; each has M / splits codebooks.
    """

    default_splits: ClassVar[int] = 1

    def __init__(self, arrays: dict[str, np.ndarray], bits: int, splits: int):
        self._arrays, self.bits, self.splits = arrays, bits, splits
        self.codebooks = entries_from_arrays("codebooks", arrays, 3)
        m, k, sub = self.codebooks.shape
        if m % splits or k > 1 << bits or m * bits % 8:
            raise InputError("the codec's codebooks are missing or have a wrong shape")
        self.dim, self.code_size = sub * splits, m * bits // 8
        self._parts = []
        padded = pad_centroids(self.codebooks, bits)
        for books in np.split(padded, splits):
            part = self._quantizer(sub, m // splits, bits)
            faiss.copy_array_to_vector(np.ascontiguousarray(books).ravel(), part.codebooks)
            part.is_trained = True
            if isinstance(part, faiss.ResidualQuantizer):
                part.compute_codebook_tables()
            self._parts.append(part)

    @classmethod
    def _quantizer(cls, dim: int, m: int, bits: int):
        return faiss.ResidualQuantizer(dim, m, bits)

    @classmethod
    def fit(
        cls,
        observations: Observations,
        code_bytes: int,
        *,
        seed: int = 0,
        device: str = "cpu",
        progress: bool = False,
        bits: int = 8,
        entries: str = "float16",
        splits: int | None = None,
    ) -> "AdditiveCodec":
        """Fit with faiss.

        Args:
            bits: of an index, 8 or 4.
            entries: 'float16', 'int8' or 'int4', how centroids are stored.
            splits: sub-spaces of 'prq'.
        """
        rows = training_rows(observations, seed, 1)
        m = codebooks_for(code_bytes, bits, cls.name)
        splits = cls._splits(m, splits)
        if m % splits or observations.dim % splits:
            raise InputError(
                f"--code_bytes {code_bytes}: {cls.name} with {splits} sub-spaces needs a multiple "
                f"of {splits} indices and of dimensions"
            )
        k = num_centroids(len(observations), bits, cls.name)
        parts = [
            cls._train(np.ascontiguousarray(part), m // splits, k, bits, seed)
            for part in np.split(rows, splits, axis=1)
        ]
        books = entries_to_arrays("codebooks", np.concatenate(parts), entries, parts=m)
        return cls(books, bits, splits)

    @classmethod
    def _splits(cls, m: int, splits: int | None) -> int:
        if splits not in (None, 1):
            raise InputError(f"codec {cls.name}: splits is an option of prq only")
        return 1

    @classmethod
    def _train(cls, rows: np.ndarray, m: int, k: int, bits: int, seed: int) -> np.ndarray:
        sub = rows.shape[1]
        if k < 1 << bits:  # each row is a centroid of the first codebook, nothing is left
            books = np.zeros((m, k, sub), np.float32)
            books[0] = rows[:k]
            return books
        quantizer = cls._quantizer(sub, m, bits)
        cls._seed(quantizer, seed)
        # faiss's PCA wants more rows than dimensions.
        quantizer.train(np.resize(rows, (max(len(rows), 2 * sub), sub)))
        return faiss.vector_to_array(quantizer.codebooks).reshape(m, k, sub).copy()

    @classmethod
    def _seed(cls, quantizer: Any, seed: int) -> None:
        quantizer.cp.seed = seed + 1

    def encode(self, descriptors: np.ndarray) -> np.ndarray:
        x = np.asarray(descriptors, np.float32)
        if len(x) == 0:
            return np.zeros((0, self.code_size), np.uint8)
        parts = np.split(x, self.splits, axis=1)
        # One quantizer after the other, and each has whole bytes: M / splits indices.
        with single_threaded():  # the products within round otherwise with other threads
            codes = [
                q.compute_codes(np.ascontiguousarray(p))
                for q, p in zip(self._parts, parts, strict=True)
            ]
        return np.concatenate(codes, 1)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        indices = unpack_indices(codes, self.bits)
        indices = np.minimum(indices, self.codebooks.shape[1] - 1)
        out = np.zeros((len(codes), self.dim), np.float32)
        each, sub = len(self.codebooks) // self.splits, self.codebooks.shape[2]
        for start in range(0, len(codes), _CHUNK):
            rows = slice(start, start + _CHUNK)
            for m, book in enumerate(self.codebooks):
                first = m // each * sub
                out[rows, first : first + sub] += book[indices[rows, m]]
        return unit_rows(out, out)

    def config(self) -> dict[str, Any]:
        return {**super().config(), "bits": self.bits, "splits": self.splits}

    @classmethod
    def from_tensors(cls, tensors: dict[str, np.ndarray], config: dict[str, Any]):
        bits, splits = cls.stored_bits(config), config.get("splits")
        if type(splits) is not int or splits < 1:
            raise InputError(f"the codec's settings are not those of {cls.name}")
        return cls(dict(tensors), bits, splits)


class RQCodec(AdditiveCodec):
    """Residual quantization with beam search (faiss's ResidualQuantizer)."""

    name = "rq"


class LSQCodec(AdditiveCodec):
    """Local search quantization (faiss's LocalSearchQuantizer)."""

    name = "lsq"

    @classmethod
    def _quantizer(cls, dim: int, m: int, bits: int):
        quantizer = faiss.LocalSearchQuantizer(dim, m, bits)
        # How many indices a trial perturbs; faiss refuses more than there are.
        quantizer.nperts = min(quantizer.nperts, m)
        return quantizer

    @classmethod
    def _seed(cls, quantizer: Any, seed: int) -> None:
        quantizer.random_seed = seed + 1


class PRQCodec(AdditiveCodec):
    """Product of residual quantizers over 2 sub-spaces (faiss's ProductResidualQuantizer)."""

    name = "prq"

    @classmethod
    def _splits(cls, m: int, splits: int | None) -> int:
        return splits or (2 if m > 1 else 1)
