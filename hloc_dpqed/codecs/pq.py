"""Product quantization with faiss: the baseline.

Source: Jégou, Douze, Schmid, "Product Quantization for Nearest Neighbor Search", TPAMI 2011.
"""

from typing import Any

import faiss
import numpy as np

from ..errors import InputError
from ..reference import Observations, normalise_rows
from .base import Codec

MAX_TRAINING_ROWS = 65_536  # 256 a centroid, where faiss itself starts to subsample


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


class PQCodec(Codec):
    """M = ``code_bytes`` codebooks of 256 centroids over D / M dimensions each.

    Attributes:
        centroids: (M, 256, D / M) float32, exactly representable in float16.
    """

    name = "pq"

    def __init__(self, centroids: np.ndarray):
        # Rounded first, so that encoding sees the centroids that will be stored.
        self.centroids = centroids.astype(np.float16).astype(np.float32)
        m, _, sub = centroids.shape
        self.dim, self.code_size = m * sub, m
        self._pq = faiss.ProductQuantizer(self.dim, m, 8)
        faiss.copy_array_to_vector(self.centroids.ravel(), self._pq.centroids)

    @classmethod
    def fit(
        cls,
        observations: Observations,
        code_bytes: int,
        *,
        seed: int = 0,
        device: str = "cpu",
        progress: bool = False,
    ) -> "PQCodec":
        if code_bytes < 1 or observations.dim % code_bytes:
            raise InputError(
                f"--code_bytes {code_bytes}: pq needs a divisor of the descriptor dimension "
                f"{observations.dim}"
            )
        pq = faiss.ProductQuantizer(observations.dim, code_bytes, 8)
        pq.cp.seed = seed + 1  # faiss takes 0 as any other seed, but warns of nothing
        pq.train(training_rows(observations, seed))
        centroids = faiss.vector_to_array(pq.centroids).reshape(code_bytes, 256, -1)
        return cls(centroids)

    def encode(self, descriptors: np.ndarray) -> np.ndarray:
        return self._pq.compute_codes(np.ascontiguousarray(descriptors, np.float32))

    def decode(self, codes: np.ndarray) -> np.ndarray:
        return normalise_rows(self._pq.decode(np.ascontiguousarray(codes, np.uint8)))

    def tensors(self) -> dict[str, np.ndarray]:
        return {"centroids": self.centroids.astype(np.float16)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, np.ndarray], config: dict[str, Any]) -> "PQCodec":
        centroids = tensors.get("centroids")
        if centroids is None or centroids.ndim != 3 or centroids.shape[1] != 256:
            raise InputError("the codec's centroids are missing or have a wrong shape")
        if not np.isfinite(centroids).all():
            raise InputError("the codec's centroids are not finite")
        return cls(centroids)
