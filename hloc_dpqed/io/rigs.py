"""Rigs of cameras with known relative poses: COLMAP's configuration, a model, LaMAR's layout."""

import csv
import json
import os.path
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from ..errors import InputError
from ..scene.rigid import inverse
from .lists import read_lines
from .model import load_reconstruction

EXPECTED = (
    "expected COLMAP's rig configuration (.json), a COLMAP model with rigs, or a folder or "
    "rigs.txt in LaMAR's layout, images.txt beside it"
)
IDENTITY = np.eye(4)[:3]
UNIT = 1e-3  # how far from 1 the length of a quaternion may be


@dataclass(frozen=True)
class RigFrame:
    """Images that a rig took at once.

    Attributes:
        name: of the frame.
        images: names of its images in the query list.
        cams_from_rig: (n, 3, 4) float64 [R | t], each image's camera from the rig's frame, times
            the scale that was asked for.
    """

    name: str
    images: list[str]
    cams_from_rig: np.ndarray

    def described(self) -> list[Any]:
        """JSON-able."""
        return [self.name, self.images, self.cams_from_rig.tolist()]


def check_rig_scale(scale: float, rigs: Path | None, results_rigs: Path | None) -> None:
    """Check the arguments that belong to ``--rigs``.

    Raises:
        InputError: the scale is not a positive number, or there are no rigs.
    """
    if not 0 < scale < np.inf:
        raise InputError(f"--rig_scale {scale}: expected a positive number")
    if rigs is None and (scale != 1 or results_rigs is not None):
        raise InputError(f"--{'rig_scale' if scale != 1 else 'results_rigs'}: needs --rigs")


def frames_of_all(frames: Sequence[RigFrame], names: Sequence[str]) -> list[RigFrame]:
    """The frames that hold one of the queries ``names``, and each other of them as a frame alone,
    without a name."""
    wanted = set(names)
    kept = [frame for frame in frames if not wanted.isdisjoint(frame.images)]
    inside = {name for frame in kept for name in frame.images}
    return kept + [RigFrame("", [n], IDENTITY[None]) for n in names if n not in inside]


def read_rigs(path: Path, names: Sequence[str], scale: float = 1.0) -> list[RigFrame]:
    """The frames that the given images belong to, in the order of their first images.

    - COLMAP's rig configuration, a JSON file: images of one frame have the names ``PREFIX + rest``
      with the prefixes of a rig's cameras and the same rest, which names the frame.
    - A folder with a COLMAP model of version 3.12 or newer, with frames of several images.
    - LaMAR's layout: ``rigs.txt`` (``rig, sensor, qw, qx, qy, qz, tx, ty, tz``, rig from camera)
      and beside it ``images.txt`` (``timestamp, sensor, path``): images of one rig and timestamp
      are a frame. A query's name is the path or ends with it.

    Args:
        path: a file or folder of one of these.
        names: of the queries; other images are passed over.
        scale: what translations are multiplied by.

    Raises:
        InputError: the file is missing or wrong, a camera has no pose in its rig, or no query is
            in a frame.
    """
    path = Path(path)
    if path.is_dir() and (_is_model(path) or not (path / "rigs.txt").is_file()):
        frames = _from_model(path, names)
    elif path.is_dir() or path.name == "rigs.txt":
        frames = _from_lamar(path if path.is_dir() else path.parent, names)
    elif not path.is_file():
        raise InputError(f"{path}: no such file or folder, {EXPECTED}")
    else:
        frames = _from_json(path, names)
    if not frames:
        raise InputError(
            f"{path}: no query is in a frame of a rig; queries are such as {names[0]!r}"
        )
    order = {name: k for k, name in enumerate(names)}
    for frame in frames:
        frame.cams_from_rig[:, :, 3] *= scale
    return sorted(frames, key=lambda frame: order[frame.images[0]])


def _is_model(path: Path) -> bool:
    """LaMAR and a text model both have a rigs.txt and an images.txt."""
    return path.is_dir() and any((path / f"cameras{e}").is_file() for e in (".bin", ".txt"))


def _frames(
    members: Iterable[tuple[Any, str, str, np.ndarray]], path: Path, names: Sequence[str]
) -> list[RigFrame]:
    """Frames of (key, frame's name, image's name, (3, 4) camera from rig)."""
    grouped: dict[Any, list[tuple[str, str, np.ndarray]]] = {}
    owner: dict[str, Any] = {}
    for key, frame, image, pose in members:
        if owner.setdefault(image, key) != key:
            raise InputError(f"{path}: image {image!r} is in two frames")
        grouped.setdefault(key, []).append((frame, image, pose))
    order = {name: k for k, name in enumerate(names)}
    frames = []
    titles: set[str] = set()
    for group in grouped.values():
        group.sort(key=lambda member: order[member[1]])
        title, images = group[0][0], [image for _, image, _ in group]
        if title in titles:
            raise InputError(f"{path}: two frames would have the name {title!r}")
        titles.add(title)
        frames.append(RigFrame(title, images, np.array([pose for *_, pose in group])))
    return frames


def _pose(rotation: Any, translation: Any, where: str) -> np.ndarray:
    """(3, 4) [R | t] of (w, x, y, z) and (x, y, z)."""
    try:
        quaternion, moved = np.array(rotation, np.float64), np.array(translation, np.float64)
        if quaternion.shape != (4,) or moved.shape != (3,):
            raise ValueError
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: expected a rotation of 4 numbers and a translation of 3") from (
            error
        )
    length = np.linalg.norm(quaternion)
    if not np.isfinite(moved).all() or not abs(length - 1) <= UNIT:
        raise InputError(
            f"{where}: expected a rotation (w, x, y, z) of length 1 and a finite translation"
        )
    turned = pycolmap.Rotation3d((quaternion / length)[[1, 2, 3, 0]])
    return pycolmap.Rigid3d(turned, moved).matrix()


def _from_json(path: Path, names: Sequence[str]) -> list[RigFrame]:
    try:
        rigs = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable JSON ({error}), {EXPECTED}") from error
    cameras: list[tuple[int, str, np.ndarray]] = []  # rig, prefix, pose
    folders: list[str] = []
    if not isinstance(rigs, list) or not rigs:
        raise InputError(f"{path}: expected a list of rigs")
    for number, rig in enumerate(rigs):
        listed = rig.get("cameras") if isinstance(rig, dict) else None
        if not isinstance(listed, list) or not listed:
            raise InputError(f"{path}: rig {number} has no list of cameras")
        prefixes: list[str] = []
        references = 0
        poses = []
        for camera in listed:
            prefix = camera.get("image_prefix") if isinstance(camera, dict) else None
            if not isinstance(prefix, str):
                raise InputError(f"{path}: a camera of rig {number} has no image_prefix")
            where = f"{path}: camera {prefix!r}"
            if prefix in prefixes or any(prefix == other for _, other, _ in cameras):
                raise InputError(f"{where} comes twice")
            prefixes.append(prefix)
            known = [f"cam_from_rig_{part}" in camera for part in ("rotation", "translation")]
            if camera.get("ref_sensor"):
                references += 1
                if any(known):
                    raise InputError(f"{where} is the reference and has a pose: its pose is none")
                poses.append(IDENTITY)
            elif not all(known):
                raise InputError(
                    f"{where} has no cam_from_rig_rotation and cam_from_rig_translation: its pose "
                    "in the rig must be known (a model with rigs tells it too)"
                )
            else:
                pose = _pose(
                    camera["cam_from_rig_rotation"], camera["cam_from_rig_translation"], where
                )
                poses.append(pose)
        if references != 1:
            raise InputError(
                f"{path}: rig {number} has {references} cameras with ref_sensor, not 1"
            )
        common = os.path.commonprefix(prefixes)  # noqa: RUF071 (prefixes need not be folders)
        folders.append(common[: common.rfind("/") + 1])
        cameras += [(number, *each) for each in zip(prefixes, poses, strict=True)]
    if len(rigs) == 1:
        folders = [""]
    elif len(set(folders) - {""}) < len(rigs):
        folders = [f"rig-{number}/" for number in range(len(rigs))]

    def members():
        for name in names:
            fitting = [camera for camera in cameras if name.startswith(camera[1])]
            if fitting:
                # 'cam1' and 'cam10' both begin 'cam10/5.jpg'.
                number, prefix, pose = max(fitting, key=lambda camera: len(camera[1]))
                rest = name[len(prefix) :]
                title = (folders[number] + rest).strip("/") or f"rig-{number}"
                yield (number, rest), title, name, pose

    return _frames(members(), path, names)


def _from_model(path: Path, names: Sequence[str]) -> list[RigFrame]:
    model = load_reconstruction(path)
    wanted = set(names)
    if all(rig.num_sensors() < 2 for rig in model.rigs.values()):
        raise InputError(f"{path}: no rig of several cameras, {EXPECTED}")

    def members():
        for frame_id, frame in sorted(model.frames.items()):
            rig = model.rigs[frame.rig_id]
            for data in frame.data_ids:
                if data.sensor_id.type != pycolmap.SensorType.CAMERA:
                    continue
                if data.id not in model.images or model.images[data.id].name not in wanted:
                    continue
                image = model.images[data.id]
                pose = IDENTITY
                if not rig.is_ref_sensor(data.sensor_id):
                    known = rig.non_ref_sensors[data.sensor_id]
                    if known is None:
                        raise InputError(
                            f"{path}: camera {data.sensor_id.id} has no pose in rig {rig.rig_id}"
                        )
                    quat = known.rotation.quat[[3, 0, 1, 2]]
                    where = f"{path}: camera {data.sensor_id.id} of rig {rig.rig_id}"
                    pose = _pose(quat, known.translation, where)
                yield frame_id, f"frame-{frame_id}", image.name, pose

    return _frames(members(), path, names)


def _from_lamar(folder: Path, names: Sequence[str]) -> list[RigFrame]:
    rigs: dict[str, tuple[str, np.ndarray]] = {}  # by sensor
    file = folder / "rigs.txt"
    for number, line in read_lines(file, "rigs in LaMAR's layout"):
        words = _words(line)
        where = f"{file}:{number}"
        if len(words) != 9:
            raise InputError(f"{where}: expected `rig, sensor, qw, qx, qy, qz, tx, ty, tz`")
        if words[1] in rigs:
            raise InputError(f"{where}: sensor {words[1]!r} comes twice")
        rigs[words[1]] = words[0], inverse(_pose(words[2:6], words[6:], where))
    by_path: dict[str, tuple[str, str]] = {}
    file = folder / "images.txt"
    for number, line in read_lines(file, "images in LaMAR's layout"):
        words = _words(line)
        if len(words) != 3:
            raise InputError(f"{file}:{number}: expected `timestamp, sensor, path`")
        if words[1] in rigs:
            by_path[words[2]] = words[0], words[1]

    def members():
        for name in names:
            # The longest path that the name ends with.
            tails = [name, *(name[k + 1 :] for k, sign in enumerate(name) if sign == "/")]
            found = next((by_path[tail] for tail in tails if tail in by_path), None)
            if found is not None:
                timestamp, sensor = found
                rig, pose = rigs[sensor]
                yield (rig, timestamp), f"{rig}/{timestamp}", name, pose

    return _frames(members(), folder, names)


def _words(line: str) -> list[str]:
    return [word.strip() for word in next(csv.reader([line]))]
