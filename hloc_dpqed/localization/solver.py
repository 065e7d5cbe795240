"""The pose of a query from its matches, and whether it is believed."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pycolmap

from ..choices import LEAST_INLIERS
from ..io.features import ImageFeatures
from .belief import least_inliers
from .confidence import coverage, evidence_of
from .intrinsics import (
    BETTER,
    LENS_INLIERS,
    copy_camera,
    has_focal,
    with_free_focal,
    with_refined_focal,
    with_refined_lens,
)
from .pose import (
    estimate_pose,
    estimate_pose_best_first,
    query_seed,
    refine_from,
)
from .queries import Correspondences, Localization, Query


@dataclass(frozen=True)
class PoseSolver:
    """Estimates poses from correspondences with the points of a map.

    Attributes:
        xyz: (P, 3) of the map's points.
        options: as ``pose.estimation_options`` gives them.
        pose_estimator: of ``pose.POSE_ESTIMATORS``.
        best_first: RANSAC looks at the best match of each keypoint.
        min_inliers: of a pose that is believed, see ``belief.least_inliers``.
        estimate_focal: the focal lengths of the cameras are not known; those of which
            ``has_prior_focal_length`` is set are nearly right.
        estimate_lens: the distortion is not known either.
        seed: of RANSAC, mixed with each query's name.
    """

    xyz: np.ndarray
    options: dict[str, Any]
    pose_estimator: str
    best_first: bool
    min_inliers: int
    estimate_focal: bool
    seed: int
    estimate_lens: bool = False

    def estimate(
        self,
        found: Correspondences,
        features: ImageFeatures,
        camera: pycolmap.Camera,
        seed: int,
    ) -> dict[str, Any] | None:
        """Pose from correspondences, of however many inliers, as ``estimate_pose`` returns it.

        A focal length that is not known is written into ``camera``.
        """
        free = with_free_focal(self.options) if self.estimate_focal else self.options
        return self._estimate(found, features, camera, seed, free)

    def _estimate(
        self,
        found: Correspondences,
        features: ImageFeatures,
        camera: pycolmap.Camera,
        seed: int,
        options: dict[str, Any],
    ) -> dict[str, Any] | None:
        # hloc's keypoints have pixel centres at integers, COLMAP's at +0.5: added here, once.
        points2D = features.keypoints[found.keypoint_index].astype(np.float64) + 0.5
        points3D = self.xyz[found.point_index]
        how = (camera, options, seed, self.pose_estimator)
        if not self.best_first:
            return estimate_pose(points2D, points3D, *how)
        return estimate_pose_best_first(points2D, points3D, found.best_of_keypoints(), *how)

    def believes(
        self, answer: dict[str, Any] | None, found: Correspondences, camera: pycolmap.Camera
    ) -> bool:
        """Whether a pose has the inliers that it needs."""
        if answer is None:
            return False
        least = least_inliers(len(found), camera, self.options, self.min_inliers)
        return int(answer["num_inliers"]) >= least

    def usual_least(self, num_matches: int, camera: pycolmap.Camera) -> int:
        """Inliers that a pose needs, by default: also where every pose is taken."""
        return least_inliers(num_matches, camera, self.options, self.min_inliers or LEAST_INLIERS)

    def solve(self, query: Query, found: Correspondences, images: list[int]) -> Localization:
        """The outcome of a query with these matches, with ``images``."""
        if not self.estimate_focal:
            return self._solve(query, found, images, self.options)
        free = self._solve(query, found, images, with_free_focal(self.options))
        if not query.camera.has_prior_focal_length:
            return free
        told = self._solve(query, found, images, with_refined_focal(self.options))
        rank = (told.cam_from_world is not None, BETTER * told.num_inliers)
        return told if rank >= (free.cam_from_world is not None, free.num_inliers) else free

    def _solve(
        self, query: Query, found: Correspondences, images: list[int], options: dict[str, Any]
    ) -> Localization:
        camera = copy_camera(query.camera) if self.estimate_focal else query.camera
        seed = query_seed(self.seed, query.name)
        answer = self._estimate(found, query.features, camera, seed, options)
        if self.estimate_lens and answer is not None:
            answer, camera = self._with_lens(answer, found, query.features, camera)
        if answer is None:
            return Localization(query.name, None, 0, np.zeros(len(found), bool), found, images)
        believed = self.believes(answer, found, camera)
        if self.estimate_focal and not has_focal(camera):
            believed = False
        inliers = np.asarray(answer["inlier_mask"], bool)
        seen = query.features.keypoints[found.keypoint_index[inliers]] + 0.5
        count, covered = int(answer["num_inliers"]), coverage(seen, query.camera)
        evidence = evidence_of(answer["covariance"], count, len(found), covered)
        return Localization(
            query.name,
            answer["cam_from_world"].matrix() if believed else None,
            count,
            inliers,
            found,
            images,
            rejected=not believed,
            covariance=answer["covariance"] if believed else None,
            evidence=evidence if believed else None,
            camera=camera if self.estimate_focal and believed else None,
        )

    def _with_lens(
        self,
        answer: dict[str, Any],
        found: Correspondences,
        features: ImageFeatures,
        camera: pycolmap.Camera,
    ) -> tuple[dict[str, Any], pycolmap.Camera]:
        """The pose and camera with the distortion refined too, where as many matches agree."""
        if answer["num_inliers"] < LENS_INLIERS:
            return answer, camera
        lens = copy_camera(camera)
        refined = refine_from(
            answer["cam_from_world"].matrix(),
            features.keypoints[found.keypoint_index].astype(np.float64) + 0.5,
            self.xyz[found.point_index],
            lens,
            with_refined_lens(self.options),
        )
        if refined is None or refined["num_inliers"] < answer["num_inliers"]:
            return answer, camera
        return refined, lens
