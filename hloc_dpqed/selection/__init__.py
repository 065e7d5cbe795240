"""Which 3D points to keep: visibility and geometry in, sorted point rows out."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import InputError
from ..threads import steady_products
from .base import SelectionProblem
from .basic import (
    random_order,
    select_all,
    select_random,
    select_track_length,
    track_length_order,
)
from .coverage import ensure_coverage
from .hybrid import hybrid_order, select_hybrid
from .ilp import select_ilp
from .kcover import kcover_order, select_kcover
from .probcover import select_probcover
from .qp import select_qp
from .triplet import select_triplet, triplet_order

Selector = Callable[..., np.ndarray]

SELECTORS: dict[str, Selector] = {
    "all": select_all,
    "random": select_random,
    "track_length": select_track_length,
    "kcover": select_kcover,
    "probcover": select_probcover,
    "ilp": select_ilp,
    "qp": select_qp,
    "triplet": select_triplet,
    "hybrid": select_hybrid,
}

# The selectors whose budgets are nested: each keeps the head of one order.
ORDERS: dict[str, Selector] = {
    "random": random_order,
    "track_length": track_length_order,
    "kcover": kcover_order,
    "triplet": triplet_order,
    "hybrid": hybrid_order,
}

SEE_CODEC = {"hybrid"}  # these look at how the codec keeps the points
LONG = {"hybrid", "ilp", "qp", "triplet"}  # these can show their progress


@steady_products()
def select_points(
    problem: SelectionProblem,
    name: str,
    num_points: int,
    *,
    seed: int = 0,
    min_per_image: int = 0,
    progress: bool = False,
    **options: Any,
) -> np.ndarray:
    """Rows of at most ``num_points`` points: (k,) int64, increasing.

    Args:
        problem: the map.
        name: a key of ``SELECTORS``.
        num_points: how many points may be kept; all are kept where the map has no more.
        seed: of the selectors that draw at random.
        min_per_image: points that every database image keeps at least (all of its points where it
            has fewer), as far as the budget allows; whatever the selector.
        progress: show a progress bar where the selector takes long.
        options: of the selector.

    Raises:
        InputError: an unknown selector, ``num_points`` below 1 or ``min_per_image`` below 0.
    """
    if name not in SELECTORS:
        raise InputError(f"--selector {name}: unknown, expected one of {', '.join(SELECTORS)}")
    if num_points < 1:
        raise InputError(f"--num_points {num_points}: expected at least 1")
    if min_per_image < 0:
        raise InputError(f"min_per_image {min_per_image}: expected at least 0")
    if num_points >= problem.num_points:
        return np.arange(problem.num_points, dtype=np.int64)
    if name == "all":
        raise InputError(
            f"--selector all keeps {problem.num_points} points but only {num_points} are allowed; "
            "choose another selector, such as kcover"
        )
    if progress and name in LONG:
        options["progress"] = True
    rows = SELECTORS[name](problem, num_points, seed=seed, **options)
    if min_per_image:
        rows = ensure_coverage(problem, rows, num_points, min_per_image)
    return np.sort(np.asarray(rows, np.int64))


@steady_products()
def selection_order(
    problem: SelectionProblem,
    name: str,
    num_points: int,
    *,
    seed: int = 0,
    progress: bool = False,
    **options: Any,
) -> np.ndarray:
    """Point rows of which each head is the selection of that size.

    Whoever looks for the number of points that fits a budget selects once instead of for each
    trial: ``np.sort(selection_order(problem, name, n)[:k])`` equals
    ``select_points(problem, name, k)`` for every k <= n, without ``min_per_image``.

    Args:
        problem, name, seed, progress, options: as for ``select_points``; ``name`` is a key of
            ``ORDERS``.
        num_points: the largest selection that is wanted; the map's number of points at most.

    Returns:
        (min(num_points, P),) int64 distinct rows, in the order in which they are chosen.

    Raises:
        InputError: a selector that has no such order, or ``num_points`` below 1.
    """
    if name not in ORDERS:
        raise InputError(
            f"--selector {name}: its selections are not nested, expected one of {', '.join(ORDERS)}"
        )
    if num_points < 1:
        raise InputError(f"--num_points {num_points}: expected at least 1")
    if progress and name in LONG:
        options["progress"] = True
    return ORDERS[name](problem, min(num_points, problem.num_points), seed=seed, **options)
