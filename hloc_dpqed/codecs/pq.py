"""Product quantization with faiss, plain and after a learned rotation: the baselines.

Sources: Jégou, Douze, Schmid, "Product Quantization for Nearest Neighbor Search", TPAMI 2011; Ge,
He, Ke, Sun, "Optimized Product Quantization", CVPR 2013.
"""

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..scene.reference import Observations
from ..threads import spread_rows
from .base import BLOCK_ROWS, ArrayCodec, project, unit_rows
from .entries import entries_from_arrays, entries_to_arrays
from .packing import codebooks_for, num_centroids, unpack_indices

if TYPE_CHECKING:
    import faiss

MAX_TRAINING_ROWS = 65_536  # 256 a centroid, where faiss itself starts to subsample
FAR = 1e4  # a coordinate that no unit vector is near: pads codebooks to the size faiss expects


def training_rows(observations: Observations, seed: int, at_least: int = 256) -> np.ndarray:
    """Up to MAX_TRAINING_ROWS observations as (n, D) float32, drawn with ``seed``.

    Fewer than ``at_least`` observations are repeated, so that k-means always has enough rows; the
    surplus centroids are then copies.
    """
    count = len(observations)
    if count == 0:
        raise InputError("the map has no observation to fit a codec on")
    if count > MAX_TRAINING_ROWS:
        rows = np.random.default_rng(seed).choice(count, MAX_TRAINING_ROWS, replace=False)
        return observations.descriptors[np.sort(rows)].astype(np.float32)
    x = observations.descriptors.astype(np.float32)
    return np.resize(x, (max(count, at_least), x.shape[1]))


def pad_centroids(centroids: np.ndarray, bits: int) -> np.ndarray:
    """(M, K, d) to (M, 2 ** bits, d), with centroids that are never the nearest."""
    missing = (1 << bits) - centroids.shape[1]
    return np.pad(centroids, ((0, 0), (0, missing), (0, 0)), constant_values=FAR)


def product_quantizer(centroids: np.ndarray, bits: int) -> "faiss.ProductQuantizer":
    """faiss's quantizer with (M, K, d) float32 centroids, K at most 2 ** ``bits``."""
    import faiss

    m, _, sub = centroids.shape
    quantizer = faiss.ProductQuantizer(m * sub, m, bits)
    padded = pad_centroids(centroids, bits)
    faiss.copy_array_to_vector(np.ascontiguousarray(padded).ravel(), quantizer.centroids)
    return quantizer


def product_codes(
    quantizer: "faiss.ProductQuantizer", descriptors: np.ndarray, rotation: np.ndarray | None = None
) -> np.ndarray:
    """Codes of (N, D) descriptors, first times ``rotation``' if given: (N, code_size) uint8."""
    codes = np.empty((len(descriptors), quantizer.code_size), np.uint8)

    def block(rows: slice) -> None:
        own = np.ascontiguousarray(descriptors[rows], np.float32)
        if rotation is not None:
            own = project(own, rotation.T)
        codes[rows] = quantizer.compute_codes(own)

    spread_rows(block, len(codes), BLOCK_ROWS)
    return codes


def product_shape(
    observations: Observations, code_bytes: int, bits: int, name: str
) -> tuple[int, int]:
    """Number of codebooks of the codec ``name`` and of centroids in each.

    Raises:
        InputError: the dimension cannot be divided into so many sub-vectors.
    """
    m = codebooks_for(code_bytes, bits, name)
    if observations.dim % m:
        raise InputError(
            f"--code_bytes {code_bytes}: {name} with {bits} bits an index needs {m} sub-vectors of "
            f"equal size, the descriptors have {observations.dim} dimensions"
        )
    return m, num_centroids(len(observations), bits, name)


class PQCodec(ArrayCodec):
    """Codebooks of K centroids over D / M dimensions each.

    Attributes:
        centroids: (M, K, D / M) float32, the values that are stored.
        bits: of an index.
        rotation: (D, D) float32 of the descriptors before they are encoded, or None.
    """

    name = "pq"
    rotation: np.ndarray | None = None

    def __init__(self, arrays: dict[str, np.ndarray], bits: int):
        self._arrays, self.bits = arrays, bits
        # Rounded first, so that encoding sees the centroids that will be stored.
        self.centroids = entries_from_arrays("centroids", arrays, 3)
        m, k, sub = self.centroids.shape
        if k > 1 << bits or m * bits % 8:
            raise InputError("the codec's centroids are missing or have a wrong shape")
        self.dim, self.code_size = m * sub, m * bits // 8

    @functools.cached_property
    def _pq(self) -> "faiss.ProductQuantizer":
        """What encoding needs; a map that is only read does without."""
        return product_quantizer(self.centroids, self.bits)

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
    ) -> "PQCodec":
        """Fit with faiss.

        Args:
            bits: of an index, 8 or 4.
            entries: 'float16', 'int8' or 'int4', how centroids are stored.
        """
        rows = training_rows(observations, seed, 1)
        m, k = product_shape(observations, code_bytes, bits, cls.name)
        centroids = train_product(rows, m, k, seed)
        return cls(entries_to_arrays("centroids", centroids, entries, parts=m), bits)

    def encode(self, descriptors: np.ndarray) -> np.ndarray:
        return product_codes(self._pq, descriptors, self.rotation)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        out = np.empty((len(codes), self.dim), np.float32)
        padded = pad_centroids(self.centroids, self.bits)
        books = np.arange(len(padded))

        def block(rows: slice) -> None:
            indices = unpack_indices(codes[rows], self.bits)
            decoded = unit_rows(padded[books, indices].reshape(len(indices), self.dim))
            if self.rotation is not None:
                # As stored it is slightly other than orthogonal: normalised again.
                decoded = unit_rows(project(decoded, self.rotation))
            out[rows] = decoded

        spread_rows(block, len(codes), BLOCK_ROWS)
        return out

    def config(self) -> dict[str, Any]:
        return {**super().config(), "bits": self.bits}

    @classmethod
    def from_tensors(cls, tensors: dict[str, np.ndarray], config: dict[str, Any]) -> "PQCodec":
        # The first maps did not tell: they had 8.
        return cls(dict(tensors), cls.stored_bits({"bits": 8, **config}))


class OPQCodec(PQCodec):
    """A learned rotation of the descriptors, then product quantization.

    Attributes:
        rotation: (D, D) float32, the values that are stored.
    """

    name = "opq"

    def __init__(self, arrays: dict[str, np.ndarray], bits: int):
        super().__init__(arrays, bits)
        self.rotation = entries_from_arrays("rotation", arrays, 2)
        if self.rotation.shape != (self.dim, self.dim):
            raise InputError("the codec's rotation is missing or has a wrong shape")

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
    ) -> "OPQCodec":
        """Fit with faiss; the options are those of ``PQCodec.fit``.

        Maps of fewer observations than dimensions keep their axes: they determine no rotation.
        """
        rows = training_rows(observations, seed, 1)
        import faiss

        m, k = product_shape(observations, code_bytes, bits, cls.name)
        rotation = np.eye(observations.dim, dtype=np.float32)
        if len(rows) >= max(observations.dim, 1 << bits):
            matrix = faiss.OPQMatrix(observations.dim, m)
            matrix.pq = faiss.ProductQuantizer(observations.dim, m, bits)
            matrix.pq.cp.seed = seed + 1
            matrix.pq.cp.min_points_per_centroid = 1
            matrix.train(rows)
            rotation = faiss.vector_to_array(matrix.A).reshape(observations.dim, -1)
        arrays = entries_to_arrays("rotation", rotation, entries)
        stored = entries_from_arrays("rotation", arrays, 2)
        centroids = train_product(rows @ stored.T, m, k, seed)
        return cls(arrays | entries_to_arrays("centroids", centroids, entries, parts=m), bits)


def train_product(rows: np.ndarray, m: int, k: int, seed: int) -> np.ndarray:
    """faiss's k-means in each of ``m`` sub-spaces: (N, D) to (m, k, D / m) float32."""
    import faiss

    bits = int(k).bit_length() - 1
    if k == 1 << bits:
        pq = faiss.ProductQuantizer(rows.shape[1], m, bits)
        pq.cp.seed = seed + 1
        pq.cp.min_points_per_centroid = 1  # small maps are no cause for a warning
        pq.train(np.ascontiguousarray(rows, np.float32))
        return faiss.vector_to_array(pq.centroids).reshape(m, k, -1).copy()
    # Fewer rows than centroids: each row is a centroid.
    return np.stack(np.split(rows[:k], m, axis=1)).astype(np.float32)
