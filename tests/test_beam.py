import itertools

import faiss
import numpy as np
import pytest
import torch

from hloc_dpqed.training.beam import beam_search, orthogonal_codebooks


def test_a_full_beam_is_exact():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 5, generator=generator)
    books = torch.randn(3, 4, 5, generator=generator)
    cost, codes = beam_search(x, list(books), beam=64, keep=3)
    everything = list(itertools.product(range(4), repeat=3))
    sums = torch.stack([sum(books[m, c[m]] for m in range(3)) for c in everything])
    errors = ((x[:, None] - sums[None]) ** 2).sum(2)
    expected, order = errors.topk(3, 1, largest=False)
    torch.testing.assert_close(cost, expected, atol=1e-4, rtol=1e-4)
    np.testing.assert_array_equal(codes.numpy(), np.array(everything)[order.numpy()])


@pytest.mark.parametrize("beam", [1, 5])
def test_against_faiss(beam):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 16)).astype(np.float32)
    quantizer = faiss.ResidualQuantizer(16, 3, 4)
    quantizer.train_type = quantizer.Train_default
    quantizer.max_beam_size = beam
    quantizer.train(x)
    books = faiss.vector_to_array(quantizer.codebooks).reshape(3, 16, 16)
    expected = ((quantizer.decode(quantizer.compute_codes(x)) - x) ** 2).sum(1)
    cost, _ = beam_search(torch.from_numpy(x), list(torch.from_numpy(books)), beam)
    np.testing.assert_allclose(cost[:, 0].numpy(), expected, rtol=1e-3, atol=1e-3)


def test_searching_in_the_latent_space_finds_the_same_codes():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(50, 12, generator=generator)
    basis = torch.randn(12, 4, generator=generator)
    books = [torch.randn(k, 4, generator=generator) for k in (16, 8)]
    expected, codes = beam_search(x, [book @ basis.T for book in books], 16)
    small, onto = orthogonal_codebooks(books, basis)
    cost, found = beam_search(x @ onto, small, 16)
    assert (found == codes).all()
    outside = (x**2).sum(1) - ((x @ onto) ** 2).sum(1)
    torch.testing.assert_close(cost[:, 0] + outside, expected[:, 0], atol=1e-3, rtol=1e-3)
