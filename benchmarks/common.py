"""What the benchmarks share: the real scenes, the measures, the intervals.

Correct matches of a query are the distinct (query keypoint, 3D point) pairs over all retrieved
images whose point lies in front of the camera and reprojects within ``CORRECT_PX`` under the
ground-truth pose. Precision is their share of the distinct pairs that were matched.
"""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pycolmap

from hloc_dpqed.compressed_map import CompressedMap
from hloc_dpqed.evaluate import pose_error
from hloc_dpqed.io.features import FeatureFile, ImageFeatures
from hloc_dpqed.io.lists import read_pairs, read_poses, read_queries
from hloc_dpqed.io.model import read_observations, read_reference
from hloc_dpqed.localization.localizer import Correspondences, Localizer, Query
from hloc_dpqed.localization.pose import estimate_pose, query_seed
from hloc_dpqed.reference import Observations, ReferenceMap

CORRECT_PX = 4.0
RANSAC_PX = 4.0
DATA = Path(
    os.environ.get("HLOC_DPQED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)
# Folder, model, features and pairs of each scene.
SCENES = {
    "fountain-P11": ("fountain-P11", "sfm", "feats-superpoint.h5", "pairs-query-vlad7.txt"),
    "castle-P30": ("castle-P30", "sfm", "feats-superpoint.h5", "pairs-query-vlad10.txt"),
    "south-building": ("south-building", "sfm", "feats-superpoint.h5", "pairs-query-vlad20.txt"),
    "south-building/xfeat": (
        "south-building",
        "xfeat/sfm",
        "xfeat/feats-xfeat.h5",
        "pairs-query-vlad20.txt",
    ),
}


@dataclass(frozen=True)
class TestQuery:
    """A query with its ground truth.

    Attributes:
        name, camera, features: of the query.
        retrieved: names of the retrieved database images, best first.
        cam_from_world: (3, 4) float64 ground truth.
    """

    name: str
    camera: pycolmap.Camera
    features: ImageFeatures
    retrieved: list[str]
    cam_from_world: np.ndarray


@dataclass(frozen=True)
class Scene:
    """A real scene: the uncompressed map and its queries."""

    name: str
    folder: Path
    sfm: Path
    features: Path
    pairs: Path
    reference: ReferenceMap
    observations: Observations
    queries: list[TestQuery]


def load_scene(name: str) -> Scene:
    """Read a scene; ends the program with a line where the data is absent."""
    folder, sfm, features, pairs = SCENES[name]
    root = DATA / folder
    if not root.is_dir():
        sys.exit(f"{root}: no such folder; set HLOC_DPQED_DATA to the folder of scenes")
    reference = read_reference(root / sfm)
    observations = read_observations(reference, root / features)
    truth = read_poses(root / "poses_gt.txt")
    retrieved = read_pairs(root / pairs)
    with FeatureFile(root / features) as file:
        queries = [
            TestQuery(n, camera, file.read(n), retrieved[n], truth[n])
            for n, camera in read_queries(root / "queries.txt")
        ]
    return Scene(
        name,
        root,
        root / sfm,
        root / features,
        root / pairs,
        reference,
        observations,
        queries,
    )


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
    found: Correspondences, query: TestQuery, xyz: np.ndarray, max_error: float = CORRECT_PX
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


def measure(
    compressed: CompressedMap,
    queries: list[TestQuery],
    ransac_seeds: int = 10,
    matcher: str = "NN-mutual",
    localizer: Localizer | None = None,
) -> Measures:
    """Localize ``queries`` and compare with the ground truth; 0 seeds measure the matches only."""
    localizer = localizer or Localizer(compressed, matcher, ransac_thresh=RANSAC_PX)
    row_of = {name: row for row, name in enumerate(compressed.image_names)}
    correct, keypoints, matched, errors = [], [], [], []
    for query in queries:
        images = [row_of[name] for name in query.retrieved if name in row_of]
        asked = Query(query.name, query.camera, query.features, images)
        pairs = localizer.match(query.features, images)
        found = Correspondences.collect(pairs, compressed.num_points)
        good = correct_pairs(found, query, compressed.xyz)
        correct.append(int(good.sum()))
        keypoints.append(len(np.unique(found.keypoint_index[good])))
        matched.append(len(found))
        errors.append(
            [
                _error(found, asked, query, compressed, localizer, seed)
                for seed in range(ransac_seeds)
            ]
        )
    shape = (len(queries), ransac_seeds, 2)
    return Measures(
        np.array(correct),
        np.array(keypoints),
        np.array(matched),
        np.array(errors, float).reshape(shape),
    )


def _error(
    found: Correspondences,
    asked: Query,
    query: TestQuery,
    compressed: CompressedMap,
    localizer: Localizer,
    seed: int,
) -> tuple[float, float]:
    answer = estimate_pose(
        query.features.keypoints[found.keypoint_index].astype(np.float64) + 0.5,
        compressed.xyz[found.point_index],
        asked.camera,
        localizer.options,
        query_seed(seed, asked.name),
    )
    if answer is None:
        return (np.inf, np.inf)
    return pose_error(answer["cam_from_world"].matrix(), query.cam_from_world)


def bootstrap(differences: np.ndarray, samples: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of paired differences, resampling queries.

    Args:
        differences: (Q,) one paired difference for each query.
    """
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(differences), (samples, len(differences)))
    low, high = np.percentile(np.asarray(differences)[rows].mean(1), [2.5, 97.5])
    return float(low), float(high)


def print_table(header: list[str], rows: list[list[str]]) -> None:
    """Print a Markdown table with aligned columns."""
    widths = [max(len(str(line[i])) for line in [header, *rows]) for i in range(len(header))]
    for k, line in enumerate([header, *rows]):
        cells = [str(cell).ljust(width) for cell, width in zip(line, widths, strict=True)]
        print("| " + " | ".join(cells) + " |")
        if k == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
