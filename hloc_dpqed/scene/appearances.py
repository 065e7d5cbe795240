"""Points that look different from different places, as several points at one place. Ours.

The mean of a point's observations is far from each of them where these differ: by day and by night,
from the left and from the right. Such a point may have a code for each of its appearances. It then
is several *rows*: each with a code, seen by the images in which the point looks so, all with the
point's coordinates. A map file holds rows as it holds points, and matches are those of places (see
``CompressedMap.place_of_point``).
"""

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
    """Divide each point's observations into appearances.

    Ward's clusters of the descriptors of each point, cut at one height for all of the map: a
    further code goes where it takes most of the squared error.

    Args:
        codes_per_point: rows for each point, on average over the map, at least 1. There are fewer
            where tracks are too short.
    """
    from scipy.cluster.hierarchy import fcluster, linkage  # whoever only reads maps needs none

    points, order, ends = _tracks(observations)
    extra = round((codes_per_point - 1) * observations.num_points)
    descriptors = observations.descriptors
    trees = {}
    heights = [np.zeros(0)]
    for point, first, end in zip(points, np.r_[0, ends[:-1]], ends, strict=True):
        if end - first > 1 and extra > 0:
            tree = linkage(descriptors[order[first:end]].astype(np.float64), "ward")
            trees[point] = tree
            heights.append(tree[:, 2])
    merges = np.sort(np.concatenate(heights))[::-1]
    cut = merges[extra] if extra < len(merges) else -1.0
    label = np.ones(len(observations), np.int64)
    for point, first, end in zip(points, np.r_[0, ends[:-1]], ends, strict=True):
        tree = trees.get(point)
        if tree is not None and tree[-1, 2] > cut:
            label[order[first:end]] = fcluster(tree, cut, "distance")
    return divided_points(reference, observations, label)


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
