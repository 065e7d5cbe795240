"""A frame that sees what the frame before it saw: a rough pose first, then matches near it (ours).

The surest keypoints are matched with the points of a few images; RANSAC tells the pose of the frame
roughly, and whether it is right: it needs the inliers that any pose needs. All keypoints are then
matched with the points that this pose projects near them, and the pose is refined on those.
"""

from __future__ import annotations

import numpy as np

from .confidence import coverage, evidence_of
from .direct import voted_images
from .guided import mutually_best, pairs_within
from .map_matcher import MapMatcher, surest_keypoints, take
from .pose import query_seed, ransac_options, ransac_pose, refine_from
from .queries import Correspondences, Localization, Query
from .solver import PoseSolver
from .view import points_of_images, view_from

SURE = 2.0  # times the inliers that a pose needs
# Of the rough matches that must agree. Where a sequence jumped to a place that looks like the last
# one, an eighth did, in the sequence itself a fifth (benchmarks/tracking.py --jumps).
ROUGH_SHARE = 1 / 6
ROUGH_KEYPOINTS = 192  # that the rough pose comes from
GUIDED_IMAGES = 8  # whose points are looked for near the rough pose
# What follows takes a pose that is a few pixels off, and a frame without one is localized as ever.
ROUGH_RANSAC = {"min_num_trials": 20, "dyn_num_trials_multiplier": 1.0, "confidence": 0.999}


def follow(
    matcher: MapMatcher, solver: PoseSolver, query: Query, images: list[int]
) -> Localization | None:
    """Localize a frame among the points of ``images``; None where it is not sure.

    Args:
        matcher: by nearest neighbours.
        solver: of poses.
        query: the frame, its features in pixels of its camera.
        images: that see what the last frame saw.
    """
    features = matcher.prepared(query.features)
    points, codes = points_of_images(matcher.map, images)
    # hloc's keypoints have pixel centres at integers, COLMAP's at +0.5: added here, once.
    pixels = features.keypoints.astype(np.float64) + 0.5
    for count in (ROUGH_KEYPOINTS, len(pixels)):
        few = surest_keypoints(features, count)
        rough = matcher.match_codes(take(features, few), codes)
        seen = points[rough.pairs[:, 1]]
        rows = few[rough.pairs[:, 0]]
        pose, inliers = _rough_pose(solver, query, pixels[rows], solver.xyz[seen])
        least = SURE * solver.usual_least(len(seen), query.camera)
        if inliers.sum() >= max(least, ROUGH_SHARE * len(seen)):
            break
    else:
        return None

    images = voted_images(seen[inliers], matcher.images_of_points(), GUIDED_IMAGES)
    view = view_from(matcher.map, *points_of_images(matcher.map, images), query.camera, pose)
    radius = float(ransac_options(solver.options)["max_error"])
    of_keypoint, of_point = pairs_within(pixels, view.keypoints.astype(np.float64) + 0.5, radius)
    alike = matcher.similarities(features, of_keypoint, view.codes[of_point])
    least = float(rough.similarity[inliers].min())
    matches = mutually_best(of_keypoint, of_point, alike, least)
    matches.pairs[:, 1] = view.points[matches.pairs[:, 1]]
    found = Correspondences.collect([matches], matcher.map.num_points)
    refined = refine_from(
        pose,
        pixels[found.keypoint_index],
        solver.xyz[found.point_index],
        query.camera,
        solver.options,
    )
    if refined is None or refined["num_inliers"] < inliers.sum() / 2:
        return None
    mask, count = refined["inlier_mask"], int(refined["num_inliers"])
    covered = coverage(pixels[found.keypoint_index[mask]], query.camera)
    covariance = refined["covariance"]
    return Localization(
        query.name,
        refined["cam_from_world"].matrix(),
        count,
        mask,
        found,
        images,
        covariance=covariance,
        evidence=evidence_of(covariance, count, len(found), covered),
        tracked=True,
    )


def _rough_pose(
    solver: PoseSolver, query: Query, points2D: np.ndarray, points3D: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A (3, 4) pose by few trials, and (n,) bool inliers: none without a pose."""
    estimation = solver.options["estimation"]
    ransac = ROUGH_RANSAC | {"max_error": ransac_options(solver.options)["max_error"]}
    options = {**solver.options, "estimation": {**estimation, "ransac": ransac}}
    seed = query_seed(solver.seed, query.name)
    how = (query.camera, options, seed, solver.pose_estimator)
    answer = ransac_pose(points2D, points3D, *how)
    return answer or (np.eye(4)[:3], np.zeros(len(points2D), bool))
