"""Localize queries against a compressed map that is held in memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pycolmap

from ..choices import LEAST_INLIERS
from ..errors import InputError
from ..io.features import ImageFeatures
from ..io.same_image import features_for_camera
from ..libraries import faiss, torch
from ..maps.compressed import CompressedMap
from ..maps.image_rows import image_rows
from ..maps.same_features import check_matcher
from ..matching import plain
from ..matching.nearest_neighbor import (
    NN_CONFS,
    Matches,
    NearestNeighborConf,
    match_all,
    match_images,
)
from ..scene.visibility import Visibility
from ..threads import check_device, get_num_threads, single_threaded, team, workers
from .confidence import coverage, evidence_of
from .direct import EXACT_POINTS, PointIndex, mutual_matches, voted_images
from .intrinsics import check_estimate_focal, copy_camera, has_focal, with_free_focal
from .pose import (
    check_min_inliers,
    check_pose_estimator,
    estimate_pose,
    estimate_pose_best_first,
    estimation_options,
    least_inliers,
    query_seed,
)
from .priors import Prior, WithPrior, localize_with_prior
from .queries import Correspondences, Localization, Query, RigLocalization, RigQuery
from .rigs import solve_rig
from .tracking import track
from .view import MOST_POINTS, View, most_plausible, points_of_images, view_from

if TYPE_CHECKING:
    from ..matching.learned import PairMatcher
    from ..matching.lightglue import FastLightGlue

__all__ = ["Correspondences", "Localization", "Localizer", "Query", "RigLocalization", "RigQuery"]

# Of a view that is believed: in one from a false place the network matches 2 to 8 % of a photo of
# another building, in one from the right place half of the points.
LEAST_VIEW_MATCHES, LEAST_VIEW_SHARE = 30, 0.2
BASIS_ROWS = 1024  # decoded to find the directions that all descriptors lie in
BASIS_ENERGY = 2e-5  # of the descriptors, what those directions leave out
DECODE_ROWS = 1 << 12  # at a time, which bounds the memory

Q = TypeVar("Q")
R = TypeVar("R")


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
        pose_estimator: whose RANSAC it is, of ``pose.POSE_ESTIMATORS``.
        config: hloc's ``estimation`` and ``refinement`` options of pycolmap.
        min_inliers: of a pose that is believed, see ``pose.least_inliers``; 0 believes every pose,
            as hloc does.
        estimate_focal: the focal lengths of the queries are not known, and estimated with each
            pose (``Localization.camera``).
        seed: of RANSAC, mixed with each query's name.
        device: torch device of the matching.
        memory_limit: bytes; the descriptors are decoded once, at the first query, where they fit,
            else at each query.

    Threads may share one.
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
        pose_estimator: str = "pycolmap",
        config: dict[str, Any] | None = None,
        min_inliers: int = LEAST_INLIERS,
        estimate_focal: bool = False,
        seed: int = 0,
        device: str = "cpu",
        memory_limit: int = 1 << 30,
    ):
        check_matcher(compressed, matcher)
        self.map = compressed
        self.matcher = matcher
        self.symmetric = symmetric
        self.conf = NN_CONFS.get(matcher, NearestNeighborConf())
        self._match_pair: PairMatcher | None = None
        self._network: FastLightGlue | None = None
        if matcher not in NN_CONFS:
            from ..matching import learned  # needs torch

            if matcher in learned.FAST_FEATURES:
                network = learned.load_fast_lightglue(matcher, matcher_weights, device)
                self._match_pair = learned.processor_matcher(network)
                self._network = network.for_views()
            else:
                self._match_pair = learned.load_matcher(matcher, matcher_weights, device)
        elif matcher_weights is not None:
            raise InputError(f"--matcher_weights: {matcher} has no weights")
        self.covisibility_clustering = covisibility_clustering
        self.best_first = best_first
        check_pose_estimator(pose_estimator)
        self.pose_estimator = pose_estimator
        self.options = estimation_options(ransac_thresh, config)
        check_estimate_focal(estimate_focal, pose_estimator, rigs=False)
        self.estimate_focal = estimate_focal
        if estimate_focal:
            self.options = with_free_focal(self.options)
        check_min_inliers(min_inliers)
        self.min_inliers = min_inliers
        self.seed = seed
        self.device = check_device(device)
        # Points of equal codes decode to equal rows. They share one row here, so that rounding in
        # the matrix product cannot break their tie: the lowest row of an image wins, as in hloc.
        self._distinct, self._row_of_code = distinct_rows(compressed.codes)
        self._basis: torch.Tensor | None = None
        if self._match_pair is None:
            self._basis = self._common_basis()
        width = compressed.codec.dim if self._basis is None else self._basis.shape[1]
        self._fits = len(self._distinct) * width * 4 <= memory_limit
        self._decoded: torch.Tensor | None = None
        self._index: PointIndex | None = None
        self._seen_by: Visibility | None = None
        self._decoding, self._indexing = threading.Lock(), threading.Lock()

    def _common_basis(self) -> torch.Tensor | None:
        """Directions that the map's descriptors fill, (D, r) float32, None for all of them."""
        count = len(self._distinct)
        rows = np.unique(np.linspace(0, count - 1, min(count, BASIS_ROWS)).astype(np.int64))
        sample = self.map.codec.decode(self.map.codes[self._distinct[rows]])
        if torch is None:
            return plain.common_basis(sample, BASIS_ENERGY)
        with single_threaded():  # the basis is the same with any number of threads
            basis = common_basis(torch.from_numpy(sample))
        return None if basis is None else basis.to(self.device)

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        """On the device; the array itself where torch is not installed."""
        return array if torch is None else torch.from_numpy(array).to(self.device)

    def _onto_basis(self, descriptors: torch.Tensor) -> torch.Tensor:
        return descriptors if self._basis is None else descriptors @ self._basis

    def _decode(self, rows: np.ndarray) -> torch.Tensor:
        """Descriptors of distinct codes, on the basis: (n, r) float32 on the device."""
        parts = []
        for start in range(0, max(len(rows), 1), DECODE_ROWS):
            part = self._distinct[rows[start : start + DECODE_ROWS]]
            decoded = self._tensor(self.map.codec.decode(self.map.codes[part]))
            parts.append(self._onto_basis(decoded))
        return np.concatenate(parts) if torch is None else torch.cat(parts)

    def _descriptors(self, rows: np.ndarray) -> torch.Tensor:
        """As ``_decode``, from memory where all descriptors fit there."""
        if not self._fits:
            return self._decode(rows)
        with self._decoding:
            if self._decoded is None:
                self._decoded = self._decode(np.arange(len(self._distinct)))
        return self._decoded[self._tensor(rows)]

    def match(
        self,
        features: ImageFeatures,
        retrieved: Sequence[int],
        camera: pycolmap.Camera | None = None,
    ) -> list[Matches]:
        """Matches with each retrieved image: pairs of query keypoint and map point.

        Args:
            features: of the query.
            retrieved: rows of the map's images.
            camera: of the query. The ``-fast`` matchers match image by image without it.
        """
        features = self._prepare(features)
        if self._network is not None and camera is not None:
            return self._match_in_view(self._network, features, list(retrieved), camera)
        if self._match_pair is not None:
            return [self._match_image(features, i) for i in retrieved]
        return self._match_nearest(features, retrieved)

    def _match_in_view(
        self,
        network: FastLightGlue,
        features: ImageFeatures,
        retrieved: list[int],
        camera: pycolmap.Camera,
    ) -> list[Matches]:
        """Matches by a network that sees the retrieved images' points from the query's place.

        The place is that of the nearest neighbours; where they tell none, that of the network's
        matches with the first images, as many as it takes. All retrieved images are matched one by
        one, as hloc does, where no place comes of it. A match is given to each image that sees its
        point.
        """
        points, codes = points_of_images(self.map, retrieved)
        pairs: list[Matches] = []
        found = self._match_nearest(features, retrieved)
        for image in [*retrieved, None]:
            together = Correspondences.collect(found, self.map.num_points)
            answer = self._estimate(together, features, camera, self.seed)
            least = least_inliers(len(together), camera, self.options, LEAST_INLIERS)
            if answer is not None and int(answer["num_inliers"]) >= least:
                pose = answer["cam_from_world"].matrix()
                view = view_from(self.map, points, codes, camera, pose)
                matches = self._match_view(network, features, view)
                share = LEAST_VIEW_SHARE * min(len(features.keypoints), len(view.points))
                if len(matches.pairs) >= max(LEAST_VIEW_MATCHES, share):
                    return [_seen_in(matches, self.map.visibility[i]) for i in retrieved]
            if image is not None:
                pairs.append(self._match_image(features, image))
                found = pairs
        return pairs

    def _match_view(self, network: FastLightGlue, features: ImageFeatures, view: View) -> Matches:
        """Matches of a query with the points of a view, by map row."""
        query = torch.from_numpy(np.ascontiguousarray(features.descriptors, np.float32))
        decoded = self._descriptors(self._row_of_code[view.codes])
        if len(decoded) > MOST_POINTS:
            rows = most_plausible(query, decoded, MOST_POINTS)
            view, decoded = view.keep(rows), decoded[torch.from_numpy(rows)]
        if len(query) == 0 or len(decoded) == 0:
            return Matches.empty()
        # Keypoints and camera are of one size: see ``features_for_camera``.
        found, _ = network.match(
            network.tokens(torch.from_numpy(features.keypoints), query, view.image_size),
            network.tokens(torch.from_numpy(view.keypoints), decoded, view.image_size),
        )
        similarity = (query[found[:, 0]] * decoded[found[:, 1]]).sum(1)
        return _with_points(Matches(found.numpy(), similarity.numpy()), view.points)

    def _match_nearest(self, features: ImageFeatures, retrieved: Sequence[int]) -> list[Matches]:
        """Nearest neighbours in each retrieved image."""
        code_rows = [self._row_of_code[self.map.code_rows(i)] for i in retrieved]
        seen = np.zeros(len(self._distinct), bool)
        for rows in code_rows:
            seen[rows] = True
        union = np.flatnonzero(seen)
        position = np.empty(len(seen), np.int64)
        position[union] = np.arange(len(union))
        with team():
            query = self._onto_basis(self._tensor(features.descriptors))
            rows = [self._tensor(position[rows]) for rows in code_rows]
            matching = match_images if torch is not None else plain.match_images
            matches = matching(query, self._descriptors(union), rows, self.conf)
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
        query = self._onto_basis(self._tensor(features.descriptors))
        if self._searches_lists():
            found = self._point_index().search(query.cpu())
            candidates = np.unique(found[found >= 0])
            rows = np.where(found >= 0, np.searchsorted(candidates, found), -1)
            matches = mutual_matches(query.cpu(), self._descriptors(candidates).cpu(), rows)
            pairs = matches.pairs.copy()
            pairs[:, 1] = candidates[pairs[:, 1]]
            matches = Matches(pairs, matches.similarity)
        else:
            everything = self._descriptors(np.arange(len(self._distinct)))
            if torch is None:
                matches = plain.match_all(query, everything, self.conf)
            elif self._is_mutual():
                all_rows = torch.arange(len(everything), device=self.device)
                (matches,) = match_images(query, everything, [all_rows], self.conf)
            else:
                matches = match_all(query, everything, self.conf)
        point_of_code = np.arange(self.map.num_points)
        if self.map.granularity == "observation":
            point_of_code = self.map.visibility.indices
        return _with_points(matches, point_of_code[self._distinct])

    def match_direct(self, features: ImageFeatures) -> list[Matches]:
        """Matches without retrieval: with each of the images that ``match_whole_map`` votes for."""
        found = self.match_whole_map(features)
        images = voted_images(found.pairs[:, 1], self._images_of_points())
        return self.match(features, images)

    def _images_of_points(self) -> Visibility:
        """The map's points by the images that see them."""
        with self._decoding:
            if self._seen_by is None:
                self._seen_by = self.map.visibility.transpose()[0]
        return self._seen_by

    def _is_mutual(self) -> bool:
        """Whether matches are mutual nearest neighbours and nothing else is asked of them."""
        conf = self.conf
        return conf.do_mutual_check and not (conf.ratio_threshold or conf.distance_threshold)

    def _searches_lists(self) -> bool:
        """Whether points are searched through an inverted file."""
        large = len(self._distinct) > EXACT_POINTS
        return torch is not None and faiss is not None and self._is_mutual() and large

    def _point_index(self) -> PointIndex:
        with self._indexing:
            if self._index is None:
                rows = self._descriptors(np.arange(len(self._distinct)))
                self._index = PointIndex(rows.cpu())
        return self._index

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
        from ..matching.learned import quantized

        return replace(features, descriptors=quantized(self.map.codec, features.descriptors))

    def pose(
        self,
        found: Correspondences,
        features: ImageFeatures,
        camera: pycolmap.Camera,
        seed: int,
    ) -> dict[str, Any] | None:
        """Pose from correspondences, as ``estimate_pose`` returns it; None where it has too few
        inliers to be believed."""
        answer = self._estimate(found, features, camera, seed)
        return answer if self._believed(answer, found, camera) else None

    def _believed(
        self, answer: dict[str, Any] | None, found: Correspondences, camera: pycolmap.Camera
    ) -> bool:
        if answer is None:
            return False
        least = least_inliers(len(found), camera, self.options, self.min_inliers)
        return int(answer["num_inliers"]) >= least

    def _estimate(
        self,
        found: Correspondences,
        features: ImageFeatures,
        camera: pycolmap.Camera,
        seed: int,
    ) -> dict[str, Any] | None:
        """Pose from correspondences, of however many inliers."""
        # hloc's keypoints have pixel centres at integers, COLMAP's at +0.5: added here, once.
        points2D = features.keypoints[found.keypoint_index].astype(np.float64) + 0.5
        points3D = self.map.xyz[found.point_index]
        how = (camera, self.options, seed, self.pose_estimator)
        if not self.best_first:
            return estimate_pose(points2D, points3D, *how)
        return estimate_pose_best_first(points2D, points3D, found.best_of_keypoints(), *how)

    def solve(self, query: Query, matches: list[Matches]) -> Localization:
        """Pose from the matches of each retrieved image (or of the whole map)."""
        images = [] if query.retrieved is None else list(query.retrieved)
        groups = [list(range(len(matches)))]
        if self.covisibility_clustering and query.retrieved is not None:
            groups = covisible_groups(self.map, images) or [[]]
        best: Localization | None = None
        for group in groups:
            found = Correspondences.collect([matches[k] for k in group], self.map.num_points)
            camera = copy_camera(query.camera) if self.estimate_focal else query.camera
            answer = self._estimate(
                found, query.features, camera, query_seed(self.seed, query.name)
            )
            believed = self._believed(answer, found, camera)
            if self.estimate_focal and not has_focal(camera):
                believed = False
            used = [images[k] for k in group] if images else []
            if answer is None:
                outcome = Localization(query.name, None, 0, np.zeros(len(found), bool), found, used)
            else:
                inliers = np.asarray(answer["inlier_mask"], bool)
                seen = query.features.keypoints[found.keypoint_index[inliers]] + 0.5
                count, covered = int(answer["num_inliers"]), coverage(seen, query.camera)
                evidence = evidence_of(answer["covariance"], count, len(found), covered)
                outcome = Localization(
                    query.name,
                    answer["cam_from_world"].matrix() if believed else None,
                    count,
                    inliers,
                    found,
                    used,
                    rejected=not believed,
                    covariance=answer["covariance"] if believed else None,
                    evidence=evidence if believed else None,
                    camera=camera if self.estimate_focal and believed else None,
                )
            # A group of few matches may be believed where one of more inliers is not.
            rank = (believed, outcome.num_inliers)
            if best is None or rank > (best.cam_from_world is not None, best.num_inliers):
                best = outcome
        assert best is not None  # there is always one group
        return best

    def localize(self, query: Query) -> Localization:
        """Match and estimate the pose of one query.

        Keypoints of another image size than the camera's are scaled to it, see
        ``io.same_image.features_for_camera``.

        Raises:
            InputError: the descriptors are of another dimension than the map's, or the features of
                an image of another shape than the camera's.
        """
        query = _in_camera(query)
        return self.solve(query, self._match_query(query))

    def localize_with_prior(self, query: Query, prior: Prior) -> WithPrior:
        """Localize a query of which something is known; see ``priors``.

        Raises:
            InputError: as ``localize``; or the prior is impossible.
        """
        prior.check()
        least = partial(self._least, query.camera)
        return localize_with_prior(self.map, query, prior, self.localize, least)

    def track(self, frames: Iterable[Query]) -> Iterator[Localization]:
        """Localize the frames of a sequence, each with what the last one saw; see ``tracking``.

        Raises:
            InputError: as ``localize``.
        """
        camera: pycolmap.Camera | None = None

        def localize(query: Query) -> Localization:
            nonlocal camera
            camera = query.camera
            return self.localize(query)

        def least(outcome: Localization) -> int:
            assert camera is not None  # of the frame that was localized last
            return self._least(camera, outcome)

        return track(frames, localize, least, self._images_of_points())

    def _least(self, camera: pycolmap.Camera, outcome: Localization) -> int:
        """Inliers that a pose needs, by default: also where every pose is taken."""
        count = len(outcome.correspondences)
        return least_inliers(count, camera, self.options, self.min_inliers or LEAST_INLIERS)

    def localize_rig(self, rig: RigQuery) -> RigLocalization:
        """Match the images of a rig, and estimate one pose from all of them.

        Each image is localized alone too: see ``RigLocalization.disagrees``.

        Raises:
            InputError: as ``localize``.
        """
        check_estimate_focal(self.estimate_focal, self.pose_estimator, rigs=True)
        rig = replace(rig, queries=[_in_camera(query) for query in rig.queries])
        alone = [self.solve(query, self._match_query(query)) for query in rig.queries]
        how = (self.options, self.min_inliers, query_seed(self.seed, rig.name), self.pose_estimator)
        return solve_rig(rig, alone, self.map.xyz, self.best_first, *how)

    def _match_query(self, query: Query) -> list[Matches]:
        if query.retrieved is None:
            return self.match_direct(query.features)
        return self.match(query.features, query.retrieved, query.camera)

    def localize_many(self, queries: Iterable[Query]) -> Iterator[Localization]:
        """Localize a stream of queries, in order, several at a time.

        Each thread takes a whole query: matching and pose estimation then keep every core busy
        without waiting for one another. At most two queries a thread are in memory.
        """
        return _several_at_a_time(self.localize, queries)

    def localize_rigs(self, rigs: Iterable[RigQuery]) -> Iterator[RigLocalization]:
        """Localize a stream of rigs, as ``localize_many``."""
        return _several_at_a_time(self.localize_rig, rigs)

    def correspond_many(self, queries: Iterable[Query]) -> Iterator[Correspondences]:
        """The 2D-3D matches of a stream of queries, as ``localize_many`` without the poses."""

        def correspond(query: Query) -> Correspondences:
            query = _in_camera(query)
            return Correspondences.collect(self._match_query(query), self.map.num_points)

        return _several_at_a_time(correspond, queries)


def _several_at_a_time(work: Callable[[Q], R], queries: Iterable[Q]) -> Iterator[R]:
    """``work`` of each query, in order, a query to each thread and two a thread in memory."""
    count = get_num_threads()
    pending: deque[Future[R]] = deque()
    with workers(count) as pool:
        try:
            for query in queries:
                pending.append(pool.submit(work, query))
                if len(pending) >= 2 * count:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _in_camera(query: Query) -> Query:
    """The query with its features in pixels of its camera."""
    fitted = features_for_camera(query.features, query.camera, f"query {query.name!r}")
    return query if fitted is query.features else replace(query, features=fitted)


def _seen_in(matches: Matches, points: np.ndarray) -> Matches:
    """Those of the matches whose point is one of ``points``."""
    mine = np.isin(matches.pairs[:, 1], points)
    return Matches(matches.pairs[mine], matches.similarity[mine])


def _with_points(matches: Matches, points: np.ndarray) -> Matches:
    """Matches whose positions are replaced by the map's points at these positions."""
    pairs = np.stack([matches.pairs[:, 0], points[matches.pairs[:, 1]]], 1).astype(np.int64)
    return Matches(pairs, matches.similarity)


def common_basis(descriptors: torch.Tensor) -> torch.Tensor | None:
    """Orthonormal directions that hold all but ``BASIS_ENERGY`` of the rows' energy.

    A codec with centroids of few dimensions decodes to a subspace. Similarities within it are those
    of the descriptors, and the matrix product is as much cheaper as it is smaller. Ours.

    Args:
        descriptors: (n, D) float32.

    Returns:
        (D, r) float32, or None where r would be more than three quarters of D, or n below 4 D.
    """
    count, dim = descriptors.shape
    if count < 4 * dim:
        return None
    energy, directions = torch.linalg.eigh(descriptors.T @ descriptors)
    missing = energy.clamp(min=0).cumsum(0) / energy.sum()  # from the weakest direction on
    rank = int((missing > BASIS_ENERGY).sum())
    return directions[:, dim - rank :].contiguous() if rank <= 0.75 * dim else None


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
