import numpy as np
import pytest
import torch

from hloc_dpqed.training.gradients import (
    assignment_logits,
    quantize,
    rotation_trick,
    select_centroids,
    straight_through,
)


def test_assignment_logits_are_negative_squared_distances():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 2, 3, generator=generator)
    centroids = torch.randn(2, 7, 3, generator=generator)
    expected = -((x[:, :, None] - centroids[None]) ** 2).sum(-1) / 0.5
    torch.testing.assert_close(assignment_logits(x, centroids, 0.5), expected, atol=1e-5, rtol=1e-5)


def test_straight_through_by_hand():
    soft = torch.tensor([1.0, 2.0], requires_grad=True)
    hard = torch.tensor([5.0, -1.0], requires_grad=True)
    out = straight_through(soft, hard)
    assert out.tolist() == [5.0, -1.0]
    out.backward(torch.tensor([3.0, 4.0]))
    assert soft.grad.tolist() == [3.0, 4.0]
    assert hard.grad is None


def test_rotation_trick_by_hand():
    # e = (2, 0) goes to q = (0, 3): a rotation by 90 degrees times 3 / 2. A gradient along q comes
    # back along e with the same scale, one along -x comes back along y.
    soft = torch.tensor([[2.0, 0.0]], requires_grad=True)
    out = rotation_trick(soft, torch.tensor([[0.0, 3.0]]))
    torch.testing.assert_close(out, torch.tensor([[0.0, 3.0]]))
    (gradient,) = torch.autograd.grad(out, soft, torch.tensor([[0.0, 1.0]]), retain_graph=True)
    torch.testing.assert_close(gradient, torch.tensor([[1.5, 0.0]]))
    (gradient,) = torch.autograd.grad(out, soft, torch.tensor([[-1.0, 0.0]]))
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 1.5]]))


def test_rotation_trick_is_a_scaled_rotation():
    generator = torch.Generator().manual_seed(1)
    soft = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    hard = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    for s, h in zip(soft, hard, strict=True):
        jacobian = torch.autograd.functional.jacobian(
            lambda x, h=h: rotation_trick(x[None], h[None])[0], s
        )
        scale = h.norm() / s.norm()
        torch.testing.assert_close(
            jacobian @ jacobian.T, scale**2 * torch.eye(6, dtype=torch.float64)
        )
        torch.testing.assert_close(jacobian @ s, h)


def test_rotation_trick_of_opposite_vectors_is_finite():
    soft = torch.tensor([[1.0, 0.0]], requires_grad=True)
    out = rotation_trick(soft, torch.tensor([[-1.0, 0.0]]))
    out.sum().backward()
    assert out.tolist() == [[-1.0, 0.0]]
    assert torch.isfinite(soft.grad).all()


@pytest.mark.parametrize("estimator", ["straight_through", "rotation"])
def test_quantize_is_hard_forward(estimator):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(9, 2, 4, generator=generator)
    centroids = torch.randn(2, 8, 4, generator=generator)
    distances = ((x[:, :, None] - centroids[None]) ** 2).sum(-1).numpy()
    expected = select_centroids(torch.from_numpy(np.argmin(distances, 2)), centroids)
    torch.testing.assert_close(quantize(x, centroids, 0.1, estimator), expected)


def test_soft_quantize_against_finite_differences():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(3, 2, 4, generator=generator, dtype=torch.float64)
    centroids = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda c: quantize(x, c, 0.7, "soft"), (centroids,))


def test_straight_through_quantize_has_the_soft_gradient():
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(3, 2, 4, generator=generator)
    weights = torch.randn(3, 2, 4, generator=generator)
    gradients = []
    for estimator in ("soft", "straight_through"):
        centroids = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(5))
        centroids.requires_grad_(True)
        (quantize(x, centroids, 0.7, estimator) * weights).sum().backward()
        gradients.append(centroids.grad)
    torch.testing.assert_close(*gradients)
