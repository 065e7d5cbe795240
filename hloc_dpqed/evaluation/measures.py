"""What is measured of a map with queries of known pose: matches, precision, errors, intervals.

Correct matches of a query are the distinct (query keypoint, 3D point) pairs over all retrieved
images whose point lies in front of the camera and reprojects within ``CORRECT_PX`` under the
ground-truth pose. Precision is their share of the distinct pairs that were matched.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pycolmap

from ..io.features import ImageFeatures
from ..localization.localizer import Correspondences, Localizer
from ..localization.pose import query_seed
from ..maps.compressed import CompressedMap
from ..matching.nearest_neighbor import Matches
from .pose_errors import pose_error

CORRECT_PX = 4.0


@dataclass(frozen=True)
class PosedQuery:
    """A query with its ground truth.

    Attributes:
        name, camera, features: of the query.
        retrieved: names of the retrieved database images, best first; None for the whole map.
        cam_from_world: (3, 4) float64 ground truth.
    """

    name: str
    camera: pycolmap.Camera
    features: ImageFeatures
    retrieved: list[str] | None
    cam_from_world: np.ndarray


@dataclass
class Measures:
    """What was measured, one entry a query (or a query and RANSAC seed).

    Attributes:
        correct: (Q,) distinct correct pairs.
        correct_keypoints: (Q,) distinct query keypoints among them.
        matched: (Q,) distinct pairs.
        errors: (Q, S, 2) translation in map units and rotation in degrees for each RANSAC seed,
            infinite where no pose was found.
    """

    correct: np.ndarray
    correct_keypoints: np.ndarray
    matched: np.ndarray
    errors: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 2)))

    @property
    def precision(self) -> np.ndarray:
        """(Q,) correct pairs as a share of all; 0 where nothing was matched."""
        return self.correct / np.maximum(self.matched, 1)

    def recall(self, translation: float, rotation: float) -> float:
        """Share of (query, seed) with both errors strictly under the thresholds."""
        return float(
            np.mean((self.errors[..., 0] < translation) & (self.errors[..., 1] < rotation))
        )

    def median_errors(self) -> tuple[float, float]:
        """Median over queries of each query's median over seeds: map units, degrees."""
        per_query = np.median(self.errors, axis=1)
        translation, rotation = np.median(per_query, axis=0)
        return float(translation), float(rotation)


def correct_pairs(
    found: Correspondences, query: PosedQuery, xyz: np.ndarray, max_error: float = CORRECT_PX
) -> np.ndarray:
    """(n,) bool: which pairs are correct under the ground-truth pose."""
    pose = query.cam_from_world
    in_camera = xyz[found.point_index] @ pose[:, :3].T + pose[:, 3]
    if len(in_camera) == 0:
        return np.zeros(0, bool)
    projected = np.asarray(query.camera.img_from_cam(in_camera))
    keypoints = query.features.keypoints[found.keypoint_index] + 0.5
    near = np.linalg.norm(projected - keypoints, axis=1) < max_error
    return near & (in_camera[:, 2] > 0)


def match_query(localizer: Localizer, query: PosedQuery) -> tuple[list[int], list[Matches]]:
    """Matches of a query with what was retrieved for it.

    Returns:
        Rows of the map's images (empty for the whole map), and the matches with each (with the
        images that were voted for, for the whole map).
    """
    if query.retrieved is None:
        return [], localizer.match_direct(query.features)
    row_of = {name: row for row, name in enumerate(localizer.map.image_names)}
    images = [row_of[name] for name in query.retrieved if name in row_of]
    return images, localizer.match(query.features, images, query.camera)


def pose_of(
    found: Correspondences, query: PosedQuery, localizer: Localizer, seed: int
) -> dict[str, Any] | None:
    """pycolmap's answer for the query with the RANSAC seed, None where there is none."""
    return localizer.pose(found, query.features, query.camera, query_seed(seed, query.name))


def measure(localizer: Localizer, queries: Sequence[PosedQuery], ransac_seeds: int) -> Measures:
    """Localize ``queries`` and compare with the ground truth; 0 seeds measure the matches only."""
    compressed: CompressedMap = localizer.map
    correct, keypoints, matched, errors = [], [], [], []
    for query in queries:
        _, pairs = match_query(localizer, query)
        found = Correspondences.collect(pairs, compressed.num_points)
        good = correct_pairs(found, query, compressed.xyz)
        correct.append(int(good.sum()))
        keypoints.append(len(np.unique(found.keypoint_index[good])))
        matched.append(len(found))
        for seed in range(ransac_seeds):
            answer = pose_of(found, query, localizer, seed)
            if answer is None:
                errors.append((np.inf, np.inf))
            else:
                errors.append(pose_error(answer["cam_from_world"].matrix(), query.cam_from_world))
    return Measures(
        np.array(correct),
        np.array(keypoints),
        np.array(matched),
        np.array(errors, float).reshape(len(queries), ransac_seeds, 2),
    )


def bootstrap(differences: np.ndarray, samples: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of paired differences, resampling queries.

    Args:
        differences: (Q,) one paired difference for each query.
    """
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(differences), (samples, len(differences)))
    low, high = np.percentile(np.asarray(differences)[rows].mean(1), [2.5, 97.5])
    return float(low), float(high)
