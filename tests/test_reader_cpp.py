"""The reader in C++ gives Python's bytes and refuses what Python refuses, under sanitizers."""

import functools
import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from codec_helpers import make_observations
from mapfile_maps import CAMERA_MODELS, make_map
from test_mapfile_integrity import DATA as SMALL, join, split

from hloc_dpqed import compress, localize
from hloc_dpqed.choices import CODECS
from hloc_dpqed.codecs import fit_codec
from hloc_dpqed.codecs.file import codec_file_name, codec_hash, codec_to_bytes
from hloc_dpqed.codecs.none import NoneCodec
from hloc_dpqed.errors import InputError
from hloc_dpqed.evaluation.pose_errors import pose_error
from hloc_dpqed.io.features import FeatureFile
from hloc_dpqed.io.lists import read_poses, read_queries
from hloc_dpqed.localization.localizer import Localizer
from hloc_dpqed.mapfile import canonical_map, map_info, read_map, to_bytes, write_map
from hloc_dpqed.maps.compressed import CompressedMap

TESTS = Path(__file__).parent
READER = TESTS.parent / "readers" / "cpp"
GOLDEN = sorted((TESTS / "data").glob("golden_v*.dpqed"))
SANITIZED = ["-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
# Codecs whose descriptors have the same bits everywhere, and options of small codecs.
EXACT = ("none", "drqed", "pq", "rq", "lsq", "prq", "sign")
SMALL_CODECS = {
    "drqed": {"steps": 3},
    "dpqed": {"steps": 3, "hidden": 4},
    "prq": {"bits": 4},
    "nested": {"bits": [5, 5, 6], "latent": 8},
}


@functools.cache
def compiled(source: str, *flags: str) -> Path:
    """The program of a source of the reader, compiled once; skips the test without a compiler."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler (g++ or clang++) is installed")
    program = Path(tempfile.mkdtemp(prefix="dpqed-")) / Path(source).stem
    warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror"]
    argv = [compiler, "-std=c++17", *warnings, f"-I{READER / 'include'}", READER / source]
    # Libraries come after what uses them.
    done = subprocess.run([*argv, *flags, "-o", program], capture_output=True, text=True)
    if "cannot find -lasan" in done.stderr or "libclang_rt.asan" in done.stderr:
        pytest.skip("the C++ compiler has no sanitizers")
    assert done.returncode == 0, done.stderr[-3000:]
    return program


def verdicts(files: Iterable[bytes]) -> list[str | dict[str, str]]:
    """What the reader says of each file: the reason why it refuses it, or hashes of its arrays."""
    framed = b"".join(len(data).to_bytes(8, "little") + data for data in files)
    program = compiled("tests/verdicts.cpp", *SANITIZED)
    done = subprocess.run([program], input=framed, capture_output=True)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-4000:]
    told = []
    for line in done.stdout.decode().splitlines():
        verdict, _, rest = line.partition(" ")
        told.append(json.loads(rest) if verdict == "read" else rest)
        assert verdict in ("read", "refused:")
    return told


def arrays_of(made: CompressedMap) -> dict[str, np.ndarray]:
    """The arrays of a dump, as Python reads them."""
    params = [camera.params for camera in made.cameras]
    arrays = {
        "cam_from_world": made.cam_from_world,
        "xyz": made.xyz,
        "camera_params": np.concatenate([np.zeros(0), *params]),
        "camera_sizes": np.array(
            [[camera.width, camera.height] for camera in made.cameras], np.uint64
        ).reshape(-1, 2),
        "indptr": made.visibility.indptr,
        "indices": made.visibility.indices,
        "camera_index": made.camera_index,
        "scores": made.scores,
        "codes": made.codes,
    }
    if made.codec.name in EXACT:
        arrays["descriptors"] = made.codec.decode(made.codes)
    if made.global_descriptors is not None:
        arrays["global_codes"] = made.global_descriptors.codes
        if made.global_descriptors.codec.name in EXACT:
            arrays["global_descriptors"] = made.global_descriptors.codec.decode(
                made.global_descriptors.codes
            )
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def read_in_python(data: bytes) -> CompressedMap | None:
    with tempfile.NamedTemporaryFile(suffix=".dpqed") as file:
        file.write(data)
        file.flush()
        try:
            return read_map(Path(file.name))
        except InputError:
            return None


def assert_same_verdicts(files: list[bytes]) -> int:
    """Both readers refuse the same files and read the same bytes from the others, how many."""
    read = 0
    for data, told in zip(files, verdicts(files), strict=True):
        ours = read_in_python(data)
        if ours is None:
            assert isinstance(told, str), (told, data)
            continue
        assert not isinstance(told, str), (told, data)
        for name, array in arrays_of(ours).items():
            digest = hashlib.sha256(array.tobytes()).hexdigest()
            assert told[name] == digest, (name, ours.codec.name)
        assert json.loads(told["image_names"]) == ours.image_names
        assert json.loads(told["camera_models"]) == [c.model.name for c in ours.cameras]
        assert json.loads(told["made"]) == ours.metadata
        read += 1
    return read


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_files(path, tmp_path):
    assert assert_same_verdicts([path.read_bytes()]) == 1
    # Against what was read when the file was made, too.
    expected = json.loads(path.with_suffix(".json").read_text())
    output = tmp_path / "dump.safetensors"
    subprocess.run([compiled("tools/dpqed-dump.cpp", "-O0"), path, output], check=True)
    dump = safetensors.numpy.load_file(output)
    for name in ("xyz", "indptr", "indices", "codes", "global_codes", "camera_index"):
        assert dump[name].tolist() == expected[name]
    assert np.allclose(dump["cam_from_world"], expected["poses"], rtol=0, atol=1e-12)
    with safetensors.safe_open(output, "numpy") as file:
        assert json.loads(file.metadata()["image_names"]) == expected["image_names"]


def test_maps_of_all_kinds():
    """Orders, granularities, sizes, names, cameras, outliers: what the writer can write."""
    options = [
        {"num_points": 0},
        {"num_points": 1, "num_images": 1},
        {"num_images": 1, "with_scores": False},
        {"num_points": 400, "num_images": 30, "density": 0.8, "with_global": True},
        {"num_points": 250, "outliers": 3, "granularity": "observation"},
        {"num_points": 200, "codec": "none", "code_bytes": 140, "spread": 1e4},
        {"num_points": 300, "models": CAMERA_MODELS, "num_images": 20, "density": 0.02},
        {"names": ["", 'a\n"\\\x7f\0b', "été", "夜" * 300, "𝄞/𝄢"], "outliers": 1},
        {"num_points": 17000, "num_images": 2, "density": 0.1},  # a level of several blocks
        {"num_points": 3000, "num_images": 200, "density": 1.0, "spread": 1e-3},  # padded
    ]
    made = [make_map(**each) for each in options]
    # Bytes at random are not all numbers, and what is none has many bit patterns.
    made = [replace(m, codes=(m.codes & 0xBF) if m.codec.name == "none" else m.codes) for m in made]
    files = [to_bytes(each) for each in made]
    files += [to_bytes(canonical_map(each)) for each in made]
    files += [to_bytes(make_map(), score_levels=0), to_bytes(make_map(), xyz_error=1e-4)]
    files.append(to_bytes(replace(make_map(num_images=2), scores=-np.ones(60, np.float32))))
    # Version 1 with an origin that matters: points move by it, poses do not.
    metadata, sections, _ = split(SMALL)
    frame = metadata.pop("frame")
    metadata["points"]["origin"] = [1.5, -2e6, 1 / 3]
    files.append(join({**metadata, "format_version": 1}, sections))
    metadata |= {"frame": {**frame, "origin": [6e6, -2e5, 0.1]}, "format_version": 2}
    files.append(join(metadata, sections))
    assert assert_same_verdicts(files) == len(files)


@pytest.fixture(scope="module")
def coded_maps() -> dict[str, CompressedMap]:
    """A small map with each codec, its codes at random."""
    observations = make_observations(40, 4, dim=20)
    rng = np.random.default_rng(0)
    maps = {}
    for name in CODECS:
        code_bytes = 8 if name == "drqed" else 2
        codec = fit_codec(name, observations, code_bytes, **SMALL_CODECS.get(name, {}))
        codes = rng.integers(0, 256, (50, codec.code_size), np.uint8)
        if name == "none":
            codes = codec.encode(rng.normal(size=(50, codec.dim)))
        maps[name] = replace(make_map(num_points=50), codec=codec, codes=codes)
    return maps


@pytest.mark.filterwarnings("ignore:codec")
def test_every_codec(coded_maps, tmp_path):
    """The exact ones to the bit, the others closely."""
    assert assert_same_verdicts([to_bytes(made) for made in coded_maps.values()]) == len(CODECS)
    for name, made in coded_maps.items():
        write_map(tmp_path / "map.dpqed", made)
        output = tmp_path / "dump.safetensors"
        argv = [compiled("tools/dpqed-dump.cpp", "-O0"), tmp_path / "map.dpqed", output]
        done = subprocess.run(argv, capture_output=True, text=True)
        if name == "rabitq":
            assert done.returncode == 2 and "rabitq cannot be decoded" in done.stderr
            continue
        rows = safetensors.numpy.load_file(output)["descriptors"]
        assert np.abs(rows - made.codec.decode(made.codes)).max() < 1e-6
        assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_codec_in_a_file_of_its_own(coded_maps, tmp_path):
    info = compiled("tools/dpqed-info.cpp", "-O0")
    made = coded_maps["drqed"]
    path = tmp_path / "map.dpqed"
    write_map(path, replace(made, codec_hash=codec_hash(made.codec)))
    done = subprocess.run([info, path], capture_output=True, text=True)
    assert done.returncode == 2 and "codec-" in done.stderr
    beside = tmp_path / codec_file_name(codec_hash(made.codec))
    beside.write_bytes(codec_to_bytes(made.codec))
    done = subprocess.run([info, "--json", path], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == map_info(path)
    # Heads of the codes of a nested codec.
    nested = coded_maps["nested"]
    head = nested.codec.head(1)
    beside_nested = tmp_path / codec_file_name(codec_hash(nested.codec))
    beside_nested.write_bytes(codec_to_bytes(nested.codec))
    short = replace(
        nested, codec=head, codes=nested.codes[:, :1].copy(), codec_hash=codec_hash(nested.codec)
    )
    write_map(tmp_path / "short.dpqed", short)
    done = subprocess.run(
        [info, "--json", tmp_path / "short.dpqed"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == map_info(tmp_path / "short.dpqed")
    assert json.loads(done.stdout)["code_bytes"] == 1
    dump = compiled("tools/dpqed-dump.cpp", "-O0")
    subprocess.run([dump, tmp_path / "short.dpqed", tmp_path / "dump"], check=True)
    rows = safetensors.numpy.load_file(tmp_path / "dump")["descriptors"]
    assert np.abs(rows - head.decode(short.codes)).max() < 1e-6

    other = tmp_path / "other.safetensors"
    other.write_bytes(codec_to_bytes(coded_maps["pq"].codec))
    done = subprocess.run([info, "--codec_file", other, path], capture_output=True, text=True)
    assert done.returncode == 2 and "another codec" in done.stderr
    beside.write_bytes(beside.read_bytes()[:-1] + b"\x55")
    done = subprocess.run([info, path], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1


def test_info_is_that_of_python(tmp_path):
    info = compiled("tools/dpqed-info.cpp", "-O0")
    path = tmp_path / "map.dpqed"
    write_map(path, make_map(with_global=True, granularity="observation"))
    done = subprocess.run([info, "--json", path], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == map_info(path)
    done = subprocess.run([info, path], capture_output=True, text=True, check=True)
    assert "60 points, 5 images" in done.stdout and "codes" in done.stdout
    for argv in ([], ["--what", path], [path, path]):
        assert subprocess.run([info, *argv], capture_output=True).returncode == 2
    done = subprocess.run([info, tmp_path / "none.dpqed"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1


def damaged_files() -> list[bytes]:
    """Bytes cut off, changed and added, without regard to hashes."""
    rng = np.random.default_rng(0)
    start = split(SMALL)[2]
    files = [SMALL[:end] for end in (0, 1, 7, 8, 9, start - 1, start, len(SMALL) - 1)]
    files += [SMALL[:end] for end in rng.integers(0, len(SMALL), 40)]
    files += [SMALL + b"\0", b"PK\x03\x04", b"{" * 100_000]
    for position in [*range(0, start, 2), *rng.integers(start, len(SMALL), 100)]:
        changed = bytearray(SMALL)
        changed[position] ^= 1 << int(rng.integers(8))
        files.append(bytes(changed))
    header = json.loads(SMALL[8:start])
    names = [name for name in header if name != "__metadata__"]
    for first, second in zip(names, names[1:] + names[:1], strict=True):
        swapped = {**header, first: header[second], second: header[first]}
        text = json.dumps(swapped).encode()
        files.append(len(text).to_bytes(8, "little") + text + SMALL[start:])
    for key, value in (("dtype", "I8"), ("shape", [1, 2]), ("shape", None)):
        entry = {**header["codes"], key: value}
        text = json.dumps({**header, "codes": entry}).encode()
        files.append(len(text).to_bytes(8, "little") + text + SMALL[start:])
    return files


def test_damaged_files():
    files = damaged_files()
    assert assert_same_verdicts(files) < 10  # blanks of the container's header


def crafted_sections(data: bytes, count: int, seed: int) -> list[bytes]:
    """Right hashes around changed contents."""
    rng = np.random.default_rng(seed)
    metadata, sections, _ = split(data)
    metadata.setdefault("optional", [])
    files = []
    for name in sorted(sections):
        for _ in range(count):
            content = bytearray(sections[name])
            for _ in range(rng.integers(1, 4)):
                if content:
                    content[rng.integers(len(content))] = rng.integers(256)
            if rng.random() < 0.2:
                content = content[: rng.integers(len(content) + 1)]
            files.append(join(metadata, {**sections, name: bytes(content)}))
        files.append(join(metadata, {k: v for k, v in sections.items() if k != name}))
    return files


def crafted_metadata(data: bytes) -> list[bytes]:
    """Right hashes around metadata with each member replaced by what is no such member."""
    values = [
        None, True, 0, 1, -1, 2, 1.5, -0.0, 1e308, 1e-320, 1 << 31, 1 << 62, 1 << 80, "x", "none",
        [], {}, [0, 0], [1, 2, 3], [0.0] * 3, [1, 0, 0, 0], [True, 0, 0], ["1", "0", "0"],
    ]  # fmt: skip
    metadata, sections, _ = split(data)
    metadata.setdefault("optional", [])
    files = []

    def visit(place: dict | list, path: list) -> None:
        for key in range(len(place)) if isinstance(place, list) else list(place):
            if not path and key in ("sections", "sha256", "optional", "made"):
                continue
            before = place[key]
            for value in values:
                place[key] = value
                files.append(join(metadata, sections))
            if isinstance(place, dict):
                del place[key]
                files.append(join(metadata, sections))
            place[key] = before
            if isinstance(before, dict | list):
                visit(before, [*path, key])

    visit(metadata, [])
    return files


def test_crafted_sections():
    assert assert_same_verdicts(crafted_sections(SMALL, 25, 0)) > 10


def test_crafted_metadata():
    assert assert_same_verdicts(crafted_metadata(SMALL)) > 10


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:codec")
def test_crafted_codecs(coded_maps):
    for name in CODECS:
        data = to_bytes(coded_maps[name])
        assert_same_verdicts(crafted_metadata(data) + crafted_sections(data, 20, 1))


def test_versions_and_sections_of_the_future():
    metadata, sections, _ = split(SMALL)
    more = {**sections, "novelty": b"news"}
    files = [
        join({**metadata, "format_version": 3}, sections),
        join(metadata, more),
        join({**metadata, "news": 1}, more, [*metadata["optional"], "novelty"]),
    ]
    assert assert_same_verdicts(files) == 1
    told = verdicts(files)
    assert "version 3" in told[0] and "novelty" in told[1]


def test_json_that_readers_could_read_differently():
    """Members that come twice, and numbers that JSON does not have."""
    metadata, sections, _ = split(SMALL)
    for made in ('{"a":1,"a":2}', "NaN", "[Infinity]", "[" * 90 + "]" * 90, "01", '"\\x"'):
        marked = join({**metadata, "made": "MARK"}, sections)
        start = split(marked)[2]
        header = json.loads(marked[8:start])
        text = header["__metadata__"]["hloc_dpqed"].replace('"MARK"', made)
        digest = json.loads(header["__metadata__"]["hloc_dpqed"])["sha256"]
        blank = text.replace(digest, "0" * 16)
        fresh = hashlib.sha256(blank.encode()).hexdigest()[:16]
        header["__metadata__"]["hloc_dpqed"] = text.replace(digest, fresh)
        packed = json.dumps(header).encode()
        data = len(packed).to_bytes(8, "little") + packed + marked[start:]
        assert assert_same_verdicts([data]) == (made[:2] == "[[")


@pytest.mark.parametrize("runs", [1500, pytest.param(100_000, marks=pytest.mark.slow)])
def test_fuzz(runs, coded_maps, tmp_path):
    """A bounded number of changed maps: no crash, no undefined behaviour, no large allocation."""
    for name in ("drqed", "pq", "dpqed", "pca"):
        write_map(tmp_path / f"{name}.dpqed", coded_maps[name])
    seeds = [*GOLDEN, *sorted((TESTS / "fuzz" / "corpus").iterdir()), *tmp_path.iterdir()]
    program = compiled("tests/fuzz.cpp", *SANITIZED, "-DDPQED_FUZZ_DRIVER")
    done = subprocess.run(
        [program, str(runs), "1", *seeds],
        env={"ASAN_OPTIONS": "max_allocation_size_mb=256"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def cpp_matches(
    path: Path, query: np.ndarray, images: list[int], tmp_path: Path, *options: str
) -> np.ndarray:
    """(k, 4) image, query row, point and similarity of the reader's matches."""
    file = tmp_path / "query.safetensors"
    safetensors.numpy.save_file({"descriptors": np.ascontiguousarray(query, np.float32)}, file)
    argv = [compiled("tests/matches.cpp", *SANITIZED), *options, path, file, *map(str, images)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return np.array([line.split() for line in done.stdout.splitlines()], float).reshape(-1, 4)


@pytest.mark.filterwarnings("ignore:codec")
@pytest.mark.parametrize("granularity", ["point", "observation"])
def test_matches(tmp_path, granularity):
    """Against a brute-force search in double precision; ties go to the lowest rows."""
    rng = np.random.default_rng(0)
    made = make_map(num_points=90, num_images=4, granularity=granularity)
    codec = NoneCodec(37)
    codes = codec.encode(rng.normal(size=(len(made.codes), 37)))
    codes[1::7] = codes[2]  # points that cannot be told apart
    made = replace(made, codec=codec, codes=codes)
    path = tmp_path / "map.dpqed"
    write_map(path, made)
    own = codec.decode(codes)
    query = np.concatenate([own[:40:2], own[2:3], own[2:3], rng.normal(size=(10, 37))])
    query = (query / np.linalg.norm(query, axis=1, keepdims=True)).astype(np.float32)
    found = cpp_matches(path, query, [0, 1, 2, 3], tmp_path)
    expected = []
    for image in range(4):
        similarity = query.astype(float) @ own[made.code_rows(image)].T.astype(float)
        similarity = np.round(similarity, 6)  # equal rows tie
        best = similarity.argmax(1)
        for q in range(len(query)):
            if similarity[:, best[q]].argmax() == q:
                expected.append([image, q, made.visibility[image][best[q]], similarity[q, best[q]]])
    expected = np.array(expected)
    assert len(expected) > 20
    assert np.array_equal(found[:, :3], expected[:, :3])
    assert np.allclose(found[:, 3], expected[:, 3], atol=2e-6)


@pytest.mark.filterwarnings("ignore:codec")
@pytest.mark.parametrize("name", ["none", "sign", "pq", "drqed", "drqed of 12 bits", "nested"])
def test_matches_in_int8(tmp_path, name):
    """Beside those of floats: the same but for close calls, similarities within a hundredth."""
    observations = make_observations(90, 4, dim=32, noise=0.05)
    size = {"none": 0, "sign": 4}.get(name, 2)
    options = SMALL_CODECS.get(name.split()[0], {})
    if name != name.split()[0]:
        options = {**options, "used_bits": 12}
    codec = fit_codec(name.split()[0], observations, size, **options)
    made = make_map(num_points=90, num_images=4, granularity="point")
    made = replace(made, codec=codec, codes=codec.encode_points(observations))
    path = tmp_path / "map.dpqed"
    write_map(path, made)
    query = observations.descriptors[:60].astype(np.float32)
    exact, near = (
        cpp_matches(path, query, [0, 1, 2, 3], tmp_path, *how) for how in ((), ("--int8",))
    )
    similarity = {tuple(row[:3].astype(int)): row[3] for row in exact}
    both = [(row[3], similarity.get(tuple(row[:3].astype(int)))) for row in near]
    both = np.array([(a, b) for a, b in both if b is not None])
    assert len(both) >= 0.9 * max(len(exact), len(near)) > 20
    assert np.abs(both[:, 0] - both[:, 1]).max() < 0.01


@pytest.mark.parametrize("codec", ["sign", pytest.param("drqed", marks=pytest.mark.slow), "none"])
def test_real_map(fountain, tmp_path, codec):
    """A map made by ``compress``: the same bytes, and the same matches but for close calls."""
    path = tmp_path / "map.dpqed"
    sizes = {"codec_options": {"steps": 60}, "code_bytes": 4} if codec == "drqed" else {}
    compress.main(fountain / "sfm", fountain / "feats-superpoint.h5", path, codec=codec, **sizes)
    assert assert_same_verdicts([path.read_bytes()]) == 1
    made = read_map(path)
    (name, _), *_ = read_queries(fountain / "queries.txt")
    with FeatureFile(fountain / "feats-superpoint.h5") as file:
        features = file.read(name)
    images = [0, 3]
    found = cpp_matches(path, features.descriptors, images, tmp_path)
    ours = Localizer(made).match(features, images)
    expected = {(i, q, p) for i, m in zip(images, ours, strict=True) for q, p in m.pairs.tolist()}
    same = expected & {tuple(row) for row in found[:, :3].astype(int).tolist()}
    assert len(same) >= 0.99 * max(len(expected), len(found)) > 100
    near = cpp_matches(path, features.descriptors, images, tmp_path, "--int8")
    same = expected & {tuple(row) for row in near[:, :3].astype(int).tolist()}
    assert len(same) >= 0.97 * max(len(expected), len(near))


def test_example_with_opencv(fountain, tmp_path):
    """Poses by OpenCV's solvePnPRansac from the reader's matches are Python's, within RANSAC's."""
    includes = [Path("/usr/include/opencv4"), Path("/usr/local/include/opencv4")]
    headers = [path for path in includes if (path / "opencv2" / "calib3d.hpp").is_file()]
    if not headers:
        pytest.skip("OpenCV's C++ headers (libopencv-calib3d-dev) are not installed")
    libraries = ("-lopencv_calib3d", "-lopencv_core")
    program = compiled("examples/solve_pnp.cpp", "-O0", f"-isystem{headers[0]}", *libraries)
    features, pairs = fountain / "feats-superpoint.h5", fountain / "pairs-query-vlad7.txt"
    path = tmp_path / "map.dpqed"
    compress.main(fountain / "sfm", features, path, codec="sign")
    queries = read_queries(fountain / "queries.txt")
    inputs = (path, fountain / "queries.txt", features)
    localize.main(*inputs, tmp_path / "r.txt", retrieval=pairs, ransac_thresh=4)
    expected = read_poses(tmp_path / "r.txt")
    retrieved = [line.split() for line in pairs.read_text().splitlines()]
    assert len(expected) == len(queries) == 4
    for name, camera in queries:
        with FeatureFile(features) as file:
            seen = file.read(name)
        assert camera.model.name == "PINHOLE"
        query = {
            "keypoints": seen.keypoints.astype(np.float32),
            "descriptors": np.ascontiguousarray(seen.descriptors, np.float32),
            "camera": np.array(camera.params, np.float64),
        }
        safetensors.numpy.save_file(query, tmp_path / "query.safetensors")
        images = [image for other, image in retrieved if other == name]
        argv = [program, path, tmp_path / "query.safetensors", *images]
        done = subprocess.run(argv, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        pose = np.array(done.stdout.split(), float).reshape(3, 4)
        translation, rotation = pose_error(pose, expected[Path(name).name])
        assert translation < 0.03 and rotation < 0.1  # metres, degrees
    done = subprocess.run([program, path], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_libfuzzer(tmp_path):
    """With clang, the same target guided by coverage, for a bounded count."""
    names = ["clang++", *(f"clang++-{version}" for version in range(20, 10, -1))]
    compiler = next((found for found in map(shutil.which, names) if found), None)
    if compiler is None:
        pytest.skip("clang++ is not installed: it has libFuzzer")
    flags = ["-std=c++17", "-O1", "-fsanitize=fuzzer,address,undefined"]
    flags += ["-fno-sanitize-recover=all", f"-I{READER / 'include'}"]
    program, corpus = tmp_path / "fuzz", tmp_path / "corpus"
    subprocess.run([compiler, *flags, READER / "tests/fuzz.cpp", "-o", program], check=True)
    corpus.mkdir()
    for path in [*GOLDEN, *(TESTS / "fuzz" / "corpus").iterdir()]:
        shutil.copy(path, corpus)
    argv = [program, "-runs=5000", "-seed=1", "-max_len=30000", "-timeout=20"]
    argv += ["-malloc_limit_mb=256", f"-artifact_prefix={tmp_path}/", corpus]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
