"""Localize queries with a map file: hloc's query list, features and pairs in, poses out."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from .compressed_map import CompressedMap
from .errors import InputError
from .io.atomic import write_text
from .io.features import FeatureFile, read_global_descriptors
from .io.lists import read_pairs, read_queries, result_name, write_poses
from .localization.localizer import Localization, Localizer, Query
from .logger import logger
from .mapfile import read_map
from .threads import set_num_threads

FALLBACKS = ("none", "closest")


def main(
    map: Path,
    queries: Path,
    features: Path,
    results: Path,
    retrieval: Path | str | None = None,
    global_features: Path | None = None,
    num_retrieved: int = 20,
    matcher: str = "NN-mutual",
    ransac_thresh: float = 12,
    covisibility_clustering: bool = False,
    prepend_camera_name: bool = False,
    full_names: bool = False,
    fallback: str = "none",
    logs: Path | None = None,
    config: dict[str, Any] | None = None,
    threads: int | None = None,
    device: str = "cpu",
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Localize all queries and write hloc's result file.

    Args:
        map: map file.
        queries: hloc's query list with intrinsics.
        features: hloc's local feature file of the queries.
        results: where to write ``name qw qx qy qz tx ty tz`` for each localized query.
        retrieval: hloc's pairs file; the string 'none' matches against the whole map; None
            retrieves with the map's own global descriptors.
        global_features: the queries' global descriptors, for retrieval with the map's own.
        num_retrieved: database images for a query when the map retrieves.
        matcher: as named in hloc's ``match_features.confs``.
        ransac_thresh: pixels of the query's camera.
        covisibility_clustering, prepend_camera_name, config: as in hloc's ``localize_sfm``.
        full_names: write the queries' whole names.
        fallback: 'closest' writes the pose of the closest retrieved image for a query that was
            not localized; such a query does not count as localized.
        logs: where to write a JSON log of each query.
        threads: of matching and pose estimation, all cores by default.
        device: torch device of the matching.
        seed: of RANSAC.
        progress: show a progress bar.

    Returns:
        The figures of ``localize --json`` (docs/cli.md).

    Raises:
        InputError: an input file is missing or wrong, or two results would have the same name.
    """
    if fallback not in FALLBACKS:
        raise InputError(f"--fallback {fallback}: expected one of {', '.join(FALLBACKS)}")
    if not (np.isfinite(ransac_thresh) and ransac_thresh > 0):
        raise InputError(f"--ransac_thresh {ransac_thresh}: expected a positive number of pixels")
    if num_retrieved < 1:
        raise InputError(f"--num_retrieved {num_retrieved}: expected at least 1")
    used_threads = set_num_threads(threads)
    query_list = read_queries(queries)
    names = result_names([name for name, _ in query_list], prepend_camera_name, full_names)

    start = time.perf_counter()
    compressed = read_map(map)
    localizer = Localizer(
        compressed,
        matcher,
        ransac_thresh=ransac_thresh,
        covisibility_clustering=covisibility_clustering,
        config=config,
        seed=seed,
        device=device,
    )
    loaded = time.perf_counter()

    retrieved = retrieve(
        compressed, [n for n, _ in query_list], retrieval, global_features, num_retrieved
    )

    def stream() -> Iterator[Query]:
        with FeatureFile(features) as file:
            for name, camera in query_list:
                if retrieved is not None and not retrieved.get(name):
                    continue
                images = None if retrieved is None else retrieved[name]
                yield Query(name, camera, file.read(name), images)

    outcomes: dict[str, Localization] = {}
    with tqdm(total=len(query_list), desc="Localizing", disable=not progress) as bar:
        for outcome in localizer.localize_many(stream()):
            outcomes[outcome.name] = outcome
            bar.update()
    poses: dict[str, np.ndarray] = {}
    for name, _ in query_list:
        pose = outcomes[name].cam_from_world if name in outcomes else None
        if pose is not None:
            poses[names[name]] = pose
        elif fallback == "closest" and retrieved is not None and retrieved.get(name):
            poses[names[name]] = compressed.cam_from_world[retrieved[name][0]]
    write_poses(results, poses)
    finished = time.perf_counter()
    if logs is not None:
        write_text(logs, json.dumps(_logs(compressed, outcomes), indent=1) + "\n")

    localized = [o for o in outcomes.values() if o.cam_from_world is not None]
    matches = [len(o.correspondences) for o in outcomes.values()]
    figures = {
        "num_queries": len(query_list),
        "num_localized": len(localized),
        "mean_matches": float(np.sum(matches) / len(query_list)),
        "mean_inliers": float(sum(o.num_inliers for o in localized) / len(query_list)),
        "seconds_load": loaded - start,
        "seconds_per_query": (finished - loaded) / len(query_list),
        "threads": used_threads,
        "results": str(results),
    }
    logger.info(f"Localized {len(localized)} / {len(query_list)} queries, poses in {results}")
    return figures


def result_names(
    names: list[str], prepend_camera_name: bool = False, full_names: bool = False
) -> dict[str, str]:
    """The name under which each query's pose is written.

    Raises:
        InputError: a query comes twice, or two queries would get the same name.
    """
    results: dict[str, str] = {}
    owner: dict[str, str] = {}
    for name in names:
        if name in results:
            raise InputError(f"query {name!r} comes twice in the query list")
        result = result_name(name, prepend_camera_name, full_names)
        if result in owner:
            raise InputError(
                f"queries {owner[result]!r} and {name!r} would both be written as {result!r}; "
                "pass --full_names"
            )
        owner[result] = name
        results[name] = result
    return results


def retrieve(
    compressed: CompressedMap,
    names: list[str],
    retrieval: Path | str | None,
    global_features: Path | None,
    num_retrieved: int,
) -> dict[str, list[int]] | None:
    """Rows of the database images to match with each query, best first; None for the whole map.

    Raises:
        InputError: no way to retrieve was given, or none of the pairs names an image of the map.
    """
    if retrieval is not None and str(retrieval) == "none":
        return None
    if retrieval is not None:
        row_of = {name: row for row, name in enumerate(compressed.image_names)}
        pairs = read_pairs(Path(retrieval))
        retrieved: dict[str, list[int]] = {}
        unknown = 0
        for name in names:
            if name not in pairs:
                logger.warning(f"No images retrieved for query image {name}. Skipping...")
            references = pairs.get(name, [])
            retrieved[name] = [row_of[r] for r in references if r in row_of]
            unknown += len(references) - len(retrieved[name])
        if unknown:
            logger.warning(f"{retrieval}: {unknown} pairs name images that are not in the map")
        if not any(retrieved.values()):
            raise InputError(f"{retrieval}: no pair of a listed query with an image of the map")
        return retrieved
    if compressed.global_descriptors is None:
        raise InputError(
            "the map stores no global descriptors: pass --retrieval PAIRS, or --retrieval none "
            "to match against the whole map"
        )
    if global_features is None:
        raise InputError("retrieval with the map's global descriptors needs --global_features H5")
    stored = compressed.global_descriptors
    described = read_global_descriptors(global_features, names)
    if described.shape[1] != stored.codec.dim:
        raise InputError(
            f"{global_features}: global descriptors have {described.shape[1]} dimensions, the "
            f"map's have {stored.codec.dim}"
        )
    similarity = described @ stored.codec.decode(stored.codes).T
    best = np.argsort(-similarity, axis=1, kind="stable")[:, :num_retrieved]
    return {name: rows.tolist() for name, rows in zip(names, best, strict=True)}


def _logs(compressed: CompressedMap, outcomes: dict[str, Localization]) -> dict[str, Any]:
    """JSON-able log of each query: what was matched and what RANSAC kept."""
    return {
        name: {
            "db": [compressed.image_names[i] for i in outcome.images],
            "num_matches": outcome.correspondences.num_matches,
            "num_inliers": outcome.num_inliers,
            "keypoint_index": outcome.correspondences.keypoint_index.tolist(),
            "point_index": outcome.correspondences.point_index.tolist(),
            "inliers": np.flatnonzero(outcome.inliers).tolist(),
        }
        for name, outcome in outcomes.items()
    }
