"""Database images as pseudo-queries: held out of a map, and localized in compressed ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..evaluation.measures import PosedQuery, correct_pairs, match_query, pose_of
from ..evaluation.pose_errors import pose_error
from ..io.features import ImageFeatures
from ..localization.localizer import Correspondences, Localizer
from ..maps.compressed import CompressedMap
from ..scene.projection import camera_centres
from ..scene.reference import Observations, ReferenceMap
from ..scene.spatial import spread_folds
from ..scene.visibility import Visibility
from .holdout import HeldOutImage, HoldOut, hold_out

RANSAC_PX = 4.0
RANSAC_SEEDS = 3  # of each pseudo-query
NOISE_PX, NOISE_FREEDOM = 1.0, 4  # of a keypoint along an axis, and how little sure that is
LOST = 10  # times the expected error: such a pose is a failure, no chance
MIN_IMAGES = 4  # of a map that images are held out of
MAX_PSEUDO_QUERIES = 16


def hold_out_queries(
    reference: ReferenceMap,
    observations: Observations,
    seed: int,
    read_features: Callable[[str], ImageFeatures],
    global_descriptors: np.ndarray | None,
    num_retrieved: int,
    one_in: int = 10,
    fold: int = 0,
) -> HoldOut:
    """One spread fold of the images as pseudo-queries, each with a retrieval list.

    Args:
        one_in: of so many images about one is held out; at least 4 and at most
            ``MAX_PSEUDO_QUERIES`` are, and never more than half of them.
        fold: 0 .. ``num_folds(reference.num_images, one_in)`` - 1, which have no image in common.

    Raises:
        InputError: the map has fewer than four images.
    """
    if reference.num_images < MIN_IMAGES:
        raise InputError(
            f"planning holds images out, and a map of {reference.num_images} has too few"
        )
    folds = spread_folds(reference.cam_from_world, num_folds(reference.num_images, one_in), seed)
    held_out = np.flatnonzero(folds == fold)[:MAX_PSEUDO_QUERIES]
    held = hold_out(
        reference,
        observations,
        held_out,
        read_features=read_features,
        global_descriptors=global_descriptors,
        num_retrieved=num_retrieved,
    )
    if global_descriptors is None:
        shared = shared_points(reference.visibility, held_out, held.image_rows)
        best = np.argsort(-shared, axis=1, kind="stable")[:, :num_retrieved]
        names = held.reference.image_names
        queries = [
            replace(query, retrieved=[names[i] for i in row])
            for query, row in zip(held.queries, best, strict=True)
        ]
        held = replace(held, queries=queries)
    return held


def num_folds(num_images: int, one_in: int = 10) -> int:
    """Into how many folds ``hold_out_queries`` divides a map of ``num_images`` images."""
    # Enough to tell plans apart, and no more than time allows.
    wanted = min(max(num_images // one_in, 4), MAX_PSEUDO_QUERIES, num_images // 2)
    return max(2, num_images // max(wanted, 1))


def shared_points(visibility: Visibility, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Number of points that images ``rows`` share with images ``others``: (n, m) int64."""
    shared = np.zeros((len(rows), len(others)), np.int64)
    for k, row in enumerate(rows):
        seen = np.zeros(visibility.num_points, bool)
        seen[visibility[row]] = True
        shared[k] = [np.count_nonzero(seen[visibility[other]]) for other in others]
    return shared


@dataclass(frozen=True)
class TrialMatcher:
    """What localizes pseudo-queries: a matcher by name, and its weights where it has some."""

    name: str = "NN-mutual"
    weights: Path | None = None


DEFAULT_MATCHER = TrialMatcher()


def localize_held_out(
    compressed: CompressedMap,
    queries: Sequence[HeldOutImage],
    seed: int,
    matcher: TrialMatcher = DEFAULT_MATCHER,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors of the pseudo-queries, measured and expected, and their correct matches.

    Returns:
        (Q, RANSAC_SEEDS, 2) float64 translation (map units) and rotation (degrees) errors,
        infinite for failures; (Q,) float64 ``expected_error`` of the correct matches; and (Q,)
        int64 how many these are.
    """
    extent = scene_extent(compressed.cam_from_world)
    localizer = Localizer(
        compressed, matcher.name, matcher_weights=matcher.weights, ransac_thresh=RANSAC_PX
    )
    errors = np.full((len(queries), RANSAC_SEEDS, 2), np.inf)
    expected = np.empty(len(queries))
    count = np.zeros(len(queries), np.int64)
    for k, query in enumerate(queries):
        assert query.features is not None  # hold_out was given a reader
        posed = PosedQuery(
            query.name, query.camera, query.features, query.retrieved, query.cam_from_world
        )
        _, pairs = match_query(localizer, posed)
        found = Correspondences.collect(pairs, compressed.num_points)
        correct = correct_pairs(found, posed, compressed.xyz)
        count[k] = np.count_nonzero(correct)
        expected[k] = expected_error(
            compressed.xyz[found.point_index[correct]],
            query.features.keypoints[found.keypoint_index[correct]] + 0.5,
            posed,
            extent,
        )
        for s in range(RANSAC_SEEDS):
            answer = pose_of(found, posed, localizer, RANSAC_SEEDS * seed + s)
            if answer is not None:
                errors[k, s] = pose_error(answer["cam_from_world"].matrix(), query.cam_from_world)
    return errors, expected, count


def expected_error(
    xyz: np.ndarray, keypoints: np.ndarray, query: PosedQuery, extent: float
) -> float:
    """Standard deviation of the camera's centre that correct matches leave, in map units.

    Source: ours; least squares around the true pose, with a weak prior (0.1 radians and the
    scene's extent) and the noise that each match shows: the weights of a t distribution (Lange,
    Little and Taylor, JASA 1989). With one noise for all, matches that are less exact than the
    others would count as a loss. A few pseudo-queries tell plans apart by it where the errors of
    single poses are too noisy.

    Args:
        xyz: (n, 3) matched points.
        keypoints: (n, 2) their keypoints in the query, COLMAP's convention.
    """
    pose, camera = query.cam_from_world, query.camera
    local = xyz @ pose[:, :3].T + pose[:, 3]
    squares = np.zeros(0)
    if len(local):
        residuals = np.asarray(camera.img_from_cam(local), np.float64) - keypoints
        squares = (residuals**2).sum(1)
    noise = (NOISE_FREEDOM * NOISE_PX**2 + squares) / (NOISE_FREEDOM + 2)
    depth = local[:, 2:]
    x, y = (local[:, :2] / depth).T
    zero, one = np.zeros_like(x), np.ones_like(x)
    focal = camera.mean_focal_length() or camera.width / (2 * np.pi)
    by_shift = np.stack([np.stack([one, zero, -x], 1), np.stack([zero, one, -y], 1)], 1)
    by_shift *= focal / depth[:, :, None]
    # A turn w moves a point by w x local: the derivative by w of v . (w x local) is local x v.
    by_turn = np.cross(local[:, None], by_shift)
    jacobian = np.concatenate([by_turn, by_shift], 2)
    jacobian = (jacobian / np.sqrt(noise)[:, None, None]).reshape(-1, 6)
    prior = np.diag([1 / 0.1**2] * 3 + [1 / (extent or 1.0) ** 2] * 3)
    covariance = np.linalg.inv(jacobian.T @ jacobian + prior)
    return float(np.sqrt(np.trace(covariance[3:, 3:])))


def scene_extent(cam_from_world: np.ndarray) -> float:
    """Length of the diagonal of the box around the camera centres, in map units."""
    centres = camera_centres(cam_from_world)
    return float(np.linalg.norm(np.ptp(centres, axis=0)))


def mean_log_error(errors: np.ndarray, expected: np.ndarray, extent: float) -> float:
    """Mean log translation error, each clipped to 1e-5 .. 1 times the scene's extent.

    A pose counts with the error that its correct matches let expect, unless it is ``LOST`` times
    as wrong or more.

    Args:
        errors, expected: as ``localize_held_out`` gives them.
        extent: of the scene, in map units.
    """
    extent = extent or 1.0  # all cameras in one place
    measured, allowed = errors[..., 0], expected[:, None]
    error = np.where(measured >= LOST * allowed, measured, allowed)
    return float(np.log(np.clip(error / extent, 1e-5, 1)).mean())
