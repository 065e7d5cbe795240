"""Projections of a map's points, for every camera model."""

import numpy as np
import pycolmap
import pytest
from scipy.spatial.transform import Rotation

from hloc_dpqed.localization.pose import (
    POSE_ESTIMATORS,
    POSELIB_MODELS,
    estimate_pose_best_first,
    estimation_options,
)
from hloc_dpqed.scene.projection import project_points, too_far

MODELS = [m for m in pycolmap.CameraModelId.__members__ if m != "INVALID"]


def camera_of(model: str) -> pycolmap.Camera:
    create = getattr(pycolmap.Camera, "create_from_model_id", None) or pycolmap.Camera.create
    return create(1, pycolmap.CameraModelId.__members__[model], 500.0, 1000, 500)


def some_points(count=200):
    rng = np.random.default_rng(0)
    return rng.uniform(-5, 5, (count, 3))


POSE = np.c_[Rotation.from_euler("xyz", [5, 10, 15], degrees=True).as_matrix(), [0.1, 0.2, 0.3]]


@pytest.mark.parametrize("model", MODELS)
def test_each_point_as_alone(model):
    camera, points = camera_of(model), some_points()
    xy, visible = project_points(points, camera, POSE)
    assert xy.shape == (200, 2) and visible.any() and not np.isnan(xy[visible]).any()
    pose = pycolmap.Rigid3d(POSE)
    for k, point in enumerate(points):
        alone = camera.img_from_cam(pose * point)
        behind = (pose * point)[2] <= 0 and model != "EQUIRECTANGULAR"
        if visible[k]:
            np.testing.assert_allclose(xy[k], alone, atol=1e-9)
            assert not behind and 0 <= xy[k, 0] <= 1000 and 0 <= xy[k, 1] <= 500
        else:
            inside = alone is not None and ((alone >= 0) & (alone <= [1000, 500])).all()
            assert behind or not inside


def test_a_panorama_looks_everywhere():
    if "EQUIRECTANGULAR" not in MODELS:
        pytest.skip("this pycolmap has no panoramas")
    assert project_points(some_points(), camera_of("EQUIRECTANGULAR"), POSE)[1].all()


def test_no_point():
    xy, visible = project_points(np.zeros((0, 3)), camera_of("PINHOLE"), POSE)
    assert xy.shape == (0, 2) and visible.shape == (0,)


@pytest.mark.parametrize("estimator", POSE_ESTIMATORS)
@pytest.mark.parametrize("model", MODELS)
def test_queries_of_every_camera_model_are_localized(model, estimator):
    pytest.importorskip(estimator)
    if estimator == "poselib" and model not in POSELIB_MODELS:
        pytest.skip("not of poselib's cameras")
    camera, points = camera_of(model), some_points()
    xy, visible = project_points(points, camera, POSE)
    options = estimation_options(2, None)
    xy, points = xy[visible], points[visible]
    found = estimate_pose_best_first(xy, points, np.arange(len(xy)), camera, options, 1, estimator)
    assert found["num_inliers"] == len(xy) > 20
    np.testing.assert_allclose(found["cam_from_world"].matrix(), POSE, atol=1e-4)


def test_what_is_too_far():
    rng = np.random.default_rng(1)
    xyz, centres = rng.uniform(-1, 1, (50, 3)), rng.uniform(-1, 1, (5, 3))
    positions = np.array([[0, 0, 0], [1e5, 0, 0], [0, 0, 1e8]])
    assert too_far(positions, xyz, centres).tolist() == [False, False, True]
    moved = np.array([5e5, 4e6, 3e6])
    assert too_far(positions + moved, xyz + moved, centres + moved).tolist() == [0, 0, 1]
    # No size to compare with: nothing is too far.
    assert not too_far(positions, xyz[:0], centres).any()
    assert not too_far(positions, xyz, centres[:0]).any()
    assert not too_far(positions, np.tile(centres[:1], (4, 1)), centres[:1]).any()
