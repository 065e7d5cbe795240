"""Scene compression by a quadratic program that resembles a one-class support vector machine.

Source: Mera-Trujillo, Smith, Fragoso, "Efficient Scene Compression for Visual-based Localization",
3DV 2020: minimize a'Ka - w d'a with 1'a = 1 and 0 <= a <= 1 / (r N), keep the points with a > 0,
where K tells how close points are in space and in appearance, d how distinct each is, and r is
the share of points to keep. Ours: the kernel's two Gaussian parts and their widths, d (the track's
length over the longest one), the solver (accelerated projected gradients), and blocks of
co-visible points instead of one program, so that no large K is ever formed.
"""

import numpy as np
from tqdm import tqdm

from ..errors import InputError
from ..scene.reference import mean_descriptors
from .base import SelectionProblem
from .blocks import covisible_blocks, share_budget


def select_qp(
    problem: SelectionProblem,
    num_points: int,
    *,
    seed: int = 0,
    distinctiveness: float = 3.0,
    max_block: int = 600,
    progress: bool = False,
) -> np.ndarray:
    """Exactly ``num_points`` points: in each block those of the largest a.

    Points at the upper bound come first, then by a, then by the gradient of the objective.

    Args:
        problem: the map; without observations the appearance is left out of K.
        num_points: how many points to keep.
        seed: not used, nothing is drawn.
        distinctiveness: w above, in units of the mean of K's entries.
        max_block: points of a block.
        progress: show a progress bar.

    Returns:
        (num_points,) int64, increasing.

    Raises:
        InputError: an option is out of range.
    """
    if max_block < 2 or distinctiveness < 0:
        raise InputError("qp: expected max_block >= 2 and distinctiveness >= 0")
    lengths = problem.visibility.track_lengths().astype(np.float64)
    distinct = lengths / max(lengths.max(initial=1), 1)
    means = None if problem.observations is None else mean_descriptors(problem.observations)
    blocks = covisible_blocks(problem, max_block)
    budgets = share_budget(problem, blocks, num_points)
    chosen = []
    pairs = list(zip(blocks, budgets.tolist(), strict=True))
    for rows, budget in tqdm(pairs, desc="Solving blocks", disable=not progress):
        if budget == 0 or budget == len(rows):
            chosen.append(rows[:budget])
            continue
        kernel = scene_kernel(problem.xyz[rows], None if means is None else means[rows])
        weight = distinctiveness * kernel.mean() * distinct[rows]
        a = solve_box_simplex(kernel, weight, 1 / budget, tolerance=1e-3, iterations=500)
        gradient = 2 * kernel @ a - weight
        value = np.round(a * budget, 6)  # 1 at the upper bound
        chosen.append(rows[np.lexsort((rows, gradient, -value))[:budget]])
    return np.sort(np.concatenate(chosen))


def scene_kernel(xyz: np.ndarray, descriptors: np.ndarray | None) -> np.ndarray:
    """Mean of a Gaussian in space and one in appearance.

    The width in space is a tenth of the block's size (root mean square distance from its centre);
    that of the unit descriptors is 0.5.

    Args:
        xyz: (n, 3) map units.
        descriptors: (n, D) L2-normalised, or None for the space alone.

    Returns:
        (n, n) float64, positive semi-definite, 1 on the diagonal.
    """
    centred = xyz - xyz.mean(0)
    width = max(0.1 * float(np.sqrt((centred**2).sum(1).mean())), 1e-12)
    square = (centred**2).sum(1)
    distance = np.maximum(square[:, None] + square - 2 * centred @ centred.T, 0)
    kernel = np.exp(-distance / (2 * width**2))
    if descriptors is not None and descriptors.shape[1]:
        cosine = (descriptors @ descriptors.T).astype(np.float64)
        kernel = (kernel + np.exp(-np.maximum(1 - cosine, 0) / 0.5**2)) / 2
    np.fill_diagonal(kernel, 1)
    return kernel


def solve_box_simplex(
    kernel: np.ndarray,
    weight: np.ndarray,
    upper: float,
    *,
    tolerance: float = 1e-5,
    iterations: int = 2000,
) -> np.ndarray:
    """Minimize a'Ka - weight'a with 1'a = 1 and 0 <= a <= ``upper``.

    Accelerated projected gradients (Beck and Teboulle, SIAM J. Imaging Sciences 2009) with a
    restart where the objective rises (O'Donoghue and Candes, 2015). It stops when the optimality
    conditions hold to ``tolerance`` times the spread of the gradient.

    Returns:
        (n,) float64.
    """
    n = len(kernel)
    a = np.full(n, 1 / n)
    lipschitz = 2 * _largest_eigenvalue(kernel)
    momentum, y = 1.0, a
    value = np.inf
    for iteration in range(iterations):
        gradient = 2 * kernel @ y - weight
        new = project_box_simplex(y - gradient / lipschitz, upper)
        if iteration % 10 == 9:
            at_new = 2 * kernel @ new - weight
            new_value = new @ (at_new - weight) / 2
            if _violation(new, at_new, upper) <= tolerance * max(np.ptp(at_new), 1e-12):
                return new
            if new_value > value:
                momentum, y, value = 1.0, new, new_value
                a = new
                continue
            value = new_value
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        y = new + (momentum - 1) / following * (new - a)
        a, momentum = new, following
    return a


def _largest_eigenvalue(kernel: np.ndarray) -> float:
    x = np.ones(len(kernel)) / np.sqrt(len(kernel))
    for _ in range(30):
        x = kernel @ x
        x /= np.linalg.norm(x)
    return float(1.05 * x @ kernel @ x)  # power iteration approaches it from below


def _violation(a: np.ndarray, gradient: np.ndarray, upper: float) -> float:
    """How far raising the best entry at the cost of the worst would still descend."""
    can_rise, can_fall = a < upper * (1 - 1e-9), a > upper * 1e-9
    if not can_rise.any() or not can_fall.any():
        return 0.0
    return float(max(gradient[can_fall].max() - gradient[can_rise].min(), 0))


def project_box_simplex(y: np.ndarray, upper: float) -> np.ndarray:
    """The point nearest to ``y`` with sum 1 and entries in 0 .. ``upper`` (``upper`` n >= 1).

    The shift t of clip(y - t, 0, upper) is found exactly: its sum is piecewise linear in t, with
    corners where an entry reaches a bound.
    """
    corners = np.sort(np.r_[y, y - upper])
    low, high = 0, len(corners) - 1
    while high - low > 1:  # the sum falls from n upper at the first corner to 0 at the last
        middle = (low + high) // 2
        if np.clip(y - corners[middle], 0, upper).sum() >= 1:
            low = middle
        else:
            high = middle
    at_low = np.clip(y - corners[low], 0, upper).sum()
    at_high = np.clip(y - corners[high], 0, upper).sum()
    share = (at_low - 1) / (at_low - at_high) if at_low > at_high else 0.0
    return np.clip(y - (corners[low] + share * (corners[high] - corners[low])), 0, upper)
