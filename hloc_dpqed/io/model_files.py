"""Whether the binary files of a COLMAP model are complete.

COLMAP believes the counts that a file states: reading a truncated one can take all memory. This
walks through the records and compares their lengths with the file's.
"""

import struct
from collections.abc import Callable, Iterator
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
            except InputError as error:
                raise InputError(f"{path}: {error}") from error
            except (struct.error, IndexError, ValueError) as error:
                raise InputError(f"{path}: truncated or damaged") from error


def unknown_camera_model(folder: Path, ending: str) -> str | None:
    """Which camera model of a text model pycolmap does not know; None where it knows all."""
    if ending != ".txt":
        return None  # check_binary_model tells
    for line in _lines(folder / "cameras.txt"):
        words = line.split()
        if len(words) > 1 and words[1] not in pycolmap.CameraModelId.__members__:
            return f"camera {words[0][:20]} has the model {words[1][:40]}, {_unknown()}"
    return None


def _unknown() -> str:
    return f"which this pycolmap, {pycolmap.__version__}, does not know; upgrade it"


def missing_track_element(folder: Path, ending: str) -> str | None:
    """What is wrong with the first track that names an image or a keypoint that is not there.

    Args:
        folder: of a model that COLMAP refuses.
        ending: of its files, ``.bin`` or ``.txt``.

    Returns:
        None where all tracks are right, or cannot be read.
    """
    try:
        readers = (_binary_images, _binary_tracks) if ending == ".bin" else (_images, _tracks)
        keypoints = dict(readers[0](folder / f"images{ending}"))
        for point, elements in readers[1](folder / f"points3D{ending}"):
            for image, keypoint in elements:
                if image not in keypoints:
                    return f"the track of point {point} names image {image}, which is not there"
                if keypoint >= keypoints[image]:
                    return (
                        f"the track of point {point} names keypoint {keypoint} of image {image}, "
                        f"which has {keypoints[image]}"
                    )
    except (OSError, UnicodeDecodeError, ValueError, IndexError, struct.error):
        pass
    return None


def _lines(path: Path) -> Iterator[str]:
    with open(path, encoding="utf-8", errors="replace") as file:
        yield from (line for line in file if line.strip() and not line.startswith("#"))


def _images(path: Path) -> Iterator[tuple[int, int]]:
    """Id and number of keypoints of each image of a text model."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.strip() and not line.startswith("#"):
                yield int(line.split(maxsplit=1)[0]), len(next(file, "").split()) // 3


def _tracks(path: Path) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Id and track of each point of a text model."""
    for line in _lines(path):
        words = line.split()
        numbers = [int(word) for word in words[8:]]
        yield int(words[0]), list(zip(numbers[::2], numbers[1::2], strict=True))


def _binary_images(path: Path) -> Iterator[tuple[int, int]]:
    data = path.read_bytes()
    position = _COUNT.size
    for _ in range(_COUNT.unpack_from(data)[0]):
        start, position = position, _skip_image(data, position)
        name_end = data.index(b"\0", start + 4 + _POSE + 4)
        yield struct.unpack_from("<I", data, start)[0], _COUNT.unpack_from(data, name_end + 1)[0]


def _binary_tracks(path: Path) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    data = path.read_bytes()
    position = _COUNT.size
    for _ in range(_COUNT.unpack_from(data)[0]):
        start, position = position, _skip_point(data, position)
        yield (
            _COUNT.unpack_from(data, start)[0],
            list(struct.iter_unpack("<II", data[start + 51 : position])),
        )


def _skip_camera(data: bytes, position: int) -> int:
    camera, model = struct.unpack_from("<Ii", data, position)
    if model not in _KNOWN_MODELS:
        raise InputError(f"camera {camera} has the model number {model}, {_unknown()}")
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
_KNOWN_MODELS = {
    int(m) for name, m in pycolmap.CameraModelId.__members__.items() if name != "INVALID"
}
