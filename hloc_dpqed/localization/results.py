"""What a finished run is written as besides hloc's text: JSON lines and a COLMAP model."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from ..errors import InputError
from ..io.atomic import atomic_directory
from ..io.checkpoint import Checkpoint
from ..io.features import ImageFeatures
from ..maps.compressed import CompressedMap
from ..scene.projection import camera_centre
from .confidence import Calibration, Evidence
from .intrinsics import copy_camera
from .records import BESIDE, MATCHED
from .registered import Registered, registered_model

_MODEL = frozenset(
    f"{name}{ending}"
    for name in ("cameras", "images", "points3D", "rigs", "frames")
    for ending in (".bin", ".txt")
)


def check_model_output(path: Path, overwrite: bool) -> None:
    """Refuse a folder that is no model, or an existing one without ``overwrite``.

    Raises:
        InputError: in one line.
    """
    path = Path(path)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not path.is_dir():
        raise InputError(f"{path}: is a file, expected a folder for a COLMAP model")
    if not overwrite:
        raise InputError(f"{path}: exists already, pass --overwrite to replace it")
    if {entry.name for entry in path.iterdir()} - _MODEL:
        raise InputError(f"{path}: holds other than a COLMAP model, not replaced")


def json_lines(
    queries: Sequence[tuple[str, pycolmap.Camera]],
    done: Checkpoint,
    written: Mapping[str, np.ndarray],
    calibration: Calibration | None = None,
    thresholds: Sequence[tuple[float, float]] = (),
) -> Iterator[str]:
    """A JSON object on a line for each query, in the order of the list (docs/localization.md).

    Args:
        queries: the query list.
        done: the finished run.
        written: (3, 4) poses that the result file has, by query: fallbacks too.
        calibration: of the map, or None.
        thresholds: in map units and degrees, to tell the probability of.
    """
    records: dict[str, dict[str, Any]] = {}
    beside: dict[str, None] = {}
    for record in done.records():
        beside |= {key: None for key in BESIDE if key in record}
        for camera in record.get("cameras", [record]):
            kept = {key: value for key, value in camera.items() if key not in MATCHED}
            records[camera["name"]] = kept | {"frame": record.get("frame") or None}
    for name, camera in queries:
        record = records.get(name, {})
        localized = record.get("cam_from_world") is not None
        pose = written.get(name)
        line: dict[str, Any] = {
            "name": name,
            "localized": localized,
            "rejected": record.get("rejected", False),
            "fallback": pose is not None and not localized,
            "cam_from_world": None if pose is None else _pose(pose),
            "position": None if pose is None else camera_centre(pose).tolist(),
            "num_matches": record.get("num_correspondences", 0),
            "num_inliers": record.get("num_inliers", 0),
            "doubtful": record.get("doubtful", False),
            "covariance": record.get("covariance"),
            "evidence": record.get("evidence"),
            "probability": _probabilities(record, calibration, thresholds),
            "frame": record.get("frame"),
            "camera": {
                "model": camera.model.name,
                "width": camera.width,
                "height": camera.height,
                "params": record.get("params") or camera.params.tolist(),
            },
        } | {key: record.get(key) for key in beside}
        yield json.dumps(line) + "\n"


def _probabilities(
    record: dict[str, Any],
    calibration: Calibration | None,
    thresholds: Sequence[tuple[float, float]],
) -> dict[str, float] | None:
    # A calibration is of queries that are matched without a guess of their pose.
    if calibration is None or record.get("evidence") is None or record.get("guided"):
        return None
    evidence = Evidence(**record["evidence"])
    return {
        f"{translation:g}/{rotation:g}": round(
            calibration.probability(evidence, translation, rotation), 6
        )
        for translation, rotation in thresholds
    }


def _pose(cam_from_world: np.ndarray) -> dict[str, list[float]]:
    pose = pycolmap.Rigid3d(cam_from_world)
    return {
        "rotation": pose.rotation.quat[[3, 0, 1, 2]].tolist(),
        "translation": pose.translation.tolist(),
    }


def write_model(
    path: Path,
    compressed: CompressedMap,
    done: Checkpoint,
    cameras: Mapping[str, pycolmap.Camera],
    rigs: Mapping[str, np.ndarray],
    read: Callable[[str], ImageFeatures],
    overwrite: bool,
) -> None:
    """Write the map with the localized queries as a COLMAP model, see ``registered_model``.

    Args:
        path: its folder.
        compressed: the map.
        done: the finished run, with what was matched.
        cameras: of each query.
        rigs: (n, 3, 4) camera from rig of each frame.
        read: a query's features, in pixels of its camera.
        overwrite: replace a model.

    Raises:
        InputError: the folder cannot be written.
    """

    def registered(record: dict[str, Any]) -> Registered:
        kept = np.array(record["inliers"], np.int64)
        camera = cameras[record["name"]]
        if record["params"] is not None:
            camera = copy_camera(camera)
            camera.params = record["params"]
        return Registered(
            record["name"],
            camera,
            np.array(record["cam_from_world"]),
            # hloc's keypoints have pixel centres at integers, COLMAP's at +0.5.
            read(record["name"]).keypoints.astype(np.float64) + 0.5,
            np.array(record["keypoint_index"], np.int64)[kept],
            np.array(record["point_index"], np.int64)[kept],
        )

    def frames() -> Iterator[tuple[list[Registered], np.ndarray | None]]:
        for record in done.records():
            if record.get("frame") and record["rig_from_world"] is not None:
                yield [registered(camera) for camera in record["cameras"]], rigs[record["frame"]]
                continue
            for camera in record.get("cameras", [record]):
                if camera["cam_from_world"] is not None:
                    yield [registered(camera)], None

    with atomic_directory(path, _MODEL if overwrite else None) as folder:
        registered_model(compressed, frames()).write(str(folder))
