"""Residual codes of which every head is a code: one codec for all code sizes, for any scene.

Ours, from known parts: residual codebooks searched by beam (Babenko and Lempitsky, CVPR 2014), each
in the order of a binary tree, so that the first bits of an index name the mean of a subtree
(successive refinement: Equitz and Cover, IEEE Trans. Information Theory 1991; tree-structured
codebooks: Buzo et al., IEEE Trans. ASSP 1980). Fitted on photos of many places
by ``tools/train_codec.py`` it is what ships in ``codecs/pretrained``.
"""

import functools
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from ..errors import InputError
from ..scene.reference import Observations
from ..threads import spread_rows
from ..training.kmeans import kmeans, latent_basis
from ..training.tree import head_of, tree_order
from .base import BLOCK_ROWS, Codec, project
from .entries import entries_from_arrays, entries_to_arrays
from .packing import pack_bits, unpack_bits

MAX_BITS = 16  # of an index
MAX_BYTES = 32  # of a code
_ENCODE_ROWS = 64  # rows in one beam search: its costs stay in the cache
_BEAM = 8
_BLOCK = 64  # costs whose least is looked at first
_PRIOR = 2.0  # rows' worth of trust in a centroid as it was
_BASIS_ROWS = 65_536


def used_bits(bits: list[int], code_size: int) -> list[int]:
    """How many bits of each index the first ``code_size`` bytes of a code hold, while any."""
    left, used = 8 * code_size, []
    for b in bits:
        if left <= 0:
            break
        used.append(min(b, left))
        left -= b
    return used


def nested_search(
    x: torch.Tensor, books: list[torch.Tensor], bits: list[int], sizes: list[int], beam: int
) -> dict[int, torch.Tensor]:
    """The code of each row for several code sizes, by one beam search.

    Args:
        x: (B, L).
        books: (2^b, L) for each of ``bits``.
        sizes: in bytes.
        beam: partial codes kept after each codebook.

    Returns:
        For each size (B, M) int64, an index for each codebook that it uses.
    """
    wanted = {size: used_bits(bits, size) for size in sizes}
    found: dict[int, torch.Tensor] = {}
    rows = len(x)
    residual = x[:, None]
    cost = torch.zeros(rows, 1)
    codes = torch.zeros(rows, 1, 0, dtype=torch.int64)

    def extended(book: torch.Tensor, keep: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Costs, parents and codes of the best codes that go on with a centroid of ``book``."""
        added = torch.addmm(book.square().sum(1), residual.flatten(0, 1), book.T, alpha=-2)
        total = (added.view(rows, -1, len(book)) + cost[..., None]).flatten(1)
        best, rank = least(total, min(keep, total.shape[1]))
        parent = torch.div(rank, len(book), rounding_mode="floor")
        index = (rank - parent * len(book))[..., None]
        before = codes.gather(1, parent[..., None].expand(-1, -1, codes.shape[2]))
        return best, parent, torch.cat([before, index], 2)

    for m, book in enumerate(books):
        ends = {size: used[m] for size, used in wanted.items() if len(used) == m + 1}
        for size, last in ends.items():
            found[size] = extended(head_of(book, last), 1)[2][:, 0]
        if len(found) == len(wanted):
            break
        cost, parent, codes = extended(book, beam)
        chosen = parent[..., None].expand(-1, -1, x.shape[1])
        residual = residual.gather(1, chosen) - F.embedding(codes[..., -1], book)
    return found


def least(values: torch.Tensor, keep: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``keep`` least of each row, increasing, and where they are.

    The least values lie in the blocks of least minima: finding those takes a pass, where sorting
    takes many.
    """
    width = values.shape[1]
    if keep == 1:
        best, rank = values.min(1, keepdim=True)
        return best, rank
    if width % _BLOCK or width <= _BLOCK * keep:
        return values.topk(keep, 1, largest=False)
    blocks = values.unflatten(1, (-1, _BLOCK))
    rank = blocks.amin(2).topk(keep, 1, largest=False)[1]
    inside = blocks.gather(1, rank[..., None].expand(-1, -1, _BLOCK)).flatten(1)
    best, place = inside.topk(keep, 1, largest=False)
    block = torch.div(place, _BLOCK, rounding_mode="floor")
    return best, rank.gather(1, block) * _BLOCK + place % _BLOCK


class NestedCodec(Codec):
    """Codebooks of L-dimensional centroids whose sum a basis takes to D dimensions.

    A code is a number whose lowest bits are the index into the first codebook, and so on. In its
    first bytes the last index may be cut, and then names a mean (``training.tree.head_of``).

    Attributes:
        books: float32 tensors (2^b, L), one for each index of a whole code.
        basis: (D, L) float32.
        bits: b of each.
    """

    name = "nested"
    sharpens = True

    def __init__(
        self,
        books: list[torch.Tensor],
        basis: torch.Tensor,
        bits: list[int],
        code_size: int,
        arrays: dict[str, np.ndarray],
    ):
        self.books, self.basis, self.bits = books, basis, bits
        self.dim, self.code_size = len(basis), code_size
        self._arrays = arrays
        self._used = used_bits(bits, code_size)

    @functools.cached_property
    def _heads(self) -> list[torch.Tensor]:
        """The codebooks that codes of ``code_size`` bytes refer to."""
        return [head_of(book, used) for book, used in zip(self.books, self._used, strict=False)]

    @functools.cached_property
    def _table(self) -> torch.Tensor:
        return torch.cat(self._heads)

    @functools.cached_property
    def _first(self) -> torch.Tensor:
        """The row of ``_table`` where each codebook starts."""
        sizes = torch.tensor([len(book) for book in self._heads])
        return sizes.cumsum(0) - sizes

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
        return NestedCodec(self.books, self.basis, self.bits, code_size, self._arrays)

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
        max_rows: int = 524_288,
        rows_per_centroid: int = 32,
        rounds: int = 1,
        rounds_rows: int = 131_072,
        beam: int = 4,
    ) -> "NestedCodec":
        """Residual k-means on the observations, put in order, then fitted to its own codes.

        The basis is the principal axes.

        Args:
            bits: of each index; by default 8 of each.
            latent: L, at most D.
            max_rows: observations that are used, drawn at random where there are more.
            rows_per_centroid: of k-means.
            rounds: in each, ``rounds_rows`` observations are encoded by beam search, and each
                codebook in turn is set to what is best for their codes (``refit_codebooks``).
            beam: of the encodings in these.
        """
        if len(observations) == 0:
            raise InputError("the map has no observation to fit a codec on")
        bits = list(bits or [8] * code_bytes)
        if sum(bits) != 8 * code_bytes or not all(1 <= b <= MAX_BITS for b in bits):
            raise InputError(
                f"codec nested: bits {bits}, expected indices of 1 to {MAX_BITS} bits that make "
                f"{code_bytes} bytes"
            )
        rng = np.random.default_rng(seed)
        rows = rng.permutation(len(observations))[:max_rows]
        spread = observations.descriptors[rows[:_BASIS_ROWS]].astype(np.float32)
        basis = latent_basis(spread, min(latent, observations.dim))
        x = project(observations.descriptors[rows], basis)
        books = _residual_codebooks(x, bits, seed, rows_per_centroid, progress)
        some = torch.from_numpy(x[:rounds_rows])
        for _ in range(rounds):
            parts = [
                nested_search(part, books, bits, [code_bytes], beam)[code_bytes]
                for part in tqdm(some.split(_ENCODE_ROWS), desc="refit", disable=not progress)
            ]
            books = refit_codebooks(some, torch.cat(parts), books)
        books = [book[torch.from_numpy(tree_order(book.numpy()))] for book in books]
        arrays = entries_to_arrays("basis", basis, "float16")
        for m, book in enumerate(books):
            arrays |= entries_to_arrays(f"book{m}", book.numpy(), "int8")
        config = {"dim": observations.dim, "code_size": code_bytes, "bits": bits}
        return cls.from_tensors(arrays, config)

    def encode(self, descriptors: np.ndarray) -> np.ndarray:
        indices = np.empty((len(descriptors), len(self._used)), np.int64)
        size = self.code_size

        def block(rows: slice) -> None:
            x = torch.from_numpy(np.array(descriptors[rows], np.float32)) @ self.basis
            indices[rows] = nested_search(x, self.books, self.bits, [size], _BEAM)[size].numpy()

        spread_rows(block, len(descriptors), _ENCODE_ROWS)
        return pack_bits(indices, self._used)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        out = np.empty((len(codes), self.dim), np.float32)
        into = torch.from_numpy(out)

        def block(rows: slice) -> None:
            indices = torch.from_numpy(unpack_bits(codes[rows], self._used))
            z = F.embedding_bag(indices + self._first, self._table, mode="sum")
            y = torch.mm(z, self.basis.T, out=into[rows])
            y /= torch.linalg.vector_norm(y, dim=1, keepdim=True).clamp_(min=1e-12)

        spread_rows(block, len(codes), BLOCK_ROWS)
        return out

    def tensors(self) -> dict[str, np.ndarray]:
        return dict(self._arrays)

    def config(self) -> dict[str, Any]:
        return {**super().config(), "bits": list(self.bits)}

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
        known = {"basis", "basis_scale"}
        basis = entries_from_arrays("basis", tensors, 2)
        books = []
        for m, b in enumerate(bits):
            known |= {f"book{m}", f"book{m}_scale"}
            book = entries_from_arrays(f"book{m}", tensors, 2)
            if book.shape != (1 << b, basis.shape[1]):
                raise InputError(f"the codec's book{m} has a wrong shape")
            books.append(torch.from_numpy(book))
        if tensors.keys() - known:
            raise InputError(
                f"the codec has arrays that nested lacks: {sorted(tensors.keys() - known)}"
            )
        if len(basis) != config.get("dim"):
            raise InputError("the codec's basis is missing or has a wrong shape")
        return cls(books, torch.from_numpy(basis), bits, code_size, dict(tensors))


def refit_codebooks(
    x: torch.Tensor, codes: torch.Tensor, books: list[torch.Tensor], sweeps: int = 3
) -> list[torch.Tensor]:
    """Codebooks nearer to the rows, given their codes.

    One codebook after the other, each centroid becomes what minimises

        sum over rows and heads l of |x - sum of the centroids of the first l indices|^2

    plus ``_PRIOR`` times its own squared change. Source: the codebook update of Babenko and
    Lempitsky, CVPR 2014, section 3.3, by coordinate descent, and for all heads of the codes.

    Args:
        x: (N, L).
        codes: (N, M) int64.
        books: M tensors (K_m, L).
        sweeps: over all codebooks.
    """
    new = [book.clone() for book in books]
    levels = len(books)
    for _ in range(sweeps):
        for m in range(levels):
            index = codes[:, m]
            wanted = torch.zeros_like(x)
            total = torch.zeros_like(x)
            for j in range(levels):
                if j != m:
                    total += new[j][codes[:, j]]
                if j >= m:
                    wanted += x - total
            sums = torch.zeros_like(new[m]).index_add_(0, index, wanted / (levels - m))
            counts = torch.bincount(index, minlength=len(new[m]))[:, None]
            new[m] = (sums + _PRIOR * books[m]) / (counts + _PRIOR)
    return new


def _residual_codebooks(
    x: np.ndarray, bits: list[int], seed: int, rows_per_centroid: int, progress: bool
) -> list[torch.Tensor]:
    """k-means of what the codebooks before have left; see ``kmeans``."""
    residual = np.array(x)
    books = []
    for m, b in enumerate(tqdm(bits, desc="k-means", disable=not progress)):
        size = 1 << b
        # Fewer rows than centroids (tiny maps): the rest repeats.
        book = kmeans(residual, min(size, len(x)), seed + m, 8, rows_per_centroid * size)
        table = torch.from_numpy(np.resize(book, (size, x.shape[1])))
        books.append(table)
        norms = table.square().sum(1)
        for first in range(0, len(residual), _ENCODE_ROWS):
            part = torch.from_numpy(residual[first : first + _ENCODE_ROWS])
            part -= table[torch.addmm(norms, part, table.T, alpha=-2).argmin(1)]
    return books
