"""Differentiable product quantization with a dequantizer: the paper's method.

Source: Laskar, Melekhov, Benbihi, Wang, Kannala, "Differentiable Product Quantization for Memory
Efficient Camera Relocalization", ECCV 2024. docs/method.md lists what is known of the method and
what was chosen here.
"""

import functools
from typing import Any

import faiss
import numpy as np
import torch
import torch.nn.functional as F

from ..errors import InputError
from ..scene.reference import Observations, mean_descriptors
from ..threads import spread_rows
from ..training.batches import Tracks, same_places
from ..training.checkpoint import FitCheckpoint
from ..training.decoder import DECODERS, Decoder
from ..training.gradients import ESTIMATORS, quantize
from ..training.kmeans import product_codebooks
from ..training.loop import minimise
from ..training.losses import contrastive_loss, hardest_negatives, reconstruction_loss, triplet_loss
from .base import BLOCK_ROWS, Codec
from .packing import unpack_indices
from .pq import product_codes, product_quantizer, product_shape, training_rows

LOSSES = ("reconstruction", "triplet_original", "triplet_dequantized", "both", "contrastive")


class DPQEDCodec(Codec):
    """M codebooks of K centroids over D / M dimensions each, and a decoder of their concatenation.

    Attributes:
        codebooks: (M, K, D / M) float32 torch tensor.
        decoder: quantized vectors to descriptors.
        bits: bits of an index, 8 or 4.
    """

    name = "dpqed"
    trains = True

    def __init__(self, codebooks: torch.Tensor, decoder: Decoder, bits: int):
        self.codebooks = codebooks.detach().float().cpu().contiguous()
        self.decoder = decoder.cpu().requires_grad_(False)
        self.bits = bits
        m, _, sub = codebooks.shape
        self.dim, self.code_size = m * sub, m * bits // 8

    @classmethod
    def fit(
        cls,
        observations: Observations,
        code_bytes: int,
        *,
        seed: int = 0,
        device: str = "cpu",
        progress: bool = False,
        checkpoint: FitCheckpoint | None = None,
        losses: str = "both",
        decoder: str = "mlp",
        assignment: str = "straight_through",
        bits: int = 8,
        hidden: int = 256,
        margin: float = 1.0,
        triplet_weight: float = 3.0,
        temperature: float = 0.1,
        steps: int = 1000,
        batch: int = 1024,
        learning_rate: float = 1e-3,
    ) -> "DPQEDCodec":
        """Train codebooks and decoder on the map's tracks.

        A batch holds distinct points: the anchor is a random observation of the point, the
        positive is the normalised mean of its observations (what will be encoded), quantized and
        decoded; the negative is the hardest of the batch's other points.

        Args:
            losses: 'reconstruction' alone, with one of the two triplet losses, or with both; or
                'contrastive', drqed's loss instead of the triplets (not the paper's).
            decoder: 'none', 'linear' or 'mlp'.
            assignment: the gradient estimator: 'straight_through', 'rotation' or 'soft'.
            bits: of an index: 8 (256 centroids) or 4 (16, twice as many codebooks).
            hidden: width of the perceptron.
            margin: of the triplets, in units of Euclidean distance between unit vectors.
            triplet_weight: of each triplet loss beside the reconstruction loss.
            temperature: of the assignment's softmax, as a share of the mean squared error that
                the initial codebooks make in a sub-space.
            steps, batch, learning_rate: of Adam, with cosine decay.
        """
        for value, known, what in (
            (losses, LOSSES, "losses"),
            (decoder, DECODERS, "decoder"),
            (assignment, ESTIMATORS, "assignment"),
        ):
            if value not in known:
                raise InputError(f"codec dpqed: {what} {value!r}, expected {', '.join(known)}")
        m, k = product_shape(observations, code_bytes, bits, cls.name)
        torch.manual_seed(seed)
        start = product_codebooks(training_rows(observations, seed, 1), m, k, seed)
        codebooks = torch.nn.Parameter(torch.from_numpy(start).to(device))
        network = Decoder(decoder, observations.dim, hidden).to(device)
        means = torch.from_numpy(mean_descriptors(observations)).to(device)
        tracks = Tracks.from_observations(observations)
        with torch.no_grad():
            some = means[torch.from_numpy(tracks.points[:4096]).to(device)].unflatten(1, (m, -1))
            hard = quantize(some, codebooks, 1.0, "straight_through")
            softness = temperature * float(((some - hard) ** 2).sum(2).mean()) + 1e-9

        places = None
        if observations.places is not None:
            places = torch.from_numpy(observations.places).to(device)

        def batch_loss(step: int) -> torch.Tensor:
            rng = np.random.default_rng((seed, step))
            drawn = tracks.draw_points(rng, batch)
            rows = tracks.draw_observation(rng, drawn)
            anchors = torch.from_numpy(observations.descriptors[rows]).to(device).float()
            labels = torch.from_numpy(tracks.points[drawn]).to(device)
            targets = means[labels]
            alike = same_places(observations, tracks.points[drawn])
            own = labels if places is None else places[labels]

            def through(x: torch.Tensor) -> torch.Tensor:
                parts = quantize(x.unflatten(1, (m, -1)), codebooks, softness, assignment)
                return network(parts.flatten(1))

            keys = through(targets)
            loss = reconstruction_loss(keys, targets)["total"].mean()
            if len(labels) < 2:
                return loss
            if losses == "contrastive":
                apart = None if alike is None else torch.from_numpy(alike).to(device)
                match = contrastive_loss(anchors, keys, labels, labels, 0.03, True, apart)
                return 0.3 * loss + match["total"].mean()
            if losses in ("triplet_original", "both"):
                hard = hardest_negatives(anchors, keys, own, own)
                triplet = triplet_loss(anchors, keys, keys[hard], margin)
                loss = loss + triplet_weight * triplet["total"].mean()
            if losses in ("triplet_dequantized", "both"):
                decoded = through(anchors)
                hard = hardest_negatives(decoded, keys, own, own)
                triplet = triplet_loss(decoded, keys, keys[hard], margin)
                loss = loss + triplet_weight * triplet["total"].mean()
            return loss

        minimise(
            [codebooks, *network.parameters()],
            batch_loss,
            steps=steps,
            learning_rate=learning_rate,
            progress=progress,
            checkpoint=checkpoint,
            description="fit dpqed",
        )
        return cls(codebooks, network, bits).stored()

    @functools.cached_property
    def _quantizer(self) -> faiss.ProductQuantizer:
        return product_quantizer(self.codebooks.numpy(), self.bits)

    def encode(self, descriptors: np.ndarray) -> np.ndarray:
        return product_codes(self._quantizer, descriptors)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        offsets = torch.arange(len(self.codebooks)) * self.codebooks.shape[1]
        flat = self.codebooks.flatten(0, 1)
        out = np.empty((len(codes), self.dim), np.float32)

        def block(rows: slice) -> None:
            indices = torch.from_numpy(unpack_indices(codes[rows], self.bits).astype(np.int64))
            indices = indices.clamp_max(self.codebooks.shape[1] - 1) + offsets
            out[rows] = self.decoder(F.embedding(indices, flat).flatten(1)).numpy()

        spread_rows(block, len(codes), BLOCK_ROWS)
        return out

    def tensors(self) -> dict[str, np.ndarray]:
        return {
            "codebooks": self.codebooks.numpy().astype(np.float16),
            **self.decoder.to_arrays(),
        }

    def config(self) -> dict[str, Any]:
        return {**super().config(), "bits": self.bits, "decoder": self.decoder.kind}

    @classmethod
    def from_tensors(cls, tensors: dict[str, np.ndarray], config: dict[str, Any]) -> "DPQEDCodec":
        codebooks, bits = tensors.get("codebooks"), config.get("bits")
        kind = config.get("decoder")
        if codebooks is None or codebooks.ndim != 3 or not 1 <= codebooks.shape[1] <= 256:
            raise InputError("the codec's codebooks are missing or have a wrong shape")
        if not np.isfinite(codebooks).all():
            raise InputError("the codec's codebooks are not finite")
        if bits not in (4, 8) or codebooks.shape[1] > 1 << bits or kind not in DECODERS:
            raise InputError("the codec's settings are not those of dpqed")
        m, _, sub = codebooks.shape
        decoder = Decoder.from_arrays(tensors, kind, m * sub)
        return cls(torch.from_numpy(codebooks.astype(np.float32)), decoder, bits)
