import itertools
import logging
import sys

import numpy as np
import pytest
from selection_maps import random_problem

from hloc_dpqed.errors import InputError
from hloc_dpqed.selection.blocks import covisible_blocks, share_budget
from hloc_dpqed.selection.ilp import build_program, grid_cells, select_ilp


def small_program(seed, grid=2, budget=5, need=2.0):
    problem, _ = random_problem(seed, num_images=4, num_points=14)
    needs = np.minimum(need, np.diff(problem.visibility.indptr))
    rows = np.arange(14)
    cells = grid_cells(problem, grid)
    return problem, needs, cells, build_program(problem, rows, budget, needs, cells, 7.0, 1.5)


def value_by_definition(problem, need, cells, kept):
    visibility, kept = problem.visibility, set(kept)
    value = float(sum(visibility.track_lengths()[list(kept)]))
    for i in range(visibility.num_images):
        seen = sum(p in kept for p in visibility[i].tolist())
        value -= 7.0 * max(need[i] - seen, 0)
        own = range(visibility.indptr[i], visibility.indptr[i + 1])
        filled = {cells[k] for k in own if visibility.indices[k] in kept and cells[k] >= 0}
        value += 1.5 * len(filled)
    return value


@pytest.mark.parametrize("seed", range(4))
def test_integral_solution_is_the_best_of_all(seed):
    pytest.importorskip("highspy")
    problem, need, cells, program = small_program(seed)
    values = {
        kept: value_by_definition(problem, need, cells, kept)
        for kept in itertools.combinations(range(14), 5)
    }
    best = max(values.values())
    some = next(iter(values))
    assert program.value(np.array(some)) == pytest.approx(values[some])
    x, bound = program.solve(integral=True)
    kept = tuple(np.flatnonzero(x > 0.5).tolist())
    assert values[kept] == pytest.approx(best) and bound == pytest.approx(best)
    x, relaxed = program.solve(integral=False)
    assert relaxed >= best - 1e-6
    assert x.sum() == pytest.approx(5)


def test_relaxation_agrees_with_scipy():
    pytest.importorskip("highspy")
    optimize = pytest.importorskip("scipy.optimize")
    sparse = pytest.importorskip("scipy.sparse")
    _, _, _, program = small_program(9)
    matrix = sparse.csr_array(
        (program.values, program.columns, program.indptr),
        (len(program.row_lower), len(program.cost)),
    )
    result = optimize.linprog(
        -program.cost,
        A_ub=-matrix[1:],
        b_ub=-program.row_lower[1:],
        A_eq=matrix[:1],
        b_eq=program.row_lower[:1],
        bounds=np.c_[np.zeros_like(program.upper), program.upper],
    )
    assert program.solve(False)[1] == pytest.approx(-result.fun)


def test_gap_is_logged_and_small(caplog):
    pytest.importorskip("highspy")
    problem, _ = random_problem(num_images=15, num_points=500)
    for max_block in (10_000, 120):
        with caplog.at_level(logging.INFO, "hloc_dpqed"):
            caplog.clear()
            assert len(select_ilp(problem, 90, max_block=max_block)) == 90
        gap = float(caplog.messages[-1].split("bound ")[1].split(" %")[0])
        assert -1e-3 <= gap < 10


def test_grids_spread_the_points():
    pytest.importorskip("highspy")
    problem, _ = random_problem(num_images=10, num_points=400)
    cells = grid_cells(problem, 6)

    def filled(rows):
        mine = np.isin(problem.visibility.indices, rows) & (cells >= 0)
        return len(np.unique(cells[mine]))

    assert filled(select_ilp(problem, 60, grid_weight=3.0)) > filled(
        select_ilp(problem, 60, grid=0)
    )


def test_grid_cells_by_definition():
    problem, _ = random_problem(num_images=3, num_points=30)
    cells = grid_cells(problem, 4)
    image = problem.visibility.image_of_observation()
    for k, (i, p) in enumerate(zip(image, problem.visibility.indices, strict=True)):
        x, y, z = problem.cam_from_world[i] @ [*problem.xyz[p], 1]
        u, v = 500 * x / z + 320, 500 * y / z + 240
        inside = 0 <= u < 640 and 0 <= v < 480
        assert cells[k] == (i * 16 + int(v // 120) * 4 + int(u // 160) if inside else -1)


def test_blocks_partition_the_points():
    problem, _ = random_problem(num_images=20, num_points=333)
    blocks = covisible_blocks(problem, 50)
    assert (np.sort(np.concatenate(blocks)) == np.arange(333)).all()
    assert max(map(len, blocks)) <= 50
    budgets = share_budget(problem, blocks, 100)
    assert budgets.sum() == 100
    assert all(budget <= len(block) for budget, block in zip(budgets, blocks, strict=True))


def test_nothing_is_written_to_standard_output(capfd):
    pytest.importorskip("highspy")
    problem, _ = random_problem()
    select_ilp(problem, 50)
    assert capfd.readouterr().out == ""


def test_missing_highspy_is_an_input_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "highspy", None)
    problem, _ = random_problem()
    with pytest.raises(InputError, match="highspy"):
        select_ilp(problem, 50)


@pytest.mark.parametrize("options", [{"coverage": -1}, {"grid": -1}, {"max_block": 0}])
def test_wrong_options_are_input_errors(options):
    problem, _ = random_problem()
    with pytest.raises(InputError):
        select_ilp(problem, 50, **options)
