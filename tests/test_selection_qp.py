import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from selection_maps import random_problem

from hloc_dpqed.errors import InputError
from hloc_dpqed.scene.reference import mean_descriptors
from hloc_dpqed.selection.qp import (
    project_box_simplex,
    scene_kernel,
    select_qp,
    solve_box_simplex,
)


def kernel_of(problem):
    return scene_kernel(problem.xyz, mean_descriptors(problem.observations))


@pytest.mark.parametrize("share", [0.05, 0.2, 0.6])
def test_equals_the_one_class_svm(share):
    svm = pytest.importorskip("sklearn.svm")
    problem, _ = random_problem(num_points=200)
    kernel = kernel_of(problem)
    model = svm.OneClassSVM(kernel="precomputed", nu=share, tol=1e-8).fit(kernel)
    theirs = np.zeros(200)
    theirs[model.support_] = model.dual_coef_[0]
    theirs /= theirs.sum()  # scikit-learn's sum is share * 200
    ours = solve_box_simplex(kernel, np.zeros(200), 1 / (share * 200), tolerance=1e-9)
    assert ours @ kernel @ ours <= theirs @ kernel @ theirs * (1 + 1e-6)
    np.testing.assert_allclose(ours, theirs, atol=2e-3 / (share * 200) + 1e-6)


def test_distinct_points_are_preferred():
    problem, _ = random_problem(num_points=200)
    kernel = kernel_of(problem)
    weight = np.zeros(200)
    plain = solve_box_simplex(kernel, weight, 1 / 40)
    least = int(plain.argmin())
    weight[least] = 1.0
    assert solve_box_simplex(kernel, weight, 1 / 40)[least] == pytest.approx(1 / 40)


def test_matches_scipy_with_distinctiveness():
    optimize = pytest.importorskip("scipy.optimize")
    problem, _ = random_problem(num_points=40)
    kernel = kernel_of(problem)
    weight = np.random.default_rng(0).uniform(0, 0.3, 40)
    ours = solve_box_simplex(kernel, weight, 0.1, tolerance=1e-9)
    result = optimize.minimize(
        lambda a: a @ kernel @ a - weight @ a,
        np.full(40, 1 / 40),
        jac=lambda a: 2 * kernel @ a - weight,
        bounds=[(0, 0.1)] * 40,
        constraints={"type": "eq", "fun": lambda a: a.sum() - 1},
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    assert ours @ kernel @ ours - weight @ ours <= result.fun + 1e-8


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=30), st.floats(1, 10))
def test_projection_is_the_nearest_point(values, room):
    y = np.array(values)
    upper = room / len(y)
    x = project_box_simplex(y, upper)
    assert x.sum() == pytest.approx(1, abs=1e-9)
    assert (x >= 0).all() and (x <= upper + 1e-12).all()
    # Optimality: whatever could grow lies no further below y than whatever could shrink.
    gap = y - x
    can_grow, can_shrink = x < upper - 1e-12, x > 1e-12
    if can_grow.any() and can_shrink.any():
        assert gap[can_grow].max() <= gap[can_shrink].min() + 1e-9


def test_kernel_is_positive_semidefinite():
    problem, _ = random_problem(num_points=150)
    for descriptors in (None, mean_descriptors(problem.observations)):
        kernel = scene_kernel(problem.xyz, descriptors)
        assert np.linalg.eigvalsh(kernel).min() > -1e-6
        assert (kernel.diagonal() == 1).all() and (kernel == kernel.T).all()


def test_blocks_keep_the_budget():
    problem, _ = random_problem(num_points=300)
    for num_points in (1, 37, 150, 299):
        assert len(select_qp(problem, num_points, max_block=40)) == num_points


@pytest.mark.parametrize("options", [{"max_block": 1}, {"distinctiveness": -1}])
def test_wrong_options_are_input_errors(options):
    problem, _ = random_problem()
    with pytest.raises(InputError):
        select_qp(problem, 10, **options)
