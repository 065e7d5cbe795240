"""COLMAP models as arrays: what is read, and what is refused."""

import shutil
import struct
from dataclasses import replace

import numpy as np
import pycolmap
import pytest
from synthetic import make_scene, model_of

from hloc_dpqed.errors import InputError
from hloc_dpqed.io.model import (
    load_reconstruction,
    read_observations,
    read_reference,
    reference_from_reconstruction,
)
from hloc_dpqed.io.model_files import check_binary_model
from hloc_dpqed.logger import logger
from hloc_dpqed.scene.projection import project_points


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return make_scene(tmp_path_factory.mktemp("model"), num_points=60, dim=16)


def pinhole(camera_id=1):
    return pycolmap.Camera(
        model="PINHOLE", width=640, height=480, params=[500, 500, 320, 240], camera_id=camera_id
    )


IDENTITY = pycolmap.Rigid3d()


def test_arrays_say_what_the_model_says(scene):
    model = pycolmap.Reconstruction(scene.sfm)
    reference = read_reference(scene.sfm)
    assert reference.image_names == sorted(scene.db_names)
    by_name = {image.name: image for image in model.images.values() if image.has_pose}
    for i, name in enumerate(reference.image_names):
        image = by_name[name]
        assert reference.image_ids[i] == image.image_id
        np.testing.assert_array_equal(reference.cam_from_world[i], image.cam_from_world().matrix())
        camera = reference.cameras[reference.camera_index[i]]
        np.testing.assert_array_equal(camera.params, image.camera.params)
        seen = {
            p.point3D_id: k for k, p in reversed([*enumerate(image.points2D)]) if p.has_point3D()
        }
        rows = reference.visibility[i]
        np.testing.assert_array_equal(reference.point_ids[rows], sorted(seen))
        own = slice(reference.visibility.indptr[i], reference.visibility.indptr[i + 1])
        expected = [seen[p] for p in sorted(seen)]
        np.testing.assert_array_equal(reference.keypoint_index[own], expected)
    for row, point_id in enumerate(reference.point_ids):
        np.testing.assert_array_equal(reference.xyz[row], model.points3D[point_id].xyz)
    assert (np.diff(reference.point_ids) > 0).all()


def test_text_and_binary_models_are_the_same(scene, tmp_path):
    model = pycolmap.Reconstruction(scene.sfm)
    model.write_text(str(tmp_path))
    ours, other = read_reference(scene.sfm), read_reference(tmp_path)
    np.testing.assert_allclose(ours.xyz, other.xyz, rtol=1e-12)
    np.testing.assert_array_equal(ours.visibility.indices, other.visibility.indices)


def test_duplicate_observations_collapse_to_the_lowest_keypoint():
    images = [(1, "a", 1, [[1, 1], [2, 2], [3, 3], [4, 4]], IDENTITY)]
    points = [([0, 0, 5], [(1, 3), (1, 1)]), ([1, 0, 5], [(1, 0), (1, 2)])]
    reference = reference_from_reconstruction(model_of([pinhole()], images, points))
    np.testing.assert_array_equal(reference.visibility[0], [0, 1])
    np.testing.assert_array_equal(reference.keypoint_index, [1, 0])


def test_odd_but_valid_models():
    """Images without points, points seen once or never, behind the camera, several cameras."""
    fisheye = pycolmap.Camera(
        model="OPENCV_FISHEYE",
        width=800,
        height=600,
        params=[400, 400, 400, 300, 0, 0, 0, 0],
        camera_id=7,
    )
    images = [
        (4, "b with space.jpg", 7, [[5, 5]], IDENTITY),
        (2, "a/夜.jpg", 1, [[1, 1], [2, 2]], IDENTITY),
        (9, "c.jpg", 1, [], IDENTITY),
    ]
    points = [([0, 0, 5], [(2, 0), (4, 0)]), ([1, 0, -5], [(2, 1)]), ([1, 1, 5], [])]
    reference = reference_from_reconstruction(
        model_of([pinhole(), fisheye, pinhole(3)], images, points)
    )
    assert reference.image_names == ["a/夜.jpg", "b with space.jpg", "c.jpg"]
    np.testing.assert_array_equal(reference.visibility.indptr, [0, 2, 3, 3])
    # Camera 3 is used by nobody.
    assert [c.model.name for c in reference.cameras] == ["PINHOLE", "OPENCV_FISHEYE"]
    np.testing.assert_array_equal(reference.camera_index, [0, 1, 0])
    np.testing.assert_array_equal(reference.visibility.track_lengths(), [2, 1, 0])


def test_rigs_of_several_cameras(tmp_path):
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 2, 3, 2
    options.num_points3D = 40
    options.sensor_from_rig_translation_stddev = 0.1
    options.sensor_from_rig_rotation_stddev = 5.0
    model = pycolmap.synthesize_dataset(options)
    model.write(tmp_path)
    reference = read_reference(tmp_path)
    assert reference.num_images == 12 and len(reference.cameras) == 6
    by_id = dict(model.images.items())
    for i in range(12):
        image = by_id[int(reference.image_ids[i])]
        rows = reference.visibility[i]
        camera = reference.cameras[reference.camera_index[i]]
        xy, visible = project_points(reference.xyz[rows], camera, reference.cam_from_world[i])
        assert visible.all()
        own = slice(reference.visibility.indptr[i], reference.visibility.indptr[i + 1])
        detected = [image.points2D[k].xy for k in reference.keypoint_index[own]]
        np.testing.assert_allclose(xy, detected, atol=1e-6)


def test_models_without_registered_images(tmp_path):
    with pytest.raises(InputError, match="the model: no registered image"):
        reference_from_reconstruction(pycolmap.Reconstruction())
    pycolmap.Reconstruction().write(tmp_path)
    with pytest.raises(InputError, match="no registered image"):
        read_reference(tmp_path)


@pytest.mark.parametrize(
    ("images", "points", "told"),
    [
        ([(1, "a", 1, [], IDENTITY), (2, "a", 1, [], IDENTITY)], [], "'a' is registered twice"),
        ([(1, "a", 1, [[1, 1]], IDENTITY)], [([np.nan, 0, 0], [(1, 0)])], "point 1 .* not finite"),
        (
            [(1, "a", 1, [], pycolmap.Rigid3d(pycolmap.Rotation3d(), [np.inf, 0, 0]))],
            [],
            "pose of image 'a' is not finite",
        ),
    ],
)
def test_refused(images, points, told):
    with pytest.raises(InputError, match=told) as error:
        reference_from_reconstruction(model_of([pinhole()], images, points), "sfm")
    assert str(error.value).startswith("sfm: ") and "\n" not in str(error.value)


def test_names_that_are_not_utf8(scene, tmp_path):
    for name in ("cameras.bin", "points3D.bin", "rigs.bin", "frames.bin"):
        shutil.copy(scene.sfm / name, tmp_path / name)
    data = (scene.sfm / "images.bin").read_bytes()
    assert b"db/day/0.jpg\0" in data
    (tmp_path / "images.bin").write_bytes(data.replace(b"db/day/0.jpg", b"db/d\xe9y/0.jpg"))
    with pytest.raises(InputError, match="not UTF-8"):
        read_reference(tmp_path)


def test_folders_without_a_model(scene, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        load_reconstruction(tmp_path / "absent")
    with pytest.raises(InputError, match="expected cameras, images and points3D"):
        load_reconstruction(tmp_path)
    shutil.copytree(scene.sfm, tmp_path / "sfm")
    (tmp_path / "sfm" / "points3D.bin").unlink()
    with pytest.raises(InputError, match="expected cameras, images and points3D"):
        load_reconstruction(tmp_path / "sfm")


@pytest.mark.parametrize("name", ["cameras", "images", "points3D", "rigs", "frames"])
def test_truncated_models_are_told(scene, tmp_path, name):
    """COLMAP itself believes the counts of a truncated file, and may ask for all memory."""
    data = (scene.sfm / f"{name}.bin").read_bytes()
    damaged = [data[:size] for size in range(0, len(data), max(1, len(data) // 60))]
    damaged.append(data[:-1])
    damaged.append(b"\xff" * 8 + data[8:])
    for content in damaged:
        (tmp_path / f"{name}.bin").write_bytes(content)
        with pytest.raises(InputError, match="truncated or damaged") as error:
            check_binary_model(tmp_path)
        assert "\n" not in str(error.value)


def test_complete_models_pass(scene, fountain, tmp_path):
    check_binary_model(scene.sfm)
    check_binary_model(fountain / "sfm")
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 2, 3, 2
    options.num_points3D = 10
    pycolmap.synthesize_dataset(options).write(tmp_path)
    check_binary_model(tmp_path)
    for name in ("cameras", "images", "points3D", "rigs", "frames"):
        path = tmp_path / f"{name}.bin"
        data = path.read_bytes()
        path.write_bytes(data[:-1])  # the walk ends exactly at the end of the file
        with pytest.raises(InputError, match=f"{name}.bin: truncated"):
            check_binary_model(tmp_path)
        path.write_bytes(data)


@pytest.mark.parametrize("model", [m for m in pycolmap.CameraModelId.__members__ if m != "INVALID"])
def test_every_camera_model_is_read(tmp_path, model):
    create = getattr(pycolmap.Camera, "create_from_model_id", None) or pycolmap.Camera.create
    camera = create(1, pycolmap.CameraModelId.__members__[model], 500.0, 640, 480)
    images = [(1, "a", 1, [[320, 240]], IDENTITY)]
    model_of([camera], images, [([0, 0, 5], [(1, 0)])]).write(tmp_path)
    (read,) = read_reference(tmp_path).cameras
    assert read.model.name == model
    np.testing.assert_array_equal(read.params, camera.params)


def test_observations_are_those_of_the_model(scene):
    reference = read_reference(scene.sfm)
    observations = read_observations(reference, scene.features)
    model = pycolmap.Reconstruction(scene.sfm)
    assert len(observations) == reference.visibility.num_observations
    np.testing.assert_array_equal(observations.point_index, reference.visibility.indices)
    for k in range(0, len(observations), 7):
        image = model.images[int(reference.image_ids[observations.image_index[k]])]
        xy = image.points2D[int(reference.keypoint_index[k])].xy
        np.testing.assert_allclose(observations.keypoints[k] + 0.5, xy, atol=1e-4)
    # The same point looks the same in all images, and different from others.
    similarity = observations.descriptors.astype(float) @ observations.descriptors.T.astype(float)
    same = observations.point_index[:, None] == observations.point_index
    assert similarity[same].min() > similarity[~same].max()


def test_features_out_of_step_with_the_model(scene, tmp_path):
    import h5py

    reference = read_reference(scene.sfm)
    for case, told in [
        ("missing", "not in the feature file"),
        ("short", r"has 3 keypoints, but \d+ in the model; they are out of step"),
        ("long", r"has \d+ keypoints, but \d+ in the model; they are out of step"),
        ("other dimension", "descriptors of 3 dimensions, expected 16"),
    ]:
        path = tmp_path / f"{case}.h5"
        shutil.copy(scene.features, path)
        with h5py.File(path, "a") as file:
            name = reference.image_names[1]
            group = file[name]
            keypoints, descriptors = group["keypoints"][:], group["descriptors"][:]
            for key in ("keypoints", "descriptors", "scores"):
                del group[key]
            if case == "missing":
                del file[name]
            elif case == "short":
                group["keypoints"], group["descriptors"] = keypoints[:3], descriptors[:, :3]
            elif case == "long":  # extracted again, with more keypoints an image
                group["keypoints"] = np.concatenate([keypoints, keypoints[:1]])
                group["descriptors"] = np.concatenate([descriptors, descriptors[:, :1]], 1)
            else:
                group["keypoints"], group["descriptors"] = keypoints, descriptors[:3]
        with pytest.raises(InputError, match=told) as error:
            read_observations(reference, path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_images_without_keypoints_have_no_dimension(tmp_path):
    import h5py

    images = [(1, "a", 1, [], IDENTITY), (2, "b", 1, [[1, 1]], IDENTITY)]
    model = model_of([pinhole()], images, [([0, 0, 5], [(2, 0)])])
    path = tmp_path / "features.h5"
    with h5py.File(path, "w") as file:
        file["a/keypoints"], file["a/descriptors"] = np.zeros((0, 2)), np.zeros((0, 0))
        file["b/keypoints"], file["b/descriptors"] = np.ones((1, 2)), np.ones((4, 1))
    observations = read_observations(reference_from_reconstruction(model), path)
    assert observations.descriptors.shape == (1, 4)


def test_features_without_any_keypoint_are_refused(tmp_path):
    import h5py

    model = model_of([pinhole()], [(1, "a", 1, [], IDENTITY)], [])
    path = tmp_path / "features.h5"
    with h5py.File(path, "w") as file:
        file["a/keypoints"], file["a/descriptors"] = np.zeros((0, 2)), np.zeros((0, 0))
    with pytest.raises(InputError, match="no image of the model has a keypoint"):
        read_observations(reference_from_reconstruction(model), path)


def test_damaged_text_models_are_told_in_one_line(scene, tmp_path):
    model = load_reconstruction(scene.sfm)
    model.write_text(str(tmp_path))
    (tmp_path / "cameras.txt").write_text("1 LENS 640 480 500 320 240\n")
    with pytest.raises(InputError, match="not a readable COLMAP model") as error:
        load_reconstruction(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def rewritten(model, point_id=lambda i: i, xyz=None, out=None):
    """The model with other point ids and, at some points, other coordinates."""
    if not hasattr(model, "add_point3D_with_id"):
        pytest.skip(f"pycolmap {pycolmap.__version__} gives points ids of its own")
    points = {
        i: (p.xyz.copy(), [(e.image_id, e.point2D_idx) for e in p.track.elements])
        for i, p in model.points3D.items()
    }
    for i in points:
        model.delete_point3D(i)
    for i, (own, elements) in points.items():
        track = pycolmap.Track()
        for element in elements:
            track.add_element(*element)
        moved = (xyz or {}).get(i, own)
        model.add_point3D_with_id(point_id(i), pycolmap.Point3D(xyz=moved, track=track))
        for image_id, keypoint in elements:
            model.images[image_id].points2D[keypoint].point3D_id = point_id(i)
    out.mkdir()
    model.write_binary(str(out))
    return out


def test_point_ids_above_int64(scene, tmp_path):
    model = pycolmap.Reconstruction(scene.sfm)
    large = read_reference(rewritten(model, lambda i: 2**63 + i, out=tmp_path / "large"))
    ours = read_reference(scene.sfm)
    assert large.point_ids.dtype == np.uint64 and ours.point_ids.dtype == np.int64
    np.testing.assert_array_equal(large.point_ids - np.uint64(2**63), ours.point_ids)
    np.testing.assert_array_equal(large.visibility.indices, ours.visibility.indices)
    np.testing.assert_array_equal(large.keypoint_index, ours.keypoint_index)
    np.testing.assert_array_equal(large.xyz, ours.xyz)


def test_points_out_of_any_scene_are_dropped_with_a_count(scene, tmp_path, caplog):
    ours = read_reference(scene.sfm)
    outlier, mountain = (int(i) for i in ours.point_ids[[7, 20]])
    far = {outlier: np.array([1e15, 2e14, 1.0]), mountain: np.array([1e4, 0, 3e4])}
    folder = rewritten(pycolmap.Reconstruction(scene.sfm), xyz=far, out=tmp_path / "far")
    logger.addHandler(caplog.handler)  # a command line before this one may have cut it off
    try:
        read = read_reference(folder)
    finally:
        logger.removeHandler(caplog.handler)
    assert f"{folder}: 1 of 60 points" in caplog.text
    assert f"the first is point {outlier}" in caplog.text
    assert set(ours.point_ids) - set(read.point_ids) == {outlier} and mountain in read.point_ids
    # All the rest is in step.
    observations = read_observations(read, scene.features)
    whole = read_observations(ours, scene.features)
    kept = whole.point_index != 7
    np.testing.assert_array_equal(observations.keypoints, whole.keypoints[kept])
    assert len(read.keypoint_index) == read.visibility.num_observations == kept.sum()


@pytest.mark.parametrize("inside", ["0", "sparse/0"])
def test_a_folder_around_a_model_is_told(scene, tmp_path, inside):
    shutil.copytree(scene.sfm, tmp_path / inside)
    with pytest.raises(InputError, match=f"there is a model in .*{inside}, pass that") as error:
        load_reconstruction(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", [False, True])
def test_camera_models_of_a_newer_colmap_are_told(scene, tmp_path, text):
    model = pycolmap.Reconstruction(scene.sfm)
    if text:
        model.write_text(str(tmp_path))
        path = tmp_path / "cameras.txt"
        path.write_text(path.read_text().replace("SIMPLE_RADIAL", "SPHERICAL_7"))
        told = "camera 1 has the model SPHERICAL_7, which this pycolmap"
    else:
        model.write_binary(str(tmp_path))
        path = tmp_path / "cameras.bin"
        data = path.read_bytes()
        path.write_bytes(data[:12] + (77).to_bytes(4, "little") + data[16:])
        told = "cameras.bin: camera 1 has the model number 77, which this pycolmap"
    with pytest.raises(InputError, match=told) as error:
        load_reconstruction(tmp_path)
    assert "\n" not in str(error.value) and "does not know" in str(error.value)


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize(
    ("element", "told"),
    [
        ((999, 3), "the track of point 1 names image 999, which is not there"),
        ((1, 10**6), r"the track of point 1 names keypoint 1000000 of image 1, which has \d+"),
    ],
)
def test_tracks_of_what_is_not_there_are_told(scene, tmp_path, text, element, told):
    model = pycolmap.Reconstruction(scene.sfm)
    if text:
        model.write_text(str(tmp_path))
        path = tmp_path / "points3D.txt"
        lines = path.read_text().split("\n")
        row = next(k for k, line in enumerate(lines) if line.startswith("1 "))
        lines[row] += " {} {}".format(*element)
        path.write_text("\n".join(lines))
    else:
        model.write_binary(str(tmp_path))
        path = tmp_path / "points3D.bin"
        data = bytearray(path.read_bytes())
        assert struct.unpack_from("<Q", data, 8)[0] == 1
        struct.pack_into("<II", data, 8 + 51, *element)
        path.write_bytes(data)
    if pycolmap.__version__.startswith("3."):  # does not look: images tell what they see
        ours, read = read_reference(scene.sfm), read_reference(tmp_path)
        np.testing.assert_array_equal(ours.visibility.indices, read.visibility.indices)
        return
    with pytest.raises(InputError, match=told) as error:
        load_reconstruction(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_models_that_list_only_triangulated_points_are_told(scene):
    reference = read_reference(scene.sfm)
    counts = np.diff(reference.visibility.indptr)
    with pytest.raises(InputError, match="lists only triangulated points") as error:
        read_observations(replace(reference, num_keypoints=counts), scene.features)
    assert str(scene.features) in str(error.value) and "\n" not in str(error.value)


def test_images_without_points_need_no_features(scene, tmp_path):
    """Such as queries that a model still holds, whose features are in a file of their own."""
    import h5py

    model = pycolmap.Reconstruction(scene.sfm)
    image = next(i for i in model.images.values() if i.name == scene.db_names[2])
    for k, keypoint in enumerate(image.points2D):
        if keypoint.has_point3D():
            model.delete_observation(image.image_id, k)
    reference = reference_from_reconstruction(model)
    assert scene.db_names[2] in reference.image_names
    path = tmp_path / "features.h5"
    shutil.copy(scene.features, path)
    with h5py.File(path, "a") as file:
        del file[scene.db_names[2]]
    observations = read_observations(reference, path)
    np.testing.assert_array_equal(
        observations.descriptors, read_observations(reference, scene.features).descriptors
    )
