"""What a report measures: each map on each query."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..codecs import fit_codec
from ..compression.conf import CompressConf
from ..compression.engine import Compressor
from ..errors import InputError
from ..evaluation.measures import Measures, PosedQuery, correct_pairs, match_query, pose_of
from ..evaluation.pose_errors import pose_error
from ..io.features import open_features
from ..io.model import read_observations
from ..localization.localizer import Correspondences, Localizer
from ..logger import logger
from ..maps.compressed import CompressedMap
from ..matching.nearest_neighbor import Matches
from ..scene.reference import ReferenceMap

UNCOMPRESSED = "float (uncompressed)"


@dataclass(frozen=True)
class QueryOutcome:
    """What one map gave for one query.

    Attributes:
        images: rows of the retrieved images; empty for the whole map.
        matches: with each of them, or one entry for the whole map.
        found: the distinct pairs.
        correct: (n,) bool, which of them are correct.
        poses: (S, 3, 4) for each RANSAC seed, not a number where there is none.
    """

    images: list[int]
    matches: list[Matches]
    found: Correspondences
    correct: np.ndarray
    poses: np.ndarray


@dataclass(frozen=True)
class MapOutcome:
    """A map and what it gave for all queries.

    Attributes:
        label: its name in the report.
        compressed: the map.
        info: as ``mapfile.map_info`` gives it, or None for the uncompressed map.
        total_bytes, descriptor_bytes: of the file, of the descriptors or codes.
        queries: an outcome for each query.
    """

    label: str
    compressed: CompressedMap
    info: dict[str, Any] | None
    total_bytes: int
    descriptor_bytes: int
    queries: list[QueryOutcome]

    def measures(self, queries: Sequence[PosedQuery]) -> Measures:
        """Against the poses of ``queries``."""
        errors = [
            [
                pose_error(pose, query.cam_from_world)
                if np.isfinite(pose).all()
                else (np.inf, np.inf)
                for pose in outcome.poses
            ]
            for query, outcome in zip(queries, self.queries, strict=True)
        ]
        return Measures(
            np.array([int(o.correct.sum()) for o in self.queries]),
            np.array([len(np.unique(o.found.keypoint_index[o.correct])) for o in self.queries]),
            np.array([len(o.found) for o in self.queries]),
            np.array(errors, float),
        )


def map_labels(maps: Sequence[Path]) -> list[str]:
    """A label for each file: its name without the ending where these differ, else its path."""
    stems = [path.name.removesuffix(".dpqed") for path in maps]
    return [
        stem if stems.count(stem) == 1 and stem != UNCOMPRESSED else str(path)
        for stem, path in zip(stems, maps, strict=True)
    ]


def uncompressed_map(reference: ReferenceMap, features: Path, progress: bool) -> CompressedMap:
    """The whole map in memory, a float16 descriptor for each observation, as hloc has it."""
    observations = read_observations(reference, features, progress)
    codec = fit_codec("none", observations, 0)
    conf = CompressConf("all", "none", codec.code_size, "observation")
    compressor = Compressor(reference, observations, conf, codec=codec)
    return compressor.with_points(np.arange(reference.num_points))


def reference_bytes(sfm: Path, features: Path, reference: ReferenceMap) -> tuple[int, int]:
    """Bytes of the model and of the database images' features, and of their descriptors alone.

    Features count as the arrays that they are, whether or not the file packs them.
    """
    model = sum(path.stat().st_size for path in sfm.iterdir() if path.suffix in (".bin", ".txt"))
    local = descriptors = 0
    with open_features(features) as file:
        file.check_names(reference.image_names)
        for name in reference.image_names:
            size = file.nbytes(name)
            local, descriptors = local + size[0], descriptors + size[1]
    return model + local, descriptors


def localize_query(
    localizer: Localizer, query: PosedQuery, ransac_seeds: int, first: int = 0
) -> QueryOutcome:
    """Match once, estimate the pose with each RANSAC seed."""
    images, matches = match_query(localizer, query)
    found = Correspondences.collect(matches, localizer.map.num_points)
    poses = np.full((ransac_seeds, 3, 4), np.nan)
    for seed in range(ransac_seeds):
        answer = pose_of(found, query, localizer, first + seed)
        if answer is not None:
            poses[seed] = answer["cam_from_world"].matrix()
    correct = correct_pairs(found, query, localizer.map.xyz)
    return QueryOutcome(images, matches, found, correct, poses)


def posed_by(localizer: Localizer, queries: Sequence[PosedQuery]) -> list[PosedQuery]:
    """The queries that ``localizer`` localizes, with the pose that it gives.

    Raises:
        InputError: there is none.
    """
    posed = []
    for query in queries:
        found = Correspondences.collect(match_query(localizer, query)[1], localizer.map.num_points)
        answer = pose_of(found, query, localizer, 0)
        if answer is not None:
            posed.append(replace(query, cam_from_world=answer["cam_from_world"].matrix()))
    if not posed:
        raise InputError("the uncompressed map localizes no query; pass --reference_poses")
    if len(posed) < len(queries):
        logger.warning(
            f"the uncompressed map localizes {len(posed)} of {len(queries)} queries; the others "
            "are left out"
        )
    return posed


def dropped_points(xyz: np.ndarray, kept: np.ndarray, tolerance: float) -> np.ndarray:
    """Which points of a map have no kept point near them.

    Map files hold no ids of points, so that kept points are recognized by their coordinates. A
    dropped point within four times ``tolerance`` of a kept one may be taken for it, and a kept
    point that is stored with a greater error than ``tolerance`` (far outside) for dropped.

    Args:
        xyz: (P, 3) float64 all points.
        kept: (K, 3) float64 the kept ones, each coordinate within ``tolerance`` of the original.

    Returns:
        (P,) bool.
    """
    size = 4.004 * max(tolerance, np.finfo(float).tiny)  # a little more, for rounding
    origin = xyz.min(0, initial=0)

    def voxels(points: np.ndarray, shift: np.ndarray) -> np.ndarray:
        # Adding zero turns a -0.0 into 0.0, so that equal cells have equal bytes.
        cells = np.floor((points - origin) / size + shift) + 0.0
        return np.ascontiguousarray(cells).view(np.dtype((np.void, 24))).ravel()

    corners = np.array(np.meshgrid(*[[-0.25, 0.25]] * 3)).reshape(3, -1).T
    near = np.concatenate([voxels(kept, corner) for corner in corners])
    return ~np.isin(voxels(xyz, np.zeros(3)), near)


def chosen_queries(errors: np.ndarray) -> list[tuple[str, int]]:
    """Best, median and worst query by (Q, S) errors; fewer where there are fewer queries."""
    order = np.argsort(np.median(errors, axis=1), kind="stable")
    rows: dict[int, str] = {}
    for title, rank in (("best", 0), ("worst", len(order) - 1), ("median", (len(order) - 1) // 2)):
        rows.setdefault(int(order[rank]), title)
    place = {"best": 0, "median": 1, "worst": 2}
    return sorted(((title, k) for k, title in rows.items()), key=lambda item: place[item[0]])


def most_matched_image(outcome: MapOutcome, k: int) -> str | None:
    """Name of the image with most correct matches of query ``k``, then most matches."""
    own = outcome.queries[k]
    points = own.found.point_index
    images = own.images or range(outcome.compressed.num_images)
    best, best_count = None, (0, 0)
    for image in images:
        seen = np.isin(points, outcome.compressed.places_seen(image))
        count = (int((seen & own.correct).sum()), int(seen.sum()))
        if count > best_count:
            best, best_count = outcome.compressed.image_names[image], count
    return best
