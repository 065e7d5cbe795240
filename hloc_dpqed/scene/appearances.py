"""Points that look different from different places, as several points at one place. Ours.

The mean of a point's observations is far from each of them where these differ: by day and by night,
from the left and from the right. Such a point may have a code for each of its appearances. It then
is several *rows*: each with a code, seen by the images in which the point looks so, all with the
point's coordinates. A map file holds rows as it holds points, and matches are those of places (see
``CompressedMap.place_of_point``).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from .reference import Observations, ReferenceMap
from .visibility import Visibility


@dataclass(frozen=True)
class Appearances:
    """A map whose points are rows.

    Attributes:
        reference, observations: the map; ``observations.places`` names the point of each row.
        starts: (P + 1,) int64, rows ``starts[p]`` to ``starts[p + 1] - 1`` are those of point p.
    """

    reference: ReferenceMap
    observations: Observations
    starts: np.ndarray

    def rows(self, points: np.ndarray) -> np.ndarray:
        """The rows of the points ((k,) int64, increasing): (n,) int64, increasing."""
        chosen = np.zeros(len(self.starts) - 1, np.int64)
        chosen[points] = 1
        return np.flatnonzero(np.repeat(chosen, np.diff(self.starts)))


def split_points(
    reference: ReferenceMap, observations: Observations, codes_per_point: float
) -> Appearances:
    """Divide each point's observations into appearances, see ``AppearanceTrees.split``."""
    return AppearanceTrees(reference, observations).split(codes_per_point)


class AppearanceTrees:
    """Ward's trees of the descriptors of each point, for several numbers of codes.

    Args:
        reference, observations: the map.
    """

    def __init__(self, reference: ReferenceMap, observations: Observations):
        self.reference, self.observations = reference, observations
        self._points, self._order, self._ends = _tracks(observations)
        self._trees: dict[int, np.ndarray] | None = None

    def split(self, codes_per_point: float) -> Appearances:
        """Divide each point's observations into appearances.

        All trees are cut at one height: a further code goes where it takes most of the squared
        error.

        Args:
            codes_per_point: rows for each point, on average over the map, at least 1. There are
                fewer where tracks are too short.
        """
        from scipy.cluster.hierarchy import fcluster  # whoever only reads maps needs none

        extra = round((codes_per_point - 1) * self.observations.num_points)
        trees = self._grown() if extra > 0 else {}
        merges = np.sort(np.concatenate([np.zeros(0), *(tree[:, 2] for tree in trees.values())]))
        cut = merges[-1 - extra] if extra < len(merges) else -1.0
        label = np.ones(len(self.observations), np.int64)
        for point, rows in self._rows():
            tree = trees.get(point)
            if tree is not None and tree[-1, 2] > cut:
                label[rows] = fcluster(tree, cut, "distance")
        return divided_points(self.reference, self.observations, label)

    def _rows(self) -> Iterator[tuple[int, np.ndarray]]:
        """Points and their observations."""
        starts = np.r_[0, self._ends[:-1]]
        for point, first, end in zip(self._points, starts, self._ends, strict=True):
            yield int(point), self._order[first:end]

    def _grown(self) -> dict[int, np.ndarray]:
        from scipy.cluster.hierarchy import linkage

        if self._trees is None:
            descriptors = self.observations.descriptors
            self._trees = {
                point: linkage(descriptors[rows].astype(np.float64), "ward")
                for point, rows in self._rows()
                if len(rows) > 1
            }
        return self._trees


def _tracks(observations: Observations) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points with observations, observations by point, and the end of each point's among them."""
    order = np.argsort(observations.point_index, kind="stable")
    points, counts = np.unique(observations.point_index, return_counts=True)
    return points, order, np.cumsum(counts)


def divided_points(
    reference: ReferenceMap, observations: Observations, label: np.ndarray
) -> Appearances:
    """The map with a row for each label of a point's observations, 1 to the highest, in this order.

    Args:
        label: (N,) int64, from 1 on.
    """
    num_labels = np.ones(observations.num_points, np.int64)
    np.maximum.at(num_labels, observations.point_index, label)
    starts = np.concatenate([[0], np.cumsum(num_labels)])
    place = np.repeat(np.arange(observations.num_points), num_labels)
    row = (starts[observations.point_index] + label - 1).astype(np.int32)
    visibility = reference.visibility
    return Appearances(
        replace(
            reference,
            point_ids=reference.point_ids[place],
            xyz=reference.xyz[place],
            reprojection_error=reference.reprojection_error[place],
            # An image sees a point once, so rows increase within it as points do.
            visibility=Visibility(visibility.indptr, row, len(place)),
        ),
        replace(observations, point_index=row, num_points=len(place), targets=None, places=place),
        starts,
    )
