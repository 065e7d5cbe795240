"""Unknown focal lengths are estimated with the poses."""

import json
import shutil

import h5py
import numpy as np
import pycolmap
import pytest
from moved_maps import moved_map, moved_pose
from synthetic import compressed_scene
from test_rigs import errors, frames_of, run, scene  # noqa: F401 (a fixture)

from hloc_dpqed import localize
from hloc_dpqed.choices import POSE_ESTIMATORS
from hloc_dpqed.errors import InputError
from hloc_dpqed.io.lists import read_poses
from hloc_dpqed.localization.focal import ransac_focal
from hloc_dpqed.localization.intrinsics import (
    check_estimate_focal,
    copy_camera,
    guess_camera,
    has_focal,
)
from hloc_dpqed.localization.localizer import Localizer, Query


def with_focal(camera: pycolmap.Camera, times: float) -> pycolmap.Camera:
    other = copy_camera(camera)
    other.focal_length = times * camera.focal_length
    return other


@pytest.mark.parametrize("estimator", POSE_ESTIMATORS)
@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("times", [0.6, 1.0, 1.7])
def test_focal_length_is_found(scene, moved, times, estimator):  # noqa: F811
    if estimator == "poselib":
        pytest.importorskip("poselib")
    compressed = compressed_scene(scene, with_global=False)
    frames, truth = frames_of(scene, compressed)
    if moved:
        compressed = moved_map(compressed)
        truth = {name: moved_pose(pose) for name, pose in truth.items()}
    localizer = Localizer(compressed, estimate_focal=True, pose_estimator=estimator)
    for query in frames[0].queries:
        camera = with_focal(query.camera, times)
        before = camera.params.copy()
        asked = Query(query.name, camera, query.features, query.retrieved)
        outcome = localizer.localize(asked)
        np.testing.assert_array_equal(camera.params, before)  # the query's own is as it was
        assert outcome.camera.focal_length == pytest.approx(query.camera.focal_length, rel=0.01)
        away, turn = errors(outcome.cam_from_world, truth[query.name])
        assert away < 0.1 and turn < 0.5
        assert np.isfinite(outcome.covariance).all()
        if times == 1.0:
            known = Localizer(compressed).localize(asked)
            assert known.camera is None
            assert known.num_inliers >= 0.95 * outcome.num_inliers


def test_what_it_does_not_go_with(scene):  # noqa: F811
    compressed = compressed_scene(scene, with_global=False)
    frames, _ = frames_of(scene, compressed)
    with pytest.raises(InputError, match="excludes --rigs"):
        Localizer(compressed, estimate_focal=True).localize_rig(frames[0])
    check_estimate_focal(False, rigs=True)


@pytest.mark.parametrize("estimator", POSE_ESTIMATORS)
@pytest.mark.parametrize("told", [0.3, 0.95, 1.0, 1.05, 3.0])
def test_what_tells_a_focal_length_may_be_wrong(scene, told, estimator):  # noqa: F811
    """A little off is refined, far off is found without it."""
    if estimator == "poselib":
        pytest.importorskip("poselib")
    compressed = compressed_scene(scene, with_global=False)
    frames, truth = frames_of(scene, compressed)
    localizer = Localizer(compressed, estimate_focal=True, pose_estimator=estimator)
    query = frames[0].queries[0]
    camera = with_focal(query.camera, told)
    camera.has_prior_focal_length = True
    outcome = localizer.localize(Query(query.name, camera, query.features, query.retrieved))
    assert outcome.camera.focal_length == pytest.approx(query.camera.focal_length, rel=0.01)
    away, turn = errors(outcome.cam_from_world, truth[query.name])
    assert away < 0.1 and turn < 0.5


def test_no_solver_of_focal_lengths(monkeypatch):
    poselib = pytest.importorskip("poselib")
    monkeypatch.delattr(poselib, "p4pf")
    camera = guess_camera(640, 480)
    points = np.random.default_rng(0).normal(size=(9, 3))
    with pytest.raises(InputError, match=r"install 2\.0\.5 or newer"):
        ransac_focal(points[:, :2], points, camera, {}, 0)


def test_matches_without_a_pose():
    pytest.importorskip("poselib")
    rng = np.random.default_rng(0)
    ransac = {"max_error": 1.0, "min_num_trials": 1, "max_num_trials": 200, "confidence": 0.99}
    points = rng.normal(size=(40, 3))
    pixels = rng.uniform(0, 480, (40, 2))
    found = [ransac_focal(pixels, points, guess_camera(640, 480), ransac, 1) for _ in range(2)]
    assert found[0] is None or (found[0][1] == found[1][1] and 160 <= found[0][1] <= 12800)
    assert ransac_focal(pixels[:3], points[:3], guess_camera(640, 480), ransac, 1) is None


def test_focal_lengths_that_cannot_be():
    camera = pycolmap.Camera(model="SIMPLE_PINHOLE", width=100, height=50, params=[100, 50, 25])
    assert has_focal(camera)
    assert not has_focal(with_focal(camera, 0.1)) and not has_focal(with_focal(camera, 50))
    assert not has_focal(with_focal(camera, -1)) and not has_focal(with_focal(camera, np.nan))


def test_command(scene, tmp_path):  # noqa: F811
    compressed = compressed_scene(scene, with_global=False)
    lines = [line.split() for line in scene.queries.read_text().splitlines()]
    true = {line[0]: float(line[4]) for line in lines}
    for line in lines:
        line[4] = str(1.5 * float(line[4]))
    guessed = tmp_path / "guessed.txt"
    guessed.write_text("\n".join(" ".join(line) for line in lines))
    path, model = tmp_path / "lines.jsonl", tmp_path / "sfm"
    figures, _ = run(
        scene, compressed, tmp_path, guessed, estimate_focal=True, results_jsonl=path,
        results_sfm=model,
    )  # fmt: skip
    assert figures["num_localized"] == 5
    for line in map(json.loads, path.read_text().splitlines()):
        assert line["camera"]["params"][0] == pytest.approx(true[line["name"]], rel=0.02)
    written = pycolmap.Reconstruction(str(model))
    for image in written.images.values():
        if image.name in true:
            found = written.cameras[image.camera_id].focal_length
            assert found == pytest.approx(true[image.name], rel=0.02)


def test_a_list_of_names_is_enough(scene, tmp_path):  # noqa: F811
    """--camera auto: only the size of the images is known, from the features."""
    compressed = compressed_scene(scene, with_global=False)
    lines = [line.split() for line in scene.queries.read_text().splitlines()]
    names = tmp_path / "names.txt"
    names.write_text("\n".join([lines[0][0], *(" ".join(line) for line in lines[1:])]))
    path = tmp_path / "lines.jsonl"
    figures, results = run(scene, compressed, tmp_path, names, camera="auto", results_jsonl=path)
    assert figures["num_localized"] == 5
    true = {line[0]: float(line[4]) for line in lines}
    for line in map(json.loads, path.read_text().splitlines()):
        assert line["camera"]["model"] == "SIMPLE_RADIAL"
        assert line["camera"]["params"][0] == pytest.approx(true[line["name"]], rel=0.03)
    truth = read_poses(scene.poses)
    for name, pose in read_poses(results).items():
        away, turn = errors(pose, truth[name])
        assert away < 0.2 and turn < 1
    no_size = tmp_path / "no_size.h5"
    shutil.copyfile(scene.features, no_size)
    with h5py.File(no_size, "a") as file:
        del file[f"{lines[0][0]}/image_size"]
    with pytest.raises(InputError, match="tells no image_size of"):
        localize.main(
            tmp_path / "map.dpqed", names, no_size, tmp_path / "r.txt", "none", camera="auto"
        )
    names.write_text("# nothing\n")
    with pytest.raises(InputError, match="holds no name"):
        run(scene, compressed, tmp_path, names, "nothing", camera="auto")
