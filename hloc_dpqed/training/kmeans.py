"""Centroids to start from, by faiss's k-means."""

import faiss
import numpy as np

MAX_ROWS = 16_384  # 64 a centroid: more changes little, and the start is refined by training


def kmeans(
    x: np.ndarray, num_centroids: int, seed: int, iterations: int = 10, rows: int = MAX_ROWS
) -> np.ndarray:
    """(N, d) rows, of which ``rows`` are used, to (num_centroids, d) float32 centroids.

    N >= num_centroids.

    Deterministic given the seed and the number of threads (``codecs.fit_codec`` allows one).
    """
    algorithm = faiss.Kmeans(
        x.shape[1],
        num_centroids,
        niter=iterations,
        seed=seed + 1,
        min_points_per_centroid=1,
        max_points_per_centroid=max(1, -(-rows // num_centroids)),
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
    residual = np.array(_some_rows(x, seed), np.float32)
    books = []
    for size in sizes:
        books.append(kmeans(residual, size, seed))
        residual -= books[-1][_nearest(residual, books[-1])]
    return books


def latent_basis(x: np.ndarray, latent: int) -> np.ndarray:
    """The ``latent`` leading principal axes of (N, D) rows, not centred: (D, latent) float32."""
    _, vectors = np.linalg.eigh(x.T.astype(np.float64) @ x)
    axes = vectors[:, ::-1][:, :latent]
    # The sign of an eigenvector is arbitrary; fix it, so that the same rows give the same axes.
    largest = np.abs(axes).argmax(0)
    axes = axes * np.sign(axes[largest, np.arange(axes.shape[1])])
    return np.ascontiguousarray(axes, np.float32)


def left_over(x: np.ndarray, codebooks: list[np.ndarray], seed: int) -> float:
    """The share of the energy of (N, D) rows that codes chosen one codebook at a time leave over.

    Measured on at most ``MAX_ROWS`` rows.
    """
    x = _some_rows(x, seed)
    residual = np.array(x, np.float32)
    for book in codebooks:
        residual -= book[_nearest(residual, book)]
    return float((residual**2).sum() / max(float((x**2).sum()), 1e-30))


def _some_rows(x: np.ndarray, seed: int) -> np.ndarray:
    if len(x) <= MAX_ROWS:
        return x
    return x[np.sort(np.random.default_rng(seed).choice(len(x), MAX_ROWS, replace=False))]


def _nearest(x: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    index = faiss.IndexFlatL2(x.shape[1])
    index.add(centroids)
    return index.search(x, 1)[1][:, 0]
