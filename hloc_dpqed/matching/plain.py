"""``nearest_neighbor`` with numpy alone, for where torch is not installed. The same matches."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .nearest_neighbor import Matches, NearestNeighborConf

# Query rows at a time, so many that their similarities with all points take no more than this; with
# few, a pass over the points is made for little.
MOST_BYTES, LEAST_ROWS, MOST_ROWS = 1 << 20, 16, 128


def common_basis(descriptors: np.ndarray, energy: float) -> np.ndarray | None:
    """As ``localization.localizer.common_basis``, of arrays."""
    count, dim = descriptors.shape
    if count < 4 * dim:
        return None
    strength, directions = np.linalg.eigh(descriptors.T @ descriptors)
    missing = np.cumsum(np.maximum(strength, 0)) / strength.sum()
    rank = int((missing > energy).sum())
    return np.ascontiguousarray(directions[:, dim - rank :]) if rank <= 0.75 * dim else None


def match_images(
    query: np.ndarray,
    database: np.ndarray,
    rows_of_images: Sequence[np.ndarray],
    conf: NearestNeighborConf,
) -> list[Matches]:
    """As ``nearest_neighbor.match_images``, of arrays."""
    if len(query) == 0 or len(database) == 0:
        return [Matches.empty() for _ in rows_of_images]
    # The nearest query row of a point does not depend on the image that sees it.
    to_query = _Best.of_none(len(database))
    forward = [_Best.of_none(len(query)) for _ in rows_of_images]
    step = min(max(MOST_BYTES // (4 * len(database)), LEAST_ROWS), MOST_ROWS)
    for start in range(0, len(query), step):
        part = slice(start, start + step)
        similarity = database @ query[part].T
        to_query.update(similarity, start, bool(conf.ratio_threshold))
        for image, rows in zip(forward, rows_of_images, strict=True):
            if len(rows):
                seen = _Best.of_none(similarity.shape[1])
                seen.update(similarity[rows].T, 0, bool(conf.ratio_threshold))
                image.put(part, seen)
    found = []
    for image, rows in zip(forward, rows_of_images, strict=True):
        # hloc skips the ratio test where one side has a single row.
        ratio = min(len(query), len(rows)) > 1
        index = image.accepted(conf, ratio)
        accept = index >= 0
        if conf.do_mutual_check and len(rows):
            back = to_query.accepted(conf, ratio)[rows]
            accept &= back[np.maximum(index, 0)] == np.arange(len(query))
        kept = np.flatnonzero(accept)
        found.append(Matches(np.stack([kept, index[kept]], 1), image.value[kept]))
    return found


def match_all(query: np.ndarray, database: np.ndarray, conf: NearestNeighborConf) -> Matches:
    """As ``nearest_neighbor.match_all``, of arrays: all rows of ``database`` are one image."""
    return match_images(query, database, [np.arange(len(database))], conf)[0]


@dataclass
class _Best:
    """The nearest neighbour of each of n rows so far.

    Attributes:
        index: (n,) int64 of the neighbour, -1 for none.
        value: (n,) float32, its similarity.
        second: (n,) float32, the second highest similarity.
    """

    index: np.ndarray
    value: np.ndarray
    second: np.ndarray

    @staticmethod
    def of_none(count: int) -> "_Best":
        lowest = np.full(count, -np.inf, np.float32)
        return _Best(np.full(count, -1), lowest, lowest.copy())

    def put(self, part: slice, other: "_Best") -> None:
        """Replace some rows."""
        self.index[part], self.value[part] = other.index, other.value
        self.second[part] = other.second

    def update(self, similarity: np.ndarray, first: int, with_second: bool) -> None:
        """Look at more neighbours: (n, k) similarities with ``first``, ``first`` + 1, ..."""
        position = similarity.argmax(1)  # the lowest of equal ones
        value = similarity.max(1)
        if with_second:
            lower = np.minimum(value, self.value)
            if similarity.shape[1] > 1:
                lower = np.maximum(lower, np.partition(similarity, -2, 1)[:, -2])
            self.second = np.maximum(self.second, lower)
        better = value > self.value
        self.index = np.where(better, position + first, self.index)
        self.value = np.maximum(self.value, value)

    def accepted(self, conf: NearestNeighborConf, ratio: bool) -> np.ndarray:
        """``index``, -1 where the tests reject; ``ratio``: whether that test is made."""
        distance = 2 * (1 - self.value)
        accept = self.index >= 0
        if conf.ratio_threshold and ratio:
            accept &= distance <= np.float32(conf.ratio_threshold**2) * (2 * (1 - self.second))
        if conf.distance_threshold:
            accept &= distance <= np.float32(conf.distance_threshold**2)
        return np.where(accept, self.index, -1)
