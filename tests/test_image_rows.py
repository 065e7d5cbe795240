import dataclasses

import numpy as np
import pycolmap
import pytest
from synthetic import compressed_scene, make_scene

from hloc_dpqed.errors import InputError
from hloc_dpqed.maps.image_rows import check_matchable, image_rows


@pytest.fixture(scope="module")
def compressed(tmp_path_factory):
    return compressed_scene(make_scene(tmp_path_factory.mktemp("rows")))


def test_keypoints_are_projections_minus_half_a_pixel(compressed):
    for i in range(compressed.num_images):
        points, keypoints, codes = image_rows(compressed, i)
        camera = compressed.cameras[compressed.camera_index[i]]
        pose = pycolmap.Rigid3d(compressed.cam_from_world[i])
        expected = [camera.img_from_cam(pose * compressed.xyz[p]) - 0.5 for p in points]
        assert keypoints.dtype == np.float32
        np.testing.assert_allclose(keypoints, expected, atol=1e-3)
        np.testing.assert_array_equal(codes, points)  # one code for each point
        assert (np.diff(points) > 0).all()


def test_keypoints_agree_with_the_detected_ones(tmp_path):
    """The synthetic keypoints are exact, so an error of half a pixel cannot hide."""
    from hloc_dpqed.io.model import read_observations, read_reference

    scene = make_scene(tmp_path)
    reference = read_reference(scene.sfm)
    detected = read_observations(reference, scene.features).keypoints
    compressed = compressed_scene(scene)
    for i in range(compressed.num_images):
        rows = slice(reference.visibility.indptr[i], reference.visibility.indptr[i + 1])
        keypoints = image_rows(compressed, i).keypoints
        np.testing.assert_allclose(keypoints, detected[rows], atol=2e-3)


def test_rows_that_do_not_project_are_left_out(compressed):
    points = image_rows(compressed, 0).points
    xyz = compressed.xyz.copy()
    pose = pycolmap.Rigid3d(compressed.cam_from_world[0])
    centre = pose.inverse().translation
    xyz[points[0]] = 2 * centre - xyz[points[0]]  # behind the camera
    xyz[points[1]] = np.nan
    xyz[points[2]] = pose.inverse() * np.array([50.0, 0.0, 1.0])  # far outside the image
    moved = dataclasses.replace(compressed, xyz=xyz)
    left = image_rows(moved, 0)
    np.testing.assert_array_equal(left.points, points[3:])
    np.testing.assert_array_equal(left.codes, left.points)


def test_codes_of_observations(tmp_path):
    compressed = compressed_scene(make_scene(tmp_path), granularity="observation")
    for i in range(compressed.num_images):
        rows = image_rows(compressed, i)
        np.testing.assert_array_equal(compressed.visibility.indices[rows.codes], rows.points)
        assert (compressed.visibility.image_of_observation()[rows.codes] == i).all()


def test_too_many_rows_for_int16_matches():
    check_matchable("a.jpg", 32_767)
    with pytest.raises(InputError, match=r"'db/a.jpg' has 32,768 rows.*32,767"):
        check_matchable("db/a.jpg", 32_768)
