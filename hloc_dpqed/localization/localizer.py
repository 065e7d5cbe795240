"""Localize queries against a compressed map that is held in memory."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import torch

from ..compressed_map import CompressedMap
from ..errors import InputError
from ..image_rows import image_rows
from ..io.features import ImageFeatures
from ..matching.learned import PairMatcher, load_matcher, quantized
from ..matching.nearest_neighbor import (
    NN_CONFS,
    Matches,
    NearestNeighborConf,
    match_all,
    match_images,
)
from ..threads import get_num_threads, single_threaded
from .pose import estimate_pose, estimate_pose_best_first, estimation_options, query_seed


@dataclass(frozen=True)
class Correspondences:
    """Distinct 2D-3D matches of a query, ordered by keypoint, then point.

    Attributes:
        keypoint_index: (n,) int64 rows of the query's keypoints.
        point_index: (n,) int64 rows of the map's points.
        votes: (n,) int64, how many database images gave the match.
        similarity: (n,) float32, the highest similarity among them.
        num_matches: matches over all images, before they were collapsed.
    """

    keypoint_index: np.ndarray
    point_index: np.ndarray
    votes: np.ndarray
    similarity: np.ndarray
    num_matches: int

    def __len__(self) -> int:
        return len(self.keypoint_index)

    @staticmethod
    def collect(matches: Sequence[Matches], num_points: int) -> "Correspondences":
        """Collapse equal (keypoint, point) pairs."""
        pairs = np.concatenate([np.zeros((0, 2), np.int64), *(m.pairs for m in matches)])
        similarity = np.concatenate([np.zeros(0, np.float32), *(m.similarity for m in matches)])
        keys = pairs[:, 0] * num_points + pairs[:, 1]
        order = np.lexsort((-similarity, keys))
        keys = keys[order]
        first = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]][: len(keys)])
        votes = np.diff(np.r_[first, len(keys)])
        chosen = order[first]
        return Correspondences(
            pairs[chosen, 0], pairs[chosen, 1], votes, similarity[chosen], len(pairs)
        )

    def best_of_keypoints(self) -> np.ndarray:
        """Rows of one match for each keypoint: (k,) int64, increasing.

        The match with most votes, then of highest similarity, then of the lowest point.
        """
        order = np.lexsort((self.point_index, -self.similarity, -self.votes, self.keypoint_index))
        keypoints = self.keypoint_index[order]
        first = np.r_[True, keypoints[1:] != keypoints[:-1]][: len(keypoints)]
        return np.sort(order[first])


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
        matcher: name of a matcher, as in hloc: one of ``NN_CONFS``, or what
            ``matching.learned.load_matcher`` takes.
        matcher_weights: file of weights of a learned matcher.
        symmetric: match the queries' descriptors as the codec would store them.
        ransac_thresh: pixels of the query's camera.
        covisibility_clustering: as in hloc, PnP on each co-visible group of retrieved images.
        best_first: RANSAC looks at the best match of each keypoint, and the pose is refined on all
            matches that agree; False gives RANSAC all matches, as hloc does.
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
        matcher_weights: Path | None = None,
        symmetric: bool = False,
        ransac_thresh: float = 12,
        covisibility_clustering: bool = False,
        best_first: bool = True,
        config: dict[str, Any] | None = None,
        seed: int = 0,
        device: str = "cpu",
        memory_limit: int = 1 << 30,
    ):
        self.map = compressed
        self.matcher = matcher
        self.symmetric = symmetric
        self.conf = NN_CONFS.get(matcher, NearestNeighborConf())
        self._match_pair: PairMatcher | None = None
        if matcher not in NN_CONFS:
            self._match_pair = load_matcher(matcher, matcher_weights, device)
        elif matcher_weights is not None:
            raise InputError(f"--matcher_weights: {matcher} has no weights")
        self.covisibility_clustering = covisibility_clustering
        self.best_first = best_first
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

    def match(self, features: ImageFeatures, retrieved: Sequence[int]) -> list[Matches]:
        """Matches with each retrieved image: pairs of query keypoint and map point."""
        features = self._prepare(features)
        if self._match_pair is not None:
            return [self._match_image(features, i) for i in retrieved]
        code_rows = [self._row_of_code[self.map.code_rows(i)] for i in retrieved]
        union = np.unique(np.concatenate([np.zeros(0, np.int64), *code_rows]))
        query = torch.from_numpy(features.descriptors).to(self.device)
        rows = [
            torch.from_numpy(np.searchsorted(union, rows)).to(self.device) for rows in code_rows
        ]
        matches = match_images(query, self._descriptors(union), rows, self.conf)
        return [
            _with_points(m, self.map.visibility[i]) for i, m in zip(retrieved, matches, strict=True)
        ]

    def match_whole_map(self, features: ImageFeatures) -> Matches:
        """Matches with all codes of the map at once: pairs of query keypoint and map point."""
        if self._match_pair is not None:
            raise InputError(
                f"--matcher {self.matcher} matches pairs of images: it needs retrieved images, not "
                "--retrieval none"
            )
        features = self._prepare(features)
        query = torch.from_numpy(features.descriptors).to(self.device)
        everything = np.arange(len(self._distinct))
        matches = match_all(query, self._descriptors(everything), self.conf)
        point_of_code = np.arange(self.map.num_points)
        if self.map.granularity == "observation":
            point_of_code = self.map.visibility.indices
        return _with_points(matches, point_of_code[self._distinct])

    def _match_image(self, features: ImageFeatures, image: int) -> Matches:
        """Matches by a matcher of pairs, which sees the image's rows as hloc would."""
        points, keypoints, codes = image_rows(self.map, image)
        camera = self.map.cameras[self.map.camera_index[image]]
        decoded = self._descriptors(self._row_of_code[codes]).cpu().numpy()
        seen = ImageFeatures(
            keypoints, decoded, self.map.scores[codes], (camera.width, camera.height)
        )
        assert self._match_pair is not None
        rows, columns = self._match_pair(features, seen).T
        similarity = np.einsum("nd,nd->n", features.descriptors[rows], decoded[columns])
        return Matches(np.stack([rows, points[columns]], 1), similarity.astype(np.float32))

    def _prepare(self, features: ImageFeatures) -> ImageFeatures:
        """The query's features, checked, and quantized where matching is symmetric."""
        dim = features.descriptors.shape[1]
        if dim != self.map.codec.dim:
            raise InputError(
                f"the query's descriptors have {dim} dimensions but the map was made from "
                f"descriptors of {self.map.codec.dim}"
            )
        if not self.symmetric:
            return features
        return replace(features, descriptors=quantized(self.map.codec, features.descriptors))

    def pose(
        self,
        found: Correspondences,
        features: ImageFeatures,
        camera: pycolmap.Camera,
        seed: int,
    ) -> dict[str, Any] | None:
        """Pose from correspondences, as ``estimate_pose`` returns it."""
        # hloc's keypoints have pixel centres at integers, COLMAP's at +0.5: added here, once.
        points2D = features.keypoints[found.keypoint_index].astype(np.float64) + 0.5
        points3D = self.map.xyz[found.point_index]
        if not self.best_first:
            return estimate_pose(points2D, points3D, camera, self.options, seed)
        best = found.best_of_keypoints()
        return estimate_pose_best_first(points2D, points3D, best, camera, self.options, seed)

    def solve(self, query: Query, matches: list[Matches]) -> Localization:
        """Pose from the matches of each retrieved image (or of the whole map)."""
        images = [] if query.retrieved is None else list(query.retrieved)
        groups = [list(range(len(matches)))]
        if self.covisibility_clustering and query.retrieved is not None:
            groups = covisible_groups(self.map, images) or [[]]
        best: Localization | None = None
        for group in groups:
            found = Correspondences.collect([matches[k] for k in group], self.map.num_points)
            answer = self.pose(
                found, query.features, query.camera, query_seed(self.seed, query.name)
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

    def _match_query(self, query: Query) -> list[Matches]:
        if query.retrieved is None:
            return [self.match_whole_map(query.features)]
        return self.match(query.features, query.retrieved)

    def localize_many(self, queries: Iterable[Query]) -> Iterator[Localization]:
        """Localize a stream of queries, in order, several at a time.

        Each thread takes a whole query: matching and pose estimation then keep every core busy
        without waiting for one another. At most two queries a thread are in memory.
        """
        workers = get_num_threads()
        pending: deque[Future[Localization]] = deque()
        with single_threaded(), ThreadPoolExecutor(workers) as pool:
            try:
                for query in queries:
                    pending.append(pool.submit(self.localize, query))
                    if len(pending) >= 2 * workers:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()


def _with_points(matches: Matches, points: np.ndarray) -> Matches:
    """Matches whose positions are replaced by the map's points at these positions."""
    pairs = np.stack([matches.pairs[:, 0], points[matches.pairs[:, 1]]], 1).astype(np.int64)
    return Matches(pairs, matches.similarity)


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
