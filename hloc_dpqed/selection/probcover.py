"""Probabilistic K-cover: every image very probably finds K of its kept points again.

Source: Cao, Snavely, "Minimal Scene Descriptions from Structure from Motion Models", CVPR 2014,
and the parameters that their program documents: a kept point is found in an image that sees it
with probability p = 0.6; an image is covered when at least K points are found with probability
0.99. A K-cover comes first, then points are added by how much they raise the probability that the
images which are not covered find K. Ours: p may differ from point to point (then the number of
points found is Poisson-binomial), K follows from the budget, and the minimal distance between the
descriptors of chosen points is left out.
"""

import numpy as np

from ..errors import InputError
from .base import SelectionProblem
from .coverage import coverage_level
from .kcover import cover_order


def select_probcover(
    problem: SelectionProblem,
    num_points: int,
    *,
    seed: int = 0,
    probability: float = 0.6,
    confidence: float = 0.99,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Exactly ``num_points`` points by probabilistic K-cover.

    Args:
        problem: the map.
        num_points: how many points to keep.
        seed: not used, nothing is drawn.
        probability: that a kept point is found in an image that sees it.
        confidence: with which a covered image finds K points.
        weights: (P,) factors of each point's probability, cut off at 0.99; or None.

    Returns:
        (num_points,) int64, increasing.

    Raises:
        InputError: an option is out of range.
    """
    if not (0 < probability < 1 and 0 < confidence < 1):
        raise InputError("probcover: expected probability and confidence in 0 .. 1")
    chance = np.full(problem.num_points, probability)
    if weights is not None:
        if np.shape(weights) != chance.shape or not (np.asarray(weights) >= 0).all():
            raise InputError(f"probcover: expected {len(chance)} weights that are not negative")
        chance = np.minimum(chance * np.asarray(weights, np.float64), 0.99)
    visibility = problem.visibility
    level = coverage_level(problem, cover_order(problem, num_points))
    k = _largest_k(level, probability, confidence)
    by_point, _ = visibility.transpose()
    everything = np.arange(visibility.num_images)
    available = np.diff(visibility.indptr)
    taken = np.zeros(problem.num_points, bool)
    count = 0
    # found[i, j]: probability that exactly j of the kept points are found in image i.
    found = np.zeros((visibility.num_images, max(int(available.max(initial=0)), 1)))
    found[:, 0] = 1
    # K rises where the budget is larger than what covers every image.
    while count < num_points and k <= available.max(initial=0):
        cover = cover_order(problem, num_points - count, chosen=np.flatnonzero(taken), max_level=k)
        taken[cover] = True
        count += len(cover)
        for point in cover:
            _add(found, by_point[point], chance[point])
        gains = np.zeros(problem.num_points)
        last = np.zeros(visibility.num_images)
        _refresh(gains, last, found[:, :k], everything, visibility, confidence)
        while count < num_points:
            # Rounded, so that the order of summation does not break ties: low rows win.
            score = np.where(taken, -1.0, np.round(gains * chance, 12))
            point = int(score.argmax())
            if score[point] <= 0:
                break
            taken[point] = True
            count += 1
            _add(found, by_point[point], chance[point])
            _refresh(gains, last, found[:, :k], by_point[point], visibility, confidence)
        k += 1
    rest = np.flatnonzero(~taken)
    longest = np.lexsort((rest, -visibility.track_lengths()[rest]))
    taken[rest[longest[: num_points - count]]] = True
    return np.flatnonzero(taken)


def _largest_k(level: int, probability: float, confidence: float) -> int:
    """The largest K >= 1 that ``level`` points give with the confidence, found with p each."""
    found = np.zeros(level + 1)
    found[0] = 1
    for _ in range(level):
        found[1:] = found[1:] * (1 - probability) + found[:-1] * probability
        found[0] *= 1 - probability
    at_least = found[::-1].cumsum()[::-1]
    return max(1, int(np.count_nonzero(at_least >= confidence)) - 1)


def _add(found: np.ndarray, images: np.ndarray, chance: float) -> None:
    """One more kept point in ``images``."""
    before = found[images]
    after = before * (1 - chance)
    after[:, 1:] += before[:, :-1] * chance
    found[images] = after


def _refresh(
    gains: np.ndarray,
    last: np.ndarray,
    found: np.ndarray,
    images: np.ndarray,
    visibility,
    confidence: float,
) -> None:
    """Bring the points' sums of 'exactly K - 1 are found' over open images up to date."""
    for image in images.tolist():
        open_image = found[image].sum() > 1 - confidence  # fewer than K with that probability
        now = found[image, -1] if open_image else 0.0
        gains[visibility[image]] += now - last[image]
        last[image] = now
