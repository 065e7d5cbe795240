import math

import numpy as np
import torch
from scipy.spatial.distance import cdist

from hloc_dpqed.training.losses import (
    contrastive_loss,
    hardest_negatives,
    rate_loss,
    reconstruction_loss,
    squared_distances,
    triplet_loss,
)


def test_reconstruction_by_hand():
    loss = reconstruction_loss(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]]))
    assert loss["total"].tolist() == [5.0]


def test_triplet_by_hand():
    anchor = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    positive = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    negative = torch.tensor([[0.0, 2.0], [0.0, 9.0]])
    loss = triplet_loss(anchor, positive, negative, 0.5)
    torch.testing.assert_close(loss["positive"], torch.tensor([5.0, 1.0]))
    torch.testing.assert_close(loss["negative"], torch.tensor([2.0, 9.0]))
    torch.testing.assert_close(loss["total"], torch.tensor([3.5, 0.0]))


def test_triplet_gradient_of_equal_vectors_is_finite():
    x = torch.ones(1, 3, requires_grad=True)
    triplet_loss(x, x, x, 1.0)["total"].sum().backward()
    assert torch.isfinite(x.grad).all()


def test_gradients_against_finite_differences():
    generator = torch.Generator().manual_seed(0)
    a, b, c = (
        torch.randn(4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
        for _ in range(3)
    )
    labels = torch.arange(4)
    assert torch.autograd.gradcheck(lambda x, y: reconstruction_loss(x, y)["total"], (a, b))
    assert torch.autograd.gradcheck(lambda x, y, z: triplet_loss(x, y, z, 2.0)["total"], (a, b, c))
    assert torch.autograd.gradcheck(
        lambda x, y: contrastive_loss(x, y, labels, labels, 0.3)["total"], (a, b)
    )


def test_squared_distances_against_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(6, 8)), rng.normal(size=(9, 8))
    ours = squared_distances(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    np.testing.assert_allclose(ours, cdist(a, b, "sqeuclidean"), atol=1e-9)


def test_hardest_negatives_against_brute_force():
    rng = np.random.default_rng(1)
    anchors, keys = rng.normal(size=(12, 4)), rng.normal(size=(20, 4))
    anchor_labels, key_labels = rng.integers(5, size=12), rng.integers(5, size=20)
    got = hardest_negatives(*map(torch.from_numpy, (anchors, keys, anchor_labels, key_labels)))
    distances = cdist(anchors, keys)
    for i, row in enumerate(got.tolist()):
        others = [j for j in range(20) if key_labels[j] != anchor_labels[i]]
        assert row == min(others, key=lambda j: distances[i, j])


def test_contrastive_by_hand():
    anchors = torch.tensor([[1.0, 0.0]])
    keys = torch.tensor([[0.0, 1.0], [0.6, 0.8], [1.0, 0.0]])
    loss = contrastive_loss(anchors, keys, torch.tensor([7]), torch.tensor([9, 7, 3]), 0.5)
    exponents = [math.exp(v / 0.5) for v in (0.0, 0.6, 1.0)]
    expected = -math.log(exponents[1] / sum(exponents))
    assert math.isclose(float(loss["total"]), expected, rel_tol=1e-5)
    assert loss["correct"].tolist() == [0.0]


def test_contrastive_both_ways_by_hand():
    rng = np.random.default_rng(0)
    anchors, keys = (torch.from_numpy(rng.normal(size=(n, 3))) for n in (2, 3))
    anchor_labels, key_labels = torch.tensor([4, 9]), torch.tensor([9, 1, 4])
    one_way = contrastive_loss(anchors, keys, anchor_labels, key_labels, 0.5)["total"]
    both = contrastive_loss(anchors, keys, anchor_labels, key_labels, 0.5, both_ways=True)["total"]
    similarity = (anchors @ keys.T / 0.5).numpy()
    back = [
        math.log(np.exp(similarity[:, key]).sum()) - similarity[anchor, key]
        for anchor, key in ((0, 2), (1, 0))
    ]
    np.testing.assert_allclose((both - one_way).numpy(), back, rtol=1e-12)


def test_rate_by_hand():
    values = torch.tensor([0.0, 1.0, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    bits = rate_loss(values, 0.5)["total"]
    scale = 0.5 * math.sqrt(6 / 4)
    expected = [math.log2(1 + (v / scale) ** 2) / 2 for v in (0, 1, -1, 2)]
    np.testing.assert_allclose(bits.detach().numpy(), expected, rtol=1e-12)
    # It pulls to zero, large values the least; the step has no gradient.
    (gradient,) = torch.autograd.grad(bits.sum(), values)
    by_hand = [v / (scale**2 + v**2) / math.log(2) for v in (0, 1, -1, 2)]
    np.testing.assert_allclose(gradient.numpy(), by_hand, rtol=1e-12)
    assert torch.isfinite(rate_loss(torch.zeros(3))["total"]).all()
