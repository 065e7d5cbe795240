"""A damaged map file is refused with one line or reads the same; a crafted one is refused."""

import json
import tempfile
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import safetensors.numpy
from hypothesis import given, settings, strategies as st
from mapfile_maps import make_map

from hloc_dpqed.codecs.none import NoneCodec
from hloc_dpqed.entropy.arrays import encode_arrays
from hloc_dpqed.errors import InputError
from hloc_dpqed.mapfile import map_info, read_map, section_bytes, to_bytes
from hloc_dpqed.mapfile.container import METADATA_KEY, pack
from hloc_dpqed.maps.compressed import CompressedMap
from hloc_dpqed.scene.visibility import Visibility

MADE = make_map(num_points=50, num_images=5, code_bytes=2, with_global=True)
DATA = to_bytes(MADE)
FAR_AWAY = np.zeros((5, 3, 4))
FAR_AWAY[0, 0, 3] = 1e30  # of one image, to the side
INFINITE_FOCAL = pycolmap.Camera(model="PINHOLE", width=9, height=9, params=[np.inf, 9, 4, 4])


def split(data: bytes) -> tuple[dict, dict[str, bytes], int]:
    """Metadata, sections and the length of the header, hashes not checked."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    metadata = json.loads(header.pop("__metadata__")[METADATA_KEY])
    sections = {
        name: data[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]]
        for name, entry in header.items()
    }
    return metadata, sections, start


def join(metadata: dict, sections: dict[str, bytes], optional: list[str] | None = None) -> bytes:
    """A file with right hashes around any metadata and sections."""
    own = {k: v for k, v in metadata.items() if k not in ("sections", "sha256", "optional")}
    return pack(sections, metadata["optional"] if optional is None else optional, own)


def same(one: CompressedMap, other: CompressedMap) -> bool:
    arrays = [
        (m.xyz, m.codes, m.scores, m.cam_from_world, m.camera_index, m.visibility.indptr,
         m.visibility.indices, m.global_descriptors.codes, *m.codec.tensors().values())
        for m in (one, other)
    ]  # fmt: skip
    return (
        all(np.array_equal(a, b) for a, b in zip(*arrays, strict=True))
        and one.image_names == other.image_names
        and one.metadata == other.metadata
    )


@pytest.fixture
def refused_or_same(tmp_path):
    expected = original()

    def check(data: bytes) -> bool:
        path = tmp_path / "map.dpqed"
        path.write_bytes(data)
        try:
            read = read_map(path)
        except InputError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
            return False
        assert same(read, expected)
        return True

    return check


def original() -> CompressedMap:
    with tempfile.NamedTemporaryFile(suffix=".dpqed") as file:
        file.write(DATA)
        file.flush()
        return read_map(Path(file.name))


def refuse(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "map.dpqed"
    path.write_bytes(data)
    for reader in (read_map, map_info):
        with pytest.raises(InputError, match=reason) as caught:
            reader(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_intact_file_is_read(refused_or_same):
    assert refused_or_same(DATA)


def test_truncated(refused_or_same):
    _, sections, start = split(DATA)
    ends = {start + sum(len(s) for s in list(sections.values())[:i]) for i in range(len(sections))}
    ends |= {0, 1, 7, 8, 9, start - 1, start, len(DATA) - 1}
    ends |= set(np.random.default_rng(0).integers(0, len(DATA), 200).tolist())
    for end in sorted(ends):
        assert not refused_or_same(DATA[:end])
    assert not refused_or_same(DATA + b"\0")


def change_bytes(refused_or_same, count: int) -> None:
    rng = np.random.default_rng(0)
    kept = 0
    for position, bits in zip(
        rng.integers(0, len(DATA), count), rng.integers(1, 256, count), strict=True
    ):
        changed = bytearray(DATA)
        changed[position] ^= bits
        kept += refused_or_same(bytes(changed))
    # Only a blank of the container's header may change without harm.
    assert kept <= count / 100


def test_changed_bytes(refused_or_same):
    change_bytes(refused_or_same, 600)


@pytest.mark.slow
def test_ten_thousand_changed_bytes(refused_or_same):
    change_bytes(refused_or_same, 10_000)


def test_every_byte_of_the_header(refused_or_same):
    _, _, start = split(DATA)
    for position in range(start):
        changed = bytearray(DATA)
        changed[position] ^= 1
        refused_or_same(bytes(changed))


def test_swapped_sections(refused_or_same):
    """Contents exchanged under unchanged names and hashes."""
    start = split(DATA)[2]
    header = json.loads(DATA[8:start])
    names = [name for name in header if name != "__metadata__"]
    for first, second in zip(names, names[1:] + names[:1], strict=True):
        swapped = dict(header)
        swapped[first], swapped[second] = header[second], header[first]
        text = json.dumps(swapped).encode()
        assert not refused_or_same(len(text).to_bytes(8, "little") + text + DATA[start:])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_crafted_sections(data):
    """Right hashes around wrong contents: one line or a map, no crash, no large allocation."""
    metadata, sections, _ = split(DATA)
    name = data.draw(st.sampled_from(sorted(sections)))
    content = sections[name]
    if content and data.draw(st.booleans()):
        changed = bytearray(content)
        for _ in range(data.draw(st.integers(1, 4))):
            changed[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        content = bytes(changed)
    else:
        content = data.draw(st.binary(max_size=300))
    read_crafted(join(metadata, {**sections, name: content}))


HOSTILE = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.just("x" * 50), st.just([]),
    st.sampled_from([1 << 31, 1 << 62, 1 << 63, 1 << 80, -(1 << 70), 1e308, 1e-320]),
    st.lists(st.sampled_from([0, 1, -1, 1 << 31, 1 << 40, "a", None, 1.5]), max_size=4),
    st.just({}), st.dictionaries(st.sampled_from(["name", "config"]), st.none(), max_size=2),
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_crafted_metadata(data):
    metadata, sections, _ = split(DATA)
    place, key = metadata, None
    while True:
        own = [k for k in place if k not in ("sections", "sha256")]
        key = data.draw(st.sampled_from(sorted(own)))
        if not isinstance(place[key], dict) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    if data.draw(st.booleans()):
        place[key] = data.draw(HOSTILE)
    else:
        del place[key]
    if "optional" not in metadata:
        metadata["optional"] = []
    try:
        crafted = join(metadata, sections)
    except InputError:
        return  # not a number: JSON has no such value
    except TypeError:
        return
    read_crafted(crafted)


def read_crafted(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map.dpqed"
        path.write_bytes(data)
        try:
            read_map(path)
        except InputError as error:
            assert "\n" not in str(error)


def peak_memory(path: Path) -> int:
    """Most bytes that reading the file allocates at a time."""
    tracemalloc.start()
    try:
        read_map(path)
    except InputError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


def test_memory_is_bounded(tmp_path):
    """By what the file announces, and that by its size (docs/format.md, "Bounds")."""
    path = tmp_path / "map.dpqed"
    metadata, sections, _ = split(DATA)
    for images, points, observations in (
        (5, 10_000, 100), (10_000, 50, 100), (5, 50, 100_000), (2_000, 2_000, 20_000),
        (5, 1 << 40, 100), (1 << 40, 50, 100), (5, 50, 1 << 40),
    ):  # fmt: skip
        metadata["counts"] = [images, points, observations]
        metadata["codes"] = [points, 2]
        path.write_bytes(join(metadata, sections))
        assert peak_memory(path) < 2_000_000 + 1024 * path.stat().st_size


@pytest.mark.parametrize("count", [1 << 20, 1 << 30, 1 << 31, 1 << 62, 1 << 70, -1, 1.5, "1", None])
@pytest.mark.parametrize("which", range(3))
def test_absurd_counts(tmp_path, count, which):
    metadata, sections, _ = split(DATA)
    metadata["counts"][which] = count
    refuse(tmp_path, join(metadata, sections), "damaged")


def test_not_finite_codec(tmp_path):
    class Broken(NoneCodec):
        def tensors(self):
            return {"scale": np.array([1, self.value], np.float16)}

    for value in (np.nan, np.inf):
        broken = Broken(1)  # dimension, so 2 bytes a code as in MADE
        broken.value = value
        with pytest.raises(InputError, match="finite"):
            to_bytes(replace(MADE, codec=broken))
    # Written by another program, with right hashes.
    metadata, sections, _ = split(DATA)
    centroids = np.array(MADE.codec.tensors()["centroids"])
    centroids[1, 2, 0] = np.nan
    content = bytes([2, 0]) + centroids.view(np.uint8).reshape(-1, 2).T.tobytes()
    refuse(tmp_path, join(metadata, {**sections, "codec": content}), "not finite")


def test_unknown_codec(tmp_path):
    metadata, sections, _ = split(DATA)
    metadata["codec"]["name"] = "shiny"
    refuse(tmp_path, join(metadata, sections), "codec 'shiny' is unknown to this version")


def test_versions(tmp_path):
    metadata, sections, _ = split(DATA)
    refuse(tmp_path, join({**metadata, "format_version": 3}, sections), "upgrade")
    more = {**sections, "novelty": b"news"}
    refuse(tmp_path, join(metadata, more), "needs section 'novelty'")
    path = tmp_path / "map.dpqed"
    path.write_bytes(join({**metadata, "news": 1}, more, [*metadata["optional"], "novelty"]))
    assert same(read_map(path), original())
    assert section_bytes(path)["novelty"] == 4


def test_missing_sections(tmp_path):
    metadata, sections, _ = split(DATA)
    for name in sections:
        rest = {k: v for k, v in sections.items() if k != name}
        data = join(metadata, rest)
        path = tmp_path / "map.dpqed"
        path.write_bytes(data)
        if name in ("scores", "order"):
            continue  # legitimately absent: scores are 1, points in the order of the file
        if name == "global.codes":
            assert read_map(path).global_descriptors is None
            continue
        with pytest.raises(InputError, match=r"missing|damaged"):
            read_map(path)


@pytest.mark.parametrize(
    ("keys", "value", "reason"),
    [
        (("granularity",), "image", "granularity is unknown"),
        (("frame", "origin"), [0, 0], "frame is impossible"),
        (("frame", "rotation"), [1, 0, 0], "frame is impossible"),
        (("frame", "rotation"), [1, 1, 0, 0], "frame is impossible"),
        (("points", "xyz_error"), 0, "grid of points"),
        (("points", "core"), 30, "grid of points"),
        (("visibility", "neighbours"), 0, "number of neighbours"),
        (("poses", "rotation_step"), -1.0, "grid of poses"),
        (("poses", "centre_step"), "x", "grid of poses"),
        (("poses", "rotation_step"), 1e9, "not a rotation"),
        (("scores", "levels"), 1, "scale of scores"),
        (("scores", "levels"), 2, "beyond its scale"),
        (("scores", "low"), 2e38, "scale of scores"),
        (("scores", "scale"), "cubic", "scale of scores"),
        (("codes",), [50, 1], "codes are not those"),
        (("global", "codes"), [5, 1], "global codes are not those"),
        (("codec", "tensors", "centroids"), ["F9", [1]], "impossible dtype"),
        (("codec", "tensors", "centroids"), ["F16", [-1]], "impossible dtype"),
        (("format_version",), 0, "format version"),
    ],
)
def test_impossible_metadata(tmp_path, keys, value, reason):
    metadata, sections, _ = split(DATA)
    place = metadata
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    refuse(tmp_path, join(metadata, sections), reason)


def test_negative_scores_have_no_logarithm(tmp_path):
    metadata, sections, _ = split(DATA)
    metadata["scores"] |= {"scale": "log", "low": -1.0}
    refuse(tmp_path, join(metadata, sections), "scale of scores")


def test_order_of_points_that_is_no_permutation(tmp_path):
    metadata, sections, _ = split(DATA)
    order = encode_arrays([np.zeros(50, np.uint16)])
    refuse(tmp_path, join(metadata, {**sections, "order": order}), "no permutation")


def test_hash_of_a_shared_codec_that_is_none(tmp_path):
    metadata, sections, _ = split(DATA)
    del sections["codec"]
    for digest in (None, "../" * 21 + "x", "g" * 64):
        metadata["codec"]["hash"] = digest
        refuse(tmp_path, join(metadata, sections), "'codec' is missing")


def test_sections_that_are_not_bytes(tmp_path):
    header = json.loads(DATA[8 : split(DATA)[2]])
    for key, value in (("dtype", "I8"), ("shape", [1, 2])):
        changed = json.loads(json.dumps(header))
        entry = changed["codes"]
        entry[key] = value if key == "dtype" else [1, entry["shape"][0]]
        text = json.dumps(changed).encode()
        data = len(text).to_bytes(8, "little") + text + DATA[split(DATA)[2] :]
        refuse(tmp_path, data, "not one of bytes")


def test_metadata_of_another_shape(tmp_path):
    text = json.dumps({"sha256": 1, "sections": []})
    data = safetensors.numpy.save({}, metadata={METADATA_KEY: text})
    refuse(tmp_path, data, "not a map file")


def test_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    path = tmp_path / "map.dpqed"
    path.write_bytes(DATA)

    def failing(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", failing)
    with pytest.raises(InputError, match="cannot be read"):
        read_map(path)


def test_other_files_are_refused(tmp_path):
    cases = [b"", b"PK\x03\x04", b"\x80\x04]", b"{" * 100_000, safetensors.numpy.save({})]
    cases.append(safetensors.numpy.save({}, metadata={METADATA_KEY: "[" * 100_000}))
    cases.append(safetensors.numpy.save({}, metadata={METADATA_KEY: "{}"}))
    cases.append(safetensors.numpy.save({}, metadata={METADATA_KEY: "7"}))
    for data in cases:
        refuse(tmp_path, data, "not a map file")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"codes": MADE.codes[:-1]}, "codes have shape"),
        ({"codes": MADE.codes.astype(np.int32)}, "uint8"),
        ({"xyz": np.full_like(MADE.xyz, np.nan)}, "not finite"),
        ({"xyz": np.concatenate([MADE.xyz[:-1], [[0, 0, 1e30]]])}, "too far"),
        ({"cam_from_world": MADE.cam_from_world * 2}, "rotation"),
        ({"cam_from_world": MADE.cam_from_world * np.nan}, "rotation"),
        ({"scores": np.full_like(MADE.scores, np.inf)}, "scores are not finite"),
        ({"granularity": "image"}, "granularity"),
        ({"codec_hash": "0" * 64}, "not the one of its codec file"),
        ({"cam_from_world": MADE.cam_from_world + FAR_AWAY}, "too far away"),
        ({"cameras": [INFINITE_FOCAL, *MADE.cameras[1:]]}, "not finite"),
        ({"camera_index": MADE.camera_index + 1}, "camera_index"),
        ({"image_names": ["\ud800", *MADE.image_names[1:]]}, "Unicode"),
        ({"image_names": ["x" * 5000, *MADE.image_names[1:]]}, "longer"),
        ({"metadata": {"x": float("nan")}}, "JSON"),
        ({"metadata": {"x": object()}}, "JSON"),
        ({"visibility": Visibility(np.array([0, 1, 1, 1, 1, 1]), np.array([50]), 50)}, "not exist"),
        ({"visibility": Visibility(np.array([0, 2, 2, 2, 2, 2]), np.array([3, 3]), 50)}, "increas"),
        ({"visibility": Visibility(np.zeros(6, int), np.array([], int), 49)}, "49 points"),
    ],
)
def test_impossible_maps_are_not_written(change, reason):
    with pytest.raises(InputError, match=reason):
        to_bytes(replace(MADE, **change))
