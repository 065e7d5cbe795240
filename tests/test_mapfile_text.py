"""Names and cameras as text: what was written reads back, and crafted streams are refused."""

import json

import numpy as np
import pytest
from hypothesis import given, strategies as st
from mapfile_maps import CAMERA_MODELS, make_camera

from hloc_dpqed.entropy.rans import DamagedStream, Recorder
from hloc_dpqed.errors import InputError
from hloc_dpqed.mapfile.text import (
    STEPS,
    _code_text,
    _integers,
    decode_cameras,
    decode_names,
    encode_cameras,
    encode_names,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def crafted_names(prefixes: list[int], suffixes: list[int], sizes: list[int], text: str) -> bytes:
    recorder = Recorder(symbol_contexts=5)
    for context, values in ((2, prefixes), (3, suffixes), (4, sizes)):
        _integers(recorder, context, len(values), values)
    _code_text(recorder, len(text), text)
    return recorder.finish(STEPS)


def crafted_cameras(text: str, size: int | None = None) -> bytes:
    recorder = Recorder(symbol_contexts=2)
    _integers(recorder, 0, 1, [len(text) if size is None else size])
    _code_text(recorder, len(text), text)
    return recorder.finish(STEPS)


@given(st.lists(TEXT, max_size=20))
def test_names_round_trip(names):
    data = encode_names(names)
    assert decode_names(data, len(names), sum(map(len, names))) == names
    if any(names):
        with pytest.raises(DamagedStream, match="too long"):
            decode_names(data, len(names), sum(map(len, names)) - 1)


def test_what_names_share_is_stored_once():
    names = [f"sequence/left/frame_{i:06d}.jpg" for i in range(1000)]
    assert len(encode_names(names)) < 2 * len(names)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (([0, 3], [0, 0], [2, 0], "ab"), "a name is damaged|image name is damaged"),
        (([0, 1], [0, 2], [2, 0], "ab"), "image name is damaged"),
        (([0], [0], [5000], ""), "too long"),
        (([0, 4000], [0, 0], [4000, 4000], "a" * 8000), "too long"),
    ],
)
def test_crafted_names_are_refused(arguments, reason):
    with pytest.raises(DamagedStream, match=reason):
        decode_names(crafted_names(*arguments), len(arguments[0]), 10_000)


def test_more_characters_than_text_are_refused():
    recorder = Recorder(symbol_contexts=5)
    for context in (2, 3, 4):
        _integers(recorder, context, 1, [0])
    _integers(recorder, 0, 1, [7])  # an alphabet of seven for no text at all
    with pytest.raises(DamagedStream, match="a text is damaged"):
        decode_names(recorder.finish(STEPS), 1, 100)


@pytest.mark.parametrize("model", CAMERA_MODELS)
def test_cameras_round_trip(model):
    cameras = [make_camera(model), make_camera(model, seed=1)]
    read, index = decode_cameras(encode_cameras(cameras, [1, 0, 1]), 3, 10_000)
    assert index == [1, 0, 1]
    for one, other in zip(cameras, read, strict=True):
        assert (one.model, one.width, one.height) == (other.model, other.width, other.height)
        np.testing.assert_array_equal(one.params, other.params)


@pytest.mark.parametrize(
    ("rows", "index", "error", "reason"),
    [
        ([["LENS", 4, 4, [1.0]]], None, InputError, "'LENS' is unknown"),
        ([["INVALID", 4, 4, []]], None, InputError, "'INVALID' is unknown"),
        ([["PINHOLE", 4, 4, [1.0, 1.0]]], None, DamagedStream, "number of parameters"),
        ([["SIMPLE_PINHOLE", 4, 4, [1, 2, 2]]], [0, 1, 0], DamagedStream, "does not have"),
        ([["SIMPLE_PINHOLE", 4, 4, [1, 2, 2]]], [0], DamagedStream, "does not have"),
    ],
)
def test_crafted_cameras_are_refused(rows, index, error, reason):
    with pytest.raises(error, match=reason):
        decode_cameras(crafted_cameras(json.dumps([rows, index])), 3, 10_000)


def test_cameras_longer_than_the_limit_are_refused():
    with pytest.raises(DamagedStream, match="too long"):
        decode_cameras(crafted_cameras("[]", size=1 << 40), 1, 10_000)
