"""Differentiable residual quantization with a linear decoder, trained as matching needs it.

Ours, from known parts: additive codebooks encoded by beam search (Babenko and Lempitsky, CVPR
2014), a contrastive loss between real observations and decoded codes (van den Oord et al., 2018),
and codebooks in the low-dimensional space that the descriptors really fill, so that their bytes
buy centroids instead of dimensions. docs/method.md gives the evidence for each choice.
"""

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..scene.reference import Observations, target_descriptors
from ..threads import single_threaded, spread_rows
from .base import BLOCK_ROWS, Codec, unit_rows
from .packing import num_centroids, pack_bits, unpack_bits
from .shrink import centroid_table, from_arrays, shrink

if TYPE_CHECKING:
    import torch

_ENCODE_ROWS = 256  # rows in one beam search
_BEAM = 16
_CANDIDATES = 8  # codes of a point that its observations choose from


class DRQEDCodec(Codec):
    """Codebooks of L-dimensional centroids whose sum a basis takes to D dimensions.

    With z the sum of the centroids that a code names, the descriptor is the normalised
    ``basis z``. All parameters hold the values that will be stored.

    Attributes:
        codebooks: M float32 arrays (K_m, L).
        basis: (D, L) float32.
        bits: of each index.
        reencode: whether a point's observations choose its code.
    """

    name = "drqed"
    trains = True
    sharpens = True

    def __init__(
        self,
        codebooks: list[np.ndarray],
        basis: np.ndarray,
        bits: list[int],
        arrays: dict[str, np.ndarray],
        reencode: bool,
    ):
        self.codebooks, self.basis = codebooks, basis
        self.bits, self.reencode = bits, reencode
        self.dim, self.code_size = basis.shape[0], sum(bits) // 8
        self._arrays = arrays
        sizes = np.array([len(book) for book in codebooks])
        self._first, self._last = np.cumsum(sizes) - sizes, sizes - 1

    @functools.cached_property
    def _table(self) -> np.ndarray:
        """What each centroid adds to the descriptor: decoding is then a sum of table rows."""
        return centroid_table(self._arrays, [len(book) for book in self.codebooks])

    @functools.cached_property
    def _search(self) -> "tuple[list[torch.Tensor], torch.Tensor]":
        """What encoding needs; a map that is only read does without."""
        import torch

        from ..training.beam import orthogonal_codebooks

        with single_threaded():
            books = [torch.from_numpy(book) for book in self.codebooks]
            return orthogonal_codebooks(books, torch.from_numpy(self.basis))

    @classmethod
    def fit(
        cls,
        observations: Observations,
        code_bytes: int,
        *,
        seed: int = 0,
        device: str = "cpu",
        progress: bool = False,
        checkpoint: Any = None,  # a FitCheckpoint; options are checked where it is not imported
        codec_budget_bytes: int | None = None,
        latent: int | None = None,
        bits: list[int] | None = None,
        used_bits: int | None = None,
        temperature: float = 0.03,
        both_ways: bool = True,
        reconstruction_weight: float | None = None,
        neighbours: float = 1.0,
        steps: int = 900,
        batch: int = 1024,
        learning_rate: float = 1e-3,
        refresh: int = 50,
        beam: int = 4,
        reencode: bool = False,
        rate_weight: float = 1.0,
    ) -> "DRQEDCodec":
        """Train the codec on the map's tracks.

        Each batch holds distinct points. The anchor is a random observation of the point, the keys
        are the decoded codes of all points of the batch; the codes of the points' targets are found
        anew by beam search every ``refresh`` steps, for the points of the next batches only, so
        that the time to fit does not grow with the map.

        Args:
            codec_budget_bytes: bytes that codebooks and decoder may take; by default those of
                float16 codebooks of 256 centroids of D dimensions for each byte that is used.
            latent, bits: dimension L of the centroids, and bits of each index; by default what
                ``plan_codebooks`` makes of the budget.
            used_bits: of the ``code_bytes``, such as 12 of two: the others are zero, which the map
                file's entropy coder stores in nothing.
            temperature: of the softmax over cosine similarities.
            both_ways: ask each key for its anchor too, as mutual nearest neighbours do.
            reconstruction_weight: of the squared error to the point's target; by default an
                eighth of the square of ``code_bytes``: the longer the code, the more faithful it
                can be, which keeps precision.
            neighbours: share of the batches drawn from an image and those that share points with
                it, where the hard negatives are; the others are drawn from the whole map.
            steps, batch, learning_rate: of Adam, with cosine decay.
            refresh: steps between encodings.
            beam: of the encodings during training.
            reencode: let each point's observations choose its code among the best.
            rate_weight: of ``rate_loss`` on the codebooks, the bytes of their entries as a share of
                the codec's.
        """
        import torch

        from ..training.batches import Tracks, same_places
        from ..training.beam import beam_search, orthogonal_codebooks
        from ..training.loop import minimise
        from ..training.losses import contrastive_loss, rate_loss, reconstruction_loss
        from .drqed_module import DRQEDModule
        from .plan import plan_codebooks

        if len(observations) == 0:
            raise InputError("the map has no observation to fit a codec on")
        if reconstruction_weight is None:
            reconstruction_weight = code_bytes**2 / 8
        aims = target_descriptors(observations)
        tracks = Tracks.from_observations(observations)
        rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        rows = tracks.points
        if len(rows) > 65_536:
            rows = np.sort(rng.choice(rows, 65_536, replace=False))
        rows = aims[rows]
        plan = plan_codebooks(
            rows,
            code_bytes,
            codec_budget_bytes,
            seed=seed,
            bits=bits,
            latent=latent,
            used_bits=used_bits,
        )
        num_centroids(len(rows), max(plan.bits), cls.name)  # warns where there are fewer
        sizes = [len(book) for book in plan.books]
        module = DRQEDModule(plan.books, plan.basis).to(device)
        targets = torch.from_numpy(aims).to(device)
        codes = torch.zeros(len(aims), len(sizes), dtype=torch.int64, device=device)
        drawn: list[np.ndarray] = []

        def batch_loss(step: int) -> torch.Tensor:
            # Generators of their own for each step: an interrupted fit then draws the same.
            if step % refresh == 0:
                rng = np.random.default_rng((seed, step, 1))
                drawn[:] = [
                    tracks.draw_neighbours(rng, batch)
                    if rng.random() < neighbours
                    else tracks.draw_points(rng, batch)
                    for _ in range(min(refresh, steps - step))
                ]
                ahead = torch.from_numpy(tracks.points[np.unique(np.concatenate(drawn))])
                with torch.no_grad():
                    small, onto = orthogonal_codebooks(list(module.books), module.basis)
                    for part in ahead.to(device).split(_ENCODE_ROWS):
                        codes[part] = beam_search(targets[part] @ onto, small, beam)[1][:, 0]
            chosen = drawn[step % refresh]
            labels = torch.from_numpy(tracks.points[chosen]).to(device)
            alike = same_places(observations, tracks.points[chosen])
            observed = tracks.draw_observation(np.random.default_rng((seed, step)), chosen)
            anchors = observations.descriptors[observed]
            keys = module(codes[labels])
            error = reconstruction_loss(keys, targets[labels])["total"].mean()
            match = contrastive_loss(
                torch.from_numpy(anchors).to(device).float(),
                keys,
                labels,
                labels,
                temperature,
                both_ways,
                None if alike is None else torch.from_numpy(alike).to(device),
            )
            size = sum(rate_loss(book)["total"].sum() for book in module.books)
            rate = size / (8 * plan.budget)
            return match["total"].mean() + reconstruction_weight * error + rate_weight * rate

        minimise(
            module.parameters(),
            batch_loss,
            steps=steps,
            learning_rate=learning_rate,
            progress=progress,
            checkpoint=checkpoint,
            save_every=refresh,
            description="fit drqed",
        )
        return cls.from_tensors(
            shrink(module.parameters_as_arrays(), plan.budget),
            {
                "dim": observations.dim,
                "code_size": code_bytes,
                "bits": list(plan.bits),
                "sizes": sizes,
                "reencode": reencode,
            },
        )

    def encode(self, descriptors: np.ndarray) -> np.ndarray:
        return pack_bits(self._candidates(descriptors, 1)[:, 0], self.bits)

    def _candidates(self, descriptors: np.ndarray, keep: int) -> np.ndarray:
        """The ``keep`` best codes of each row by reconstruction: (N, keep, M) int64."""
        import torch

        from ..training.beam import beam_search

        small, onto = self._search
        found = np.empty((len(descriptors), keep, len(self.bits)), np.int64)

        def block(rows: slice) -> None:
            x = torch.from_numpy(np.array(descriptors[rows], np.float32)) @ onto
            codes = beam_search(x, small, max(_BEAM, keep), keep)[1].numpy()
            found[rows, : codes.shape[1]] = codes
            found[rows, codes.shape[1] :] = codes[:, :1]  # tiny codebooks: repeat the best

        spread_rows(block, len(descriptors), _ENCODE_ROWS)
        return found

    def encode_points(self, observations: Observations) -> np.ndarray:
        """The code of each point's target; with ``reencode`` one that its observations choose.

        See ``training.reencode.best_candidates``.
        """
        if not self.reencode or observations.num_points == 0:
            return super().encode_points(observations)
        import torch

        from ..training.reencode import best_candidates

        targets = target_descriptors(observations)
        indices = best_candidates(
            observations,
            lambda rows: self._candidates(targets[rows], _CANDIDATES),
            lambda codes: torch.from_numpy(self._decode_indices(codes)),
        )
        return pack_bits(indices, self.bits)

    def _decode_indices(self, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """(N, M) int64 to (N, D) float32 (``out``), L2-normalised; past the end is the last."""
        rows = np.minimum(indices, self._last) + self._first
        table = self._table
        y = np.empty((len(rows), self.dim), np.float32) if out is None else out
        np.take(table, rows[:, 0], 0, out=y, mode="clip")  # any mode but the default needs no copy
        part = np.empty_like(y)
        for column in rows.T[1:]:
            np.take(table, column, 0, out=part, mode="clip")
            np.add(y, part, out=y)
        return unit_rows(y, y)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        out = np.empty((len(codes), self.dim), np.float32)

        def block(rows: slice) -> None:
            self._decode_indices(unpack_bits(codes[rows], self.bits), out[rows])

        if len(codes):
            _ = self._table  # once, before the threads begin
        spread_rows(block, len(codes), BLOCK_ROWS)
        return out

    def tensors(self) -> dict[str, np.ndarray]:
        return dict(self._arrays)

    def config(self) -> dict[str, Any]:
        return {
            **super().config(),
            "bits": list(self.bits),
            "sizes": [len(book) for book in self.codebooks],
            "reencode": self.reencode,
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, np.ndarray], config: dict[str, Any]) -> "DRQEDCodec":
        bits, sizes = config.get("bits"), config.get("sizes")
        if (
            not isinstance(bits, list)
            or not bits
            or not all(isinstance(b, int) and 1 <= b <= 16 for b in bits)
            or sum(bits) != 8 * config.get("code_size", 0)
            or not isinstance(sizes, list)
            or len(sizes) != len(bits)
            or not all(
                isinstance(n, int) and 1 <= n <= 1 << b for n, b in zip(sizes, bits, strict=True)
            )
        ):
            raise InputError("the codec's settings are not those of drqed")
        stored = from_arrays(tensors, sizes)
        if len(stored.basis) != config.get("dim"):
            raise InputError("the codec's basis is missing or has a wrong shape")
        return cls(
            list(stored.books),
            stored.basis,
            bits,
            dict(tensors),
            bool(config.get("reencode")),
        )
