"""Whether the binary files of a COLMAP model are complete.

COLMAP believes the counts that a file states: reading a truncated one can take all memory. This
walks through the records and compares their lengths with the file's.
"""

import struct
from collections.abc import Callable
from pathlib import Path

import pycolmap

from ..errors import InputError

_COUNT = struct.Struct("<Q")
_POSE = 7 * 8  # quaternion and translation


def check_binary_model(folder: Path) -> None:
    """Check the files of the binary model in ``folder``; files that are absent are passed over.

    Raises:
        InputError: a file ends before its last record does, or has an unknown camera model.
    """
    for name, skip in _SKIP_RECORD.items():
        path = folder / name
        if path.is_file():
            data = path.read_bytes()
            try:
                (count,) = _COUNT.unpack_from(data)
                position = _COUNT.size
                for _ in range(count):
                    position = skip(data, position)
                    if position > len(data):
                        raise IndexError
            except (struct.error, IndexError, ValueError) as error:
                raise InputError(f"{path}: truncated or damaged") from error


def _skip_camera(data: bytes, position: int) -> int:
    (model,) = struct.unpack_from("<i", data, position + 4)
    return position + 24 + 8 * _num_params(model)


def _skip_image(data: bytes, position: int) -> int:
    name_end = data.index(b"\0", position + 4 + _POSE + 4)
    (num_points,) = _COUNT.unpack_from(data, name_end + 1)
    return name_end + 1 + 8 + 24 * num_points


def _skip_point(data: bytes, position: int) -> int:
    (track_length,) = _COUNT.unpack_from(data, position + 8 + 24 + 3 + 8)
    return position + 51 + 8 * track_length


def _skip_rig(data: bytes, position: int) -> int:
    (num_sensors,) = struct.unpack_from("<I", data, position + 4)
    position += 8 + (8 if num_sensors else 0)  # the reference sensor has no pose
    for _ in range(num_sensors - 1):
        has_pose = data[position + 8]
        position += 9 + (_POSE if has_pose else 0)
    return position


def _skip_frame(data: bytes, position: int) -> int:
    (num_data,) = struct.unpack_from("<I", data, position + 8 + _POSE)
    return position + 12 + _POSE + 16 * num_data


_SKIP_RECORD: dict[str, Callable[[bytes, int], int]] = {
    "cameras.bin": _skip_camera,
    "images.bin": _skip_image,
    "points3D.bin": _skip_point,
    "rigs.bin": _skip_rig,
    "frames.bin": _skip_frame,
}


def _num_params(model: int) -> int:
    """Number of parameters of the camera model with COLMAP's number ``model``."""
    if model not in _NUM_PARAMS:
        create = getattr(pycolmap.Camera, "create_from_model_id", None) or pycolmap.Camera.create
        camera = create(1, pycolmap.CameraModelId(model), 1.0, 1, 1)  # `create` in pycolmap 3.13
        _NUM_PARAMS[model] = len(camera.params)
    return _NUM_PARAMS[model]


_NUM_PARAMS: dict[int, int] = {}
