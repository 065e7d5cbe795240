"""Direct 2D-3D matching: all points of a map are searched at once, then images vote.

After Sattler, Leibe and Kobbelt, "Improving Image-Based Localization by Active Correspondence
Search", ECCV 2012: a match is believed where other matches are seen by the same images. Searching
many points goes through faiss's inverted file; what it finds is checked exactly. The votes then
stand for retrieval. Ours: the second matching with the images that won.
"""

from __future__ import annotations

import numpy as np

from ..libraries import faiss, torch
from ..matching.nearest_neighbor import Matches
from ..scene.visibility import Visibility
from ..threads import single_threaded

EXACT_POINTS = 65_536  # up to which every point is compared with every keypoint
PROBES = 16  # lists of the inverted file that a keypoint searches
ROWS_PER_LIST = 32  # that train the lists
ITERATIONS = 6
VOTED_IMAGES = 20


class PointIndex:
    """An inverted file over the descriptors of a map, for nearest neighbours by inner product.

    Args:
        descriptors: (n, r) float32; on the CPU.
    """

    def __init__(self, descriptors: torch.Tensor):
        rows = np.ascontiguousarray(descriptors.numpy())
        count, dim = rows.shape
        lists = 1 << max(0, round(np.log2(2 * np.sqrt(max(count, 1)))))
        with single_threaded():  # the lists are the same with any number of threads
            quantizer = faiss.IndexFlatIP(dim)
            self._index = faiss.IndexIVFFlat(quantizer, dim, lists, faiss.METRIC_INNER_PRODUCT)
            self._index.cp.niter = ITERATIONS
            self._index.cp.seed = 0
            self._index.cp.max_points_per_centroid = ROWS_PER_LIST
            self._index.cp.min_points_per_centroid = 1
            self._index.train(rows)
            self._index.add(rows)
        self._index.nprobe = min(PROBES, lists)

    def search(self, query: torch.Tensor) -> np.ndarray:
        """(N, r) float32 to (N,) int64: the nearest row that was found, -1 where there is none."""
        return self._index.search(np.ascontiguousarray(query.numpy()), 1)[1][:, 0]


def mutual_matches(query: torch.Tensor, candidates: torch.Tensor, rows: np.ndarray) -> Matches:
    """Matches of query rows with candidates whose own nearest query row they are.

    Args:
        query: (N, r) float32.
        candidates: (C, r) float32, the descriptors of the distinct candidates.
        rows: (N,) int64 into ``candidates``, -1 for none.

    Returns:
        The matches; positions are rows of ``candidates``.
    """
    if len(query) == 0 or len(candidates) == 0:
        return Matches.empty()
    similarity, nearest = (candidates @ query.T).max(1)
    position = torch.from_numpy(rows)
    own = nearest[position.clamp(min=0)] == torch.arange(len(query))
    kept = torch.nonzero(own & (position >= 0)).ravel()
    return Matches.of(kept, position[kept], similarity[position[kept]])


def voted_images(points: np.ndarray, seen_by: Visibility, count: int = VOTED_IMAGES) -> list[int]:
    """The images that see most of the matched points, best first; none without a vote.

    Args:
        points: (n,) rows of the map's points.
        seen_by: points by images.
        count: at most.
    """
    voters = [seen_by[point] for point in points.tolist()]
    votes = np.bincount(
        np.concatenate([np.zeros(0, np.int64), *voters]), minlength=seen_by.num_points
    )
    best = np.argsort(-votes, kind="stable")[:count]  # the lowest image wins a tie
    return best[votes[best] > 0].tolist()
