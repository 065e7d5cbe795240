"""Queries with their features, retrieved images and ground-truth poses, from hloc's files."""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..io.features import open_features
from ..io.lists import no_pair, read_pairs, read_queries
from ..io.same_image import features_for_camera, scaling
from ..logger import logger
from .measures import PosedQuery
from .pose_errors import match_names, read_truth


def read_posed_queries(
    queries: Path,
    features: Path,
    retrieval: Path | str,
    reference_poses: Path | None,
    image_names: Collection[str] = (),
) -> list[PosedQuery]:
    """The listed queries whose pose is known, in the order of the list.

    Args:
        queries: hloc's query list with intrinsics.
        features: hloc's local feature file of the queries, or a COLMAP database.
        retrieval: hloc's pairs file, or the string 'none' for the whole map.
        reference_poses: pose file in the format of hloc's results, or a COLMAP model; None where
            no pose is known: every query then has one that is not a number.
        image_names: of the database, to read names with spaces in the pairs.

    Raises:
        InputError: a file is missing or wrong, a query has no features or features of an image of
            another shape than its camera's, no query has a pose, or nothing was retrieved for any.
    """
    listed = read_queries(queries)
    names = [name for name, _ in listed]
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"query {name!r} comes twice in the query list")
        seen.add(name)
    truth: dict[str, np.ndarray] = dict.fromkeys(names, np.full((3, 4), np.nan))
    if reference_poses is not None:
        truth = read_truth(Path(reference_poses))
    pose_name = match_names(dict.fromkeys(names), truth)
    if not pose_name:
        raise InputError(f"{reference_poses}: holds no pose of a query of {queries}")
    if len(pose_name) < len(names):
        missing = next(name for name in names if name not in pose_name)
        logger.warning(
            f"{reference_poses}: no pose for {len(names) - len(pose_name)} of {len(names)} "
            f"queries, the first is {missing!r}; they are left out"
        )
    pairs = None
    if str(retrieval) != "none":
        pairs = read_pairs(Path(retrieval), names, image_names)
        if not any(name in pairs for name in names):
            raise InputError(no_pair(retrieval, pairs, names, sorted(image_names)))
    posed: list[PosedQuery] = []
    scaled = False
    with open_features(features) as file:
        file.check_names([name for name in names if name in pose_name])
        for name, camera in listed:
            if name not in pose_name:
                continue
            local = file.read(name)
            fitted = features_for_camera(local, camera, f"{features}: image {name!r}")
            if fitted is not local and not scaled:
                scaled = True
                logger.warning(scaling(f"{features}: query {name!r}", local, camera))
            retrieved = None if pairs is None else pairs.get(name, [])
            posed.append(PosedQuery(name, camera, fitted, retrieved, truth[pose_name[name]]))
    return posed
