import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from selection_maps import problem_of, random_problem

from hloc_dpqed.errors import InputError
from hloc_dpqed.selection import select_points
from hloc_dpqed.selection.kcover import cover_order, cover_size, select_kcover


def greedy(seen_by, num_images, num_points, chosen=(), max_level=None):
    """Greedy K-cover by rescanning every point before every choice."""
    num_all = len(seen_by)
    available = [sum(i in images for images in seen_by) for i in range(num_images)]
    covered = [sum(i in seen_by[p] for p in chosen) for i in range(num_images)]
    limit = max(available, default=0) if max_level is None else max_level
    chosen, order, level = set(chosen), [], 0
    while len(order) < num_points and len(chosen) < num_all:
        lacking = [i for i in range(num_images) if covered[i] < min(available[i], limit)]
        if not lacking:
            break
        level = max(level, min(covered[i] for i in lacking)) + 1
        while len(order) < num_points:
            best = None
            for p in range(num_all):
                gain = sum(covered[i] < min(level, available[i]) for i in seen_by[p])
                key = (-gain, -len(seen_by[p]), p)
                if p not in chosen and gain > 0 and (best is None or key < best):
                    best = key
            if best is None:
                break
            order.append(best[2])
            chosen.add(best[2])
            for i in seen_by[best[2]]:
                covered[i] += 1
    if max_level is None:
        rest = sorted(
            (p for p in range(num_all) if p not in chosen), key=lambda p: (-len(seen_by[p]), p)
        )
        order += rest[: num_points - len(order)]
    return order


maps = st.integers(1, 6).flatmap(
    lambda i: st.tuples(
        st.just(i), st.lists(st.sets(st.integers(0, i - 1)), min_size=1, max_size=25)
    )
)


@settings(max_examples=150, deadline=None)
@given(maps, st.data())
def test_equals_brute_force_greedy(drawn, data):
    num_images, seen_by = drawn
    problem = problem_of(seen_by, num_images)
    num_points = data.draw(st.integers(1, len(seen_by)))
    order = cover_order(problem, num_points)
    assert order.tolist() == greedy(seen_by, num_images, num_points)
    assert select_kcover(problem, num_points).tolist() == sorted(order.tolist())
    chosen = sorted(data.draw(st.sets(st.integers(0, len(seen_by) - 1))))
    level = data.draw(st.none() | st.integers(0, 5))
    order = cover_order(problem, num_points, chosen=np.array(chosen, int), max_level=level)
    assert order.tolist() == greedy(seen_by, num_images, num_points, chosen, level)


def test_equals_brute_force_greedy_on_a_larger_map():
    problem, seen_by = random_problem(seed=3, num_images=30, num_points=400)
    assert cover_order(problem, 150).tolist() == greedy(seen_by, 30, 150)


@settings(max_examples=50, deadline=None)
@given(maps, st.integers(1, 5))
def test_cover_size_covers_every_image(drawn, per_image):
    num_images, seen_by = drawn
    problem = problem_of(seen_by, num_images)
    size = cover_size(problem, per_image)
    if size == 0:
        return
    rows = select_points(problem, "kcover", size)
    kept = np.bincount(
        problem.visibility.image_of_observation()[np.isin(problem.visibility.indices, rows)],
        minlength=num_images,
    )
    available = np.diff(problem.visibility.indptr)
    assert (kept >= np.minimum(per_image, available)).all()


def test_negative_level_is_an_input_error():
    problem, _ = random_problem()
    with pytest.raises(InputError):
        cover_size(problem, -1)
