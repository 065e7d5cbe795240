"""Residual codebooks of which every head of a code is a code: their start, refit and search."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from .kmeans import kmeans

ENCODE_ROWS = 32  # rows in one beam search: its costs stay in the cache
_GROUP = 64  # costs whose least is looked at first, at most
_PRIOR = 2.0  # rows' worth of trust in a centroid as it was
_SPLITS = 8  # iterations of 2-means
_NEAREST = 512  # rows at a time


def fit_codebooks(
    x: np.ndarray,
    bits: list[int],
    seed: int,
    *,
    rows_per_centroid: int,
    rounds: int,
    rounds_rows: int,
    beam: int,
    progress: bool = False,
) -> list[np.ndarray]:
    """Residual k-means, then rounds of encoding and ``refit_codebooks``.

    Args:
        x: (N, L) float32.
        bits: of each index.
        seed: of k-means.
        rows_per_centroid, rounds, rounds_rows, beam: see ``NestedCodec.fit``.
        progress: show progress bars.

    Returns:
        (2^b, L) float32 for each of ``bits``.
    """
    books = residual_start(x, bits, seed, rows_per_centroid, progress)
    return _rounds(x[:rounds_rows], books, rounds, beam, progress)


def more_codebooks(
    x: np.ndarray,
    start: Sequence[np.ndarray],
    bits: list[int],
    seed: int,
    *,
    rounds: int,
    rounds_rows: int,
    beam: int,
    progress: bool = False,
) -> list[np.ndarray]:
    """Codebooks from those of another codec: each is split to its size, then as ``fit_codebooks``.

    In a fraction of the time of k-means, and what the other codec has seen is not lost.

    Args:
        x: (N, L) float32.
        start: (2^b, L) for each of ``bits``, b no larger than there.
        bits: of each index.
        seed: of the rows that centroids are split along.
        rounds, rounds_rows, beam, progress: as of ``fit_codebooks``.

    Returns:
        (2^b, L) float32 for each of ``bits``.
    """
    residual = torch.from_numpy(np.array(x, np.float32))
    books = []
    for m, b in enumerate(tqdm(bits, desc="split", disable=not progress)):
        book = torch.from_numpy(np.array(start[m], np.float32))
        while len(book) < 1 << b:
            book = split_centroids(residual, book, seed + m)
        index = _nearest(residual, book)
        books.append(_means(residual, index, book, _PRIOR))
        residual -= books[-1][index]
    return _rounds(x[:rounds_rows], books, rounds, beam, progress)


def split_centroids(x: torch.Tensor, book: torch.Tensor, seed: int) -> torch.Tensor:
    """Two centroids for each: 2-means of the rows nearest to it. (N, L), (K, L) to (2 K, L).

    Source: Linde, Buzo, Gray, IEEE Trans. Communications 1980, split along a random row.
    """
    count = len(book)
    index = _nearest(x, book)
    book = _means(x, index, book, 1)
    mixed = np.random.default_rng(seed).permutation(len(x))
    found, at = np.unique(index.numpy()[mixed], return_index=True)
    away = torch.zeros_like(book)  # where no row is, the two are the same
    away[found] = (x[mixed[at]] - book[found]) / 2
    halves = torch.stack([book - away, book + away], 1)
    for _ in range(_SPLITS):
        first, second = ((x - half[index]).square_().sum(1) for half in halves.unbind(1))
        child = 2 * index + (first > second)
        halves = _means(x, child, halves.flatten(0, 1), 1).unflatten(0, (count, 2))
    return halves.flatten(0, 1)


def _nearest(x: torch.Tensor, book: torch.Tensor) -> torch.Tensor:
    norms = book.square().sum(1)
    parts = [torch.addmm(norms, part, book.T, alpha=-2).argmin(1) for part in x.split(_NEAREST)]
    return torch.cat(parts)


def _means(x: torch.Tensor, index: torch.Tensor, book: torch.Tensor, prior: float) -> torch.Tensor:
    """Means of the rows of each centroid and of ``prior`` times the centroid as it was."""
    sums = torch.zeros_like(book).index_add_(0, index, x)
    counts = torch.bincount(index, minlength=len(book))[:, None]
    return (sums + prior * book) / (counts + prior)


def _rounds(
    x: np.ndarray, books: list[torch.Tensor], rounds: int, beam: int, progress: bool
) -> list[np.ndarray]:
    """Rounds of encoding and ``refit_codebooks``."""
    some = torch.from_numpy(x)
    for _ in range(rounds):
        search = Search(books, beam)
        parts = [
            search(part)
            for part in tqdm(some.split(ENCODE_ROWS), desc="refit", disable=not progress)
        ]
        books = refit_codebooks(some, torch.cat(parts), books)
    return [book.numpy() for book in books]


class Search:
    """Beam search for codes of residual codebooks, prepared for many rows.

    The cost of going on from a partial code with a centroid c, |r - c|^2 - |r|^2 plus the cost so
    far, is one product of (r, 1, cost) and (-2 c, |c|^2, 1): nothing else passes over all costs.

    Args:
        books: (K_m, L) float32 for each index.
        beam: partial codes kept after each codebook.
    """

    def __init__(self, books: Sequence[torch.Tensor], beam: int):
        self.books, self.beam = list(books), beam
        self._tables = [
            torch.cat([-2 * book.T, book.square().sum(1)[None], torch.ones(1, len(book))])
            for book in self.books
        ]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The codes of (B, L) rows: (B, M) int64."""
        return self.best(x, 1)[1][:, 0]

    def best(
        self, x: torch.Tensor, keep: int, beam: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The ``keep`` nearest codes found for (B, L) rows, or as many as there are.

        Args:
            x: the rows.
            keep: codes of each.
            beam: another one for these rows.

        Returns:
            (B, c) squared errors less the rows' squared lengths, increasing, and (B, c, M) int64.
        """
        rows, beam = len(x), beam or self.beam
        residual, one = x[:, None], torch.ones(rows, 1, 1)
        cost = torch.zeros(rows, 1)
        codes = torch.zeros(rows, 1, 0, dtype=torch.int64)
        for m, (book, table) in enumerate(zip(self.books, self._tables, strict=True)):
            size, last = len(book), m == len(self.books) - 1
            state = torch.cat([residual, one.expand(-1, codes.shape[1], -1), cost[..., None]], 2)
            total = (state.flatten(0, 1) @ table).view(rows, -1)
            cost, rank = least(total, min(keep if last else beam, total.shape[1]))
            parent = torch.div(rank, size, rounding_mode="floor")
            index = (rank - parent * size)[..., None]
            before = codes.gather(1, parent[..., None].expand(-1, -1, m))
            codes = torch.cat([before, index], 2)
            if not last:
                chosen = parent[..., None].expand(-1, -1, x.shape[1])
                residual = residual.gather(1, chosen) - F.embedding(index[..., 0], book)
        return cost, codes


def least(values: torch.Tensor, keep: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``keep`` least of each row, increasing, and where they are.

    The least values lie in the groups of least minima: finding those takes a pass, where sorting
    takes many.
    """
    width = values.shape[1]
    if keep == 1:
        best, rank = values.min(1, keepdim=True)
        return best, rank
    size = _GROUP
    while size > 1 and (width % size or width < 3 * keep * size):
        size //= 2
    if size == 1:
        return values.topk(keep, 1, largest=False)
    # A group is every so many-th value, so that minima are of whole rows.
    groups = values.unflatten(1, (size, -1))
    group = groups.amin(1).topk(keep, 1, largest=False)[1]
    inside = groups.gather(2, group[:, None].expand(-1, size, -1)).flatten(1)
    best, place = inside.topk(keep, 1, largest=False)
    row = torch.div(place, keep, rounding_mode="floor")
    return best, row * (width // size) + group.gather(1, place - row * keep)


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
            new[m] = _means(wanted / (levels - m), index, books[m], _PRIOR)
    return new


def residual_start(
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
        for first in range(0, len(residual), ENCODE_ROWS):
            part = torch.from_numpy(residual[first : first + ENCODE_ROWS])
            part -= table[torch.addmm(norms, part, table.T, alpha=-2).argmin(1)]
    return books
