"""Codes of which every head is a code, against the definition and an exhaustive search."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from codec_helpers import make_observations

from hloc_dpqed.codecs import fit_codec
from hloc_dpqed.codecs.file import codec_hash
from hloc_dpqed.codecs.nested import NestedCodec
from hloc_dpqed.errors import InputError
from hloc_dpqed.scene.reference import normalise_rows
from hloc_dpqed.training.nested import Search, least, refit_codebooks, split_centroids
from hloc_dpqed.training.tree import used_bits


@pytest.fixture(scope="module")
def observations():
    return make_observations(400, 3, dim=16)


@pytest.fixture(scope="module")
def codec(observations):
    return fit_codec("nested", observations, 4, seed=1, bits=[7, 6, 6, 5, 8])


def test_used_bits():
    bits = [14, 13, 13, 12, 12]
    assert used_bits(bits, 8) == bits
    assert used_bits(bits, 5) == [14, 13, 13]
    assert used_bits(bits, 2) == [14, 2]
    assert used_bits(bits, 1) == [8]


@pytest.fixture(scope="module")
def gained(observations):
    bits, gains = [7, 6, 6, 5, 8], [100, 150, 160, 200, 80]
    return fit_codec("nested", observations, 4, seed=1, bits=bits, gains=gains)


@pytest.mark.parametrize("which", ["codec", "gained"])
def test_decoding_is_the_documented_sum(which, observations, request):
    """By hand, from the stored arrays alone, as docs/format.md has it."""
    codec = request.getfixturevalue(which)
    codes = codec.encode(observations.descriptors[:20].astype(np.float32))
    arrays, bits = codec.tensors(), codec.config()["bits"]
    for size in (1, 2, 3, 4):
        decoded = codec.head(size).decode(codes[:, :size])
        for row, code in zip(decoded, codes[:, :size], strict=True):
            number = int.from_bytes(code.tobytes(), "little")
            left, z = 8 * size, np.zeros(16)
            for m, b in enumerate(bits):
                used = min(b, left)
                if used == 0:
                    break
                book = arrays[f"book{m}"].astype(np.float64) * arrays[f"book{m}_scale"][0]
                same = np.arange(1 << b) % (1 << used) == number % (1 << used)
                z += book[same].mean(0)
                number >>= used
                left -= used
            expected = arrays["basis"].astype(np.float64) @ z
            np.testing.assert_allclose(row, expected / np.linalg.norm(expected), atol=2e-6)


def test_longer_codes_are_nearer(codec, observations):
    x = observations.descriptors.astype(np.float32)
    near = []
    for size in (1, 2, 3, 4):
        part = codec.head(size)
        assert part.code_size == size and part.whole().code_size == 4
        near.append(float((part.decode(part.encode(x)) * x).sum(1).mean()))
    assert near == sorted(near)


def test_gains_change_what_is_decoded_and_not_the_codes(codec, gained, observations):
    """But for a few codes whose errors are about the same, as entries are rounded."""
    x = observations.descriptors.astype(np.float32)
    for size in (1, 2, 4):
        plain, larger = codec.head(size), gained.head(size)
        assert (plain.encode(x) == larger.encode(x)).all(1).mean() > 0.99
    codes = codec.encode(x)
    assert np.abs(codec.decode(codes) - gained.decode(codes)).max() > 0.05
    assert gained.config()["gains"] == gained.head(2).gains == [100, 150, 160, 200, 80]
    assert "gains" not in codec.config() and codec_hash(codec) != codec_hash(gained)


def test_wrong_gains_are_refused(gained, observations):
    for gains in ([100] * 4, [100, 150, 160, 200, 0], [1.5] * 5, [1001] * 5, "100", [True] * 5):
        with pytest.raises(InputError, match="expected 5 integers of 1 to 1000, per cent"):
            fit_codec("nested", observations, 4, bits=[7, 6, 6, 5, 8], gains=gains)
        with pytest.raises(InputError, match="expected 5 integers of 1 to 1000, per cent"):
            NestedCodec.from_tensors(gained.tensors(), gained.config() | {"gains": gains})


def test_a_codec_grows(gained, observations):
    """Larger codebooks from smaller ones are nearer to what they are fitted on."""
    x = observations.descriptors.astype(np.float32)
    grown = gained.refitted(observations, [8, 8, 8, 8], rounds=1)
    again = gained.refitted(observations, [8, 8, 8, 8], rounds=1)
    assert codec_hash(grown) == codec_hash(again) and grown.gains is None
    assert grown.bits == [8, 8, 8, 8] and (grown.basis == gained.basis).all()

    def error(of):
        return ((of.decode(of.encode(x)) - x) ** 2).sum(1).mean()

    plain = gained.refitted(observations, gained.bits, rounds=1)
    assert error(grown.head(2)) < 0.9 * error(plain.head(2))
    for bits in ([8, 8], [6, 6, 6, 6, 8], [8] * 6, [7, 6, 6, 6, 8]):
        if bits == [8, 8]:
            assert gained.refitted(observations, bits, rounds=0).code_size == 2
            continue
        with pytest.raises(InputError, match="cannot be reached"):
            gained.refitted(observations, bits)


def test_split_centroids_are_two_means():
    rng = torch.Generator().manual_seed(0)
    places = torch.tensor([[0.0, 0], [1, 0], [10, 0], [10, 1]])
    x = places.repeat(100, 1) + 0.01 * torch.randn(400, 2, generator=rng)
    book = torch.tensor([[0.4, 0], [9, 0], [50, 50]])
    found = split_centroids(x, book, 0)
    assert found.shape == (6, 2)
    for pair, two in ((found[:2], places[:2]), (found[2:4], places[2:])):
        assert torch.cdist(pair, two).min(0)[0].max() < 0.1
    assert (found[4:] == book[2]).all()  # no row is near


def test_a_smaller_first_axis_is_less_of_what_is_decoded():
    """Descriptors with much in common, and codes that recover all: its factor comes in twice."""
    rng = np.random.default_rng(0)
    x = normalise_rows(1.5 * np.eye(4)[0] + rng.standard_normal((200, 4)) / 4).astype(np.float16)
    observations = replace(make_observations(100, 2, dim=4), descriptors=x)
    for first_axis in (1.0, 0.5):
        options = {"bits": [8, 8], "first_axis": first_axis}
        codec = fit_codec("nested", observations, 2, seed=0, **options)
        axes = np.linalg.eigh(x.T.astype(float) @ x)[1][:, ::-1]
        recovered = x.astype(float) @ axes
        recovered[:, 0] *= first_axis**2
        expected = normalise_rows(recovered @ axes.T)
        decoded = codec.decode(codec.encode(x.astype(np.float32)))
        assert np.mean((decoded * expected).sum(1)) > 0.99
    for wrong in (0.0, -1.0, 1.5):
        with pytest.raises(InputError, match="expected 0 to 1, not 0"):
            fit_codec("nested", observations, 2, bits=[8, 8], first_axis=wrong)


def test_a_head_of_a_code_is_a_code(codec, observations):
    """Not the best one of its size, but not far from it either."""
    x = observations.descriptors.astype(np.float32)
    cut = codec.head(2).decode(codec.encode(x)[:, :2])
    own = codec.head(2).decode(codec.head(2).encode(x))
    assert ((cut * x).sum(1).mean()) > 0.8 * ((own * x).sum(1).mean())


def test_heads_share_what_is_stored(codec):
    assert codec_hash(codec.head(2).whole()) == codec_hash(codec)
    assert codec.head(4) is codec and codec.whole() is codec
    for size in (0, 5):
        with pytest.raises(InputError, match=f"--code_bytes {size}: the codec has codes of 1 to 4"):
            codec.head(size)


def test_a_wide_beam_finds_the_best_code():
    torch.manual_seed(0)
    books = [torch.randn(8, 4), torch.randn(8, 4) / 2, torch.randn(4, 4) / 3]
    x = torch.randn(5, 4)
    found = Search(books, 64)(x)
    assert found.shape == (5, 3)
    assert (Search(books, 1).best(x, 1, beam=64)[1][:, 0] == found).all()
    for row, code in zip(x, found, strict=True):
        sums = {
            c: float(sum(book[i] for book, i in zip(books, c, strict=True)).sub(row).norm())
            for c in itertools.product(range(8), range(8), range(4))
        }
        assert tuple(code.tolist()) == min(sums, key=sums.get)


def test_least_is_topk():
    rng = torch.Generator().manual_seed(0)
    for width, keep in ((4096, 8), (128, 1), (100, 5), (64, 3), (8192, 16)):
        values = torch.rand(7, width, generator=rng)
        best, rank = least(values, keep)
        expected = values.topk(keep, 1, largest=False)
        torch.testing.assert_close(best, expected[0])
        torch.testing.assert_close(values.gather(1, rank), expected[0])


def test_refitting_lowers_the_error_of_every_head():
    torch.manual_seed(0)
    x = torch.randn(500, 6)
    books = [torch.randn(16, 6), 0.7 * torch.randn(16, 6), 0.5 * torch.randn(16, 6)]
    codes = torch.randint(16, (500, 3))

    def error(of):
        total, sums = 0.0, torch.zeros_like(x)
        for m, book in enumerate(of):
            sums = sums + book[codes[:, m]]
            total += float((x - sums).square().sum())
        return total

    assert error(refit_codebooks(x, codes, books)) < error(books)


def test_refitting_one_codebook_is_the_mean():
    x = torch.tensor([[1.0, 0], [3, 0], [0, 5]])
    (book,) = refit_codebooks(x, torch.tensor([[0], [0], [1]]), [torch.zeros(3, 2)])
    # Two rows' worth of what it was, zero.
    torch.testing.assert_close(book, torch.tensor([[1.0, 0], [0, 5 / 3], [0, 0]]))


@pytest.mark.parametrize(
    "settings",
    [
        {"bits": []},
        {"bits": [7, 6, 6, 5, 17]},
        {"bits": [7, 6, 6, 5, 7]},
        {"bits": None},
        {"code_size": 0},
        {"code_size": 5},
        {"code_size": 1.5},
        {"dim": 8},
    ],
)
def test_wrong_settings_are_refused(codec, settings):
    with pytest.raises(InputError):
        NestedCodec.from_tensors(codec.tensors(), {**codec.config(), **settings})


def test_wrong_bits_are_refused(observations):
    for bits in ([8, 7], [17, 7], [0, 16]):
        with pytest.raises(InputError, match="codec nested: bits"):
            fit_codec("nested", observations, 2, bits=bits)
