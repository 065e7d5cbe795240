"""Codebooks tuned for a learned matcher: trained through its frozen network. Ours.

Nearest neighbours tell points apart by their descriptors alone. LightGlue looks at where keypoints
lie as well, so that a code has only to say what the network needs beside the positions; and what
that is the network itself says best. Images of the map stand for queries.
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ..codecs.drqed import DRQEDCodec
from ..codecs.drqed_module import DRQEDModule
from ..codecs.shrink import shrink
from ..errors import InputError
from ..scene.projection import project_points
from ..scene.reference import Observations, ReferenceMap
from ..threads import single_threaded
from ..training.batches import Tracks
from ..training.loop import minimise
from .lightglue import FastLightGlue, LogAssignment

STEPS = 400
RATE = 3e-3  # of Adam's first step
KEYPOINTS = 512  # of an image in a batch
MATCHED = 0.6  # of the keypoints of the image that stands for a query, at most
LEAST_COMMON = 30  # points that a pair of images shares
UNMATCHED = 0.3  # weight of the keypoints without a match


@dataclass(frozen=True)
class Pair:
    """Keypoints of an image that stands for a query, and points of the map as another sees them.

    Attributes:
        observed: (M,) int64 observations in the first image.
        points: (N,) int64 points of the map.
        keypoints: (N, 2) float32 projections into the second image, hloc's convention.
        image: row of the second image.
        matches: (k, 2) int64 positions in ``observed`` and ``points``.
    """

    observed: np.ndarray
    points: np.ndarray
    keypoints: np.ndarray
    image: int
    matches: np.ndarray


class PairSampler:
    """Draws pairs of images that share points.

    Args:
        reference: the map.
        observations: its observations; those of points that are not kept are keypoints without a
            match.
        kept: (k,) int64, the points that the map keeps, increasing.
        keypoints: of each image in a pair, at most.
    """

    def __init__(
        self,
        reference: ReferenceMap,
        observations: Observations,
        kept: np.ndarray,
        keypoints: int = KEYPOINTS,
    ):
        self.reference, self.observations, self.keypoints = reference, observations, keypoints
        self.tracks = Tracks.from_observations(observations)
        # An image sees one of a point's codes, and is right with another image's.
        self.places = observations.places
        if self.places is None:
            self.places = np.arange(observations.num_points)
        self.is_kept = np.zeros(observations.num_points, bool)
        self.is_kept[kept] = True
        if not any(len(self._partners(i)) for i in range(reference.num_images)):
            raise InputError(
                f"--tune: no two images of the map share {LEAST_COMMON} of the kept points"
            )

    @functools.lru_cache(maxsize=4096)  # noqa: B019 - one sampler lives as long as a fit
    def _partners(self, image: int) -> np.ndarray:
        """The images that share enough kept points with one: (n,) int64."""
        tracks, visibility = self.tracks, self.reference.visibility
        points = visibility[image]
        mine = np.searchsorted(tracks.points, points[self.is_kept[points]])
        counts = np.zeros(self.reference.num_images, np.int64)
        for track in mine:
            start = tracks.starts[track]
            seen = tracks.order[start : start + tracks.counts[track]]
            counts[tracks.image_of[seen]] += 1
        counts[image] = 0
        return np.flatnonzero(counts >= LEAST_COMMON)

    def draw(self, rng: np.random.Generator) -> Pair:
        """A pair at random."""
        reference, limit = self.reference, self.keypoints
        partners = np.zeros(0, np.int64)
        while len(partners) == 0:
            first = int(rng.integers(reference.num_images))
            partners = self._partners(first)
        second = int(rng.choice(partners))
        points, keypoints = self._seen(second)
        if len(points) > limit:
            rows = np.sort(rng.permutation(len(points))[:limit])
            points, keypoints = points[rows], keypoints[rows]
        begin, end = reference.visibility.indptr[first : first + 2]
        seen = reference.visibility.indices[begin:end]
        place = np.full(len(self.places), -1)
        place[self.places[points]] = np.arange(len(points))
        column = place[self.places[seen]]
        shared = column >= 0
        matched = rng.permutation(np.flatnonzero(shared))[: int(MATCHED * limit)]
        others = rng.permutation(np.flatnonzero(~shared))[: limit - len(matched)]
        rows = np.sort(np.concatenate([matched, others]))
        matches = np.stack([np.flatnonzero(shared[rows]), column[rows][shared[rows]]], 1)
        return Pair((begin + rows).astype(np.int64), points, keypoints, second, matches)

    @functools.lru_cache(maxsize=256)  # noqa: B019
    def _seen(self, image: int) -> tuple[np.ndarray, np.ndarray]:
        """Kept points that an image sees and their projections, as a map shows them to matchers."""
        reference = self.reference
        points = reference.visibility[image]
        points = points[self.is_kept[points]].astype(np.int64)
        camera = reference.cameras[reference.camera_index[image]]
        xy, visible = project_points(reference.xyz[points], camera, reference.cam_from_world[image])
        return points[visible], (xy[visible] - 0.5).astype(np.float32)

    def size(self, image: int) -> tuple[int, int]:
        """Width and height of an image."""
        camera = self.reference.cameras[self.reference.camera_index[image]]
        return camera.width, camera.height


def matching_loss(answer: LogAssignment, matches: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of the true matches, and that keypoints without one have none.

    Source: Lindenberger et al., ICCV 2023, equation 11; the weights are ours.

    Args:
        answer: of the network.
        matches: (k, 2) int64, k at least 1.

    Returns:
        A scalar.
    """
    rows, columns = matches.T
    loss = -answer.of_pairs(rows, columns).mean()
    for logits, taken in ((answer.query, rows), (answer.image, columns)):
        alone = torch.ones(len(logits), dtype=torch.bool)
        alone[taken] = False
        if alone.any():
            loss = loss - UNMATCHED / 2 * F.logsigmoid(-logits[alone]).mean()
    return loss


def tuned_codec(
    codec: DRQEDCodec,
    codes: np.ndarray,
    network: FastLightGlue,
    reference: ReferenceMap,
    observations: Observations,
    kept: np.ndarray,
    budget: int,
    *,
    seed: int = 0,
    steps: int = STEPS,
    learning_rate: float = RATE,
    keypoints: int = KEYPOINTS,
    progress: bool = False,
) -> DRQEDCodec:
    """The codec whose codes the network matches best, the points' codes as they are.

    Each step draws two images that share points. The network matches keypoints of the first, as
    they were observed, with points of the second, as a map shows them: projected, and with the
    descriptors that their codes decode to. What the network answers after every second layer is
    held to the tracks, and the gradient moves centroids and basis.

    Args:
        codec: where to start.
        codes: (P, code_size) uint8 of all points.
        network: for the features of the observations; it stays as it is.
        reference, observations: the map.
        kept: (k,) int64, points of the compressed map, increasing.
        budget: bytes of the tuned codec.
        seed: of the pairs.
        steps, learning_rate: of Adam, with cosine decay.
        keypoints: of each image in a step, at most.

    Raises:
        InputError: no two images share enough points.
    """
    for weight in network.net.parameters():
        weight.requires_grad_(False)
    sampler = PairSampler(reference, observations, kept, keypoints)
    module = DRQEDModule([book.copy() for book in codec.codebooks], codec.basis.copy())
    indices = torch.from_numpy(codec.indices(codes))
    layers = range(network.num_layers - 1, 0, -2)

    def loss_of_step(step: int) -> torch.Tensor:
        # A generator of its own for each step, as drqed's training has.
        pair = sampler.draw(np.random.default_rng((seed, step, 3)))
        seen = pair.observed
        first = int(observations.image_index[seen[0]])
        query = network.tokens(
            torch.from_numpy(observations.keypoints[seen]),
            torch.from_numpy(observations.descriptors[seen].astype(np.float32)),
            sampler.size(first),
        )
        image = network.first_tokens(
            torch.from_numpy(pair.keypoints),
            module(indices[torch.from_numpy(pair.points)]),
            sampler.size(pair.image),
        )
        matches = torch.from_numpy(pair.matches)
        answers = network.log_assignments(query, image, layers)
        # Deeper answers count more, as they are the ones that are given.
        weighted = [
            (layer + 1) * matching_loss(answer, matches)
            for layer, answer in zip(sorted(layers), answers, strict=True)
        ]
        return torch.stack(weighted).sum() / sum(layer + 1 for layer in layers)

    with single_threaded():
        minimise(
            module.parameters(),
            loss_of_step,
            steps=steps,
            learning_rate=learning_rate,
            progress=progress,
            description="tune",
        )
        arrays = shrink(module.parameters_as_arrays(), budget)
    return DRQEDCodec.from_tensors(arrays, codec.config())
