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
    some = torch.from_numpy(x[:rounds_rows])
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

    def best(self, x: torch.Tensor, keep: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The ``keep`` nearest codes found for (B, L) rows, or as many as there are.

        Returns:
            (B, c) squared errors less the rows' squared lengths, increasing, and (B, c, M) int64.
        """
        rows = len(x)
        residual, one = x[:, None], torch.ones(rows, 1, 1)
        cost = torch.zeros(rows, 1)
        codes = torch.zeros(rows, 1, 0, dtype=torch.int64)
        for m, (book, table) in enumerate(zip(self.books, self._tables, strict=True)):
            size, last = len(book), m == len(self.books) - 1
            state = torch.cat([residual, one.expand(-1, codes.shape[1], -1), cost[..., None]], 2)
            total = (state.flatten(0, 1) @ table).view(rows, -1)
            cost, rank = least(total, min(keep if last else self.beam, total.shape[1]))
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
            sums = torch.zeros_like(new[m]).index_add_(0, index, wanted / (levels - m))
            counts = torch.bincount(index, minlength=len(new[m]))[:, None]
            new[m] = (sums + _PRIOR * books[m]) / (counts + _PRIOR)
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
