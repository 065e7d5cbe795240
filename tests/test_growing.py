"""append, merge, prune and remove on files: what is in the map afterwards, and what is refused."""

import shutil

import h5py
import numpy as np
import pytest
from grown_maps import part_of
from synthetic import make_scene

from hloc_dpqed import append, cli, compress, fit_codec as fit_stage, merge, prune, remove
from hloc_dpqed.errors import InputError
from hloc_dpqed.io.lists import read_poses
from hloc_dpqed.io.model import read_reference
from hloc_dpqed.mapfile import read_map


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return make_scene(tmp_path_factory.mktemp("growing"), num_points=200, dim=16)


@pytest.fixture(scope="module")
def codec(scene):
    path = scene.folder / "codec.safetensors"
    options = {"bits": [6] * 4 + [8]}
    fit_stage.main(
        [scene.sfm], [scene.features], path, "nested", codec_options=options, progress=False
    )
    return path


@pytest.fixture(scope="module")
def parts(scene):
    """Models of the first and the last five of the seven images."""
    names = sorted(scene.db_names)
    return [
        part_of(scene, set(chosen), scene.folder / name)
        for name, chosen in (("first", names[:5]), ("last", names[-5:]))
    ]


@pytest.fixture(scope="module")
def maps(scene, codec, parts):
    found = []
    for name, model in zip(("whole", "a", "b"), (scene.sfm, *parts), strict=True):
        path = scene.folder / f"{name}.dpqed"
        compress.main(model, scene.features, path, codec_file=codec, progress=False)
        found.append(path)
    return found


def test_append_gives_the_map_of_the_whole_model(scene, codec, maps, tmp_path):
    whole, a, _ = (read_map(path, codec) for path in maps)
    output = tmp_path / "grown.dpqed"
    append.main(maps[1], scene.sfm, scene.features, output, codec_file=codec, progress=False)
    grown = read_map(output, codec)
    assert grown.image_names == whole.image_names
    assert abs(grown.num_places - whole.num_points) <= 0.02 * whole.num_points
    observations = whole.visibility.num_observations
    assert abs(grown.visibility.num_observations - observations) <= 0.02 * observations
    # What was in the map is there unchanged, but for the file's grid of coordinates.
    old = {tuple(code) for code in a.codes.tolist()}
    assert old <= {tuple(code) for code in grown.codes.tolist()}
    assert localized(scene, output, codec, tmp_path) == localized(scene, maps[0], codec, tmp_path)


def test_features_of_other_keypoints_are_refused(scene, codec, maps, tmp_path):
    shuffled = tmp_path / "feats-shuffled.h5"
    shutil.copy(scene.features, shuffled)
    rng = np.random.default_rng(0)
    with h5py.File(shuffled, "r+") as file:
        for name in read_reference(scene.sfm).image_names:
            descriptors = file[name]["descriptors"]
            descriptors[:] = descriptors[:][:, rng.permutation(descriptors.shape[1])]
    output = tmp_path / "grown.dpqed"
    with pytest.raises(InputError, match="do not describe the map's points"):
        append.main(maps[1], scene.sfm, shuffled, output, codec_file=codec, progress=False)
    assert not output.exists()


def test_append_twice_adds_nothing(scene, codec, maps, tmp_path):
    output = tmp_path / "same.dpqed"
    append.main(maps[0], scene.sfm, scene.features, output, codec_file=codec, progress=False)
    whole, again = read_map(maps[0], codec), read_map(output, codec)
    assert again.num_points == whole.num_points
    np.testing.assert_array_equal(np.sort(again.codes, 0), np.sort(whole.codes, 0))


def test_append_leaves_dropped_points_out(scene, codec, tmp_path):
    """A point that was left out of the map, and that no new image sees, stays out."""
    small, output = tmp_path / "small.dpqed", tmp_path / "grown.dpqed"
    compress.main(scene.sfm, scene.features, small, codec_file=codec, num_points=50, progress=False)
    append.main(small, scene.sfm, scene.features, output, codec_file=codec, progress=False)
    assert read_map(output, codec).num_points == 50


def test_merge_gives_the_map_of_the_whole_model(scene, codec, maps, tmp_path):
    outputs = [tmp_path / "ab.dpqed", tmp_path / "ba.dpqed"]
    merge.main(maps[1], maps[2], outputs[0], codec_file=codec)
    merge.main(maps[2], maps[1], outputs[1], codec_file=codec)
    whole = read_map(maps[0], codec)
    ab, ba = (read_map(path, codec) for path in outputs)
    assert ab.image_names == ba.image_names == whole.image_names
    ids = [
        set(read_reference(scene.folder / name).point_ids.tolist()) for name in ("first", "last")
    ]
    assert len(ids[0] | ids[1]) <= ab.num_points <= 1.02 * whole.num_points
    assert ab.num_points == ba.num_points
    assert sorted(map(tuple, ab.codes)) == sorted(map(tuple, ba.codes))


def test_prune_needs_no_features(scene, codec, maps, tmp_path):
    output = tmp_path / "pruned.dpqed"
    size = maps[0].stat().st_size
    prune.main(maps[0], output, budget=size - 800, codec_file=codec)
    assert 0.9 * (size - 800) <= output.stat().st_size <= size - 800
    prune.main(maps[0], output, num_points=70, code_bytes=2, codec_file=codec, overwrite=True)
    pruned, whole = read_map(output, codec), read_map(maps[0], codec)
    assert pruned.num_points == 70 and pruned.codec.code_size == 2
    assert {tuple(c) for c in pruned.codes} <= {tuple(c) for c in whole.codes[:, :2]}
    prune.main(maps[0], output, budget="10MB", codec_file=codec, overwrite=True)
    assert read_map(output, codec).num_points == whole.num_points
    with pytest.raises(InputError, match="nothing fits, the map with one point has"):
        prune.main(maps[0], output, budget=500, codec_file=codec, overwrite=True)


def test_remove_and_append_again(scene, codec, maps, tmp_path):
    name = sorted(scene.db_names)[3]
    less, again = tmp_path / "less.dpqed", tmp_path / "again.dpqed"
    remove.main(maps[0], [name], less, codec_file=codec)
    assert name not in read_map(less, codec).image_names
    append.main(less, scene.sfm, scene.features, again, codec_file=codec, progress=False)
    whole, back = read_map(maps[0], codec), read_map(again, codec)
    assert back.image_names == whole.image_names
    assert abs(back.num_places - whole.num_points) <= 0.02 * whole.num_points


@pytest.mark.parametrize(
    "change",
    [
        ["merge", "a", "other"],
        ["append", "a", "--reference_sfm", "none", "--features", "none"],
        ["prune", "a"],
        ["prune", "a", "--budget", "1MB", "--num_points", "3"],
        ["prune", "a", "--num_points", "0"],
        ["prune", "a", "--code_bytes", "9"],
        ["remove", "a", "--images", "no.jpg"],
    ],
    ids=" ".join,
)
def test_mistakes_are_one_line(scene, codec, maps, tmp_path, capsys, change):
    named = {"a": str(maps[1]), "other": str(tmp_path / "no.dpqed")}
    argv = [named.get(word, word) for word in change]
    output = tmp_path / "out.dpqed"
    argv += ["--codec_file", str(codec), "--output", str(output)]
    assert cli.main(argv) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not output.exists()


def localized(scene, path, codec, tmp_path) -> list[str]:
    results = tmp_path / f"{path.stem}.txt"
    argv = ["localize", "--map", path, "--queries", scene.queries, "--features", scene.features]
    argv += ["--retrieval", scene.pairs, "--results", results, "--codec_file", codec]
    argv += ["--full_names", "--overwrite"]
    assert cli.main([*map(str, argv)]) == 0
    return sorted(read_poses(results))
