"""Matches of a query with a map: with retrieved images, with a view of them, with all points."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pycolmap

from ..choices import LEAST_INLIERS
from ..errors import InputError
from ..io.features import ImageFeatures
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
from ..threads import check_device, team
from .belief import least_inliers
from .decoded import DecodedMap
from .direct import mutual_matches, voted_images
from .intrinsics import copy_camera
from .queries import Correspondences, Query
from .solver import PoseSolver
from .view import MOST_POINTS, View, most_plausible, points_of_images, view_from

if TYPE_CHECKING:
    from ..matching.learned import PairMatcher
    from ..matching.lightglue import FastLightGlue

# Of a view that is believed, of the matches that the network is sure of: in one from a false place
# they are up to 3 % of a photo of another building, in one from the right place a third and more.
LEAST_VIEW_MATCHES, LEAST_VIEW_SHARE = 30, 0.1
# Bytes of a code up to which several points of an image share one: the networks then take points
# for ones without a match too early, and must not drop them.
SHORT_CODES = 1
VOTING_KEYPOINTS = 256  # that tell the images which look like a query


class MapMatcher:
    """Matches queries with one compressed map.

    Args:
        compressed: the map.
        matcher, matcher_weights, symmetric, device, memory_limit: as in ``Localizer``.
        solver: tells from where a query sees the map, to the matchers that look from there.
        exact_points: up to which every point is compared with every keypoint; more are searched
            through an inverted file.
    """

    def __init__(
        self,
        compressed: CompressedMap,
        matcher: str,
        *,
        matcher_weights: Path | None,
        symmetric: bool,
        solver: PoseSolver,
        exact_points: int,
        device: str,
        memory_limit: int,
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

            prune = compressed.codec.code_size > SHORT_CODES
            if matcher in learned.FAST_FEATURES:
                network = learned.load_fast_lightglue(matcher, matcher_weights, device, prune)
                self._match_pair = learned.processor_matcher(network)
                self._network = network.for_views()
            else:
                self._match_pair = learned.load_matcher(matcher, matcher_weights, device, prune)
        elif matcher_weights is not None:
            raise InputError(f"--matcher_weights: {matcher} has no weights")
        self._solver = solver
        self._exact_points = exact_points
        self.device = check_device(device)
        self._points = DecodedMap(compressed, self._match_pair is None, self.device, memory_limit)
        self._seen_by: Visibility | None = None
        self._turning = threading.Lock()

    def _descriptors(self, rows: np.ndarray) -> torch.Tensor:
        return self._points.rows(rows)

    @property
    def _decoded(self) -> torch.Tensor | None:
        """All descriptors, where they are held in memory."""
        return self._points.held

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
        features = self.prepared(features)
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
        camera = copy_camera(camera)  # a focal length that is estimated is written into it
        pairs: list[Matches] = []
        found = self._match_nearest(features, retrieved)
        for image in [*retrieved, None]:
            together = Correspondences.collect(found, self.map.num_points)
            answer = self._solver.estimate(together, features, camera, self._solver.seed)
            least = least_inliers(len(together), camera, self._solver.options, LEAST_INLIERS)
            if answer is not None and int(answer["num_inliers"]) >= least:
                pose = answer["cam_from_world"].matrix()
                view = view_from(self.map, points, codes, camera, pose)
                matches, sure = self._match_view(network, features, view)
                share = LEAST_VIEW_SHARE * min(len(features.keypoints), len(view.points))
                if sure >= max(LEAST_VIEW_MATCHES, share):
                    return [_seen_in(matches, self.map.places_seen(i)) for i in retrieved]
            if image is not None:
                pairs.append(self._match_image(features, image))
                found = pairs
        return pairs

    def _match_view(
        self, network: FastLightGlue, features: ImageFeatures, view: View
    ) -> tuple[Matches, int]:
        """Matches of a query with the points of a view, by map row, and how many are sure."""
        query = torch.from_numpy(np.ascontiguousarray(features.descriptors, np.float32))
        decoded = self._descriptors(self._points.row_of_code[view.codes])
        if len(decoded) > MOST_POINTS:
            rows = most_plausible(query, decoded, MOST_POINTS)
            view, decoded = view.keep(rows), decoded[torch.from_numpy(rows)]
        if len(query) == 0 or len(decoded) == 0:
            return Matches.empty(), 0
        # Keypoints and camera are of one size: see ``features_for_camera``.
        found, sure = network.match_view(
            network.tokens(torch.from_numpy(features.keypoints), query, view.image_size),
            network.tokens(torch.from_numpy(view.keypoints), decoded, view.image_size),
        )
        similarity = (query[found[:, 0]] * decoded[found[:, 1]]).sum(1)
        return _with_points(Matches(found.numpy(), similarity.numpy()), view.points), sure

    def _match_nearest(self, features: ImageFeatures, retrieved: Sequence[int]) -> list[Matches]:
        """Nearest neighbours in each retrieved image."""
        code_rows = [self._points.row_of_code[self.map.code_rows(i)] for i in retrieved]
        seen = np.zeros(len(self._points), bool)
        for rows in code_rows:
            seen[rows] = True
        union = np.flatnonzero(seen)
        position = np.empty(len(seen), np.int64)
        position[union] = np.arange(len(union))
        with team():
            query = self._points.onto_basis(self._points.tensor(features.descriptors))
            rows = [self._points.tensor(position[rows]) for rows in code_rows]
            matching = match_images if torch is not None else plain.match_images
            matches = matching(query, self._descriptors(union), rows, self.conf)
        return [
            _with_points(found, self.map.places_seen(i))
            for i, found in zip(retrieved, matches, strict=True)
        ]

    def match_codes(self, features: ImageFeatures, codes: np.ndarray) -> Matches:
        """Mutual nearest neighbours of prepared features among rows of the map's codes.

        Returns:
            Pairs of a keypoint and a position in ``codes``: of equal codes the first.
        """
        union, first = np.unique(self._points.row_of_code[codes], return_index=True)
        if len(union) == 0 or len(features.descriptors) == 0:
            return Matches.empty()
        with team():
            query = self._points.onto_basis(self._points.tensor(features.descriptors))
            product = query @ self._descriptors(union).T
        similarity = product if torch is None else product.cpu().numpy()
        nearest = similarity.argmax(1)
        highest = similarity[np.arange(len(nearest)), nearest]
        mutual = np.flatnonzero(highest >= similarity.max(0)[nearest])
        # Of keypoints as alike as one another the first has the point.
        _, one = np.unique(nearest[mutual], return_index=True)
        mutual = np.sort(mutual[one])
        pairs = np.stack([mutual, first[nearest[mutual]]], 1).astype(np.int64)
        return Matches(pairs, highest[mutual])

    def similarities(
        self, features: ImageFeatures, keypoints: np.ndarray, codes: np.ndarray
    ) -> np.ndarray:
        """(k,) float32 of (k,) rows of prepared features and (k,) rows of the map's codes."""
        union, position = np.unique(self._points.row_of_code[codes], return_inverse=True)
        with team():
            query = self._points.onto_basis(self._points.tensor(features.descriptors))
            sides = [query, self._descriptors(union)]
        rows, decoded = sides if torch is None else [side.cpu().numpy() for side in sides]
        return np.einsum("kd,kd->k", rows[keypoints], decoded[position.ravel()])

    @property
    def by_neighbours(self) -> bool:
        """Whether matches are nearest neighbours, not those of a network."""
        return self._match_pair is None

    def match_whole_map(self, features: ImageFeatures) -> Matches:
        """Matches with all codes of the map at once: pairs of query keypoint and map point."""
        if self._match_pair is not None:
            raise InputError(
                f"--matcher {self.matcher} matches pairs of images: it needs retrieved images, not "
                "--retrieval none"
            )
        features = self.prepared(features)
        query = self._points.onto_basis(self._points.tensor(features.descriptors))
        if self._searches_lists():
            found = self._points.index().search(query.cpu())
            candidates = np.unique(found[found >= 0])
            rows = np.where(found >= 0, np.searchsorted(candidates, found), -1)
            matches = mutual_matches(query.cpu(), self._descriptors(candidates).cpu(), rows)
            pairs = matches.pairs.copy()
            pairs[:, 1] = candidates[pairs[:, 1]]
            matches = Matches(pairs, matches.similarity)
        else:
            everything = self._points.all()
            if torch is None:
                matches = plain.match_all(query, everything, self.conf)
            elif self._is_mutual():
                all_rows = torch.arange(len(everything), device=self.device)
                (matches,) = match_images(query, everything, [all_rows], self.conf)
            else:
                matches = match_all(query, everything, self.conf)
        point_of_code = self.map.place_of_point
        if self.map.granularity == "observation":
            point_of_code = point_of_code[self.map.visibility.indices]
        return _with_points(matches, point_of_code[self._points.distinct])

    def match_direct(self, features: ImageFeatures) -> list[Matches]:
        """Matches without retrieval: with each of the images that ``match_whole_map`` votes for."""
        found = self.match_whole_map(features)
        images = voted_images(found.pairs[:, 1], self.images_of_points())
        return self.match(features, images)

    def images_alike(self, query: Query) -> list[int]:
        """The images that the surest keypoints of a query vote for, best first; see ``direct``."""
        few = surest_keypoints(query.features, VOTING_KEYPOINTS)
        found = self.match_whole_map(take(query.features, few))
        return voted_images(found.pairs[:, 1], self.images_of_points())

    def match_query(self, query: Query) -> list[Matches]:
        """Matches with the images that were retrieved for a query, or without any."""
        if query.retrieved is None:
            return self.match_direct(query.features)
        return self.match(query.features, query.retrieved, query.camera)

    def images_of_points(self) -> Visibility:
        """The map's points by the images that see them; of a point of several rows, the first."""
        with self._turning:
            if self._seen_by is None:
                seen = self.map.visibility
                places = self.map.place_of_point[seen.indices].astype(np.int32)
                self._seen_by = replace(seen, indices=places).transpose()[0]
        return self._seen_by

    def _is_mutual(self) -> bool:
        """Whether matches are mutual nearest neighbours and nothing else is asked of them."""
        conf = self.conf
        return conf.do_mutual_check and not (conf.ratio_threshold or conf.distance_threshold)

    def _searches_lists(self) -> bool:
        """Whether points are searched through an inverted file."""
        large = len(self._points) > self._exact_points
        return torch is not None and faiss is not None and self._is_mutual() and large

    def _match_image(self, features: ImageFeatures, image: int) -> Matches:
        """Matches by a matcher of pairs, which sees the image's rows as hloc would."""
        points, keypoints, codes = image_rows(self.map, image)
        camera = self.map.cameras[self.map.camera_index[image]]
        decoded = self._descriptors(self._points.row_of_code[codes]).cpu().numpy()
        seen = ImageFeatures(
            keypoints, decoded, self.map.scores[codes], (camera.width, camera.height)
        )
        assert self._match_pair is not None
        rows, columns = self._match_pair(features, seen).T
        similarity = np.einsum("nd,nd->n", features.descriptors[rows], decoded[columns])
        points = self.map.place_of_point[points[columns]]
        return Matches(np.stack([rows, points], 1), similarity.astype(np.float32))

    def prepared(self, features: ImageFeatures) -> ImageFeatures:
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


def surest_keypoints(features: ImageFeatures, count: int) -> np.ndarray:
    """Rows, increasing, of the ``count`` keypoints of the highest scores; of equal scores, such as
    those of an extractor that gives none, spread over the list."""
    scores = np.asarray(features.scores)
    if len(scores) <= count:
        return np.arange(len(scores))
    if (scores == scores[0]).all():
        return np.linspace(0, len(scores) - 1, count).astype(np.int64)
    return np.sort(np.argsort(-scores, kind="stable")[:count])


def take(features: ImageFeatures, rows: np.ndarray) -> ImageFeatures:
    """The keypoints ``rows`` of an image."""
    return replace(
        features,
        keypoints=features.keypoints[rows],
        descriptors=features.descriptors[rows],
        scores=features.scores[rows],
    )


def _seen_in(matches: Matches, points: np.ndarray) -> Matches:
    """Those of the matches whose point is one of ``points``."""
    mine = np.isin(matches.pairs[:, 1], points)
    return Matches(matches.pairs[mine], matches.similarity[mine])


def _with_points(matches: Matches, points: np.ndarray) -> Matches:
    """Matches whose positions are replaced by the map's points at these positions."""
    pairs = np.stack([matches.pairs[:, 0], points[matches.pairs[:, 1]]], 1).astype(np.int64)
    return Matches(pairs, matches.similarity)
