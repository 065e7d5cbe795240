"""The same map after a similarity: the same errors, from every command that gives poses or errors.

A map's grids turn, move and scale with it, and so does the order of its points.
"""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from hypothesis import Phase, given, settings, strategies as st
from synthetic import Scene, make_scene

from hloc_dpqed import compress, evaluate, export, localize, sweep
from hloc_dpqed.compression.conf import CompressConf
from hloc_dpqed.compression.engine import Compressor
from hloc_dpqed.evaluation.measures import measure
from hloc_dpqed.evaluation.posed_queries import read_posed_queries
from hloc_dpqed.io.features import FeatureFile
from hloc_dpqed.io.lists import read_poses, write_poses
from hloc_dpqed.io.model import read_observations, read_reference
from hloc_dpqed.localization.localizer import Localizer
from hloc_dpqed.localization.pose import LocalFrame, estimate_pose, estimation_options
from hloc_dpqed.mapfile import map_info, read_map, write_map
from hloc_dpqed.mapfile.points import choose_grid
from hloc_dpqed.maps.reconstruction import to_reconstruction
from hloc_dpqed.planning.holdout import hold_out
from hloc_dpqed.planning.pseudo_queries import localize_held_out
from hloc_dpqed.scene.reference import ReferenceMap

SAME = 0.02  # relative difference of errors
TURN = pycolmap.Rotation3d(np.array([0.3, -0.5, 0.4, 0.7]) / np.sqrt(0.99)).matrix()

Frame = tuple[float, np.ndarray, np.ndarray]
# A scene at six million times its size is a house in metres from the centre of the earth.
offsets = st.tuples(*[st.floats(-6e6, 6e6)] * 3).map(np.array)
rotations = (
    st.tuples(*[st.floats(-1, 1)] * 4)
    .filter(lambda q: np.linalg.norm(q) > 0.1)
    .map(lambda q: pycolmap.Rotation3d(np.array(q) / np.linalg.norm(q)).matrix())
)
any_frame = st.tuples(st.floats(-6, 3).map(lambda e: 10.0**e), rotations, offsets)


def moved_poses(poses: np.ndarray, frame: Frame) -> np.ndarray:
    """(n, 3, 4) poses in the world moved by x -> scale (rotation x + offset)."""
    scale, rotation, offset = frame
    turned = poses[:, :, :3] @ rotation.T
    turned = np.array([pycolmap.Rotation3d(r).matrix() for r in turned])
    centres = scale * (-np.einsum("nji,nj->ni", poses[:, :, :3], poses[:, :, 3]) @ rotation.T)
    centres += scale * offset
    return np.concatenate([turned, -np.einsum("nij,nj->ni", turned, centres)[:, :, None]], 2)


def moved_reference(reference: ReferenceMap, frame: Frame) -> ReferenceMap:
    scale, rotation, offset = frame
    return replace(
        reference,
        xyz=scale * (reference.xyz @ rotation.T + offset),
        cam_from_world=moved_poses(reference.cam_from_world, frame),
    )


def move_files(sfm: Path, poses: Path, frame: Frame, folder: Path) -> tuple[Path, Path]:
    """The moved model and the moved true poses, as files."""
    scale, rotation, offset = frame
    model = pycolmap.Reconstruction(str(sfm))
    model.transform(pycolmap.Sim3d(scale, pycolmap.Rotation3d(rotation), scale * offset))
    (folder / "sfm").mkdir(parents=True)
    model.write_binary(str(folder / "sfm"))
    truth = read_poses(poses)
    moved = moved_poses(np.array(list(truth.values())), frame)
    write_poses(folder / "poses.txt", dict(zip(truth, moved, strict=True)))
    return folder / "sfm", folder / "poses.txt"


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    return make_scene(folder, dim=32, num_points=150, keypoint_noise=1.0)


@pytest.fixture(scope="module")
def parts(scene):
    reference = read_reference(scene.sfm)
    return reference, read_observations(reference, scene.features)


def through_commands(scene: Scene, frame: Frame, folder: Path) -> dict[str, np.ndarray]:
    """Errors that each command tells, in units of the scene as it was made; and projections."""
    sfm, poses = move_files(scene.sfm, scene.poses, frame, folder)
    found, scale = folder / "map.dpqed", frame[0]
    options = {"codec": "pq", "code_bytes": 8, "progress": False}
    compress.main(sfm, scene.features, found, **options)
    told = {}
    for name, more in (
        ("pairs", {"fallback": "closest", "full_names": True}),
        ("all matches", {"ransac_all_matches": True}),
    ):
        results = folder / f"{name}.txt"
        localize.main(
            found, scene.queries, scene.features, results, scene.pairs, progress=False, **more
        )
        figures = evaluate.main(results, poses, f"{scale:g}/5")
        told[name] = np.array([figures["median_translation"] / scale, figures["median_rotation"]])
        told[name + ", recall"] = np.array([row["fraction"] for row in figures["recall"]])
    exported = export.main(found, folder / "exported", progress=False)
    model = pycolmap.Reconstruction(str(exported / "sfm"))
    images = sorted(model.images.values(), key=lambda image: image.name)
    mean = [np.mean([p.xy for p in image.points2D], axis=0) for image in images]
    told["exported keypoints"] = np.array(mean)
    # What the exported model says of itself: the projections of its points by its poses.
    for image in images:
        xy = np.array([p.xy for p in image.points2D])
        own = [image.project_point(model.points3D[p.point3D_id].xyz) for p in image.points2D]
        np.testing.assert_allclose(np.array(own), xy, atol=1e-3)
    np.testing.assert_array_less(map_info(found)["pose_pixel_error"], 0.05)
    return told


def assert_same(told, expected):
    for name, value in expected.items():
        np.testing.assert_allclose(told[name], value, rtol=SAME, err_msg=name)


@pytest.fixture(scope="module")
def as_made(scene, tmp_path_factory):
    frame = 1.0, np.eye(3), np.zeros(3)
    return through_commands(scene, frame, tmp_path_factory.mktemp("as-made") / "x")


@settings(max_examples=3, phases=[Phase.generate])
@given(frame=any_frame)
def test_commands_tell_the_same_errors(scene, as_made, tmp_path_factory, frame):
    assert 1e-4 < as_made["pairs"][0] < 0.1  # there is an error to compare
    assert_same(through_commands(scene, frame, tmp_path_factory.mktemp("moved") / "x"), as_made)


def fine_map(parts, frame, folder, fine=0.002):
    """The map of the moved scene, read from a file of a fine grid."""
    reference, observations = parts
    reference = moved_reference(reference, frame)
    conf = CompressConf("all", "pq", 8, code_targets=None, xyz_pixels=fine)
    compressed = Compressor(reference, observations, conf).compress(reference.num_points)
    write_map(folder / "map.dpqed", compressed, xyz_pixels=fine)
    return reference, read_map(folder / "map.dpqed")


def measured(scene, parts, frame, folder):
    """Errors of the queries as ``report`` and ``sweep`` measure them, and of held-out images."""
    reference, compressed = fine_map(parts, frame, folder)
    queries = read_posed_queries(scene.queries, scene.features, scene.pairs, scene.poses)
    poses = moved_poses(np.array([q.cam_from_world for q in queries]), frame)
    queries = [replace(q, cam_from_world=p) for q, p in zip(queries, poses, strict=True)]
    found = measure(Localizer(compressed), queries, 1)
    with FeatureFile(scene.features) as file:
        held = hold_out(reference, parts[1], np.array([1, 5]), read_features=file.read)
    names = held.reference.image_names
    held_out = [replace(query, retrieved=names) for query in held.queries]
    errors, expected, _ = localize_held_out(compressed, held_out, 0)
    unit = np.array([frame[0], 1.0])
    return {
        "correct": found.correct,
        "errors": np.median(found.errors / unit, axis=(0, 1)),
        "held out": np.median(errors / unit, axis=(0, 1)),
        "expected": expected / frame[0],
        "triangulated": np.linalg.norm(np.diff(held.reference.xyz, axis=0), axis=1) / frame[0],
    }


@settings(max_examples=3, phases=[Phase.generate])
@given(frame=any_frame)
def test_any_similarity_gives_the_same_errors(scene, parts, tmp_path_factory, frame):
    folder = tmp_path_factory.mktemp("any")
    as_made = measured(scene, parts, (1.0, np.eye(3), np.zeros(3)), folder)
    assert_same(measured(scene, parts, frame, folder), as_made)


@settings(max_examples=20, phases=[Phase.generate])
@given(frame=any_frame, seed=st.integers(0, 100))
def test_a_solver_sees_the_same_numbers_in_every_frame(parts, frame, seed):
    """The pose of the moved points is the moved pose."""
    reference, _ = parts
    camera, rows = reference.cameras[reference.camera_index[0]], reference.visibility[0]
    pose = reference.cam_from_world[0]
    local = reference.xyz[rows] @ pose[:, :3].T + pose[:, 3]
    rng = np.random.default_rng(seed)
    xy = np.asarray(camera.img_from_cam(local)) + rng.normal(0, 1, (len(rows), 2))
    options = estimation_options(12, None)
    first = estimate_pose(xy, reference.xyz[rows], camera, options, seed)
    points = moved_reference(reference, frame).xyz[rows]
    second = estimate_pose(xy, points, camera, options, seed)
    expected = moved_poses(first["cam_from_world"].matrix()[None], frame)[0]
    np.testing.assert_array_equal(second["inlier_mask"], first["inlier_mask"])
    found = second["cam_from_world"].matrix()
    moved = evaluate.pose_error(found, expected)
    # The refinement stops at a relative change of the cost; noise alone moves it by 2e-3.
    assert moved[0] / frame[0] < 1e-4 and moved[1] < 1e-3


def test_a_prior_of_the_position_moves_too():
    frame = LocalFrame(np.array([5e5, 5.4e6, 0.0]), 20.0)
    options = {
        "use_position_prior": True,
        "position_prior_in_world": np.array([5e5, 5.4e6, 40.0]),
        "position_prior_covariance": 4.0 * np.eye(3),
    }
    inside = frame.refinement(options)
    np.testing.assert_allclose(inside["position_prior_in_world"], [0, 0, 2])
    np.testing.assert_allclose(inside["position_prior_covariance"], 0.01 * np.eye(3))
    assert options["position_prior_in_world"][2] == 40
    assert frame.refinement({"max_num_iterations": 3}) == {"max_num_iterations": 3}


def test_points_all_in_one_place_have_a_frame():
    frame = LocalFrame.around(np.full((4, 3), 7.0))
    np.testing.assert_array_equal(frame.points(np.full((4, 3), 7.0)), np.zeros((4, 3)))
    assert frame.unit == 1 and LocalFrame.around(np.zeros((0, 3))).unit == 1


def test_a_sweep_tells_the_same_errors(scene, tmp_path):
    told = []
    for name, frame in (
        ("as made", (1.0, np.eye(3), np.zeros(3))),
        ("moved", (1e-3, TURN, np.array([2.5e6, 1.4e6, 5.7e6]))),
    ):
        sfm, poses = move_files(scene.sfm, scene.poses, frame, tmp_path / name)
        outcome = sweep.main(
            sfm, scene.features, scene.queries, scene.pairs, poses, tmp_path / f"{name}.out",
            codecs=["pq"], code_bytes=[8], selectors=["all"], fractions=[1.0], seeds=1,
            ransac_seeds=2, plots=False, progress=False, thresholds=f"{0.05 * frame[0]:g}/1",
        )  # fmt: skip
        with open(outcome, newline="") as file:
            rows = list(csv.DictReader(file))
        assert rows
        told.append(
            [[float(r["median_translation"]) / frame[0], float(r["median_rotation"])] for r in rows]
        )
    np.testing.assert_allclose(told[1], told[0], rtol=SAME)


@pytest.mark.parametrize("kind", ["UTM", "ECEF"])
def test_fountain_as_georeferenced(fountain, tmp_path, kind):
    georeferenced = 1.0, np.eye(3), np.array([5e5, 5.4e6, 0.0])
    if kind == "ECEF":
        georeferenced = 1.0, TURN, np.array([2.5e6, 1.4e6, 5.7e6])
    told = []
    for name, frame in (("as it is", (1.0, np.eye(3), np.zeros(3))), ("moved", georeferenced)):
        folder = tmp_path / name
        sfm, poses = move_files(fountain / "sfm", fountain / "poses_gt.txt", frame, folder)
        features = fountain / "feats-superpoint.h5"
        found = folder / "map.dpqed"
        compress.main(sfm, features, found, codec="pq", code_bytes=8, progress=False)
        localize.main(
            found, fountain / "queries.txt", features, folder / "results.txt",
            fountain / "pairs-query-vlad7.txt", progress=False,
        )  # fmt: skip
        figures = evaluate.main(folder / "results.txt", poses)
        told.append((figures["median_translation"], figures["median_rotation"]))
    np.testing.assert_allclose(told[1], told[0], rtol=SAME)


def test_a_bridge_model_has_the_users_frame(parts, tmp_path):
    frame = 1.0, TURN, np.array([2.5e6, 1.4e6, 5.7e6])
    reference, compressed = fine_map(parts, frame, tmp_path)
    model = to_reconstruction(compressed)
    by_name = {image.name: image for image in model.images.values()}
    for name, pose in zip(reference.image_names, reference.cam_from_world, strict=True):
        moved, turned = evaluate.pose_error(by_name[name].cam_from_world().matrix(), pose)
        assert moved < 1e-3 and turned < 1e-2


@pytest.mark.slow
def test_planning_chooses_the_same(scene, tmp_path):
    """A budget is filled by the same plan and the same points."""
    made = []
    for name, frame in (
        ("as made", (1.0, np.eye(3), np.zeros(3))),
        ("moved", (1e3, TURN, np.array([5e5, 5.4e6, 100.0]))),
    ):
        sfm, _ = move_files(scene.sfm, scene.poses, frame, tmp_path / name)
        found = tmp_path / f"{name}.dpqed"
        compress.main(sfm, scene.features, found, budget="9KB", progress=False)
        info = map_info(found)
        made.append((info["codec"], info["code_bytes"], info["num_points"]))
    assert made[0] == made[1]


def test_rounded_quaternions_become_rotations(scene, tmp_path):
    """COLMAP keeps the length of what a text file says; far from the origin it would matter."""
    pycolmap.Reconstruction(str(scene.sfm)).write_text(str(tmp_path))
    frames = tmp_path / "frames.txt"
    lines = [line.split() for line in frames.read_text().split("\n")]
    for words in lines:
        if len(words) > 9 and words[0] != "#":
            words[2:6] = [f"{float(word):.6f}" for word in words[2:6]]
    frames.write_text("\n".join(" ".join(words) for words in lines))
    read = pycolmap.Reconstruction(str(tmp_path))
    lengths = [np.linalg.norm(i.cam_from_world().rotation.quat) for i in read.images.values()]
    assert np.abs(np.array(lengths) - 1).max() > 1e-9
    rotations = read_reference(tmp_path).cam_from_world[:, :, :3]
    product = np.einsum("nij,nkj->nik", rotations, rotations)
    np.testing.assert_allclose(product, np.broadcast_to(np.eye(3), product.shape), atol=1e-14)


@settings(max_examples=20, phases=[Phase.generate])
@given(frame=any_frame)
def test_a_moved_map_has_the_same_cells(parts, frame):
    """All but those that lie on the border of two; so the file is the same but for its frame."""
    reference, observations = parts
    grids, cells = [], []
    for moved in (reference, moved_reference(reference, frame)):
        conf = CompressConf("all", "pq", 8, code_targets=None)
        compressed = Compressor(moved, observations, conf).compress(moved.num_points)
        grids.append(choose_grid(compressed))
        cells.append(grids[-1].cells(moved.xyz))
        rounded = grids[-1].coordinates(cells[-1])
        error = np.linalg.norm(rounded - moved.xyz, axis=1)
        assert error.max() <= grids[-1].xyz_error * 3**0.5 * 1.001
    assert grids[0].core == grids[1].core
    assert abs(cells[0] - cells[1]).max() <= 1 and (cells[0] != cells[1]).mean() < 0.01
    near = choose_grid(compressed).frame.quat
    assert (np.round(near, 9) == near).all()


def test_a_camera_out_of_any_scene_does_not_coarsen_the_grid(parts, tmp_path):
    _, compressed = fine_map(parts, (1.0, np.eye(3), np.zeros(3)), tmp_path)
    near = choose_grid(compressed)
    poses = compressed.cam_from_world.copy()
    lost = np.arange(len(poses)) == 3
    poses[lost, :, 3] = 1e10
    far = choose_grid(replace(compressed, cam_from_world=poses))
    assert far.core <= near.core + 1
    assert np.abs(far.frame.origin - near.frame.origin).max() < 100
