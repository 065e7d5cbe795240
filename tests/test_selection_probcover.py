import numpy as np
import pytest
from scipy import stats
from selection_maps import random_problem

from hloc_dpqed.errors import InputError
from hloc_dpqed.selection.coverage import coverage_level
from hloc_dpqed.selection.kcover import cover_order
from hloc_dpqed.selection.probcover import _add, _largest_k, select_probcover


def test_distribution_of_found_points():
    found = np.zeros((2, 5))
    found[:, 0] = 1
    for _ in range(7):
        _add(found, np.array([1]), 0.6)
    np.testing.assert_allclose(found[1], stats.binom.pmf(range(5), 7, 0.6))
    assert (found[0] == [1, 0, 0, 0, 0]).all()


@pytest.mark.parametrize("level", [1, 2, 5, 12, 30])
def test_largest_k(level):
    sure = [k for k in range(1, level + 1) if stats.binom.sf(k - 1, level, 0.6) >= 0.99]
    assert _largest_k(level, 0.6, 0.99) == max(sure, default=1)


@pytest.mark.parametrize("num_points", [25, 60])
def test_equals_brute_force(num_points):
    problem, seen_by = random_problem(4, num_images=8, num_points=100)
    k = _largest_k(coverage_level(problem, cover_order(problem, num_points)), 0.6, 0.99)
    chosen = cover_order(problem, num_points, max_level=k).tolist()
    while len(chosen) < num_points:
        kept = [sum(i in seen_by[p] for p in chosen) for i in range(8)]
        gain = [
            stats.binom.sf(k - 1, n + 1, 0.6) - stats.binom.sf(k - 1, n, 0.6)
            if stats.binom.sf(k - 1, n, 0.6) < 0.99
            else 0
            for n in kept
        ]
        score = [
            -1 if p in chosen else sum(gain[i] for i in images) for p, images in enumerate(seen_by)
        ]
        if max(score) <= 1e-12:
            k += 1
            left = num_points - len(chosen)
            chosen += cover_order(problem, left, chosen=chosen, max_level=k).tolist()
            continue
        chosen.append(int(np.argmax(np.round(score, 12))))
    assert select_probcover(problem, num_points).tolist() == sorted(chosen)


def test_weights_decide():
    problem, _ = random_problem(num_points=150)
    weights = np.ones(150)
    weights[::2] = 0.01
    rows = select_probcover(problem, 50, weights=weights)
    assert (rows % 2 == 1).mean() > (select_probcover(problem, 50) % 2 == 1).mean()


@pytest.mark.parametrize(
    "options", [{"probability": 1}, {"confidence": 0}, {"weights": -np.ones(200)}, {"weights": [1]}]
)
def test_wrong_options_are_input_errors(options):
    problem, _ = random_problem()
    with pytest.raises(InputError):
        select_probcover(problem, 10, **options)
