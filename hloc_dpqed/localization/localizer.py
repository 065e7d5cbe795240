"""Localize queries against a compressed map that is held in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pycolmap

from ..choices import LEAST_INLIERS
from ..io.features import ImageFeatures
from ..io.same_image import features_for_camera
from ..maps.compressed import CompressedMap
from ..matching.nearest_neighbor import Matches
from .belief import check_min_inliers
from .covisible import covisible_groups
from .decoded import BASIS_ENERGY, common_basis, distinct_rows
from .direct import EXACT_POINTS
from .following import follow
from .intrinsics import check_estimate_focal
from .map_matcher import MapMatcher
from .pose import check_pose_estimator, estimation_options, query_seed
from .priors import Prior, WithPrior, localize_with_prior
from .queries import Correspondences, Localization, Query, RigLocalization, RigQuery
from .rigs import solve_rig
from .solver import PoseSolver
from .streams import several_at_a_time
from .tracking import LastFrame, track

__all__ = [
    "BASIS_ENERGY",
    "Correspondences",
    "Localization",
    "Localizer",
    "Query",
    "RigLocalization",
    "RigQuery",
    "common_basis",
    "covisible_groups",
    "distinct_rows",
]


class Localizer(MapMatcher):
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
        min_inliers: of a pose that is believed, see ``belief.least_inliers``; 0 believes every
            pose, as hloc does.
        estimate_focal: the focal lengths of the queries are not known, and estimated with each
            pose (``Localization.camera``); those of cameras whose ``has_prior_focal_length`` is set
            are nearly right.
        estimate_lens: with ``estimate_focal``: the distortion is not known either.
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
        estimate_lens: bool = False,
        seed: int = 0,
        device: str = "cpu",
        memory_limit: int = 1 << 30,
    ):
        check_pose_estimator(pose_estimator)
        check_min_inliers(min_inliers)
        solver = PoseSolver(
            xyz=compressed.xyz,
            options=estimation_options(ransac_thresh, config),
            pose_estimator=pose_estimator,
            best_first=best_first,
            min_inliers=min_inliers,
            estimate_focal=estimate_focal,
            estimate_lens=estimate_focal and estimate_lens,
            seed=seed,
        )
        super().__init__(
            compressed,
            matcher,
            matcher_weights=matcher_weights,
            symmetric=symmetric,
            solver=solver,
            exact_points=EXACT_POINTS,
            device=device,
            memory_limit=memory_limit,
        )
        self.covisibility_clustering = covisibility_clustering
        self.options, self.min_inliers = solver.options, min_inliers

    def pose(
        self,
        found: Correspondences,
        features: ImageFeatures,
        camera: pycolmap.Camera,
        seed: int,
    ) -> dict[str, Any] | None:
        """Pose from correspondences, as ``estimate_pose`` returns it; None where it has too few
        inliers to be believed."""
        answer = self._solver.estimate(found, features, camera, seed)
        return answer if self._solver.believes(answer, found, camera) else None

    def solve(self, query: Query, matches: list[Matches]) -> Localization:
        """Pose from the matches of each retrieved image (or of the whole map)."""
        images = [] if query.retrieved is None else list(query.retrieved)
        groups = [list(range(len(matches)))]
        if self.covisibility_clustering and query.retrieved is not None:
            groups = covisible_groups(self.map, images) or [[]]
        outcomes = []
        for group in groups:
            found = Correspondences.collect([matches[k] for k in group], self.map.num_points)
            used = [images[k] for k in group] if images else []
            outcomes.append(self._solver.solve(query, found, used))
        # A group of few matches may be believed where one of more inliers is not.
        return max(outcomes, key=lambda one: (one.cam_from_world is not None, one.num_inliers))

    def localize(self, query: Query) -> Localization:
        """Match and estimate the pose of one query.

        Keypoints of another image size than the camera's are scaled to it, see
        ``io.same_image.features_for_camera``.

        Raises:
            InputError: the descriptors are of another dimension than the map's, or the features of
                an image of another shape than the camera's.
        """
        query = _in_camera(query)
        return self.solve(query, self.match_query(query))

    def localize_with_prior(self, query: Query, prior: Prior, quick: bool = True) -> WithPrior:
        """Localize a query of which something is known; see ``priors``.

        Args:
            query: the query.
            prior: what is known.
            quick: look for it as sequences are followed; else as without a prior, in fewer images.

        Raises:
            InputError: as ``localize``; or the prior is impossible.
        """
        prior.check()
        least = partial(self._least, query.camera)
        quickly = self._follow if quick and self._follows else None
        how = (self.localize, least, self.images_alike, quickly)
        return localize_with_prior(self.map, query, prior, *how)

    def localize_with_priors(
        self, queries: Iterable[tuple[Query, Prior | None]], quick: bool = True
    ) -> Iterator[WithPrior]:
        """Localize a stream of queries with what is known of each, as ``localize_many``.

        Raises:
            InputError: as ``localize_with_prior``.
        """

        def localize(known: tuple[Query, Prior | None]) -> WithPrior:
            query, prior = known
            if prior is None:
                return WithPrior(self.localize(query), None, False)
            return self.localize_with_prior(query, prior, quick)

        return several_at_a_time(localize, queries)

    @property
    def _follows(self) -> bool:
        """A network sees images, and a focal length that is not known projects no point."""
        return self.by_neighbours and not self._solver.estimate_focal

    def _follow(self, query: Query, images: list[int]) -> Localization | None:
        return follow(self, self._solver, _in_camera(query), images)

    def track(
        self, frames: Iterable[Query], last: LastFrame | None = None
    ) -> Iterator[Localization]:
        """Localize the frames of a sequence, each with what the last one saw; see ``tracking``.

        Args:
            frames: in their order.
            last: the frame before them, where a sequence goes on.

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

        quickly = self._follow if self._follows else None
        return track(frames, localize, quickly, least, self.images_of_points(), last)

    def _least(self, camera: pycolmap.Camera, outcome: Localization) -> int:
        """Inliers that a pose needs, by default: also where every pose is taken."""
        return self._solver.usual_least(len(outcome.correspondences), camera)

    def localize_rig(self, rig: RigQuery) -> RigLocalization:
        """Match the images of a rig, and estimate one pose from all of them.

        Each image is localized alone too: see ``RigLocalization.disagrees``.

        Raises:
            InputError: as ``localize``.
        """
        how = self._solver
        check_estimate_focal(how.estimate_focal, rigs=True)
        rig = replace(rig, queries=[_in_camera(query) for query in rig.queries])
        alone = [self.solve(query, self.match_query(query)) for query in rig.queries]
        return solve_rig(
            rig,
            alone,
            self.map.xyz,
            how.best_first,
            how.options,
            how.min_inliers,
            query_seed(how.seed, rig.name),
            how.pose_estimator,
        )

    def localize_many(self, queries: Iterable[Query]) -> Iterator[Localization]:
        """Localize a stream of queries, in order, several at a time.

        Each thread takes a whole query: matching and pose estimation then keep every core busy
        without waiting for one another. At most two queries a thread are in memory.
        """
        return several_at_a_time(self.localize, queries)

    def localize_rigs(self, rigs: Iterable[RigQuery]) -> Iterator[RigLocalization]:
        """Localize a stream of rigs, as ``localize_many``."""
        return several_at_a_time(self.localize_rig, rigs)

    def correspond_many(self, queries: Iterable[Query]) -> Iterator[Correspondences]:
        """The 2D-3D matches of a stream of queries, as ``localize_many`` without the poses."""

        def correspond(query: Query) -> Correspondences:
            query = _in_camera(query)
            return Correspondences.collect(self.match_query(query), self.map.num_points)

        return several_at_a_time(correspond, queries)


def _in_camera(query: Query) -> Query:
    """The query with its features in pixels of its camera."""
    fitted = features_for_camera(query.features, query.camera, f"query {query.name!r}")
    return query if fitted is query.features else replace(query, features=fitted)
