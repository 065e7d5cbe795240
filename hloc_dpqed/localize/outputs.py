"""The files that a run writes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap

from ..choices import DEFAULT_THRESHOLDS
from ..errors import InputError
from ..evaluation.pose_errors import parse_thresholds
from ..io.atomic import check_output, write_text
from ..io.checkpoint import Checkpoint
from ..io.features import LocalFeatures
from ..io.lists import result_name, write_poses
from ..localization.confidence import Calibration
from ..localization.doubt import LeastConfidence
from ..localization.records import rig_records, write_logs
from ..localization.results import check_model_output, json_lines, write_model
from ..maps.compressed import CompressedMap
from ..options import refuse_existing
from .inputs import QueryList, Work, fitted_features


@dataclass(frozen=True)
class Outputs:
    """Files to write; None where one was not asked for.

    Attributes:
        results: hloc's text of poses.
        rigs: the same of frames.
        jsonl: an object for each query.
        sfm: folder of a COLMAP model.
        logs: an object of what was matched.
        overwrite: replace existing ones.
    """

    results: Path
    rigs: Path | None
    jsonl: Path | None
    sfm: Path | None
    logs: Path | None
    overwrite: bool

    @property
    def with_matches(self) -> bool:
        """Whether the records need what was matched."""
        return self.logs is not None or self.sfm is not None

    @property
    def part(self) -> Path:
        """Where finished queries are kept while the run goes on."""
        return Path(f"{self.results}.part")

    def check(self) -> None:
        """Check that all can be written.

        Raises:
            InputError: one cannot, or exists already.
        """
        if self.sfm is not None:
            check_model_output(self.sfm, self.overwrite)
        for path in (p for p in (self.results, self.logs, self.rigs, self.jsonl) if p is not None):
            check_output(path)
            refuse_existing(path, self.overwrite)


def poses_of(
    listed: QueryList,
    found: Mapping[str, list[list[float]] | None],
    closest: Mapping[str, Sequence[int]] | None,
    compressed: CompressedMap,
) -> dict[str, np.ndarray]:
    """(3, 4) pose of each query that has one, in the order of the list.

    Args:
        listed: the queries.
        found: their poses.
        closest: rows of retrieved images, whose first gives its pose to a query without; None
            where none should.
        compressed: the map.
    """
    poses: dict[str, np.ndarray] = {}
    for name, _ in listed:
        pose = found.get(name)
        if pose is not None:
            poses[name] = np.array(pose)
        elif closest is not None and closest.get(name):
            poses[name] = compressed.cam_from_world[closest[name][0]]
    return poses


def write_outputs(
    outputs: Outputs,
    listed: QueryList,
    names: Mapping[str, str],
    work: Work,
    done: Checkpoint,
    file: LocalFeatures,
    poses: Mapping[str, np.ndarray],
    compressed: CompressedMap,
    calibration: Calibration | None,
    least_sure: LeastConfidence | None,
) -> None:
    """Write what was asked for.

    Args:
        outputs: where to.
        listed: all queries.
        names: under which each is written.
        work, done: what was localized, and its records.
        file: the queries' features.
        poses: (3, 4) of each query that has one.
        compressed: the map.
        calibration: of its confidence, or None.
        least_sure: thresholds to tell the probability of; the usual ones without.
    """
    write_poses(outputs.results, {names[name]: pose for name, pose in poses.items()})
    if outputs.jsonl is not None:
        asked = parse_thresholds(DEFAULT_THRESHOLDS)
        if least_sure is not None:
            asked = [(least_sure.translation, least_sure.rotation)]
        lines = json_lines(listed, done, poses, calibration, asked)
        write_text(outputs.jsonl, "".join(lines))
    if outputs.sfm is not None:
        cameras: dict[str, pycolmap.Camera] = dict(listed)
        of_frames = {frame.name: frame.cams_from_rig for frame in work.frames or ()}
        write_model(
            outputs.sfm,
            compressed,
            done,
            cameras,
            of_frames,
            lambda name: fitted_features(file, cameras[name], name),
            outputs.overwrite,
        )
    if outputs.rigs is not None:
        of_rigs = {record["frame"]: record["rig_from_world"] for record in rig_records(done)}
        write_poses(outputs.rigs, {k: np.array(v) for k, v in of_rigs.items() if v is not None})
    if outputs.logs is not None:
        write_logs(outputs.logs, done)


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
