"""The compression job: the same bytes each time, budgets, and kills."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from synthetic import Scene, make_scene

from hloc_dpqed import compress
from hloc_dpqed.codecs import CODECS, fit_codec
from hloc_dpqed.compression.conf import CompressConf
from hloc_dpqed.compression.engine import Compressor
from hloc_dpqed.compression.global_descriptors import encode_global_descriptors
from hloc_dpqed.errors import InputError
from hloc_dpqed.io.features import read_global_descriptors
from hloc_dpqed.io.model import read_observations, read_reference
from hloc_dpqed.mapfile import read_map, to_bytes
from hloc_dpqed.scene.reference import mean_scores, normalise_rows
from hloc_dpqed.selection import SELECTORS, SelectionProblem, select_points

QUICK = {"dpqed": {"steps": 5}, "drqed": {"steps": 5}}  # enough to see whether bytes repeat


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("compress"), num_points=120, dim=32)


@pytest.fixture(scope="module")
def reference(scene):
    return read_reference(scene.sfm)


@pytest.fixture(scope="module")
def observations(scene, reference):
    return read_observations(reference, scene.features)


def make(scene, output, **options) -> bytes:
    options = {"codec": "pq", "progress": False, "threads": 1, **options}
    codec_options = QUICK.get(options["codec"])
    compress.main(scene.sfm, scene.features, output, codec_options=codec_options, **options)
    return output.read_bytes()


def test_what_is_kept_is_what_was_there(scene, reference, observations, tmp_path):
    make(scene, tmp_path / "m", codec="none", num_points=50, selector="track_length")
    stored = read_map(tmp_path / "m")
    assert stored.num_points == 50 and stored.metadata["conf"]["selector"] == "track_length"
    features = {"dim": 32, "name": "feats-synthetic", "keypoint_uncertainty": 2.0}
    assert stored.metadata["features"] == features
    # Each stored point is a point of the model, up to the rounding of its coordinates.
    distance = np.linalg.norm(stored.xyz[:, None] - reference.xyz[None], axis=2)
    rows = distance.argmin(1)
    assert distance.min(1).max() < 1e-2 and len(set(rows)) == 50
    for i, name in enumerate(stored.image_names):
        seen = set(reference.visibility[reference.image_names.index(name)].tolist())
        assert {int(rows[p]) for p in stored.visibility[i]} == seen & set(rows.tolist())
    descriptors = stored.codec.decode(stored.codes)
    for point in range(50):
        own = observations.point_index == rows[point]
        mean = normalise_rows(observations.descriptors[own].astype(float).sum(0)[None])[0]
        np.testing.assert_allclose(descriptors[point], mean, atol=2e-3)
    np.testing.assert_allclose(stored.scores, mean_scores(observations)[rows], atol=0.02)


@pytest.mark.parametrize("granularity", ["point", "observation"])
def test_every_budget_is_kept(reference, observations, granularity):
    conf = CompressConf("track_length", "pq", 4, granularity)
    codec = fit_codec("pq", observations, 4)
    compressor = Compressor(reference, observations, conf, codec=codec)
    everything = len(to_bytes(compressor.compress(reference.num_points)))
    smallest = len(to_bytes(compressor.compress(1)))
    last = 0
    for budget in np.linspace(smallest, everything + 10, 4).astype(int).tolist():
        kept, data = compressor.fit_budget(budget, "total")
        assert len(data) <= budget
        assert kept.num_points >= last
        last = kept.num_points
    assert last == reference.num_points
    with pytest.raises(InputError, match="nothing fits, the smallest possible map"):
        compressor.fit_budget(smallest - 1, "total")
    for budget in (4, 50, 400, 10**6):
        if granularity == "observation" and budget < 400:
            continue
        kept, _ = compressor.fit_budget(budget, "codes")
        assert 0 < kept.codes.nbytes <= budget
        if granularity == "point":
            assert kept.num_points == min(budget // 4, reference.num_points)


def test_global_descriptors(scene, reference, tmp_path):
    make(scene, tmp_path / "m", global_features=scene.global_features)
    stored = read_map(tmp_path / "m")
    decoded = stored.global_descriptors.codec.decode(stored.global_descriptors.codes)
    expected = read_global_descriptors(scene.global_features, stored.image_names)
    np.testing.assert_allclose(decoded, expected, atol=1e-3)


def test_global_descriptors_of_many_images_are_quantized():
    rng = np.random.default_rng(0)
    few = normalise_rows(rng.standard_normal((20, 64)))
    many = normalise_rows(rng.standard_normal((2000, 64)))
    assert encode_global_descriptors(few, 0).codec.name == "none"
    quantized = encode_global_descriptors(many, 0)
    assert quantized.codec.name == "pq" and quantized.codes.nbytes < many.nbytes / 8
    decoded = quantized.codec.decode(quantized.codes)
    assert (decoded * many).sum(1).mean() > 0.8


def test_arguments_of_the_python_main(scene, tmp_path):
    for options, told in [
        ({"granularity": "image"}, "--granularity image"),
        ({"budget": 1000, "budget_scope": "half"}, "--budget_scope half"),
        ({"selector": "nobody"}, "--selector nobody: unknown"),
        ({"codec": "nobody"}, "--codec nobody: unknown"),
    ]:
        with pytest.raises(InputError, match=told):
            make(scene, tmp_path / "m", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("codec", CODECS)
def test_the_seed_decides(scene, tmp_path, codec):
    options = {"codec": codec, "selector": "random", "num_points": 40}
    one = make(scene, tmp_path / "1", seed=0, **options)
    assert one == make(scene, tmp_path / "2", seed=0, **options)
    assert one != make(scene, tmp_path / "3", seed=1, **options)


@pytest.mark.parametrize("name", [n for n in SELECTORS if n != "all"])
def test_selection_with_any_number_of_threads(reference, observations, threads, name):
    problem = SelectionProblem.from_reference(reference, observations)
    rows = []
    for count in (1, 2, 3):
        threads(count)
        rows.append(select_points(problem, name, 40, seed=3))
    np.testing.assert_array_equal(rows[0], rows[1])
    np.testing.assert_array_equal(rows[0], rows[2])


@pytest.mark.parametrize("name", CODECS)
def test_codes_with_any_number_of_threads(observations, threads, name):
    codec = fit_codec(name, observations, 4, **QUICK.get(name, {}))
    results = []
    for count in (1, 2, 3):
        threads(count)
        codes = codec.encode_points(observations)
        own = codec.encode(observations.descriptors.astype(np.float32))
        many = np.resize(codes, (3000, codec.code_size))  # more than one block
        results.append((codes, own, codec.decode(many)))
    for other in results[1:]:
        for ours, theirs in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", CODECS)
def test_fits_with_any_number_of_threads(observations, threads, name):
    fitted = []
    for count in (1, 2, 3):
        threads(count)
        fitted.append(fit_codec(name, observations, 4, **QUICK.get(name, {})).tensors())
    for other in fitted[1:]:
        assert fitted[0].keys() == other.keys()
        for key, values in fitted[0].items():
            np.testing.assert_array_equal(values, other[key])


def hashes_of_all(scene: Scene, folder: Path) -> list[str]:
    """A line for each codec and selector, with the hash of the map that it makes."""
    made = {codec: {"codec": codec} for codec in sorted(CODECS)}
    for selector in sorted(SELECTORS):
        made[selector] = {"selector": selector, "num_points": 120 if selector == "all" else 40}
    return [
        f"{name} {hashlib.sha256(make(scene, folder / name, **options)).hexdigest()}"
        for name, options in made.items()
    ]


def test_separate_processes_write_the_same_bytes(scene, tmp_path):
    """Another process, whose dictionaries and sets are ordered differently."""
    for path in (scene.sfm, scene.features):
        (tmp_path / path.name).symlink_to(path)
    code = (
        "import sys; from pathlib import Path; from test_compress import *\n"
        "folder = Path(sys.argv[1])\n"
        "lines = hashes_of_all(Scene(folder, (), ()), folder)\n"
        "(folder / 'hashes.txt').write_text('\\n'.join(lines))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=environment(PYTHONHASHSEED="1"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (tmp_path / "own").mkdir()
    own = hashes_of_all(scene, tmp_path / "own")
    assert (tmp_path / "hashes.txt").read_text().splitlines() == own
    assert len(own) == len(CODECS) + len(SELECTORS)


def environment(**more) -> dict[str, str]:
    """This process' environment, with the tests and the package on the path."""
    import os

    here = Path(__file__).resolve().parent
    path = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, **more}


TRIALS = [5, pytest.param(50, marks=pytest.mark.slow)]


def killed(**job) -> dict:
    """What ``killing.py`` saw."""
    script = Path(__file__).parent / "killing.py"
    done = subprocess.run(
        [sys.executable, str(script), json.dumps({"seed": 0, **job})],
        env=environment(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("trials", TRIALS)
def test_killed_at_any_moment(scene, tmp_path, trials):
    """The output is the old one or the new one, never a part."""
    output = tmp_path / "map.dpqed"
    argv = ["compress", "--reference_sfm", str(scene.sfm), "--features", str(scene.features),
            "--output", str(output), "--codec", "pq", "--overwrite", "--threads", "1"]  # fmt: skip
    seen = killed(argv=argv, output=str(output), old="old", trials=trials)
    assert set(seen["seen"]) <= {"old", "new"}
    assert seen["last_status"] == 0 and seen["last_is_new"]
    others = [path.name for path in tmp_path.iterdir() if path != output]
    assert all(name.startswith(".map.dpqed.") and name.endswith(".tmp") for name in others)


@pytest.mark.parametrize("trials", TRIALS)
def test_an_interrupted_fit_continues(scene, tmp_path, trials):
    """Planned and filled to a budget, with several fits: killed, it ends with the same bytes."""
    output = tmp_path / "map.dpqed"
    argv = ["compress", "--reference_sfm", str(scene.sfm), "--features", str(scene.features),
            "--output", str(output), "--budget", "9KB", "--overwrite",
            "--threads", "1"]  # fmt: skip
    seen = killed(argv=argv, output=str(output), old=None, trials=trials)
    assert set(seen["seen"]) <= {"old", "new"}
    assert seen["last_status"] == 0 and seen["last_is_new"] and not seen["part_is_left"]
    if trials >= 50:
        assert seen["continued"] > 0


def test_codes_do_not_depend_on_what_was_compressed_before(reference, observations):
    """Targets are sharpened among all points of the map, once."""
    conf = CompressConf("kcover", "drqed", 2, codec_options={"steps": 3}, codec_train="all")
    grown = Compressor(reference, observations, conf)
    grown.compress(20)
    fresh = Compressor(reference, observations, conf)
    assert grown.to_bytes(grown.compress(100)) == fresh.to_bytes(fresh.compress(100))


@pytest.mark.parametrize(
    "codec, granularity, given, sharpens",
    [
        ("drqed", "point", None, True),
        ("drqed", "observation", None, False),
        ("drqed", "point", "mean", False),
        ("pq", "point", None, False),
        ("pq", "point", "sharpened", True),
        ("pq", "observation", "sharpened", False),
    ],
)
def test_what_codes_aim_at(reference, observations, codec, granularity, given, sharpens):
    conf = CompressConf("all", codec, 2, granularity, code_targets=given)
    assert conf.sharpens == sharpens
    if codec == "pq":
        compressor = Compressor(reference, observations, conf)
        compressed = compressor.compress(reference.num_points)
        assert bool(compressor.kept._sharpened) == sharpens
        assert compressed.metadata["conf"].get("code_targets") == given


def test_unknown_targets_are_refused(scene, tmp_path):
    with pytest.raises(InputError, match="--code_targets median: expected one of mean, sharpened"):
        compress.main(
            scene.sfm, scene.features, tmp_path / "m.dpqed", code_targets="median", progress=False
        )
    assert not list(tmp_path.iterdir())
