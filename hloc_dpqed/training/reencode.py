"""Choose each point's code by how well its own observations match it against other points. Ours."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from ..scene.reference import Observations
from .batches import Tracks

_BATCH = 512  # points that compete with one another at a time
_OBSERVATIONS = 8  # of a point at most


def best_candidates(
    observations: Observations,
    candidates: Callable[[np.ndarray], np.ndarray],
    decode: Callable[[np.ndarray], torch.Tensor],
    temperature: float = 0.05,
    seed: int = 0,
) -> np.ndarray:
    """The best of each point's candidate codes.

    Points are taken in groups that are seen by the same image. With a the observations of the
    group's points, k the decoded candidates, Z the sum of exp(a k' / t) over the other points'
    first candidates k', a candidate k of a point costs

        sum over its own a of -log(exp(a k / t) / (exp(a k / t) + Z))
        + sum over the others' a of log((Z + exp(a k / t)) / Z),

    the terms of the contrastive loss that it has a part in. The first candidates of the other
    points stay fixed, so the result does not depend on the order within a group.

    Args:
        observations: of the points.
        candidates: point rows (n,) to codes (n, c, M), the default first.
        decode: codes (n, M) to (n, D) L2-normalised.
        temperature: t.
        seed: of the choice of groups.

    Returns:
        (P, M) int64 codes; the default for points without observations.
    """
    tracks = Tracks.from_observations(observations)
    result = candidates(np.arange(observations.num_points))
    chosen = result[:, 0].copy()
    for group, fresh in _groups(tracks, seed):
        points = tracks.points[group]
        options = result[points[fresh]]
        f, c, m = options.shape
        rows, owner = _observations_of(tracks, group)
        anchors = torch.from_numpy(observations.descriptors[rows].astype(np.float32))
        with torch.no_grad():
            cost = candidate_costs(
                anchors,
                torch.from_numpy(owner),
                decode(result[points, 0]),
                decode(options.reshape(f * c, m)).view(f, c, -1),
                torch.from_numpy(fresh),
                temperature,
            )
        chosen[points[fresh]] = options[np.arange(f), cost.argmin(1).numpy()]
    return chosen


def candidate_costs(
    anchors: torch.Tensor,
    owner: torch.Tensor,
    defaults: torch.Tensor,
    options: torch.Tensor,
    rows: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """The cost of ``best_candidates`` for each candidate.

    Args:
        anchors: (A, D) observations.
        owner: (A,) int64, the point of each.
        defaults: (n, D) first candidate of each point.
        options: (f, c, D) candidates of the points ``rows``.
        rows: (f,) int64, increasing.
        temperature: of the softmax.

    Returns:
        (f, c).
    """
    f, c, dim = options.shape
    default = anchors @ defaults.T / temperature
    largest = default.max(1, keepdim=True).values
    weights = (default - largest).exp()
    # log Z of each anchor without one of the points, which need not be the anchor's own.
    rest = (weights.sum(1, keepdim=True) - weights).clamp_min(1e-30).log() + largest
    scores = (anchors @ options.reshape(f * c, dim).T).div_(temperature).view(-1, f, c)
    cost = F.softplus(scores - rest[:, rows, None])
    place = torch.searchsorted(rows, owner).clamp_max(f - 1)
    own = torch.nonzero(rows[place] == owner)[:, 0]
    place = place[own]
    # -log(e / (e + Z)) = softplus(log Z - log e) for the anchor's own point.
    pull = F.softplus(rest[own, owner[own]][:, None] - scores[own, place])
    cost[own, place] = pull
    return cost.sum(0)


def _groups(tracks: Tracks, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Tracks that share an image, at most ``_BATCH``, and which of them no group before had."""
    rng = np.random.default_rng(seed)
    pending = np.ones(len(tracks.points), bool)
    groups = []
    for image in rng.permutation(len(tracks.image_starts) - 1):
        rows = tracks.image_order[tracks.image_starts[image] : tracks.image_starts[image + 1]]
        seen = rng.permutation(np.unique(tracks.track_of[rows]))
        for part in np.array_split(seen, max(1, -(-len(seen) // _BATCH))):
            fresh = np.flatnonzero(pending[part])
            if len(fresh):
                pending[part] = False
                groups.append((part, fresh))
    return groups


def _observations_of(tracks: Tracks, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Up to ``_OBSERVATIONS`` observations of each track, and the row in ``group`` of each."""
    counts = np.minimum(tracks.counts[group], _OBSERVATIONS)
    owner = np.repeat(np.arange(len(group)), counts)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    # Evenly over the track, so that no image is preferred.
    place = place * tracks.counts[group][owner] // counts[owner]
    return tracks.order[tracks.starts[group][owner] + place], owner
