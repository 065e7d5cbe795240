"""Database images as pseudo-queries: held out of a map, and localized in compressed ones."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from .compressed_map import CompressedMap
from .errors import InputError
from .holdout import HeldOutImage, HoldOut, hold_out, spread_folds
from .io.features import ImageFeatures
from .localization.localizer import Localizer
from .measures import PosedQuery, measure
from .reference import Observations, ReferenceMap
from .visibility import Visibility

RANSAC_PX = 4.0
RANSAC_SEEDS = 3  # of each pseudo-query
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
) -> HoldOut:
    """One spread fold of the images as pseudo-queries, each with a retrieval list.

    Args:
        one_in: of so many images about one is held out; at least 4 and at most
            ``MAX_PSEUDO_QUERIES`` are, and never more than half of them.

    Raises:
        InputError: the map has fewer than four images.
    """
    count = reference.num_images
    if count < MIN_IMAGES:
        raise InputError(f"planning holds images out, and a map of {count} has too few")
    # Enough to tell plans apart, and no more than time allows.
    wanted = min(max(count // one_in, 4), MAX_PSEUDO_QUERIES, count // 2)
    folds = spread_folds(reference.cam_from_world, max(2, count // wanted), seed)
    held_out = np.flatnonzero(folds == 0)[:MAX_PSEUDO_QUERIES]
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


def shared_points(visibility: Visibility, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Number of points that images ``rows`` share with images ``others``: (n, m) int64."""
    shared = np.zeros((len(rows), len(others)), np.int64)
    for k, row in enumerate(rows):
        seen = np.zeros(visibility.num_points, bool)
        seen[visibility[row]] = True
        shared[k] = [np.count_nonzero(seen[visibility[other]]) for other in others]
    return shared


def localize_held_out(
    compressed: CompressedMap, queries: Sequence[HeldOutImage], seed: int
) -> np.ndarray:
    """Translation (map units) and rotation (degrees) errors of the pseudo-queries.

    Returns:
        (Q, RANSAC_SEEDS, 2) float64, infinite for failures.
    """
    posed = []
    for query in queries:
        assert query.features is not None  # hold_out was given a reader
        posed.append(
            PosedQuery(
                query.name, query.camera, query.features, query.retrieved, query.cam_from_world
            )
        )
    localizer = Localizer(compressed, ransac_thresh=RANSAC_PX)
    return measure(localizer, posed, RANSAC_SEEDS, first_seed=seed * RANSAC_SEEDS).errors


def scene_extent(cam_from_world: np.ndarray) -> float:
    """Length of the diagonal of the box around the camera centres, in map units."""
    centres = -np.einsum("iba,ib->ia", cam_from_world[:, :, :3], cam_from_world[:, :, 3])
    return float(np.linalg.norm(np.ptp(centres, axis=0)))


def mean_log_error(errors: np.ndarray, extent: float) -> float:
    """Mean log translation error, each clipped to 1e-5 .. 1 times the scene's extent."""
    extent = max(extent, 1e-9)
    return float(np.log(np.clip(errors[..., 0] / extent, 1e-5, 1)).mean())
