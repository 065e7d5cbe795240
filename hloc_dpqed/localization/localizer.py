"""Localize queries against a compressed map that is held in memory."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycolmap
import torch

from ..compressed_map import CompressedMap
from ..errors import InputError
from ..io.features import ImageFeatures
from ..matching.nearest_neighbor import NN_CONFS, match_all, match_images
from ..threads import get_num_threads
from .pose import estimate_pose, estimation_options, query_seed


@dataclass(frozen=True)
class Correspondences:
    """Distinct 2D-3D matches of a query, ordered by keypoint, then point.

    Attributes:
        keypoint_index: (n,) int64 rows of the query's keypoints.
        point_index: (n,) int64 rows of the map's points.
        votes: (n,) int64, how many database images gave the match.
        num_matches: matches over all images, before they were collapsed.
    """

    keypoint_index: np.ndarray
    point_index: np.ndarray
    votes: np.ndarray
    num_matches: int

    def __len__(self) -> int:
        return len(self.keypoint_index)

    @staticmethod
    def collect(pairs: Sequence[np.ndarray], num_points: int) -> "Correspondences":
        """Collapse equal (keypoint, point) pairs, each array (k, 2) int64."""
        stacked = np.concatenate([np.zeros((0, 2), np.int64), *pairs])
        keys, votes = np.unique(stacked[:, 0] * num_points + stacked[:, 1], return_counts=True)
        keypoints, points = np.divmod(keys, max(num_points, 1))
        return Correspondences(keypoints, points, votes, len(stacked))


@dataclass(frozen=True)
class Localization:
    """The outcome for one query.

    Attributes:
        name: of the query.
        cam_from_world: (3, 4) float64 [R | t], or None where the query was not localized.
        num_inliers: of RANSAC.
        inliers: (n,) bool over the correspondences.
        correspondences: what PnP was given.
        images: rows of the retrieved database images whose matches were used.
    """

    name: str
    cam_from_world: np.ndarray | None
    num_inliers: int
    inliers: np.ndarray
    correspondences: Correspondences
    images: list[int]


@dataclass(frozen=True)
class Query:
    """A query as the localizer takes it; ``retrieved`` None matches against the whole map."""

    name: str
    camera: pycolmap.Camera
    features: ImageFeatures
    retrieved: Sequence[int] | None


class Localizer:
    """Localizes queries against one compressed map.

    Args:
        compressed: the map.
        matcher: name of a matcher, as in hloc.
        ransac_thresh: pixels of the query's camera.
        covisibility_clustering: as in hloc, PnP on each co-visible group of retrieved images.
        config: hloc's ``estimation`` and ``refinement`` options of pycolmap.
        seed: of RANSAC, mixed with each query's name.
        device: torch device of the matching.
        memory_limit: bytes; the descriptors are decoded once where they fit, else at each query.

    The object is not changed by ``localize``: threads may share one.
    """

    def __init__(
        self,
        compressed: CompressedMap,
        matcher: str = "NN-mutual",
        *,
        ransac_thresh: float = 12,
        covisibility_clustering: bool = False,
        config: dict[str, Any] | None = None,
        seed: int = 0,
        device: str = "cpu",
        memory_limit: int = 1 << 30,
    ):
        if matcher not in NN_CONFS:
            raise InputError(f"--matcher {matcher}: unknown, expected one of {', '.join(NN_CONFS)}")
        self.map = compressed
        self.conf = NN_CONFS[matcher]
        self.covisibility_clustering = covisibility_clustering
        self.options = estimation_options(ransac_thresh, config)
        self.seed = seed
        self.device = torch.device(device)
        # Points of equal codes decode to equal rows. They share one row here, so that rounding in
        # the matrix product cannot break their tie: the lowest row of an image wins, as in hloc.
        self._distinct, self._row_of_code = distinct_rows(compressed.codes)
        self._decoded: torch.Tensor | None = None
        if len(self._distinct) * compressed.codec.dim * 4 <= memory_limit:
            self._decoded = self._decode(np.arange(len(self._distinct)))

    def _decode(self, rows: np.ndarray) -> torch.Tensor:
        """Descriptors of distinct codes: (n, D) float32 on the device."""
        decoded = self.map.codec.decode(self.map.codes[self._distinct[rows]])
        return torch.from_numpy(decoded).to(self.device)

    def _descriptors(self, rows: np.ndarray) -> torch.Tensor:
        if self._decoded is None:
            return self._decode(rows)
        return self._decoded[torch.from_numpy(rows).to(self.device)]

    def match(self, features: ImageFeatures, retrieved: Sequence[int]) -> list[np.ndarray]:
        """Matches with each retrieved image: (k, 2) int64 query keypoint and map point."""
        self._check(features)
        code_rows = [self._row_of_code[self.map.code_rows(i)] for i in retrieved]
        union = np.unique(np.concatenate([np.zeros(0, np.int64), *code_rows]))
        query = torch.from_numpy(features.descriptors).to(self.device)
        rows = [
            torch.from_numpy(np.searchsorted(union, rows)).to(self.device) for rows in code_rows
        ]
        matches = match_images(query, self._descriptors(union), rows, self.conf)
        return [
            np.stack([m[:, 0], self.map.visibility[i][m[:, 1]]], 1)
            for i, m in zip(retrieved, matches, strict=True)
        ]

    def match_whole_map(self, features: ImageFeatures) -> np.ndarray:
        """Matches with all codes of the map at once: (k, 2) int64 query keypoint and point."""
        self._check(features)
        query = torch.from_numpy(features.descriptors).to(self.device)
        everything = np.arange(len(self._distinct))
        matches = match_all(query, self._descriptors(everything), self.conf)
        rows = self._distinct[matches[:, 1]]
        points = rows if self.map.granularity == "point" else self.map.visibility.indices[rows]
        return np.stack([matches[:, 0], points], 1).astype(np.int64)

    def _check(self, features: ImageFeatures) -> None:
        dim = features.descriptors.shape[1]
        if dim != self.map.codec.dim:
            raise InputError(
                f"the query's descriptors have {dim} dimensions but the map was made from "
                f"descriptors of {self.map.codec.dim}"
            )

    def solve(self, query: Query, matches: list[np.ndarray]) -> Localization:
        """Pose from the matches of each retrieved image (or of the whole map)."""
        images = [] if query.retrieved is None else list(query.retrieved)
        groups = [list(range(len(matches)))]
        if self.covisibility_clustering and query.retrieved is not None:
            groups = covisible_groups(self.map, images)
        best: Localization | None = None
        for group in groups:
            found = Correspondences.collect([matches[k] for k in group], self.map.num_points)
            # hloc's keypoints have pixel centres at integers, COLMAP's at +0.5: added here, once.
            points2D = query.features.keypoints[found.keypoint_index].astype(np.float64) + 0.5
            answer = estimate_pose(
                points2D,
                self.map.xyz[found.point_index],
                query.camera,
                self.options,
                query_seed(self.seed, query.name),
            )
            used = [images[k] for k in group] if images else []
            if answer is None:
                outcome = Localization(query.name, None, 0, np.zeros(len(found), bool), found, used)
            else:
                outcome = Localization(
                    query.name,
                    answer["cam_from_world"].matrix(),
                    int(answer["num_inliers"]),
                    np.asarray(answer["inlier_mask"], bool),
                    found,
                    used,
                )
            if best is None or outcome.num_inliers > best.num_inliers:
                best = outcome
        assert best is not None  # there is always one group
        return best

    def localize(self, query: Query) -> Localization:
        """Match and estimate the pose of one query.

        Raises:
            InputError: the descriptors are of another dimension than the map's.
        """
        return self.solve(query, self._match_query(query))

    def _match_query(self, query: Query) -> list[np.ndarray]:
        if query.retrieved is None:
            return [self.match_whole_map(query.features)]
        return self.match(query.features, query.retrieved)

    def localize_many(self, queries: Iterable[Query]) -> Iterator[Localization]:
        """Localize a stream of queries, in order: poses are estimated while the next are matched.

        At most two queries a thread are in memory.
        """
        workers = get_num_threads()
        pending: deque[Future[Localization]] = deque()
        with ThreadPoolExecutor(workers) as pool:
            try:
                for query in queries:
                    pending.append(pool.submit(self.solve, query, self._match_query(query)))
                    if len(pending) > 2 * workers:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()


def distinct_rows(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Group equal codes.

    Returns:
        (k,) int64 lowest row of each distinct code, increasing; and (N,) int64 for each row its
        position in that list.
    """
    if len(codes) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    flat = np.ascontiguousarray(codes).view(np.dtype((np.void, codes.shape[1]))).ravel()
    _, first, inverse = np.unique(flat, return_index=True, return_inverse=True)
    order = np.argsort(first)
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    return first[order].astype(np.int64), position[inverse.ravel()]


def covisible_groups(compressed: CompressedMap, images: Sequence[int]) -> list[list[int]]:
    """Positions in ``images`` of each co-visible group, the largest first (hloc's clustering).

    Two images are connected where they see a common point of the map.
    """
    parent = list(range(len(images)))

    def root(k: int) -> int:
        while parent[k] != k:
            parent[k] = parent[parent[k]]
            k = parent[k]
        return k

    first_seen_by: dict[int, int] = {}
    for k, image in enumerate(images):
        for point in compressed.visibility[image].tolist():
            other = first_seen_by.setdefault(point, k)
            low, high = sorted((root(other), root(k)))
            parent[high] = low
    groups: dict[int, list[int]] = {}
    for k in range(len(images)):
        groups.setdefault(root(k), []).append(k)
    return sorted(groups.values(), key=len, reverse=True)
