import torch

from hloc_dpqed.training.loop import minimise


def test_finds_the_minimum_of_a_quadratic():
    x = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
    target = torch.tensor([0.5, 1.0])
    minimise([x], lambda step: ((x - target) ** 2).sum(), steps=400, learning_rate=0.05)
    torch.testing.assert_close(x.data, target, atol=1e-3, rtol=0)


def test_runs_as_many_steps_as_asked():
    x = torch.nn.Parameter(torch.ones(1))
    seen = []

    def loss(step):
        seen.append(step)
        return (x**2).sum()

    minimise([x], loss, steps=7, learning_rate=0.0)
    assert seen == list(range(7)) and x.item() == 1.0
