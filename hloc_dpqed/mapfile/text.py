"""Image names and cameras as deflated JSON."""

import json
import zlib
from collections.abc import Sequence
from typing import Any

import pycolmap

from ..errors import InputError
from .rans import DamagedStream

MAX_NAME = 4096  # characters


def deflate(value: Any) -> bytes:
    """JSON text, compressed as a raw deflate stream (RFC 1951)."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
    return compressor.compress(text.encode()) + compressor.flush()


def inflate(data: bytes, limit: int) -> Any:
    """The value that ``deflate`` was given; text longer than ``limit`` bytes is refused."""
    decompressor = zlib.decompressobj(-15)
    text = decompressor.decompress(data, limit)
    if not decompressor.eof or decompressor.unused_data:
        raise DamagedStream("a text is too long or too short")
    return json.loads(text)


def encode_names(names: Sequence[str]) -> bytes:
    """Names, each as what it shares with the one before at its start and end, and the rest.

    Raises:
        InputError: a name is not valid Unicode, or longer than 4096 characters.
    """
    prefixes, suffixes, middles = [], [], []
    before = ""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"image name {name!r} is not valid Unicode") from error
        if len(name) > MAX_NAME:
            raise InputError(f"image name {name[:40]!r}... is longer than {MAX_NAME} characters")
        most = min(len(name), len(before))
        prefix = next((i for i in range(most) if name[i] != before[i]), most)
        most -= prefix
        suffix = next((i for i in range(most) if name[-1 - i] != before[-1 - i]), most)
        prefixes.append(prefix)
        suffixes.append(suffix)
        middles.append(name[prefix : len(name) - suffix])
        before = name
    return deflate([prefixes, suffixes, middles])


def decode_names(data: bytes, count: int, limit: int) -> list[str]:
    """The names; more than ``limit`` characters in all are refused."""
    prefixes, suffixes, middles = inflate(data, limit)
    if not len(prefixes) == len(suffixes) == len(middles) == count:
        raise DamagedStream("the names are not as many as the images")
    names: list[str] = []
    before, total = "", 0
    for prefix, suffix, middle in zip(prefixes, suffixes, middles, strict=True):
        if min(prefix, suffix) < 0 or prefix + suffix > len(before):
            raise DamagedStream("an image name is damaged")
        before = before[:prefix] + middle + before[len(before) - suffix :]
        total += len(before)
        if len(before) > MAX_NAME or total > limit:
            raise DamagedStream("the image names are too long")
        names.append(before)
    return names


def encode_cameras(cameras: Sequence[pycolmap.Camera], index: Sequence[int]) -> bytes:
    """Cameras and the camera of each image; numbers as their shortest exact decimals."""
    rows = [[c.model.name, c.width, c.height, [float(p) for p in c.params]] for c in cameras]
    try:
        return deflate([rows, [int(i) for i in index] if len(rows) != 1 else None])
    except ValueError as error:
        raise InputError("a camera has parameters that are not finite") from error


def decode_cameras(data: bytes, count: int, limit: int) -> tuple[list[pycolmap.Camera], list[int]]:
    """The cameras, and the camera of each of ``count`` images."""
    rows, index = inflate(data, limit)
    cameras = []
    for model, width, height, params in rows:
        kind = pycolmap.CameraModelId.__members__.get(model)
        if kind is None or model == "INVALID":
            raise InputError(f"camera model {str(model)[:40]!r} is unknown to this pycolmap")
        camera = pycolmap.Camera(model=model, width=width, height=height, params=params)
        if not camera.verify_params():
            raise DamagedStream("a camera has a wrong number of parameters")
        cameras.append(camera)
    index = [0] * count if index is None else index
    if len(index) != count or not all(0 <= i < len(cameras) for i in index):
        raise DamagedStream("an image has a camera that the file does not have")
    return cameras, index
