"""Points by integer linear programming: most observations, coverage with slack, spread over grids.

Source: Dymczyk, Lynen, Bosse, Siegwart, "Keep It Brief: Scalable Creation of Compressed
Localization Maps", IROS 2015 (observations kept under a budget of points, every image covered up
to a slack that costs), with the linear grid terms of Zhang, Liu, "Efficient Map Sparsification
Based on 2D and 3D Discretized Grids", CVPR 2023. With x_p 'p is kept', z_i the slack of image i
and y_c 'cell c of an image's grid has a kept point':

    maximize   sum of n_p x_p - s sum of z_i + g sum of y_c
    subject to sum of x_p = budget,  sum over p in i of x_p + z_i >= K_i,  y_c <= sum over c of x_p

Ours: the default weights, K from the coverage that K-cover reaches at the budget, blocks of
co-visible points for large maps, and the rounding: the points of the largest x in the relaxation.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from ..errors import InputError
from .base import SelectionProblem
from .blocks import covisible_blocks, share_budget
from .coverage import coverage_level
from .kcover import cover_order

logger = logging.getLogger(__name__)


def select_ilp(
    problem: SelectionProblem,
    num_points: int,
    *,
    seed: int = 0,
    coverage: float = 0.75,
    slack_cost: float = 10.0,
    grid: int = 6,
    grid_weight: float = 1.0,
    integral: bool = False,
    max_block: int = 10_000,
    progress: bool = False,
) -> np.ndarray:
    """Exactly ``num_points`` points by the program above, solved by HiGHS.

    The gap of the rounded solution to the bound of the LP (of all blocks together) is logged.

    Args:
        problem: the map; the grids use the projections of the points.
        num_points: how many points to keep.
        seed: not used, nothing is drawn.
        coverage: K_i as a share of the points that greedy K-cover leaves every image.
        slack_cost: s, in units of the mean track length.
        grid: cells of an image along each side; 0 leaves the grids out.
        grid_weight: g, in units of the mean track length.
        integral: branch and bound instead of rounding; for small maps only.
        max_block: points of a block; a map with no more is solved whole.
        progress: show a progress bar.

    Returns:
        (num_points,) int64, increasing.

    Raises:
        InputError: highspy is missing, an option is out of range or HiGHS finds no solution.
    """
    if not (coverage >= 0 and slack_cost >= 0 and grid >= 0 and grid_weight >= 0):
        raise InputError("ilp: expected coverage, slack_cost, grid and grid_weight >= 0")
    if max_block < 1:
        raise InputError("ilp: expected max_block >= 1")
    lengths = problem.visibility.track_lengths()
    unit = max(float(lengths.mean()), 1e-12)
    level = coverage * coverage_level(problem, cover_order(problem, num_points))
    need = np.minimum(level, np.diff(problem.visibility.indptr))
    cells = grid_cells(problem, grid)
    blocks = covisible_blocks(problem, max_block)
    budgets = share_budget(problem, blocks, num_points).tolist()
    if len(blocks) == 1:
        budgets = [num_points]
    chosen, value, bound = [], 0.0, 0.0
    pairs = list(zip(blocks, budgets, strict=True))
    for rows, budget in tqdm(pairs, desc="Solving blocks", disable=not progress):
        if budget == 0 or budget == len(rows):
            chosen.append(rows[:budget])
            continue
        program = build_program(
            problem, rows, budget, need, cells, slack_cost * unit, grid_weight * unit
        )
        x, block_bound = program.solve(integral)
        kept = np.sort(np.lexsort((rows, -lengths[rows], -np.round(x, 9)))[:budget])
        chosen.append(rows[kept])
        value += program.value(kept)
        bound += block_bound
    gap = (bound - value) / max(abs(bound), 1e-12)
    logger.info("ilp: %d blocks, gap to the LP bound %.3f %%", len(blocks), 100 * gap)
    return np.sort(np.concatenate(chosen))


def grid_cells(problem: SelectionProblem, grid: int) -> np.ndarray:
    """Cell of each observation in its image's grid: (N,) int64, -1 outside or without a grid."""
    visibility = problem.visibility
    out = np.full(visibility.num_observations, -1, np.int64)
    for i in range(visibility.num_images if grid else 0):
        share, in_front = problem.in_image(i)
        with np.errstate(invalid="ignore"):
            cell = np.floor(share * grid)
            inside = ((cell >= 0) & (cell < grid)).all(1) & in_front
        cell = np.where(inside[:, None], cell, 0).astype(np.int64)
        own = slice(visibility.indptr[i], visibility.indptr[i + 1])
        out[own] = np.where(inside, i * grid**2 + cell[:, 1] * grid + cell[:, 0], -1)
    return out


@dataclass(frozen=True)
class Program:
    """A linear program over x (points), then z (slacks), then y (cells); to be maximized.

    Attributes:
        cost: (n,) float64 objective.
        upper: (n,) float64 upper bounds; lower bounds are 0.
        indptr, columns, values: the constraints, compressed sparse rows.
        row_lower, row_upper: of the constraints.
        num_points: how many of the variables are x.
        need: (z,) K of each image in the program.
        images: (k, 2) int64, pairs of an image and a point of the program.
        cells: (m, 2) int64, pairs of a cell and a point of the program.
    """

    cost: np.ndarray
    upper: np.ndarray
    indptr: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    row_lower: np.ndarray
    row_upper: np.ndarray
    num_points: int
    need: np.ndarray
    images: np.ndarray
    cells: np.ndarray

    def value(self, kept: np.ndarray) -> float:
        """Objective of keeping the points ``kept`` (rows of the program)."""
        x = np.zeros(self.num_points, bool)
        x[kept] = True
        num_images = len(self.need)
        covered = np.bincount(self.images[x[self.images[:, 1]], 0], minlength=num_images)
        slack = np.maximum(self.need - covered, 0)
        num_cells = len(self.cost) - self.num_points - num_images
        filled = np.zeros(num_cells, bool)
        filled[self.cells[x[self.cells[:, 1]], 0]] = True
        parts = np.split(self.cost, [self.num_points, self.num_points + num_images])
        return float(parts[0][x].sum() + parts[1] @ slack + parts[2][filled].sum())

    def solve(self, integral: bool) -> tuple[np.ndarray, float]:
        """x of the best solution, and the bound of the LP (or of branch and bound)."""
        try:
            import highspy
        except ImportError as error:
            raise InputError(
                "--selector ilp needs highspy: pip install 'hloc_dpqed[ilp]'"
            ) from error
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = len(self.cost), len(self.row_lower)
        lp.sense_ = highspy.ObjSense.kMaximize
        lp.col_cost_, lp.col_lower_, lp.col_upper_ = self.cost, np.zeros_like(self.cost), self.upper
        lp.row_lower_, lp.row_upper_ = self.row_lower, self.row_upper
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_, lp.a_matrix_.index_ = self.indptr, self.columns
        lp.a_matrix_.value_ = self.values
        if integral:
            kinds = [highspy.HighsVarType.kInteger] * self.num_points
            kinds += [highspy.HighsVarType.kContinuous] * (lp.num_col_ - self.num_points)
            lp.integrality_ = kinds
        with _standard_output_closed():  # HiGHS 1.16 greets as it is made
            solver = highspy.Highs()
        solver.silent()  # HiGHS writes to standard output otherwise
        solver.setOptionValue("threads", 1)
        solver.setOptionValue("random_seed", 0)
        solver.passModel(lp)
        solver.run()
        if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            raise InputError(f"ilp: HiGHS ends with {solver.getModelStatus()}")
        info = solver.getInfo()
        x = np.array(solver.getSolution().col_value)[: self.num_points]
        return x, float(info.mip_dual_bound if integral else info.objective_function_value)


@contextlib.contextmanager
def _standard_output_closed() -> Iterator[None]:
    """What native code writes to standard output meanwhile is dropped."""
    sys.stdout.flush()
    saved = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(saved, 1)
        os.close(nowhere)
        os.close(saved)


def build_program(
    problem: SelectionProblem,
    rows: np.ndarray,
    budget: int,
    need: np.ndarray,
    cells: np.ndarray,
    slack_cost: float,
    grid_weight: float,
) -> Program:
    """The program of a block: an image needs its share of the coverage from each block.

    Args:
        problem: the whole map.
        rows: points of the block.
        budget: how many of them to keep.
        need: (I,) coverage of each image.
        cells: of each observation, as ``grid_cells`` gives them.
        slack_cost, grid_weight: in the units of the objective.
    """
    visibility = problem.visibility
    small, kept = visibility.keep_points(rows)
    inside = np.diff(small.indptr)
    images = np.flatnonzero(inside)
    share = inside[images] / np.diff(visibility.indptr)[images]
    block_need = np.floor(need[images] * share + 1e-9)
    image_row = np.full(visibility.num_images, -1)
    image_row[images] = np.arange(len(images))
    image_of = image_row[small.image_of_observation()]
    in_cell = np.flatnonzero(cells[kept] >= 0) if grid_weight > 0 else np.zeros(0, np.int64)
    names, cell_of = np.unique(cells[kept][in_cell], return_inverse=True)

    n, z, y = len(rows), len(images), len(names)
    # Rows: the budget, then the images, then the cells.
    row = np.concatenate(
        [
            np.zeros(n, np.int64),
            1 + image_of,
            1 + np.arange(z),
            1 + z + cell_of,
            1 + z + np.arange(y),
        ]
    )
    column = np.concatenate(
        [
            np.arange(n),
            small.indices,
            n + np.arange(z),
            small.indices[in_cell],
            n + z + np.arange(y),
        ]
    )
    value = np.ones(len(row))
    value[len(row) - y :] = -1
    order = np.lexsort((column, row))
    indptr = np.searchsorted(row[order], np.arange(2 + z + y))
    return Program(
        cost=np.r_[
            visibility.track_lengths()[rows], np.full(z, -slack_cost), np.full(y, grid_weight)
        ].astype(np.float64),
        upper=np.r_[np.ones(n), block_need, np.ones(y)],
        indptr=indptr.astype(np.int32),
        columns=column[order].astype(np.int32),
        values=value[order],
        row_lower=np.r_[budget, block_need, np.zeros(y)].astype(np.float64),
        row_upper=np.r_[budget, np.full(z + y, np.inf)].astype(np.float64),
        num_points=n,
        need=block_need,
        images=np.stack([image_of, small.indices.astype(np.int64)], 1),
        cells=np.stack([cell_of, small.indices[in_cell].astype(np.int64)], 1),
    )
