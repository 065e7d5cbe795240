"""VLAD of a map's own descriptors: against its definition, and as a way to retrieve."""

import h5py
import numpy as np
import pytest
from synthetic import compressed_scene, make_scene, write_compressed_scene

from hloc_dpqed import localize
from hloc_dpqed.errors import InputError
from hloc_dpqed.evaluation.pose_errors import pose_error
from hloc_dpqed.io.lists import read_poses
from hloc_dpqed.localization.vlad import MapVlad, VladVocabulary, most_similar
from hloc_dpqed.threads import set_num_threads


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return make_scene(tmp_path_factory.mktemp("vlad"), dim=64)


def test_descriptors_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 16)).astype(np.float32)
    vocabulary = VladVocabulary.fit([x], 8)
    found = vocabulary.describe([x[:60], np.zeros((0, 16), np.float32)])
    expected = np.zeros((8, 16))
    for row in x[:60].astype(float):
        word = np.linalg.norm(vocabulary.words - row, axis=1).argmin()
        expected[word] += row - vocabulary.words[word]
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    expected = (expected / np.maximum(lengths, 1e-12)).ravel()
    np.testing.assert_allclose(found[0], expected / np.linalg.norm(expected), atol=1e-4)
    assert (found[1] == 0).all()


def test_the_most_similar_come_first_and_the_lowest_of_ties():
    database = np.eye(3, dtype=np.float32)[[0, 1, 0, 2]]
    assert most_similar(database[:1], database, 3).tolist() == [[0, 2, 1]]


@pytest.mark.parametrize("granularity", ["point", "observation"])
def test_a_database_image_retrieves_itself(scene, granularity):
    compressed = compressed_scene(scene, "sq8", 8, granularity)
    vlad = MapVlad(compressed)
    for image in range(compressed.num_images):
        x = compressed.codec.decode(compressed.codes[compressed.code_rows(image)])
        found = vlad.retrieve(x, 3)
        # By point, images that see the same points are the same, but for the last bits.
        same = np.abs(vlad.described - vlad.described[image]).max(1) < 1e-6
        assert len(found) == 3 and same[found[0]]


def test_threads_change_nothing(scene, threads):
    compressed = compressed_scene(scene, "sq8", 8)
    threads(1)
    one = MapVlad(compressed)
    threads(2)
    two = MapVlad(compressed)
    np.testing.assert_array_equal(one.described, two.described)
    set_num_threads(1)


def test_queries_are_localized_with_what_vlad_retrieves(scene, tmp_path):
    path = write_compressed_scene(scene, tmp_path / "m", with_global=False)
    run = (localize.main, path, scene.queries, scene.features)
    figures = run[0](*run[1:], tmp_path / "r.txt", "vlad", num_retrieved=4, progress=False)
    assert figures["num_localized"] == len(scene.query_names)
    truth = {name.split("/")[-1]: pose for name, pose in read_poses(scene.poses).items()}
    for name, pose in read_poses(tmp_path / "r.txt").items():
        assert pose_error(pose, truth[name])[0] < 0.1
    run[0](*run[1:], tmp_path / "again.txt", "vlad", num_retrieved=4, progress=False)
    assert (tmp_path / "again.txt").read_bytes() == (tmp_path / "r.txt").read_bytes()


def test_a_query_without_features_and_features_of_another_dimension(scene, tmp_path):
    path = write_compressed_scene(scene, tmp_path / "m", with_global=False)
    features = tmp_path / "f.h5"
    with h5py.File(scene.features, "r") as old, h5py.File(features, "w") as new:
        for name in scene.query_names:
            new.require_group(name.rsplit("/", 1)[0])
            old.copy(old[name], new, name)
        empty = new[scene.query_names[0]]
        for key, value in (("keypoints", (0, 2)), ("descriptors", (64, 0)), ("scores", (0,))):
            del empty[key]
            empty[key] = np.zeros(value, np.float32)
    figures = localize.main(
        path, scene.queries, features, tmp_path / "r.txt", "vlad", progress=False
    )
    assert figures["num_localized"] == len(scene.query_names) - 1
    other = make_scene(tmp_path / "other", dim=32)
    with pytest.raises(InputError, match="32 dimensions"):
        localize.main(
            path, scene.queries, other.features, tmp_path / "r2.txt", "vlad", progress=False
        )
    assert not (tmp_path / "r2.txt").exists()
