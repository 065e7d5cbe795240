"""Residual codebooks of which every head of a code is a code: their start, refit and search."""

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from .kmeans import kmeans
from .tree import head_of, used_bits

ENCODE_ROWS = 64  # rows in one beam search: its costs stay in the cache
_BLOCK = 64  # costs whose least is looked at first
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
    some, size = torch.from_numpy(x[:rounds_rows]), sum(bits) // 8
    for _ in range(rounds):
        parts = [
            nested_search(part, books, bits, [size], beam)[size]
            for part in tqdm(some.split(ENCODE_ROWS), desc="refit", disable=not progress)
        ]
        books = refit_codebooks(some, torch.cat(parts), books)
    return [book.numpy() for book in books]


def best_codes(
    x: np.ndarray, books: list[np.ndarray], bits: list[int], code_size: int, beam: int
) -> np.ndarray:
    """``nested_search`` of one code size on arrays: (N, M) int64."""
    tensors = [torch.from_numpy(book) for book in books]
    return nested_search(torch.from_numpy(x), tensors, bits, [code_size], beam)[code_size].numpy()


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
