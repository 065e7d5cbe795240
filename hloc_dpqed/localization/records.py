"""Outcomes as JSON-able records, one for each query or frame of a rig: what a run keeps of them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..io.atomic import atomic_path
from ..io.checkpoint import Checkpoint
from ..logger import logger
from ..maps.compressed import CompressedMap
from .queries import Localization, RigLocalization

# Members of a query's record that say what was matched: large, and kept where they are asked for.
MATCHED = ("db", "num_matches", "keypoint_index", "point_index", "inliers")
# What a record holds beside, of runs with priors or of sequences.
BESIDE = ("prior", "tracked")
LOGGED = (*MATCHED[:2], "num_inliers", "rejected", *MATCHED[2:])
OTHER_UNIT = 1.02  # times as far apart as on the rig: not an error of poses, over many frames


def record_of(
    compressed: CompressedMap, outcome: Localization | RigLocalization, with_matches: bool
) -> dict[str, Any]:
    """JSON-able outcome; with what was matched and what RANSAC kept, where asked for."""
    if isinstance(outcome, RigLocalization):
        pose = outcome.rig_from_world
        return {
            "frame": outcome.name,
            "rig_from_world": None if pose is None else pose.tolist(),
            "num_inliers": outcome.num_inliers,
            "disagrees": outcome.disagrees,
            "baseline_ratio": outcome.baseline_ratio,
            "cameras": [record_of(compressed, camera, with_matches) for camera in outcome.cameras],
        }
    pose = outcome.cam_from_world
    record: dict[str, Any] = {
        "name": outcome.name,
        "cam_from_world": None if pose is None else pose.tolist(),
        "num_correspondences": len(outcome.correspondences),
        "num_inliers": outcome.num_inliers,
        "rejected": outcome.rejected,
        "doubtful": outcome.doubtful,
        "covariance": None if outcome.covariance is None else outcome.covariance.tolist(),
        "params": None if outcome.camera is None else outcome.camera.params.tolist(),
        "evidence": None if outcome.evidence is None else asdict(outcome.evidence),
    }
    if outcome.tracked:
        record["guided"] = True
    if with_matches:
        record |= {
            "db": [compressed.image_names[i] for i in outcome.images],
            "num_matches": outcome.correspondences.num_matches,
            "keypoint_index": outcome.correspondences.keypoint_index.tolist(),
            "point_index": outcome.correspondences.point_index.tolist(),
            "inliers": np.flatnonzero(outcome.inliers).tolist(),
        }
    return record


def query_records(done: Checkpoint) -> Iterator[dict[str, Any]]:
    """The record of each query, those of rigs one by one."""
    for record in done.records():
        yield from record.get("cameras", [record])


def query_totals(done: Checkpoint) -> tuple[dict[str, list[list[float]] | None], dict[str, int]]:
    """The pose of each finished query, and sums over them.

    Only what the results need is held for all queries: there may be 100,000 of them.
    """
    found: dict[str, list[list[float]] | None] = {}
    counts = {"matches": 0, "inliers": 0, "rejected": 0, "doubtful": 0, "tracked": 0}
    for record in query_records(done):
        found[record["name"]] = record["cam_from_world"]
        counts["matches"] += record["num_correspondences"]
        counts["inliers"] += record["num_inliers"] if record["cam_from_world"] is not None else 0
        counts["rejected"] += record["rejected"]
        counts["doubtful"] += record["doubtful"]
        counts["tracked"] += record.get("tracked", False)
    return found, counts


def rig_records(done: Checkpoint) -> list[dict[str, Any]]:
    """The record of each frame of a rig, without its images; queries in no frame left out."""
    return [
        {key: value for key, value in record.items() if key != "cameras"}
        for record in done.records()
        if record.get("frame")
    ]


def rig_totals(records: Sequence[dict[str, Any]], source: str) -> dict[str, Any]:
    """Figures over the frames of rigs, and a warning where the images contradict the rigs."""
    disagreeing = [record for record in records if record["disagrees"]]
    ratios = [r["baseline_ratio"] for r in records if r["baseline_ratio"] is not None]
    ratio = float(np.median(ratios)) if ratios else None
    if disagreeing:
        told = "" if ratio is None else f"; they stand {ratio:.4g} times as far apart (median)"
        off = ratio is not None and abs(np.log(max(ratio, 1e-300))) > np.log(OTHER_UNIT)
        logger.warning(
            f"{source}: in {len(disagreeing)} of {len(records)} frames the images localized alone "
            f"are not where the rig has them, such as {disagreeing[0]['frame']!r}{told}: their own "
            "poses are written"
            + (f". Is the rig in another unit than the map? --rig_scale {ratio:.4g}" if off else "")
        )
    return {
        "num_rigs": len(records),
        "num_rigs_localized": sum(r["rig_from_world"] is not None for r in records),
        "num_rigs_disagreeing": len(disagreeing),
        "baseline_ratio": ratio,
    }


def write_logs(path: Path, done: Checkpoint) -> None:
    """One JSON object, a line for each query; never all of it in memory."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        separator = "{\n"
        for record in query_records(done):
            log = {key: record[key] for key in (*LOGGED, *BESIDE) if key in record}
            file.write(f"{separator}{json.dumps(record['name'])}: {json.dumps(log)}")
            separator = ",\n"
        file.write("\n}\n" if separator == ",\n" else "{}\n")
