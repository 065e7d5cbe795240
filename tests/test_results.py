"""What localize writes besides hloc's text: JSON lines and a COLMAP model of map and queries."""

import json
from dataclasses import replace

import numpy as np
import pycolmap
import pytest
from moved_maps import moved_map
from synthetic import compressed_scene
from test_rigs import one_frame, rig_json, run, scene  # noqa: F401 (fixtures)

from hloc_dpqed.errors import InputError
from hloc_dpqed.io.features import FeatureFile
from hloc_dpqed.io.lists import read_poses, read_queries
from hloc_dpqed.io.model import read_reference
from hloc_dpqed.localization.registered import Registered, one_to_one
from hloc_dpqed.maps.reconstruction import to_reconstruction


@pytest.fixture(scope="module", params=["as made", "earth-centred"])
def compressed(scene, request):  # noqa: F811
    made = compressed_scene(scene, with_global=False)
    return made if request.param == "as made" else moved_map(made)


def test_model_holds_the_map_and_the_queries(scene, compressed, tmp_path, one_frame):  # noqa: F811
    queries, rigs = one_frame
    folder = tmp_path / "model"
    _, results = run(
        scene, compressed, tmp_path, queries, rigs=rigs, results_sfm=folder,
        logs=tmp_path / "logs.json",
    )  # fmt: skip
    poses = read_poses(results)
    model = pycolmap.Reconstruction(str(folder))
    names = {image.name: image for image in model.images.values()}
    assert set(names) == {*compressed.image_names, *poses}
    cameras = dict(read_queries(queries))
    logs = json.loads((tmp_path / "logs.json").read_text())
    size = np.median(np.linalg.norm(compressed.xyz - np.median(compressed.xyz, 0), axis=1))
    with FeatureFile(scene.features) as file:
        for name, pose in poses.items():
            image, log = names[name], logs[name]
            found = image.cam_from_world().matrix()
            np.testing.assert_allclose(found[:, :3], pose[:, :3], atol=1e-9)
            np.testing.assert_allclose(found, pose, rtol=1e-9, atol=1e-7 * size)
            camera = model.cameras[image.camera_id]
            assert camera.model == cameras[name].model
            np.testing.assert_array_equal(camera.params, cameras[name].params)
            xy = np.array([point.xy for point in image.points2D])
            np.testing.assert_array_equal(xy, file.read(name).keypoints.astype(float) + 0.5)
            pairs = set(zip(log["keypoint_index"], log["point_index"], strict=True))
            pairs = [sorted(pairs)[k] for k in log["inliers"]]
            observed = [
                (k, point.point3D_id - 1)
                for k, point in enumerate(image.points2D)
                if point.has_point3D()
            ]
            assert set(observed) <= set(pairs)
            assert len({k for k, _ in pairs}) * 0.9 <= len(observed) <= len(pairs)
            for keypoint, point in observed:
                seen = image.project_point(model.points3D[point + 1].xyz)
                assert np.linalg.norm(seen - xy[keypoint]) < 12.1
                elements = model.points3D[point + 1].track.elements
                assert (image.image_id, keypoint) in {(e.image_id, e.point2D_idx) for e in elements}
    frames = [frame for frame in model.frames.values() if len(list(frame.data_ids)) > 1]
    assert len(frames) == 1
    assert {model.images[d.id].name for d in frames[0].data_ids} == set(poses) - {"alone.jpg"}


def test_the_map_s_own_part_is_that_of_an_export(scene, compressed, tmp_path):  # noqa: F811
    _, results = run(scene, compressed, tmp_path, scene.queries, results_sfm=tmp_path / "model")
    model, plain = pycolmap.Reconstruction(str(tmp_path / "model")), to_reconstruction(compressed)
    assert len(model.images) == len(plain.images) + len(read_poses(results))
    for image_id, image in plain.images.items():
        other = model.images[image_id]
        assert (other.name, other.camera_id) == (image.name, image.camera_id)
        assert other.num_points3D == image.num_points3D
    # And it reads as a reference model: the queries are database images now.
    reference = read_reference(tmp_path / "model")
    assert set(scene.query_names) <= set(reference.image_names)
    assert reference.num_points == len(plain.points3D)


def test_json_lines(scene, compressed, tmp_path, one_frame):  # noqa: F811
    queries, rigs = one_frame
    more = tmp_path / "more.txt"
    more.write_text(f"{queries.read_text()}\nunseen.jpg SIMPLE_PINHOLE 640 480 500 320 240\n")
    path = tmp_path / "results.jsonl"
    _, results = run(
        scene, compressed, tmp_path, more, rigs=rigs, results_jsonl=path, fallback="closest"
    )
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["name"] for line in lines] == [name for name, _ in read_queries(more)]
    poses = read_poses(results)
    for line in lines[:-1]:
        pose = line["cam_from_world"]
        quat = np.array(pose["rotation"])[[1, 2, 3, 0]]
        matrix = pycolmap.Rigid3d(pycolmap.Rotation3d(quat), pose["translation"]).matrix()
        np.testing.assert_allclose(matrix, poses[line["name"]], rtol=1e-12, atol=1e-12)
        centre = -matrix[:, :3].T @ matrix[:, 3]
        np.testing.assert_allclose(line["position"], centre, rtol=1e-9)
        assert line["localized"] and not line["fallback"] and line["num_inliers"] > 8
    assert {line["frame"] for line in lines} == {"0.jpg", None}
    last = lines[-1]
    assert not last["localized"] and last["cam_from_world"] is None and last["num_matches"] == 0


def test_results_do_not_change_with_what_else_is_written(scene, tmp_path):  # noqa: F811
    made = compressed_scene(scene, with_global=False)
    _, plain = run(scene, made, tmp_path, scene.queries, "plain")
    _, other = run(
        scene, made, tmp_path, scene.queries, "other",
        results_sfm=tmp_path / "sfm", results_jsonl=tmp_path / "lines.jsonl",
    )  # fmt: skip
    assert plain.read_bytes() == other.read_bytes()
    before = {p.name: p.read_bytes() for p in (tmp_path / "sfm").iterdir()}
    with pytest.raises(InputError, match="--overwrite"):
        run(scene, made, tmp_path, scene.queries, "third", results_sfm=tmp_path / "sfm")
    assert not (tmp_path / "third.txt").exists()
    run(
        scene, made, tmp_path, scene.queries, "third",
        results_sfm=tmp_path / "sfm", overwrite=True,
    )  # fmt: skip
    assert before == {p.name: p.read_bytes() for p in (tmp_path / "sfm").iterdir()}
    (tmp_path / "sfm" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other than a COLMAP model"):
        run(
            scene, made, tmp_path, scene.queries, "fourth",
            results_sfm=tmp_path / "sfm", overwrite=True,
        )  # fmt: skip


def test_one_to_one_keeps_the_best():
    camera = pycolmap.Camera(model="SIMPLE_PINHOLE", width=100, height=100, params=[100, 50, 50])
    xyz = np.array([[0, 0, 1.0], [0.1, 0, 1], [0.2, 0, 1]])
    query = Registered(
        "q", camera, np.eye(4)[:3], np.array([[51.0, 50], [60, 50]]),
        np.array([0, 0, 1, 1]), np.array([0, 1, 1, 2]),
    )  # fmt: skip
    keypoints, points = one_to_one(query, xyz)
    assert keypoints.tolist() == [0, 1] and points.tolist() == [0, 1]
    none = replace(query, keypoint_index=np.zeros(0, int), point_index=np.zeros(0, int))
    assert len(one_to_one(none, xyz)[0]) == 0
