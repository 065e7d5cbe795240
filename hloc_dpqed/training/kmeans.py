"""Centroids to start from, by faiss's k-means."""

import faiss
import numpy as np

MAX_ROWS = 16_384  # 64 a centroid: more changes little, and the start is refined by training


def kmeans(x: np.ndarray, num_centroids: int, seed: int, iterations: int = 10) -> np.ndarray:
    """(N, d) rows to (num_centroids, d) float32 centroids; N >= num_centroids.

    Deterministic given the seed and the number of threads.
    """
    algorithm = faiss.Kmeans(
        x.shape[1],
        num_centroids,
        niter=iterations,
        seed=seed + 1,
        min_points_per_centroid=1,
        max_points_per_centroid=max(1, -(-MAX_ROWS // num_centroids)),
    )
    algorithm.train(np.ascontiguousarray(x, np.float32))
    return algorithm.centroids.reshape(num_centroids, x.shape[1])


def product_codebooks(x: np.ndarray, m: int, num_centroids: int, seed: int) -> np.ndarray:
    """k-means in each of ``m`` sub-spaces: (N, D) to (m, num_centroids, D / m) float32."""
    return np.stack([kmeans(part, num_centroids, seed) for part in np.split(x, m, axis=1)])
