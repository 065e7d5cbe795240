"""Image names and cameras as text, its characters entropy-coded (source: ours).

zlib would do, but pycolmap 4 brings another one under the same names: a process that imports it
before Python's own zlib crashes when that is used.
"""

import json
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pycolmap

from ..entropy.rans import Coder, DamagedStream, Player, Recorder, code_integers
from ..errors import InputError

MAX_NAME = 4096  # characters
STEPS = 256


def _integers(coder: Coder, context: int, count: int, values: list[int] | None) -> list[int]:
    given = None if values is None else np.array(values, np.int64)
    return code_integers(coder, np.full(count, context), given).tolist()


def _code_text(coder: Coder, size: int, text: str | None = None) -> str:
    """``size`` characters: those that occur, the most frequent first, then which of them."""
    alphabet: list[str] = []
    if text is not None:
        alphabet = [c for c, _ in sorted(Counter(text).items(), key=lambda item: (-item[1], item))]
    number = {c: i for i, c in enumerate(alphabet)}
    known = text is not None
    count = _integers(coder, 0, 1, [len(alphabet)] if known else None)[0]
    if count > size:
        raise DamagedStream("a text is damaged")
    codes = _integers(coder, 0, count, [ord(c) for c in alphabet] if known else None)
    alphabet = [chr(code) for code in codes]
    indices = _integers(coder, 1, size, None if text is None else [number[c] for c in text])
    return "".join([alphabet[i] for i in indices])


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
    recorder = Recorder(symbol_contexts=5)
    _integers(recorder, 2, len(names), prefixes)
    _integers(recorder, 3, len(names), suffixes)
    _integers(recorder, 4, len(names), [len(middle) for middle in middles])
    text = "".join(middles)
    _code_text(recorder, len(text), text)
    return recorder.finish(STEPS)


def decode_names(data: bytes, count: int, limit: int) -> list[str]:
    """The names; more than ``limit`` characters in all are refused."""
    player = Player(data, symbol_contexts=5)
    prefixes, suffixes, sizes = (_integers(player, context, count, None) for context in (2, 3, 4))
    if max(sizes, default=0) > MAX_NAME or sum(sizes) > limit:
        raise DamagedStream("the image names are too long")
    text = _code_text(player, sum(sizes))
    player.finish()
    names: list[str] = []
    before, at, total = "", 0, 0
    for prefix, suffix, size in zip(prefixes, suffixes, sizes, strict=True):
        if prefix + suffix > len(before):
            raise DamagedStream("an image name is damaged")
        before = before[:prefix] + text[at : at + size] + before[len(before) - suffix :]
        at += size
        total += len(before)
        if len(before) > MAX_NAME or total > limit:
            raise DamagedStream("the image names are too long")
        before.encode()  # refuses what is no valid Unicode
        names.append(before)
    return names


def encode_cameras(cameras: Sequence[pycolmap.Camera], index: Sequence[int]) -> bytes:
    """Finite cameras and the camera of each image; numbers as their shortest exact decimals."""
    rows = [[c.model.name, c.width, c.height, [float(p) for p in c.params]] for c in cameras]
    value = [rows, [int(i) for i in index] if len(rows) != 1 else None]
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    recorder = Recorder(symbol_contexts=2)
    _integers(recorder, 0, 1, [len(text)])
    _code_text(recorder, len(text), text)
    return recorder.finish(STEPS)


def decode_cameras(data: bytes, count: int, limit: int) -> tuple[list[pycolmap.Camera], list[int]]:
    """The cameras, and the camera of each of ``count`` images."""
    player = Player(data, symbol_contexts=2)
    size = _integers(player, 0, 1, None)[0]
    if size > limit:
        raise DamagedStream("the cameras are too long")
    text = _code_text(player, size)
    player.finish()
    rows, index = json.loads(text)
    cameras = []
    for model, width, height, params in rows:
        numbers = all(type(x) in (int, float) and math.isfinite(x) for x in params)
        if not numbers or not all(type(x) is int for x in (width, height)):
            raise DamagedStream("a camera has impossible numbers")
        kind = pycolmap.CameraModelId.__members__.get(model)
        if kind is None or model == "INVALID":
            raise InputError(f"camera model {str(model)[:40]!r} is unknown to this pycolmap")
        camera = pycolmap.Camera(model=model, width=width, height=height, params=params)
        if not camera.verify_params():
            raise DamagedStream("a camera has a wrong number of parameters")
        cameras.append(camera)
    index = [0] * count if index is None else index
    if len(index) != count or not all(type(i) is int and 0 <= i < len(cameras) for i in index):
        raise DamagedStream("an image has a camera that the file does not have")
    return cameras, index
