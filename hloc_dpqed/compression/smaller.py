"""A smaller map made from a map alone: its points are selected without the original features."""

import numpy as np

from ..errors import InputError
from ..io.sizes import format_size
from ..mapfile import canonical_map, to_bytes
from ..maps.compressed import CompressedMap
from ..maps.edit import take_points
from ..selection import ORDERS, SelectionProblem, select_points, selection_order

_TRIALS = 12


def selection_problem(compressed: CompressedMap) -> SelectionProblem:
    """What selectors may know of a map file: its geometry and tracks, not its descriptors."""
    return SelectionProblem(
        compressed.visibility,
        compressed.xyz,
        np.full(compressed.num_points, -1, np.float32),
        compressed.cameras,
        compressed.camera_index,
        compressed.cam_from_world,
    )


def smaller_map(
    compressed: CompressedMap,
    selector: str = "hybrid",
    *,
    num_points: int | None = None,
    budget: int | None = None,
    seed: int = 0,
) -> tuple[CompressedMap, bytes]:
    """The map with fewer points, and the bytes of its file.

    Args:
        compressed: the map.
        selector: name in ``selection.SELECTORS``.
        num_points: how many points to keep; or
        budget: bytes of the whole file; as many points are kept as fit.
        seed: of selectors that draw at random.

    Raises:
        InputError: not even a map of one point fits the budget.
    """
    problem = selection_problem(compressed)
    total = compressed.num_points
    order: np.ndarray | None = None
    if selector in ORDERS:
        order = selection_order(problem, selector, num_points or total, seed=seed)

    def made(count: int) -> tuple[CompressedMap, bytes]:
        if count >= total:
            rows = np.arange(total)
        elif order is not None:
            rows = np.sort(order[:count])
        else:
            rows = select_points(problem, selector, count, seed=seed)
        smaller = canonical_map(take_points(compressed, rows))
        return smaller, to_bytes(smaller)

    if budget is None:
        return made(total if num_points is None else num_points)
    everything = made(total)
    if len(everything[1]) <= budget:
        return everything
    low, high = 1, total
    best = made(1)
    low_size, high_size = len(best[1]), len(everything[1])
    if low_size > budget:
        raise InputError(
            f"--budget {format_size(budget)}: nothing fits, the map with one point has "
            f"{format_size(low_size)}"
        )
    for _ in range(_TRIALS):
        if high - low <= max(1, total // 2000):
            break
        # Sizes are nearly linear in between; not nearer to either end than a twentieth.
        share = (budget - low_size) / max(high_size - low_size, 1)
        count = low + int((high - low) * min(max(share, 0.05), 0.95))
        count = min(max(count, low + 1), high - 1)
        tried = made(count)
        if len(tried[1]) <= budget:
            low, low_size, best = count, len(tried[1]), tried
        else:
            high, high_size = count, len(tried[1])
    return best
