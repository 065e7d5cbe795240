"""What holds for every selector."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from selection_maps import problem_of, random_problem

from hloc_dpqed.errors import InputError
from hloc_dpqed.selection import ORDERS, SELECTORS, select_points, selection_order
from hloc_dpqed.selection.kcover import cover_size

NAMES = sorted(set(SELECTORS) - {"all"})


def kept_per_image(problem, rows):
    visibility = problem.visibility
    chosen = np.isin(visibility.indices, rows)
    return np.bincount(visibility.image_of_observation()[chosen], minlength=visibility.num_images)


def check(problem, rows, num_points):
    assert rows.dtype == np.int64
    assert len(rows) == min(num_points, problem.num_points)
    assert (np.diff(rows) > 0).all()
    assert len(rows) == 0 or (rows[0] >= 0 and rows[-1] < problem.num_points)


def test_all_keeps_every_point():
    problem, *_ = random_problem(num_points=20)
    np.testing.assert_array_equal(SELECTORS["all"](problem, 5), np.arange(20))
    np.testing.assert_array_equal(select_points(problem, "all", 20), np.arange(20))


maps = st.integers(1, 5).flatmap(
    lambda i: st.tuples(
        st.just(i), st.lists(st.sets(st.integers(0, i - 1)), min_size=1, max_size=20)
    )
)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(maps, st.data())
def test_budget_order_floor_and_determinism(name, drawn, data):
    num_images, seen_by = drawn  # images without points and points without images among them
    problem = problem_of(seen_by, num_images)
    num_points = data.draw(st.integers(1, len(seen_by) + 2))
    seed = data.draw(st.integers(0, 3))
    rows = select_points(problem, name, num_points, seed=seed)
    check(problem, rows, num_points)
    assert (rows == select_points(problem, name, num_points, seed=seed)).all()
    floor = data.draw(st.integers(1, 4))
    rows = select_points(problem, name, num_points, seed=seed, min_per_image=floor)
    check(problem, rows, num_points)
    if num_points >= cover_size(problem, floor):
        available = np.diff(problem.visibility.indptr)
        assert (kept_per_image(problem, rows) >= np.minimum(floor, available)).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_larger_map(name):
    problem, _ = random_problem(num_images=15, num_points=600)
    for num_points in (1, 60, 200, 599):
        rows = select_points(problem, name, num_points)
        check(problem, rows, num_points)
        assert (rows == select_points(problem, name, num_points)).all()


@pytest.mark.parametrize("name", NAMES)
def test_maps_that_are_odd(name):
    for seen_by, num_images in (
        ([{0}] * 9, 1),  # one image
        ([set()] * 9, 3),  # nobody sees anything
        ([{1}, set(), {1}, {0, 1}] * 3, 4),  # images without points
    ):
        problem = problem_of(seen_by, num_images)
        check(problem, select_points(problem, name, 4), 4)


@pytest.mark.parametrize("name", NAMES)
def test_geometry_alone_is_enough(name):
    problem, _ = random_problem()
    bare = type(problem)(
        problem.visibility,
        problem.xyz,
        problem.reprojection_error,
        problem.cameras,
        problem.camera_index,
        problem.cam_from_world,
    )
    check(bare, select_points(bare, name, 50), 50)


@pytest.mark.parametrize("name", sorted(ORDERS))
@settings(max_examples=25, deadline=None)
@given(maps, st.data())
def test_each_head_of_an_order_is_the_selection_of_its_size(name, drawn, data):
    num_images, seen_by = drawn
    problem = problem_of(seen_by, num_images)
    order = selection_order(problem, name, len(seen_by) + 3, seed=1)
    assert np.sort(order).tolist() == list(range(len(seen_by)))
    num_points = data.draw(st.integers(1, len(seen_by)))
    head = np.sort(order[:num_points])
    assert (head == select_points(problem, name, num_points, seed=1)).all()
    assert (order[:num_points] == selection_order(problem, name, num_points, seed=1)).all()


@pytest.mark.parametrize("name", sorted(ORDERS))
def test_heads_of_orders_of_a_larger_map(name):
    problem, _ = random_problem(num_images=15, num_points=2000)
    order = selection_order(problem, name, 2000)
    for num_points in (1, 63, 64, 65, 500, 1337):
        head = np.sort(order[:num_points])
        assert (head == select_points(problem, name, num_points)).all()


def test_a_floor_changes_no_more_than_it_must():
    problem, _ = random_problem(num_images=40, num_points=400)
    free = select_points(problem, "track_length", 40)
    assert (select_points(problem, "track_length", 40, min_per_image=1) == free).all()
    level = int(kept_per_image(problem, free).min()) + 1
    bound = select_points(problem, "track_length", 40, min_per_image=level)
    assert kept_per_image(problem, bound).min() >= level
    assert len(np.intersect1d(free, bound)) > 20


@pytest.mark.parametrize(
    ("name", "num_points", "options"),
    [("nope", 5, {}), ("kcover", 0, {}), ("kcover", 5, {"min_per_image": -1}), ("all", 5, {})],
)
def test_wrong_arguments_are_input_errors(name, num_points, options):
    problem, _ = random_problem()
    with pytest.raises(InputError):
        select_points(problem, name, num_points, **options)


@pytest.mark.parametrize(("name", "num_points"), [("ilp", 5), ("nope", 5), ("kcover", 0)])
def test_orders_that_do_not_exist_are_input_errors(name, num_points):
    problem, _ = random_problem()
    with pytest.raises(InputError):
        selection_order(problem, name, num_points)


@pytest.mark.parametrize("name", NAMES)
def test_progress_goes_to_standard_error_and_changes_nothing(name, capfd):
    problem, _ = random_problem()
    rows = select_points(problem, name, 50, progress=True)
    assert (rows == select_points(problem, name, 50)).all()
    assert capfd.readouterr().out == ""
