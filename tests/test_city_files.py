"""The synthetic city's files are what an hloc user has on disk."""

import sys
from pathlib import Path

import numpy as np
import pytest

from hloc_dpqed.evaluation.pose_errors import pose_error
from hloc_dpqed.io.features import FeatureFile
from hloc_dpqed.io.lists import read_pairs, read_poses, read_queries
from hloc_dpqed.io.model import read_observations, read_reference
from hloc_dpqed.scene.reference import Observations, normalise_rows

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import city_files
from city_files import TrackSampler, statistics, write_city
from synthetic_city import city


@pytest.fixture(scope="module")
def real() -> Observations:
    """Observations of 200 points, 3 each."""
    rng = np.random.default_rng(0)
    point = np.repeat(np.arange(200, dtype=np.int32), 3)
    rows = normalise_rows(rng.normal(size=(200, 32)))[point] + rng.normal(0, 0.05, (600, 32))
    one = np.ones(600, np.float32)
    rows = normalise_rows(rows).astype(np.float16)
    return Observations(rows, one, np.zeros((600, 2), np.float32), point, point, 200)


def test_the_files_are_those_of_the_city(real, tmp_path, monkeypatch):
    monkeypatch.setattr(city_files, "KEYPOINTS", 200)
    reference, observations = city(800, 120, 3000)
    sampler = TrackSampler(real, 800)
    for name in ("a", "b"):
        write_city(tmp_path / name, reference, observations, sampler, 3)
    folder = tmp_path / "a"
    for name in ("queries.txt", "pairs.txt", "poses_gt.txt", "sfm/points3D.bin"):
        assert (folder / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    read = read_reference(folder / "sfm")
    np.testing.assert_allclose(read.xyz, reference.xyz)
    np.testing.assert_array_equal(read.visibility.indices, reference.visibility.indices)
    for ours, theirs in zip(reference.cam_from_world, read.cam_from_world, strict=True):
        assert max(pose_error(ours, theirs)) < 1e-5
    described = read_observations(read, folder / "features.h5")
    np.testing.assert_allclose(described.keypoints, observations.keypoints)
    queries = read_queries(folder / "queries.txt")
    pairs = read_pairs(folder / "pairs.txt")
    poses = read_poses(folder / "poses_gt.txt")
    assert len(queries) == 3 and set(pairs) == {name for name, _ in queries}
    assert set(poses) == {Path(name).name for name, _ in queries}
    assert all(35 <= len(images) <= 50 for images in pairs.values())
    with FeatureFile(folder / "features.h5") as file:
        assert len(file.read(queries[0][0]).keypoints) == 200


def test_resampled_descriptors_are_like_the_real_ones(real):
    rows = {row[0]: float(row[2]) for row in statistics(real, 150)}
    assert rows["synthetic: same point"] == pytest.approx(rows["real: same point"], abs=0.05)
    assert rows["synthetic: random other point"] == pytest.approx(0, abs=0.15)
