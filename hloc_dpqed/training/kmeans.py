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


def residual_codebooks(x: np.ndarray, sizes: list[int], seed: int) -> list[np.ndarray]:
    """k-means of what the codebooks before have left: (N, D) to a (K_m, D) float32 for each size.

    Source: Chen, Guan, Wang, "Approximate Nearest Neighbor Search by Residual Vector
    Quantization", Sensors 2010, without the beam: training refines what this starts.
    """
    if len(x) > MAX_ROWS:
        x = x[np.sort(np.random.default_rng(seed).choice(len(x), MAX_ROWS, replace=False))]
    residual = np.array(x, np.float32)
    books = []
    for size in sizes:
        books.append(kmeans(residual, size, seed))
        index = faiss.IndexFlatL2(x.shape[1])
        index.add(books[-1])
        residual -= books[-1][index.search(residual, 1)[1][:, 0]]
    return books


def latent_basis(x: np.ndarray, latent: int) -> np.ndarray:
    """The ``latent`` leading principal axes of (N, D) rows, not centred: (D, latent) float32."""
    _, vectors = np.linalg.eigh(x.T.astype(np.float64) @ x)
    axes = vectors[:, ::-1][:, :latent]
    # The sign of an eigenvector is arbitrary; fix it, so that the same rows give the same axes.
    largest = np.abs(axes).argmax(0)
    axes = axes * np.sign(axes[largest, np.arange(axes.shape[1])])
    return np.ascontiguousarray(axes, np.float32)


def effective_dimension(x: np.ndarray, missing: float) -> int:
    """How many principal axes hold all but ``missing`` of the (N, D) rows' energy."""
    energy = np.linalg.eigvalsh(x.T.astype(np.float64) @ x)[::-1].clip(0)
    share = np.cumsum(energy) / max(energy.sum(), 1e-300)
    return int(np.searchsorted(share, 1 - missing) + 1)
