"""What the code of a point should decode to: its mean descriptor, moved away from other points.

Ours. A point's mean is only near its own observations; of points that look alike a mutual nearest
neighbour then confuses some. The descent here minimises the contrastive loss between the map's
observations and one free descriptor for each point, held to the mean. No quantizer takes part, and
the queries' descriptors stay as they are.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from ..scene.reference import Observations, mean_descriptors
from ..threads import single_threaded
from .batches import Tracks, same_places

STEPS = 4096  # at most, but for LEAST_VISITS
LEAST_VISITS = 8


@dataclass(frozen=True)
class Descent:
    """How far targets are sharpened, and in which steps.

    Attributes:
        temperature: of the softmax; the higher, the more matches, of a lower precision.
        pull: weight of the squared distance to the mean.
        visits: of each point, on average, where the steps are not too many.
        rate: of the first step, with cosine decay to zero.
        batch: points of a step.
    """

    temperature: float
    pull: float
    visits: int
    rate: float
    batch: int


ONE_CODE = Descent(0.04, 2.0, 30, 0.04, 1024)
# Of maps whose points have several codes: there an image sees the code of its own appearance only,
# and it pays to go after harder observations, for some precision.
SEVERAL_CODES = Descent(0.06, 0.25, 60, 0.03, 1024)


def sharpened_descriptors(
    observations: Observations,
    seed: int = 0,
    progress: bool = False,
    *,
    one: Descent = ONE_CODE,
    several: Descent = SEVERAL_CODES,
) -> np.ndarray:
    """One descriptor for each point, apart from those that it is confused with.

    Each step takes points that are seen together (``Tracks.draw_neighbours``), a random
    observation a of each, and moves the points' descriptors k down the gradient of

        sum over both directions of -log softmax(a k' / t) + w |k - mean|^2

    on the unit sphere. Points that nothing is confused with have no gradient and stay. Other codes
    of a point are no rivals of its own.

    Args:
        observations: (N, D) descriptors, L2-normalised.
        seed: of the batches.
        progress: show a progress bar.
        one: where each point has one code.
        several: where some have more.

    Returns:
        (P, D) float16, L2-normalised; a point without observations has a zero row.
    """
    means = torch.from_numpy(mean_descriptors(observations))
    sharp = means.clone()
    by = one if observations.places is None else several
    if len(observations):
        tracks = Tracks.from_observations(observations)
        each = len(tracks.points) / by.batch
        steps = math.ceil(max(min(by.visits * each, STEPS), LEAST_VISITS * each))
        # On one thread: sums in another order would end in other bytes.
        with single_threaded():
            for step in tqdm(range(steps), desc="sharpen", disable=not progress):
                rng = np.random.default_rng((seed, step, 2))
                drawn = tracks.draw_neighbours(rng, by.batch)
                rows = torch.from_numpy(tracks.points[drawn])
                alike = same_places(observations, tracks.points[drawn])
                seen = observations.descriptors[tracks.draw_observation(rng, drawn)]
                keys = sharp[rows]
                gradient = contrastive_gradient(
                    torch.from_numpy(seen).float(),
                    keys,
                    by.temperature,
                    None if alike is None else torch.from_numpy(alike),
                ) + 2 * by.pull * (keys - means[rows])
                gradient -= (gradient * keys).sum(1, keepdim=True) * keys
                now = by.rate * 0.5 * (1 + math.cos(math.pi * step / steps))
                sharp[rows] = F.normalize(keys - now * gradient, dim=1)
    return sharp.numpy().astype(np.float16)


def with_sharpened_targets(
    observations: Observations, seed: int = 0, progress: bool = False
) -> Observations:
    """The observations with ``sharpened_descriptors`` as their points' targets."""
    return replace(observations, targets=sharpened_descriptors(observations, seed, progress))


def contrastive_gradient(
    anchors: torch.Tensor,
    keys: torch.Tensor,
    temperature: float,
    alike: torch.Tensor | None = None,
) -> torch.Tensor:
    """Gradient in the keys of the sum over rows of ``losses.contrastive_loss`` in both directions.

    Written out, as autograd takes several times as long. Row i of the anchors belongs to row i of
    the keys, and both are (B, D). ``alike`` is that of the loss, (B, B).

    Returns:
        (B, D).
    """
    # Cosines over a temperature of 0.03 and more: their exponentials stay far from the largest
    # number, and are taken once for both directions.
    weights = torch.mm(anchors / temperature, keys.T).exp_()
    if alike is not None:
        weights.masked_fill_(alike, 0)
    weights *= 1 / weights.sum(1, keepdim=True) + 1 / weights.sum(0)
    weights.diagonal().sub_(2)
    return weights.T @ anchors / temperature
