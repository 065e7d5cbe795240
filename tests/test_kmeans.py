import itertools

import numpy as np
import pytest

from hloc_dpqed.training.kmeans import (
    kmeans,
    latent_basis,
    left_over,
    product_codebooks,
    residual_codebooks,
)


def rows(count=500, dim=12, rank=5, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, rank)) @ rng.normal(size=(rank, dim))).astype(np.float32)


def test_latent_basis_against_the_singular_value_decomposition():
    x = rows(rank=12)
    basis = latent_basis(x, 4)
    assert basis.shape == (12, 4) and basis.dtype == np.float32
    np.testing.assert_allclose(basis.T @ basis, np.eye(4), atol=1e-5)
    right = np.linalg.svd(x, full_matrices=False)[2][:4]
    np.testing.assert_allclose(basis @ basis.T, right.T @ right, atol=1e-4)
    assert (basis[np.abs(basis).argmax(0), np.arange(4)] > 0).all()


def test_kmeans_is_a_fixed_point_of_lloyd():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, 3)) * 20
    x = (centres[rng.integers(6, size=300)] + rng.normal(size=(300, 3)) * 0.1).astype(np.float32)
    found = kmeans(x, 6, seed=0, iterations=30)
    nearest = ((x[:, None] - found[None]) ** 2).sum(2).argmin(1)
    means = np.stack([x[nearest == k].mean(0) for k in np.unique(nearest)])
    np.testing.assert_allclose(found[np.unique(nearest)], means, atol=1e-3)


def test_shapes_and_seeds():
    x = rows()
    books = product_codebooks(x, 3, 8, seed=0)
    assert books.shape == (3, 8, 4)
    np.testing.assert_array_equal(books, product_codebooks(x, 3, 8, seed=0))
    assert [b.shape for b in residual_codebooks(x, [16, 4], 0)] == [(16, 12), (4, 12)]


@pytest.mark.parametrize("sizes", [[8], [8, 8], [8, 8, 8]])
def test_each_residual_codebook_lowers_the_error(sizes):
    x = rows()
    books = residual_codebooks(x, sizes, 0)
    left, errors = x, [float((x**2).sum())]
    for book in books:
        left = left - book[((left[:, None] - book[None]) ** 2).sum(2).argmin(1)]
        errors.append(float((left**2).sum()))
    assert all(after < before for before, after in itertools.pairwise(errors))
    assert left_over(x, books, 0) == pytest.approx(errors[-1] / errors[0], rel=1e-5)
