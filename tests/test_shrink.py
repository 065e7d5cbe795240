import numpy as np
import pytest

from hloc_dpqed.codecs.shrink import (
    COARSEST,
    FINEST,
    Parameters,
    basis_step,
    from_arrays,
    shrink,
    to_arrays,
)
from hloc_dpqed.entropy.arrays import encode_arrays
from hloc_dpqed.errors import InputError


def make_parameters(latent=16, dim=32, sizes=(64, 16), seed=0):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    # Later codebooks are smaller, as residual ones are.
    books = [normal(size, latent) * 0.5**m for m, size in enumerate(sizes)]
    return Parameters(books, normal(dim, latent))


def stored_bytes(arrays):
    return len(encode_arrays([arrays[name] for name in sorted(arrays)]))


@pytest.mark.parametrize("latent", [5, 16, 24])
def test_entries_are_within_half_a_step(latent):
    given = make_parameters(latent)
    step = 0.25
    read = from_arrays(to_arrays(given, step), [64, 16])
    for book, back in zip(given.books, read.books, strict=True):
        assert np.abs(book - back).max() <= 0.501 * step * np.sqrt((book**2).mean())
    bound = 0.501 * basis_step(step, 80, 32) * np.sqrt((given.basis**2).mean())
    assert np.abs(given.basis - read.basis).max() <= bound


def test_the_noise_of_the_steps_is_spread_as_the_entries_are():
    # Lagrange: noise over number of entries is the same for basis and codebooks.
    rows, dim, step = 500, 256, 0.3
    assert basis_step(step, rows, dim) ** 2 / dim == pytest.approx(step**2 / rows)


def test_shrinking_takes_the_finest_step_that_fits():
    given = make_parameters(24, 64, (512, 256))
    sizes = [stored_bytes(shrink(given, budget)) for budget in (4_000, 8_000, 12_000)]
    for size, budget in zip(sizes, (4_000, 8_000, 12_000), strict=True):
        assert 0.97 * budget <= size <= budget
    fine = shrink(given, 10**9)
    np.testing.assert_array_equal(fine["codebooks"], to_arrays(given, FINEST)["codebooks"])
    coarse = shrink(given, 1)
    np.testing.assert_array_equal(coarse["codebooks"], to_arrays(given, COARSEST)["codebooks"])


def test_zeros_can_be_stored():
    zero = Parameters([np.zeros((4, 8), np.float32)], np.zeros((16, 8), np.float32))
    read = from_arrays(to_arrays(zero, 0.5), [4])
    assert not read.books[0].any() and not read.basis.any()


@pytest.mark.parametrize(
    "change",
    [
        {"codebooks": None},
        {"codebooks_scale": None},
        {"codebooks": np.zeros((3, 8), np.int8)},
        {"codebooks": np.zeros((160, 8), np.int16)},
        {"codebooks_scale": np.ones(3, np.float32)},
        {"codebooks_scale": np.array([1, np.nan], np.float32)},
        {"basis": np.zeros((32, 17), np.int8)},
    ],
)
def test_wrong_arrays_are_input_errors(change):
    arrays = to_arrays(make_parameters(), 0.5) | change
    with pytest.raises(InputError):
        from_arrays({k: v for k, v in arrays.items() if v is not None}, [64, 16])
