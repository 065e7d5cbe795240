"""Codebooks tuned for a learned matcher: trained through its frozen network. Ours.

Nearest neighbours tell points apart by their descriptors alone. LightGlue looks at where keypoints
lie as well, so that a code has only to say what the network needs beside the positions; and what
that is the network itself says best. Images of the map stand for queries.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ..codecs.base import project
from ..codecs.drqed import DRQEDCodec
from ..codecs.drqed_module import DRQEDModule
from ..codecs.packing import pack_bits
from ..codecs.plan import CodebookPlan, plan_codebooks
from ..codecs.shrink import shrink
from ..errors import InputError
from ..logger import logger
from ..scene.projection import project_points
from ..scene.reference import Observations, ReferenceMap, target_descriptors
from ..threads import single_threaded
from ..training.batches import Tracks
from ..training.beam import beam_search
from ..training.kmeans import residual_codebooks
from ..training.loop import minimise
from .lightglue import FastLightGlue, LogAssignment

MATCHED = 0.6  # of the keypoints of the image that stands for a query, at most
LEAST_COMMON = 30  # points that a pair of images shares
FOUND, LAST = 0.2, 20  # share of matches that is to be expected in the last steps
VISITS, LEAST_STEPS, MOST_STEPS = 25, 200, 1000
UNMATCHED = 0.3  # weight of the keypoints without a match
BEAM, ENCODE_ROWS = 16, 256  # of the search for codes


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
        keypoints: int,
    ):
        self.reference, self.observations, self.keypoints = reference, observations, keypoints
        self.tracks = Tracks.from_observations(observations)
        # An image sees one of a point's codes, and is right with another image's.
        places = observations.places
        self.places = np.arange(observations.num_points) if places is None else places
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
        """A pair at random, with at least one match.

        Raises:
            InputError: none is found.
        """
        for _ in range(1000):
            first = int(rng.integers(self.reference.num_images))
            partners = self._partners(first)
            if len(partners):
                pair = self._pair(rng, first, int(rng.choice(partners)))
                if len(pair.matches):
                    return pair
        raise InputError("--tune: images that share points do not see them where they project to")

    def _pair(self, rng: np.random.Generator, first: int, second: int) -> Pair:
        reference, limit = self.reference, self.keypoints
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
        matched = rng.permutation(np.flatnonzero(shared))[: math.ceil(MATCHED * limit)]
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


def found_share(answer: LogAssignment, matches: torch.Tensor) -> float:
    """Share of the matches whose first keypoint prefers the second."""
    rows, columns = matches.T
    return float((answer.similarity.argmax(1)[rows] == columns).float().mean())


def start(
    aims: np.ndarray, rows: np.ndarray, network: FastLightGlue, plan: CodebookPlan, seed: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Codes that are near in the network's eyes, and codebooks that decode them.

    Distances are those after the network's first, linear layer, which gives weight to what its
    training found to tell points apart.

    Args:
        aims: (P, D) float32, what the codes of all points should decode to.
        rows: (k,) int64, points that the codebooks are for.
        network: whose.
        plan: sizes and basis.
        seed: of k-means.

    Returns:
        (P, M) int64 indices, and a (K_m, L) float32 for each codebook, on the plan's basis.
    """
    seen = project(aims, network.net.input_proj.weight.detach().numpy().T)
    sizes = [len(book) for book in plan.books]
    books = [torch.from_numpy(b) for b in residual_codebooks(seen[rows], sizes, seed)]
    parts = torch.from_numpy(seen).split(ENCODE_ROWS)
    indices = torch.cat([beam_search(part, books, BEAM)[1][:, 0] for part in parts]).numpy()
    left = project(aims[rows], plan.basis)
    found = []
    for index, size in zip(indices[rows].T, sizes, strict=True):
        total = np.zeros((size, left.shape[1]), np.float32)
        np.add.at(total, index, left)
        found.append(total / np.maximum(np.bincount(index, minlength=size), 1)[:, None])
        left = left - found[-1][index]
    return indices, [book.astype(np.float32) for book in found]


def planned_steps(num_points: int, keypoints: int) -> int:
    """As many steps of ``keypoints`` points as show each ``VISITS`` times, within limits."""
    return min(max(math.ceil(VISITS * num_points / keypoints), LEAST_STEPS), MOST_STEPS)


def tuned_codec(
    network: FastLightGlue,
    reference: ReferenceMap,
    observations: Observations,
    kept: np.ndarray,
    code_bytes: int,
    *,
    seed: int = 0,
    codec_budget_bytes: int | None = None,
    latent: int | None = None,
    bits: list[int] | None = None,
    used_bits: int | None = None,
    steps: int | None = None,
    learning_rate: float = 3e-3,
    keypoints: int = 512,
    progress: bool = False,
) -> tuple[DRQEDCodec, np.ndarray]:
    """A ``drqed`` codec whose codes the network matches well, and the codes.

    Each step draws two images that share points. The network matches keypoints of the first, as
    they were observed, with points of the second, as a map shows them: projected, and with the
    descriptors that their codes decode to. What the network answers after every second layer is
    held to the tracks, and the gradient moves centroids and basis. The codes stay as they began.

    Args:
        network: for the features of the observations; it stays as it is.
        reference, observations: the map.
        kept: (k,) int64, points of the compressed map, increasing.
        code_bytes, codec_budget_bytes, latent, bits, used_bits: as of ``drqed``.
        seed: of k-means and of the pairs.
        steps, learning_rate: of Adam, with cosine decay. By default there are as many steps as show
            each point ``VISITS`` times, 200 to 1,000.
        keypoints: of each image in a step, at most.

    Returns:
        The codec as it will be stored, and the codes of all points, (P, code_bytes) uint8.

    Raises:
        InputError: no two images share enough points; or the code size is not possible.
    """
    if steps is None:
        steps = planned_steps(len(kept), keypoints)
    for weight in network.net.parameters():
        weight.requires_grad_(False)
    with single_threaded():
        sampler = PairSampler(reference, observations, kept, keypoints)
        aims = target_descriptors(observations)
        plan = plan_codebooks(
            aims[kept],
            code_bytes,
            codec_budget_bytes,
            seed=seed,
            bits=bits,
            latent=latent,
            used_bits=used_bits,
        )
        codes, books = start(aims, kept, network, plan, seed)
        module = DRQEDModule(books, plan.basis)
        indices = torch.from_numpy(codes)
        layers = range(network.num_layers - 1, 0, -2)
        found: list[float] = []

        def loss_of_step(step: int) -> torch.Tensor:
            # A generator of its own for each step, as drqed's training has.
            pair = sampler.draw(np.random.default_rng((seed, step, 3)))
            seen = pair.observed
            query = network.tokens(
                torch.from_numpy(observations.keypoints[seen]),
                torch.from_numpy(observations.descriptors[seen].astype(np.float32)),
                sampler.size(int(observations.image_index[seen[0]])),
            )
            image = network.first_tokens(
                torch.from_numpy(pair.keypoints),
                module(indices[torch.from_numpy(pair.points)]),
                sampler.size(pair.image),
            )
            matches = torch.from_numpy(pair.matches)
            answers = list(network.log_assignments(query, image, layers))
            found.append(found_share(answers[-1], matches))
            # Deeper answers count more, as they are the ones that are given.
            weighted = [
                (layer + 1) * matching_loss(answer, matches)
                for layer, answer in zip(sorted(layers), answers, strict=True)
            ]
            return torch.stack(weighted).sum() / sum(layer + 1 for layer in layers)

        minimise(
            module.parameters(),
            loss_of_step,
            steps=steps,
            learning_rate=learning_rate,
            progress=progress,
            description="tune",
        )
        codec = DRQEDCodec.from_tensors(
            shrink(module.parameters_as_arrays(), plan.budget),
            {
                "dim": observations.dim,
                "code_size": code_bytes,
                "bits": list(plan.bits),
                "sizes": [len(book) for book in plan.books],
                "reencode": False,
            },
        )
    share = float(np.mean(found[-LAST:]))
    if steps >= LAST and share < FOUND:
        logger.warning(
            f"--tune: the network finds {100 * share:.0f} % of the tracks' matches: are the "
            "features those of the model, and of the extractor that the matcher is for?"
        )
    return codec, pack_bits(codes, list(plan.bits))
