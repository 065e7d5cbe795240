import dataclasses

import numpy as np
import pycolmap
import pytest
from synthetic import compressed_scene, make_scene

from hloc_dpqed.io.model import reference_from_reconstruction
from hloc_dpqed.maps.image_rows import image_rows
from hloc_dpqed.maps.reconstruction import to_reconstruction


@pytest.fixture(scope="module")
def compressed(tmp_path_factory):
    return compressed_scene(make_scene(tmp_path_factory.mktemp("model")))


@pytest.mark.parametrize("on_disk", [False, True])
def test_says_what_the_map_says(compressed, tmp_path, on_disk):
    model = to_reconstruction(compressed)
    if on_disk:
        model.write(tmp_path)
        model = pycolmap.Reconstruction(tmp_path)
    assert len(model.points3D) == compressed.num_points
    names = {image.name: image for image in model.images.values()}
    for i, name in enumerate(compressed.image_names):
        image, rows = names[name], image_rows(compressed, i)
        assert image.has_pose
        ids = np.array([p.point3D_id for p in image.points2D])
        np.testing.assert_array_equal(ids, rows.points + 1)
        xy = np.array([p.xy for p in image.points2D])
        np.testing.assert_allclose(xy - 0.5, rows.keypoints, atol=1e-4)
        np.testing.assert_allclose(
            image.cam_from_world().matrix(), compressed.cam_from_world[i], atol=1e-12
        )
        for j in (0, len(ids) - 1):
            track = {(e.image_id, e.point2D_idx) for e in model.points3D[ids[j]].track.elements}
            assert (image.image_id, j) in track
    for row, xyz in enumerate(compressed.xyz):
        np.testing.assert_array_equal(model.points3D[row + 1].xyz, xyz)


def test_round_trip_through_arrays(compressed):
    reference = reference_from_reconstruction(to_reconstruction(compressed))
    assert reference.image_names == compressed.image_names
    np.testing.assert_array_equal(reference.visibility.indptr, compressed.visibility.indptr)
    np.testing.assert_array_equal(reference.visibility.indices, compressed.visibility.indices)
    np.testing.assert_array_equal(reference.xyz, compressed.xyz)


def test_points_that_no_image_shows_keep_their_ids(compressed):
    xyz = compressed.xyz.copy()
    xyz[0] = 1e9  # projects nowhere
    moved = dataclasses.replace(compressed, xyz=xyz)
    model = to_reconstruction(moved)
    assert model.points3D[1].track.length() == 0
    np.testing.assert_array_equal(model.points3D[2].xyz, xyz[1])


def test_two_cameras(compressed):
    second = pycolmap.Camera(model="PINHOLE", width=640, height=480, params=[500, 500, 320, 240])
    index = compressed.camera_index.copy()
    index[-1] = len(compressed.cameras)
    two = dataclasses.replace(compressed, cameras=[*compressed.cameras, second], camera_index=index)
    model = to_reconstruction(two)
    last = model.images[compressed.num_images]
    assert last.camera.model.name == "PINHOLE" and last.camera.width == 640
    np.testing.assert_allclose(
        [p.xy for p in last.points2D],
        [last.project_point(model.points3D[p.point3D_id].xyz) for p in last.points2D],
        atol=1e-6,
    )
