"""Unknown focal lengths are estimated with the poses."""

import json

import numpy as np
import pycolmap
import pytest
from moved_maps import moved_map, moved_pose
from synthetic import compressed_scene
from test_rigs import errors, frames_of, run, scene  # noqa: F401 (a fixture)

from hloc_dpqed.errors import InputError
from hloc_dpqed.localization.intrinsics import check_estimate_focal, copy_camera, has_focal
from hloc_dpqed.localization.localizer import Localizer, Query


def with_focal(camera: pycolmap.Camera, times: float) -> pycolmap.Camera:
    other = copy_camera(camera)
    other.focal_length = times * camera.focal_length
    return other


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("times", [0.6, 1.0, 1.7])
def test_focal_length_is_found(scene, moved, times):  # noqa: F811
    compressed = compressed_scene(scene, with_global=False)
    frames, truth = frames_of(scene, compressed)
    if moved:
        compressed = moved_map(compressed)
        truth = {name: moved_pose(pose) for name, pose in truth.items()}
    localizer = Localizer(compressed, estimate_focal=True)
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
    with pytest.raises(InputError, match="--pose_estimator pycolmap"):
        check_estimate_focal(True, "poselib", rigs=False)
    check_estimate_focal(False, "poselib", rigs=True)


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
