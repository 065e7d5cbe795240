"""Nearest-neighbour matching of a query against many database images at once.

The rules are those of hloc's ``nearest_neighbor`` matcher (ratio and distance thresholds, mutual
check, each image on its own); what differs is the order of the work: similarities between the
query and the union of the images' points are computed in one matrix product, then looked up for
each image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..libraries import torch
from ..threads import SHARES, num_workers, spread

QUERY_ROWS = 192  # matched at a time with a mutual check


@dataclass(frozen=True)
class NearestNeighborConf:
    """Options of hloc's nearest-neighbour matcher."""

    ratio_threshold: float | None = None
    distance_threshold: float | None = None
    do_mutual_check: bool = True


NN_CONFS: dict[str, NearestNeighborConf] = {
    "NN-mutual": NearestNeighborConf(),
    "NN-ratio": NearestNeighborConf(ratio_threshold=0.8),
    "NN-superpoint": NearestNeighborConf(distance_threshold=0.7),
}


@dataclass(frozen=True)
class Neighbours:
    """The nearest neighbour of each row of one set in another, and whether the tests accept it.

    Attributes:
        index: (n,) int64, -1 where the tests reject it.
        similarity: (n,) float32 cosine similarity of the nearest neighbour.
    """

    index: torch.Tensor
    similarity: torch.Tensor


def nearest(similarity: torch.Tensor, dim: int, conf: NearestNeighborConf) -> Neighbours:
    """Nearest neighbours along ``dim`` of a matrix of cosine similarities.

    Ties go to the lowest index. As in hloc, the ratio test is skipped by the caller where one
    side has a single row.
    """
    best, index = similarity.max(dim)
    accept = None
    distance = 2 * (1 - best)
    if conf.ratio_threshold:
        second = similarity.topk(2, dim).values.select(dim, 1)
        accept = distance <= conf.ratio_threshold**2 * (2 * (1 - second))
    if conf.distance_threshold:
        close = distance <= conf.distance_threshold**2
        accept = close if accept is None else accept & close
    if accept is not None:
        index = torch.where(accept, index, -1)
    return Neighbours(index, best)


class Matches(NamedTuple):
    """Matches of a query with one image (or with the whole map), by query row.

    Attributes:
        pairs: (k, 2) int64, query row and position in the image (or row of the map).
        similarity: (k,) float32 cosine similarity.
    """

    pairs: np.ndarray
    similarity: np.ndarray

    @staticmethod
    def of(query_rows: torch.Tensor, positions: torch.Tensor, similarity: torch.Tensor) -> Matches:
        """From tensors of length k."""
        pairs = torch.stack([query_rows, positions], 1)
        return Matches(pairs.cpu().numpy(), similarity.cpu().numpy())

    @staticmethod
    def empty() -> Matches:
        return Matches(np.zeros((0, 2), np.int64), np.zeros(0, np.float32))


def match_images(
    query: torch.Tensor,
    database: torch.Tensor,
    rows_of_images: Sequence[torch.Tensor],
    conf: NearestNeighborConf,
) -> list[Matches]:
    """Match one query against several images that share descriptors.

    Args:
        query: (N, D) float32, L2-normalised.
        database: (U, D) float32, L2-normalised, on the same device.
        rows_of_images: for each image, (n_i,) int64 rows of ``database``, which may repeat
            (points of equal codes share a row).
        conf: the tests that a match must pass.

    Returns:
        The matches with each image.
    """
    if len(query) == 0 or len(database) == 0:
        return [Matches.empty() for _ in rows_of_images]
    if conf.do_mutual_check and not conf.ratio_threshold:
        return _match_mutually(query, database, rows_of_images, conf)
    similarity = database @ query.T  # (U, N): an image's rows are then contiguous copies
    if len(query) == 1:
        conf = _without_ratio(conf)
    # The nearest query row of a point does not depend on the image that sees it.
    to_query = nearest(similarity, 1, conf)
    matches = []
    for rows in rows_of_images:
        if len(rows) == 0:
            matches.append(Matches.empty())
        elif len(rows) == 1:
            alone = similarity[rows]
            without = _without_ratio(conf)
            matches.append(_both_ways(alone, nearest(alone, 1, without).index, without))
        else:
            matches.append(_both_ways(similarity[rows], to_query.index[rows], conf))
    return matches


def _match_mutually(
    query: torch.Tensor,
    database: torch.Tensor,
    rows_of_images: Sequence[torch.Tensor],
    conf: NearestNeighborConf,
) -> list[Matches]:
    """``match_images`` with the mutual check and without a ratio test.

    The matrix of similarities is made some query rows at a time: it then stays in the processor's
    cache while each image's rows of it are looked up. Threads share the blocks, so that the matches
    are the same with any number of them.
    """
    best = torch.full((len(rows_of_images), len(query)), -torch.inf, device=query.device)
    step = QUERY_ROWS if query.device.type == "cpu" else len(query)
    blocks = -(-len(query) // step)
    shares = min(SHARES * num_workers(), blocks)
    ends = [min(step * (blocks * k // shares), len(query)) for k in range(1, shares + 1)]
    sizes = np.diff(ends, prepend=0).tolist()
    found = spread(
        lambda part: _maxima(*part, database, rows_of_images, step),
        list(zip(query.split(sizes), best.split(sizes, 1), strict=True)),
    )
    index, value = found[0]
    for start, (later_index, later_value) in zip(ends, found[1:], strict=False):
        better = later_value > value  # an earlier row wins ties
        index = torch.where(better, later_index + start, index)
        value = torch.where(better, later_value, value)
    if conf.distance_threshold:
        index = torch.where(2 * (1 - value) <= conf.distance_threshold**2, index, -1)
    return _mutual(best, Neighbours(index, value), rows_of_images)


def _maxima(
    query: torch.Tensor,
    best: torch.Tensor,
    database: torch.Tensor,
    rows_of_images: Sequence[torch.Tensor],
    step: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The query row nearest to each row of the database, and the highest similarities in images.

    Args:
        query: (N, D) float32.
        best: (images, N) float32, filled with each image's highest similarity to each query row.
        database, rows_of_images: as in ``match_images``.
        step: query rows at a time.

    Returns:
        (U,) int64 query rows and (U,) float32 similarities.
    """
    # Memory that is used again and again stays in the cache; fresh memory costs page faults.
    width, longest = min(step, len(query)), max((len(rows) for rows in rows_of_images), default=0)
    product, looked_up = query.new_empty(len(database) * width), query.new_empty(longest * width)
    found = []
    for start in range(0, len(query), step):
        part, columns = query[start : start + step], slice(start, start + step)
        similarity = product[: len(database) * len(part)].view(len(database), len(part))
        torch.mm(database, part.T, out=similarity)
        found.append(_row_maxima(similarity))
        for image, rows in enumerate(rows_of_images):
            if len(rows):
                of_image = looked_up[: len(rows) * len(part)].view(len(rows), len(part))
                torch.index_select(similarity, 0, rows, out=of_image)
                torch.amax(of_image, 0, out=best[image, columns])
    value, block = torch.stack([highest for highest, _ in found]).max(0)  # the first of ties
    position = torch.stack([position for _, position in found])
    return position.gather(0, block[None])[0] + step * block, value


def _row_maxima(similarity: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Highest value of each row and its lowest position, as ``similarity.max(1)``."""
    if similarity.device.type != "cpu":
        highest, position = similarity.max(1)
        return highest, position
    position = torch.from_numpy(similarity.numpy().argmax(1))  # six times as fast as torch's
    return similarity.gather(1, position[:, None])[:, 0], position


def _mutual(
    best: torch.Tensor, to_query: Neighbours, rows_of_images: Sequence[torch.Tensor]
) -> list[Matches]:
    """Mutual nearest neighbours of each image.

    A point and its nearest query row are mutual where no other point of the image is closer to
    that row: the maxima decide, and computing them without their positions is several times
    faster.

    Args:
        best: (images, N) float32 highest similarity of the image's points to each query row.
        to_query: the query row nearest to each row of the database.
        rows_of_images: as in ``match_images``.
    """
    images, count = best.shape
    if images == 0:
        return []
    device = best.device
    sizes = torch.tensor([len(rows) for rows in rows_of_images], device=device)
    rows, first_of_image = torch.cat(list(rows_of_images)), sizes.cumsum(0) - sizes
    image = torch.repeat_interleave(torch.arange(images, device=device), sizes)
    nearest_row, value = to_query.index[rows], to_query.similarity[rows]
    cell = image * count + nearest_row.clamp(min=0)
    kept = torch.nonzero((nearest_row >= 0) & (value >= best.flatten()[cell])).ravel()
    # Positions increase, so a stable sort leaves the lowest of equal ones first.
    cells, order = torch.sort(cell[kept], stable=True)
    first = torch.ones_like(cells, dtype=torch.bool)
    first[1:] = cells[1:] != cells[:-1]
    cells, kept = cells[first], kept[order[first]]
    ends = torch.searchsorted(cells, torch.arange(1, images, device=device) * count)
    together = Matches.of(cells % count, kept - first_of_image[image[kept]], value[kept])
    parts = ends.tolist()
    return [
        Matches(*both)
        for both in zip(
            np.split(together.pairs, parts), np.split(together.similarity, parts), strict=True
        )
    ]


def _both_ways(
    of_image: torch.Tensor, backward: torch.Tensor, conf: NearestNeighborConf
) -> Matches:
    """Nearest neighbours from the query to the image, and back where the check is asked for."""
    forward = nearest(of_image, 0, conf)
    accept = forward.index >= 0
    if conf.do_mutual_check:
        query_rows = torch.arange(of_image.shape[1], device=of_image.device)
        accept &= backward[forward.index.clamp(min=0)] == query_rows
    kept = torch.nonzero(accept).ravel()
    return Matches.of(kept, forward.index[kept], forward.similarity[kept])


def _without_ratio(conf: NearestNeighborConf) -> NearestNeighborConf:
    """hloc skips the ratio test where one side of a pair has a single row."""
    return dataclasses.replace(conf, ratio_threshold=None)


def match_all(
    query: torch.Tensor, database: torch.Tensor, conf: NearestNeighborConf, block: int = 65_536
) -> Matches:
    """Match one query against all rows of ``database`` as if they were one image.

    Works in blocks of rows, so that the matrix of similarities never exceeds ``block`` x N.

    Returns:
        The matches; positions are rows of ``database``.
    """
    count = len(query)
    if count == 0 or len(database) == 0:
        return Matches.empty()
    if min(count, len(database)) == 1:
        conf = _without_ratio(conf)
    backward = torch.empty(len(database), dtype=torch.int64, device=query.device)
    best = torch.full((2, count), -torch.inf, device=query.device)
    index = torch.full((count,), -1, dtype=torch.int64, device=query.device)
    for start in range(0, len(database), block):
        similarity = database[start : start + block] @ query.T
        backward[start : start + len(similarity)] = nearest(similarity, 1, conf).index
        values = similarity.topk(min(2, len(similarity)), 0).values
        first = similarity.max(0)  # topk does not promise the lowest row among ties
        better = first.values > best[0]  # an earlier block wins ties
        index = torch.where(better, first.indices + start, index)
        best = torch.cat([best, values]).topk(2, 0).values
    distance = 2 * (1 - best)
    accept = index >= 0
    if conf.ratio_threshold:
        accept &= distance[0] <= conf.ratio_threshold**2 * distance[1]
    if conf.distance_threshold:
        accept &= distance[0] <= conf.distance_threshold**2
    if conf.do_mutual_check:
        accept &= backward[index.clamp(min=0)] == torch.arange(count, device=query.device)
    kept = torch.nonzero(accept).ravel()
    return Matches.of(kept, index[kept], best[0][kept])
