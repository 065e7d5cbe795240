"""Residual codes of which every head is a code: one codec for all code sizes, for any scene.

Ours, from known parts: residual codebooks searched by beam (Babenko and Lempitsky, CVPR 2014), each
in the order of a binary tree, so that the first bits of an index name the mean of a subtree
(successive refinement: Equitz and Cover, IEEE Trans. Information Theory 1991; tree-structured
codebooks: Buzo et al., IEEE Trans. ASSP 1980). Fitted on photos of many places
by ``tools/train_codec.py`` it is what ships in ``codecs/pretrained``.
"""

import functools
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import InputError
from ..scene.reference import Observations, target_descriptors
from ..threads import spread_rows, steady_products
from ..training.tree import head_of, tree_order, used_bits
from .base import BLOCK_ROWS, Codec, project, unit_rows
from .entries import entries_from_arrays, entries_to_arrays
from .packing import pack_bits, unpack_bits

MAX_BITS = 16  # of an index
MAX_BYTES = 32  # of a code
_BEAM = 8
_BASIS_ROWS = 65_536
_LATENT_ROWS = 1 << 16
_DECODE_ROWS = 64
_MOST_GAIN = 1000  # per cent
_MOST_OPTIONS, _OPTIONS = 3 << 17, (8, 64)  # codes that a map's points choose from: in all, of each
_MOST_COSTS, _BEAMS = 520_000_000, (5, _BEAM, 32)  # of that search behind the first book; its beams
_BEAM_OPTIONS = 6  # a beam for so many options, where the map is large


class NestedCodec(Codec):
    """Codebooks of L-dimensional centroids whose sum a basis takes to D dimensions.

    A code is a number whose lowest bits are the index into the first codebook, and so on. In its
    first bytes the last index may be cut, and then names a mean (``training.tree.head_of``).

    Attributes:
        books: float32 arrays (2^b, L), one for each index of a whole code.
        basis: (D, L) float32.
        bits: b of each.
        gains: per cent that each codebook is larger than what codes are searched with. Ours: what
            the first centroid says is common to many descriptors and what the others add tells them
            apart, so that it is matched better where it counts more. What is decoded needs no gain.
    """

    name = "nested"
    sharpens = True

    def __init__(
        self,
        books: list[np.ndarray],
        basis: np.ndarray,
        bits: list[int],
        code_size: int,
        arrays: dict[str, np.ndarray],
        gains: list[int] | None = None,
    ):
        self.books, self.basis, self.bits, self.gains = books, basis, bits, gains
        self.dim, self.code_size = len(basis), code_size
        self._arrays = arrays
        self._used = used_bits(bits, code_size)

    @functools.cached_property
    def _heads(self) -> list[np.ndarray]:
        """The codebooks that codes of ``code_size`` bytes refer to."""
        return [head_of(book, used) for book, used in zip(self.books, self._used, strict=False)]

    @functools.cached_property
    def _turned(self) -> np.ndarray:
        return np.ascontiguousarray(self.basis.T)

    def head(self, code_size: int) -> "NestedCodec":
        """The codec of the first ``code_size`` bytes of each code; it stores what this one does.

        Raises:
            InputError: there are not so many, or none.
        """
        longest = sum(self.bits) // 8
        if not 1 <= code_size <= longest:
            raise InputError(
                f"--code_bytes {code_size}: the codec has codes of 1 to {longest} bytes"
            )
        if code_size == self.code_size:
            return self
        return NestedCodec(self.books, self.basis, self.bits, code_size, self._arrays, self.gains)

    def whole(self) -> "NestedCodec":
        return self.head(sum(self.bits) // 8)

    @classmethod
    def fit(
        cls,
        observations: Observations,
        code_bytes: int,
        *,
        seed: int = 0,
        device: str = "cpu",
        progress: bool = False,
        bits: list[int] | None = None,
        latent: int = 64,
        first_axis: float = 1.0,
        max_rows: int = 524_288,
        rows_per_centroid: int = 32,
        rounds: int = 1,
        rounds_rows: int = 131_072,
        beam: int = 4,
        gains: list[int] | None = None,
    ) -> "NestedCodec":
        """Residual k-means on the observations, put in order, then fitted to its own codes.

        The basis is the principal axes, not centred: the first is near the mean of all
        descriptors. DISK's holds a quarter of their energy and outweighs in the codes what tells
        them apart; ``first_axis`` makes it less. SIFT's codes lose by that (docs/codecs.md).

        Args:
            bits: of each index; by default 8 of each.
            latent: L, at most D.
            first_axis: factor of the first axis, above 0; what is decoded has its square.
            max_rows: observations that are used, drawn at random where there are more.
            rows_per_centroid: of k-means.
            rounds: in each, ``rounds_rows`` observations are encoded by beam search, and each
                codebook in turn is set to what is best for their codes (``refit_codebooks``).
            beam: of the encodings in these.
            gains: see ``NestedCodec``; by default none.
        """
        if len(observations) == 0:
            raise InputError("the map has no observation to fit a codec on")
        bits = list(bits or [8] * code_bytes)
        if sum(bits) != 8 * code_bytes or not all(1 <= b <= MAX_BITS for b in bits):
            raise InputError(
                f"codec nested: bits {bits}, expected indices of 1 to {MAX_BITS} bits that make "
                f"{code_bytes} bytes"
            )
        _check_gains(gains, bits)
        if not 0 < first_axis <= 1:
            raise InputError(f"codec nested: first_axis {first_axis}, expected 0 to 1, not 0")
        # Here, so that a map is read and decoded without torch.
        from ..training.kmeans import latent_basis
        from ..training.nested import fit_codebooks

        rng = np.random.default_rng(seed)
        rows = rng.permutation(len(observations))[:max_rows]
        spread = observations.descriptors[rows[:_BASIS_ROWS]].astype(np.float32)
        basis = latent_basis(spread, min(latent, observations.dim))
        basis[:, 0] *= first_axis
        books = fit_codebooks(
            project(observations.descriptors[rows], basis),
            bits,
            seed,
            rows_per_centroid=rows_per_centroid,
            rounds=rounds,
            rounds_rows=rounds_rows,
            beam=beam,
            progress=progress,
        )
        return cls._of(basis, books, bits, gains)

    def refitted(
        self,
        observations: Observations,
        bits: list[int],
        *,
        seed: int = 0,
        max_rows: int = 1 << 20,
        rounds: int = 1,
        rounds_rows: int = 1 << 20,
        beam: int = 4,
        gains: list[int] | None = None,
        progress: bool = False,
    ) -> "NestedCodec":
        """A codec of larger codebooks, fitted from this one on more observations.

        Its basis is that of this codec.

        Args:
            observations: (N, D).
            bits: of each index, none less than here; no more of them than here.
            seed, max_rows, rounds, rounds_rows, beam, gains: see ``fit``.
            progress: show progress bars.

        Raises:
            InputError: such bits cannot be reached from this codec's.
        """
        grows = len(bits) <= len(self.bits) and sum(bits) % 8 == 0
        if not grows or not all(a <= b <= MAX_BITS for a, b in zip(self.bits, bits, strict=False)):
            raise InputError(f"codec nested: bits {bits} cannot be reached from {self.bits}")
        _check_gains(gains, bits)
        from ..threads import single_threaded
        from ..training.nested import more_codebooks

        rows = np.random.default_rng(seed).permutation(len(observations))[:max_rows]
        with single_threaded():
            books = more_codebooks(
                project(observations.descriptors[rows], self.basis),
                self._searched(self.books),
                bits,
                seed,
                rounds=rounds,
                rounds_rows=rounds_rows,
                beam=beam,
                progress=progress,
            )
        return self._of(self.basis, books, bits, gains)

    @classmethod
    def _of(
        cls,
        basis: np.ndarray,
        books: list[np.ndarray],
        bits: list[int],
        gains: list[int] | None,
    ) -> "NestedCodec":
        """As it will be when stored, from codebooks without gains."""
        arrays = entries_to_arrays("basis", basis, "float16")
        for m, book in enumerate(books):
            gain = np.float32(100 if gains is None else gains[m]) / np.float32(100)
            arrays |= entries_to_arrays(f"book{m}", gain * book[tree_order(book)], "int8")
        config = {"dim": len(basis), "code_size": sum(bits) // 8, "bits": list(bits)}
        return cls.from_tensors(arrays, config if gains is None else config | {"gains": gains})

    def _searched(self, books: list[np.ndarray]) -> list[np.ndarray]:
        """Codebooks, or the first of them, without their gains."""
        if self.gains is None:
            return books
        return [
            book * np.float32(100 / gain) for book, gain in zip(books, self.gains, strict=False)
        ]

    @functools.cached_property
    def _search(self):
        """What encoding needs; a map that is only read does without."""
        import torch

        from ..training.nested import Search

        return Search([torch.from_numpy(head) for head in self._searched(self._heads)], _BEAM)

    def encode(self, descriptors: np.ndarray) -> np.ndarray:
        import torch

        from ..training.nested import ENCODE_ROWS

        indices = np.empty((len(descriptors), len(self._used)), np.int64)
        search, basis = self._search, torch.from_numpy(self.basis)

        def block(rows: slice) -> None:
            x = torch.from_numpy(np.array(descriptors[rows], np.float32))
            indices[rows] = search(x @ basis).numpy()

        with steady_products():
            spread_rows(block, len(descriptors), ENCODE_ROWS)
        return pack_bits(indices, self._used)

    def sharpened(
        self, observations: Observations, seed: int = 0, progress: bool = False
    ) -> np.ndarray:
        """In the space of the centroids and in smaller batches, which takes a seventh of the time.

        Nearest codes are less precise than their targets in any case: matches count more here.
        """
        from ..training.sharpen import Descent, sharpened_descriptors

        one = Descent(0.05, 1.0, 20, 0.04, 512)
        several = Descent(0.06, 0.25, 30, 0.04, 512)
        inside = replace(observations, descriptors=self.latents(observations.descriptors))
        aims = sharpened_descriptors(inside, seed, progress, one=one, several=several)
        aims = project(aims, self._turned)
        return unit_rows(aims, out=aims).astype(np.float16)

    def point_encoder(self, observations: Observations) -> "ChosenCodes":
        """Codes that the points' observations choose among the nearest to their targets."""
        return ChosenCodes(self, observations)

    def latents(self, descriptors: np.ndarray) -> np.ndarray:
        """(N, D) descriptors in the space of the centroids: (N, L) float16, of length 1."""
        out = np.empty((len(descriptors), self.basis.shape[1]), np.float16)
        for first in range(0, len(descriptors), _LATENT_ROWS):
            rows = slice(first, first + _LATENT_ROWS)
            out[rows] = unit_rows(project(descriptors[rows], self.basis))
        return out

    def decode(self, codes: np.ndarray) -> np.ndarray:
        out = np.empty((len(codes), self.dim), np.float32)

        def block(rows: slice) -> None:
            indices = unpack_bits(codes[rows], self._used)
            z = self._heads[0][indices[:, 0]]
            for m, book in enumerate(self._heads[1:], 1):
                z += book[indices[:, m]]
            unit_rows(np.matmul(z, self._turned, out=out[rows]), out=out[rows])

        with steady_products():
            spread_rows(block, len(codes), BLOCK_ROWS)
        return out

    def tensors(self) -> dict[str, np.ndarray]:
        return dict(self._arrays)

    def config(self) -> dict[str, Any]:
        gains = {} if self.gains is None else {"gains": list(self.gains)}
        return {**super().config(), "bits": list(self.bits), **gains}

    @classmethod
    def from_tensors(cls, tensors: dict[str, np.ndarray], config: dict[str, Any]) -> "NestedCodec":
        bits, code_size = config.get("bits"), config.get("code_size")
        if (
            not isinstance(bits, list)
            or not bits
            or not all(isinstance(b, int) and 1 <= b <= MAX_BITS for b in bits)
            or not isinstance(code_size, int)
            or not 1 <= code_size <= MAX_BYTES
            or not 8 * code_size <= sum(bits) <= 8 * MAX_BYTES
            or sum(bits) % 8
        ):
            raise InputError("the codec's settings are not those of nested")
        gains = config.get("gains")
        _check_gains(gains, bits)
        known = {"basis", "basis_scale"}
        basis = entries_from_arrays("basis", tensors, 2)
        books = []
        for m, b in enumerate(bits):
            known |= {f"book{m}", f"book{m}_scale"}
            book = entries_from_arrays(f"book{m}", tensors, 2)
            if book.shape != (1 << b, basis.shape[1]):
                raise InputError(f"the codec's book{m} has a wrong shape")
            books.append(book)
        if tensors.keys() - known:
            raise InputError(
                f"the codec has arrays that nested lacks: {sorted(tensors.keys() - known)}"
            )
        if len(basis) != config.get("dim"):
            raise InputError("the codec's basis is missing or has a wrong shape")
        return cls(books, basis, bits, code_size, dict(tensors), gains)


def _check_gains(gains: Any, bits: list[int]) -> None:
    if gains is None:
        return
    per_cent = isinstance(gains, list) and len(gains) == len(bits)
    if not per_cent or not all(type(g) is int and 1 <= g <= _MOST_GAIN for g in gains):
        raise InputError(
            f"codec nested: gains {gains}, expected {len(bits)} integers of 1 to {_MOST_GAIN}, per "
            "cent"
        )


class ChosenCodes:
    """Codes of a map's points, for any of them that it keeps (``training.rivals``).

    What does not depend on which are kept is computed once.

    Args:
        codec: of codes of its ``code_size``.
        observations: of all points, also of those that are not kept: queries show them too.
    """

    def __init__(self, codec: NestedCodec, observations: Observations):
        self.codec, self.observations = codec, observations
        self._targets = target_descriptors(observations)
        count = observations.num_points
        each = min(max(_MOST_OPTIONS // max(count, 1), _OPTIONS[0]), _OPTIONS[1])
        # Maps of few points have time to look wider, and gain by it (docs/codecs.md).
        later = sum(len(head) for head in codec._heads[1:])
        least = min(max(each // _BEAM_OPTIONS, _BEAMS[0]), _BEAMS[1])
        most = min(max(each // 2, least), _BEAMS[2])
        self._beam = min(max(_MOST_COSTS // max(count * later, 1), least), most)
        self._indices = np.empty((count, each, len(codec._used)), np.uint16)
        self._errors = np.empty((count, each), np.float32)
        self._done = np.zeros(count, bool)

    @functools.cached_property
    def _seen(self) -> np.ndarray:
        return self.codec.latents(self.observations.descriptors)

    def __call__(
        self, rows: np.ndarray, stored: tuple[np.ndarray, np.ndarray] | None = None
    ) -> np.ndarray:
        """As ``base.PointEncoder`` says."""
        import torch

        from ..training.rivals import best_options

        self._find(rows[~self._done[rows]])
        keys = np.full(len(self._done), -1, np.int64)
        keys[rows] = np.arange(len(rows))
        indices = self._indices[rows].astype(np.int64)
        options = self._decoded(indices)
        defaults = options[:, 0]
        if stored is not None:
            points, codes = stored
            keys[points] = len(rows) + np.arange(len(points))
            others = self._decoded(unpack_bits(codes, self.codec._used)[:, None])[:, 0]
            defaults = np.concatenate([defaults, others])
        chosen = best_options(
            torch.from_numpy(self._seen),
            self.observations.image_index,
            keys[self.observations.point_index],
            torch.from_numpy(np.ascontiguousarray(defaults)),
            np.arange(len(rows)),
            torch.from_numpy(options),
            torch.from_numpy(self._errors[rows]),
        )
        return pack_bits(indices[np.arange(len(rows)), chosen], self.codec._used)

    def nearest(self, rows: np.ndarray) -> np.ndarray:
        """As ``base.PointEncoder`` says."""
        self._find(rows[~self._done[rows]])
        return pack_bits(self._indices[rows, 0].astype(np.int64), self.codec._used)

    def _find(self, rows: np.ndarray) -> None:
        """The options of the points ``rows``: the codes nearest to their targets."""
        import torch

        from ..training.nested import ENCODE_ROWS

        codec, each = self.codec, self._errors.shape[1]
        search, basis = codec._search, torch.from_numpy(codec.basis)

        def block(part: slice) -> None:
            mine = rows[part]
            x = torch.from_numpy(self._targets[mine].astype(np.float32))
            errors, codes = (found.numpy() for found in search.best(x @ basis, each, self._beam))
            count = errors.shape[1]  # of tiny codebooks fewer: the best is repeated
            for out, found in ((self._errors, errors), (self._indices, codes)):
                out[mine, :count] = found
                out[mine, count:] = found[:, :1]

        with steady_products():
            spread_rows(block, len(rows), ENCODE_ROWS * _BEAM // self._beam)
        self._done[rows] = True

    def _decoded(self, indices: np.ndarray) -> np.ndarray:
        """(k, C, M) indices to (k, C, L) float32, of length 1."""
        import torch
        import torch.nn.functional as F

        heads = [torch.from_numpy(head) for head in self.codec._heads]
        out = np.empty((*indices.shape[:2], heads[0].shape[1]), np.float32)

        def block(rows: slice) -> None:
            part = torch.from_numpy(indices[rows])
            z = F.embedding(part[..., 0], heads[0])
            for m, head in enumerate(heads[1:], 1):
                z += F.embedding(part[..., m], head)
            out[rows] = F.normalize(z, dim=2).numpy()

        with steady_products():
            spread_rows(block, len(indices), _DECODE_ROWS)
        return out
