"""Choose among candidate codes by how well a point's images match them, its rivals looked at. Ours.

A quantizer takes the code nearest to a target. Of the codes nearly as near, another may be matched
better: it lies away from what the point is confused with. Each image of the map stands for a query:
its observations look for what the map stores of the points that it sees, and these for them.
"""

import functools
import itertools

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from ..threads import spread, team

TEMPERATURE = 0.03  # of the softmax over cosine similarities, as targets are sharpened with
RIVALS = 32  # observations that a point is compared with in an image
FAITHFUL = 0.2  # weight of the squared error to the target, over the temperature
ROUNDS = 2  # points choose at once; in the second they know what the others chose
FINALISTS = 8  # options that a point has left after a round
_ROWS = 64  # points of an image at a time: what they are compared with stays in the cache
_IMAGES = 64  # at a time
_GROUP, _MOST = 4, 1e9  # factors of a product, and each at most: it is below the largest number
_Costs = list[tuple[torch.Tensor, torch.Tensor]]


def best_options(
    seen: torch.Tensor,
    images: np.ndarray,
    keys: np.ndarray,
    defaults: torch.Tensor,
    which: np.ndarray,
    options: torch.Tensor,
    errors: torch.Tensor,
    *,
    temperature: float = TEMPERATURE,
    rounds: int = ROUNDS,
    rivals: int = RIVALS,
    faithful: float = FAITHFUL,
    progress: bool = False,
) -> np.ndarray:
    """For each of some stored descriptors the best of its options.

    In each image that observes key p as a, with d an option for p, k the keys of the image's other
    points, b the ``rivals`` other observations of the image that are nearest to p as it is now, and
    Z(b) the sum of exp(b k' / t) over the keys k' of the image but p, it costs

        log(1 + sum over k of exp(a (k - d) / t))           a finds p
        + log(1 + sum over b of exp((b - a) d / t))         p finds a
        + sum over b of observed keys of log(1 + exp(b d / t) / Z(b))      p is in nobody's way

    added to ``faithful`` / t times the option's squared error. Observations of points that the map
    does not keep are rivals too, as queries show them.

    Args:
        seen: (N, L) float32 observations, L2-normalised.
        images: (N,) of each; an image observes a key once.
        keys: (N,) int64, the key that each observes; -1 where the map stores none.
        defaults: (K, L) keys as they are to begin with, L2-normalised.
        which: (F,) int64, keys that have options; the others stay.
        options: (F, C, L) float32, L2-normalised; the first is the default.
        errors: (F, C) float32 squared errors of the options.
        temperature: t.
        rounds: of choosing.
        progress: show a progress bar.

    Returns:
        (F,) int64 columns of ``options``; 0 for keys that are not observed.
    """
    if len(which) == 0:
        return np.zeros(0, np.int64)
    place = np.full(len(defaults), -1, np.int64)
    place[which] = np.arange(len(which))
    free = (keys >= 0) & (place[keys] >= 0)
    order = np.argsort(images, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(images[order])) + 1)
    parts = [rows for rows in parts if free[rows].any()]
    now = defaults.clone()
    left = torch.arange(options.shape[1]).expand(len(which), -1)  # columns
    bar = tqdm(total=rounds * len(parts), desc="choose codes", disable=not progress)
    with team(), bar:
        for _ in range(rounds):
            total = faithful / temperature * errors

            def costs(rows: np.ndarray, now=now, options=options) -> _Costs:
                at = np.flatnonzero(keys[rows] >= 0)
                key = keys[rows[at]]
                return _costs(
                    seen[torch.from_numpy(rows)].float(),
                    torch.from_numpy(at),
                    now[torch.from_numpy(key)],
                    place[key],
                    options,
                    temperature,
                    rivals,
                )

            for first in range(0, len(parts), _IMAGES):
                images_now = parts[first : first + _IMAGES]
                # Added here, in their order: that of the threads would change the sums.
                for rows, cost in itertools.chain(*spread(costs, images_now)):
                    total.index_add_(0, rows, cost)
                bar.update(len(images_now))
            chosen = total.argmin(1)
            now[torch.from_numpy(which)] = options[torch.arange(len(which)), chosen]
            if options.shape[1] > FINALISTS:  # the next round is among the best of this one
                best = total.topk(FINALISTS, 1, largest=False)[1]
                left, errors = left.gather(1, best), errors.gather(1, best)
                options = options.gather(1, best[..., None].expand(-1, -1, options.shape[2]))
                chosen = torch.zeros_like(chosen)
    return left.gather(1, chosen[:, None])[:, 0].numpy()


def _costs(
    anchors: torch.Tensor,
    at: torch.Tensor,
    stored: torch.Tensor,
    place: np.ndarray,
    options: torch.Tensor,
    temperature: float,
    rivals: int,
) -> _Costs:
    """One image's costs of the options of the points that it sees: rows of ``options``, and
    (f, C) costs, some points at a time.

    Args:
        anchors: (n, L) the image's observations.
        at: (k,) which of them observe a key.
        stored: (k, L) these keys as they are.
        place: (k,) row in ``options`` of each key, -1 where it has none.
    """
    found: _Costs = []
    count = len(anchors)
    if count < 2:
        return found
    # All in exponentials, of at most 1 / t in size: no logarithm but of sums and products.
    anchors = anchors / temperature
    scores = (stored @ anchors.T).exp_()  # (k, n)
    all_keys = scores.sum(0)  # of each observation
    observed = torch.zeros(count)
    observed[at] = 1
    kept = min(rivals, count - 1)
    width = -(-kept // _GROUP) * _GROUP
    free = np.flatnonzero(place >= 0)
    for first in range(0, len(free), _ROWS):
        mine = torch.from_numpy(free[first : first + _ROWS])
        rows = torch.from_numpy(place[free[first : first + _ROWS]])
        wanted = options[rows]  # (f, C, L)
        own = at[mine]
        part = scores[mine]
        span = torch.arange(len(mine))
        others = _without(all_keys[own], part[span, own])
        part[span, own] = -1
        # numpy's takes a third of the time of torch's.
        nearest = np.argpartition(-part.numpy(), kept, 1)[:, :kept]
        rival = torch.from_numpy(nearest)  # (f, b)
        near = part.gather(1, rival)
        hit = torch.bmm(wanted, anchors[own][:, :, None])[..., 0].exp_()  # (f, C)
        met = torch.bmm(wanted, anchors[rival].transpose(1, 2)).exp_()  # (f, C, b)
        cost = torch.log1p(others[:, None] / hit) + torch.log1p(met.sum(2) / hit)
        # Of each rival, what its image has for it but p.
        share = observed[rival] / _without(all_keys[rival], near)
        met = F.pad(met.mul_(share[:, None]).clamp_max_(_MOST), (0, width - met.shape[2])).add_(1)
        product = functools.reduce(torch.mul, met.split(width // _GROUP, 2))
        cost += product.log_().sum(2)
        found.append((rows, cost))
    return found


def _without(total: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    """The sum without a part of it, above zero."""
    return torch.maximum(total - part, 1e-6 * total)
