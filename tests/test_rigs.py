"""Rigs: their files, one pose of several cameras, and what contradicts a rig."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from moved_maps import ECEF, TURN, moved_map, moved_pose
from synthetic import compressed_scene, make_scene

from hloc_dpqed import localize
from hloc_dpqed.errors import InputError
from hloc_dpqed.io.features import FeatureFile
from hloc_dpqed.io.lists import read_poses, read_queries
from hloc_dpqed.io.rigs import read_rigs
from hloc_dpqed.localization import rigs
from hloc_dpqed.localization.localizer import Localizer, Query, RigQuery
from hloc_dpqed.localization.pose import estimation_options
from hloc_dpqed.mapfile import write_map
from hloc_dpqed.scene.projection import camera_centre
from hloc_dpqed.scene.rigid import compose, inverse

ESTIMATORS = ["pycolmap", "poselib"]


@pytest.fixture(params=ESTIMATORS)
def estimator(request):
    if request.param == "poselib":
        pytest.importorskip("poselib")
    elif pycolmap.__version__.startswith("4.0."):
        pytest.skip("the solver of pycolmap 4.0 crashes")
    return request.param


def random_pose(rng: np.random.Generator, spread: float = 1.0) -> np.ndarray:
    quat = rng.standard_normal(4)
    turned = pycolmap.Rotation3d(quat / np.linalg.norm(quat))
    return pycolmap.Rigid3d(turned, spread * rng.standard_normal(3)).matrix()


def made_rig(rng, counts, outliers=0.3, spread=1.0, noise=0.5):
    """Cameras that look outward from a rig, points that they see, matches of which some are wrong.

    Returns:
        matched, best, cams_from_rig, cameras, rig_from_world.
    """
    rig_from_world = random_pose(rng, 5.0)
    cams_from_rig, cameras, matched = [], [], []
    for count in counts:
        pose = random_pose(rng, spread)
        camera = pycolmap.Camera(
            model="SIMPLE_RADIAL", width=1000, height=800, params=[700.0, 500, 400, -0.05]
        )
        pixels = rng.uniform([0, 0], [1000, 800], (count, 2))
        rays = np.asarray(camera.cam_from_img(pixels))[:, :2]
        seen = np.c_[rays.reshape(count, 2), np.ones(count)] * rng.uniform(4, 12, (count, 1))
        world = inverse(compose(pose, rig_from_world))
        points = seen @ world[:, :3].T + world[:, 3]
        pixels = pixels + noise * rng.standard_normal(pixels.shape)
        wrong = np.arange(count) < outliers * count
        pixels[wrong] = rng.uniform([0, 0], [1000, 800], (wrong.sum(), 2))
        cams_from_rig.append(pose)
        cameras.append(camera)
        matched.append((pixels, points))
    best = [np.arange(count) for count in counts]
    return matched, best, np.array(cams_from_rig), cameras, rig_from_world


def errors(found: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Distance of the centres, and degrees."""
    away = np.linalg.norm(camera_centre(found) - camera_centre(truth))
    turn = pycolmap.Rotation3d(found[:, :3] @ truth[:, :3].T)
    return float(away), float(np.degrees(turn.angle()))


@pytest.mark.parametrize("unit", [None, 1.0, 0.01])
def test_pose_of_a_made_rig(estimator, unit):
    matched, best, poses, cameras, truth = made_rig(np.random.default_rng(0), (40, 30, 0))
    if unit is not None:  # the same scene, earth-centred and in another unit
        matched = [(pixels, unit * points @ TURN.T + ECEF) for pixels, points in matched]
        truth = moved_pose(truth, unit)
        poses[:, :, 3] *= unit
    options = estimation_options(12, None)
    found, inliers, _ = rigs.estimate_rig_pose(
        matched, best, poses, cameras, options, seed=0, estimator=estimator
    )
    away, turn = errors(found, truth)
    assert away < 0.02 * (unit or 1)
    assert turn < 0.1
    assert [len(mask) for mask in inliers] == [40, 30, 0]
    assert inliers[0][12:].all() and inliers[1][9:].all()
    assert inliers[0][:12].sum() + inliers[1][:9].sum() <= 3


def test_cameras_that_see_too_little_alone(estimator):
    """Two right matches in each of four cameras: no camera has a pose, the rig does."""
    for seed in range(5):
        matched, best, poses, cameras, truth = made_rig(
            np.random.default_rng(seed), (2, 2, 2, 2), outliers=0, noise=0.2
        )
        options = estimation_options(12, None)
        found, *_ = rigs.estimate_rig_pose(
            matched, best, poses, cameras, options, seed=0, estimator=estimator
        )
        away, turn = errors(found, truth)
        assert away < 0.05 and turn < 0.5


def test_cameras_in_one_place(estimator):
    matched, best, poses, cameras, truth = made_rig(np.random.default_rng(1), (40, 40), spread=0)
    options = estimation_options(12, None)
    found, *_ = rigs.estimate_rig_pose(
        matched, best, poses, cameras, options, seed=0, estimator=estimator
    )
    away, turn = errors(found, truth)
    assert away < 0.05 and turn < 0.1


def test_the_rig_s_own_origin_may_be_anywhere(estimator):
    matched, best, poses, cameras, _ = made_rig(np.random.default_rng(2), (40, 40))
    options = estimation_options(12, None)
    how = (cameras, options, 0, estimator)
    found, *_ = rigs.estimate_rig_pose(matched, best, poses, *how)
    moved = np.concatenate([np.eye(3), np.full((3, 1), 1e6)], 1)  # old frame from new
    other, *_ = rigs.estimate_rig_pose(
        matched, best, np.array([compose(pose, moved) for pose in poses]), *how
    )
    np.testing.assert_allclose(compose(moved, other), found, atol=1e-5)


def test_mostly_wrong_matches(estimator):
    """As crash pycolmap 4.0 and keep 3.13 busy for minutes."""
    matched, best, poses, cameras, _ = made_rig(np.random.default_rng(0), (60, 60), 0.75)
    options = estimation_options(12, {"estimation": {"ransac": {"max_num_trials": 300}}})
    assert rigs.estimate_rig_pose(matched, best, poses, cameras, options, 0, estimator) is not None


def test_no_match():
    matched, best, poses, cameras, _ = made_rig(np.random.default_rng(0), (0, 0))
    options = estimation_options(12, None)
    assert rigs.estimate_rig_pose(matched, best, poses, cameras, options, 0) is None


def test_a_version_that_crashes_is_refused(monkeypatch):
    monkeypatch.setattr(pycolmap, "__version__", "4.0.3")
    with pytest.raises(InputError, match=r"pycolmap 4\.0\.3 crashes"):
        rigs.check_rig_estimator("pycolmap")
    rigs.check_rig_estimator("poselib")


# The whole way: a scene whose queries stand on a rig.


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rigs")
    names = tuple(f"rig/{camera}/{n}.jpg" for n in range(2) for camera in ("cam1", "cam10"))
    return make_scene(folder, dim=32, query_names=(*names, "alone.jpg"), keypoint_noise=1.0)


@pytest.fixture(scope="module")
def compressed(scene):
    return compressed_scene(scene, with_global=False)


def frames_of(scene, compressed):
    """A query of each frame, with the rig of its own: the reference is the first camera."""
    truth = read_poses(scene.poses)
    cameras = dict(read_queries(scene.queries))
    rows = list(range(compressed.num_images))
    frames = []
    with FeatureFile(scene.features) as file:
        for n in range(2):
            names = [f"rig/cam1/{n}.jpg", f"rig/cam10/{n}.jpg"]
            queries = [Query(name, cameras[name], file.read(name), rows) for name in names]
            poses = [compose(truth[name], inverse(truth[names[0]])) for name in names]
            frames.append(RigQuery(f"{n}.jpg", queries, np.array(poses)))
    return frames, truth


@pytest.mark.parametrize("moved", [False, True])
def test_localize_rig(scene, compressed, estimator, moved):
    frames, truth = frames_of(scene, compressed)
    if moved:
        compressed = moved_map(compressed)
        truth = {name: moved_pose(pose) for name, pose in truth.items()}
    localizer = Localizer(compressed, pose_estimator=estimator)
    alone_errors, rig_errors = [], []
    for outcome, frame in zip(localizer.localize_rigs(frames), frames, strict=True):
        assert not outcome.disagrees and not outcome.rejected
        assert outcome.baseline_ratio == pytest.approx(1, abs=0.02)
        assert outcome.num_inliers == sum(camera.num_inliers for camera in outcome.cameras)
        for camera, query, pose in zip(
            outcome.cameras, frame.queries, frame.cams_from_rig, strict=True
        ):
            expected = compose(pose, outcome.rig_from_world)
            np.testing.assert_allclose(camera.cam_from_world, expected, atol=1e-8)
            rig_errors.append(errors(camera.cam_from_world, truth[query.name])[0])
            alone = localizer.localize(query)
            alone_errors.append(errors(alone.cam_from_world, truth[query.name])[0])
    assert max(rig_errors) < 0.02
    assert np.mean(rig_errors) < np.mean(alone_errors)


def test_a_rig_of_one_is_the_image_alone(scene, compressed):
    frames, _ = frames_of(scene, compressed)
    localizer = Localizer(compressed)
    one = RigQuery("one", frames[0].queries[1:], frames[0].cams_from_rig[1:])
    outcome = localizer.localize_rig(one)
    alone = localizer.localize(one.queries[0])
    np.testing.assert_array_equal(outcome.cameras[0].cam_from_world, alone.cam_from_world)
    expected = compose(inverse(one.cams_from_rig[0]), alone.cam_from_world)
    np.testing.assert_allclose(outcome.rig_from_world, expected)


@pytest.mark.parametrize("what", ["unit", "turned", "other moments"])
def test_a_rig_that_is_not_that_of_the_images(scene, compressed, estimator, what):
    frames, _ = frames_of(scene, compressed)
    poses = frames[0].cams_from_rig.copy()
    queries = list(frames[0].queries)
    if what == "unit":
        poses[1, :, 3] *= 0.25
    elif what == "turned":
        poses[1, :, :3] = (
            pycolmap.Rotation3d(np.array([0, 0.7, 0, 1]) / 1.49**0.5).matrix() @ (poses[1, :, :3])
        )
    else:
        queries[1] = replace(frames[1].queries[1])
    localizer = Localizer(compressed, pose_estimator=estimator)
    outcome = localizer.localize_rig(RigQuery("wrong", queries, poses))
    assert outcome.disagrees and outcome.rig_from_world is None
    if what == "unit":
        assert outcome.baseline_ratio == pytest.approx(4, rel=0.02)
    for camera, query in zip(outcome.cameras, queries, strict=True):
        np.testing.assert_array_equal(
            camera.cam_from_world, localizer.localize(query).cam_from_world
        )


def test_images_that_match_nothing(scene, compressed):
    """One image of noise takes its pose from the rig; two of noise give none."""
    frames, truth = frames_of(scene, compressed)
    rng = np.random.default_rng(0)

    def of_noise(query):
        noise = rng.standard_normal(query.features.descriptors.shape).astype(np.float32)
        noise /= np.linalg.norm(noise, axis=1, keepdims=True)
        return replace(query, features=replace(query.features, descriptors=noise))

    localizer = Localizer(compressed)
    first, second = frames[0].queries
    outcome = localizer.localize_rig(replace(frames[0], queries=[first, of_noise(second)]))
    assert localizer.localize(of_noise(second)).cam_from_world is None
    assert errors(outcome.cameras[1].cam_from_world, truth[second.name])[0] < 0.05
    outcome = localizer.localize_rig(
        replace(frames[0], queries=[of_noise(first), of_noise(second)])
    )
    assert outcome.rig_from_world is None and outcome.rejected
    assert all(camera.cam_from_world is None for camera in outcome.cameras)


# Files.


def rig_json(scene, folder: Path) -> Path:
    truth = read_poses(scene.poses)
    pose = compose(truth["rig/cam10/0.jpg"], inverse(truth["rig/cam1/0.jpg"]))
    known = pycolmap.Rigid3d(pose)
    cameras = [
        {"image_prefix": "rig/cam1/", "ref_sensor": True},
        {
            "image_prefix": "rig/cam10/",
            "cam_from_rig_rotation": known.rotation.quat[[3, 0, 1, 2]].tolist(),
            "cam_from_rig_translation": known.translation.tolist(),
        },
    ]
    path = folder / "rigs.json"
    path.write_text(json.dumps([{"cameras": cameras}]))
    return path


@pytest.fixture
def one_frame(scene, tmp_path):
    """The query list without the second frame, which is of another rig, and the rig's file."""
    lines = [line for line in scene.queries.read_text().splitlines() if "/1.jpg" not in line]
    path = tmp_path / "queries.txt"
    path.write_text("\n".join(reversed(lines)))
    return path, rig_json(scene, tmp_path)


def test_json_reads_as_in_pycolmap(scene, tmp_path):
    path = rig_json(scene, tmp_path)
    names = ["alone.jpg", "rig/cam10/0.jpg", "rig/cam1/0.jpg", "rig/cam1/7.jpg"]
    first, second = read_rigs(path, names)
    assert first.name == "0.jpg" and first.images == ["rig/cam10/0.jpg", "rig/cam1/0.jpg"]
    assert second.name == "7.jpg" and second.images == ["rig/cam1/7.jpg"]
    (config,) = pycolmap.read_rig_config(str(path))
    known = {c.image_prefix: c.cam_from_rig for c in config.cameras}
    np.testing.assert_allclose(first.cams_from_rig[0], known["rig/cam10/"].matrix(), atol=1e-12)
    np.testing.assert_allclose(first.cams_from_rig[1], np.eye(4)[:3])
    (scaled, _) = read_rigs(path, names, 3.0)
    np.testing.assert_allclose(scaled.cams_from_rig[:, :, 3], 3 * first.cams_from_rig[:, :, 3])
    np.testing.assert_allclose(scaled.cams_from_rig[:, :, :3], first.cams_from_rig[:, :, :3])


def test_a_model_with_rigs_reads_as_it_was_made(tmp_path):
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 3, 2
    options.num_points3D = 20
    options.sensor_from_rig_translation_stddev = 0.5
    options.sensor_from_rig_rotation_stddev = 20.0
    pycolmap.set_random_seed(0)
    model = pycolmap.synthesize_dataset(options)
    truth = {image.name: image.cam_from_world().matrix() for image in model.images.values()}
    for ending, write in ((".bin", model.write_binary), (".txt", model.write_text)):
        folder = tmp_path / ending
        folder.mkdir()
        write(str(folder))
        frames = read_rigs(folder, sorted(truth))
        assert sorted(name for frame in frames for name in frame.images) == sorted(truth)
        assert [len(frame.images) for frame in frames] == [3, 3]
        for frame in frames:
            world = [
                compose(inverse(pose), truth[name])
                for pose, name in zip(frame.cams_from_rig, frame.images, strict=True)
            ]
            np.testing.assert_allclose(world, np.broadcast_to(world[0], (3, 3, 4)), atol=1e-9)


def test_lamar_s_layout(scene, tmp_path):
    """Camera-to-rig poses, and images by timestamp: a shift of the rig's frame apart the same."""
    names = ["s1/raw/a/5.jpg", "s1/raw/b/5.jpg", "s1/raw/b/6.jpg"]
    rng = np.random.default_rng(0)
    poses = {sensor: random_pose(rng) for sensor in ("cam_a", "cam_b")}  # rig from camera
    lines = ["# rig_id, sensor_id, qw, qx, qy, qz, tx, ty, tz"]
    for sensor, matrix in poses.items():
        pose = pycolmap.Rigid3d(matrix)
        values = [*pose.rotation.quat[[3, 0, 1, 2]], *pose.translation]
        lines.append(", ".join(["hetlens", sensor, *map(str, map(float, values))]))
    (tmp_path / "rigs.txt").write_text("\n".join(lines))
    listed = ["# timestamp, sensor_id, image_path", "100, cam_a, raw/a/5.jpg"]
    listed += ["100, cam_b, raw/b/5.jpg", "101, cam_b, raw/b/6.jpg", "102, phone, c.jpg"]
    (tmp_path / "images.txt").write_text("\n".join(listed))
    for path in (tmp_path, tmp_path / "rigs.txt"):
        first, second = read_rigs(path, names)
        assert (first.name, first.images) == ("hetlens/100", names[:2])
        assert (second.name, second.images) == ("hetlens/101", names[2:])
        np.testing.assert_allclose(
            first.cams_from_rig, [inverse(p) for p in poses.values()], atol=1e-12
        )


CAMERA = {"image_prefix": "a", "ref_sensor": True}
OTHER = {
    "image_prefix": "b",
    "cam_from_rig_rotation": [1, 0, 0, 0],
    "cam_from_rig_translation": [1, 0, 0],
}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "not readable JSON"),
        ({}, "expected a list of rigs"),
        ([{"cameras": []}], "no list of cameras"),
        ([{"cameras": [{"ref_sensor": True}]}], "no image_prefix"),
        ([{"cameras": [CAMERA, CAMERA]}], "'a' comes twice"),
        ([{"cameras": [CAMERA]}, {"cameras": [CAMERA]}], "'a' comes twice"),
        ([{"cameras": [OTHER]}], "0 cameras with ref_sensor"),
        ([{"cameras": [CAMERA, OTHER | {"ref_sensor": True}]}], "its pose is none"),
        ([{"cameras": [CAMERA, {"image_prefix": "b"}]}], "has no cam_from_rig_rotation"),
        (
            [{"cameras": [CAMERA, OTHER | {"cam_from_rig_rotation": [1, 1, 0, 0]}]}],
            "of length 1",
        ),
        (
            [{"cameras": [CAMERA, OTHER | {"cam_from_rig_translation": [1, "x", 0]}]}],
            "a translation of 3",
        ),
        ([{"cameras": [CAMERA | {"image_prefix": "zz"}]}], "no query is in a frame"),
    ],
)
def test_wrong_files_are_told_in_one_line(tmp_path, content, told):
    path = tmp_path / "rigs.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError, match=told) as error:
        read_rigs(path, ["a1.jpg", "b1.jpg"])
    assert "\n" not in str(error.value) and "rigs.json" in str(error.value)


POSE = "1, 0, 0, 0, 0, 0, 0"
RIGS = f"r, a, {POSE}\nr, b, {POSE}\n"


@pytest.mark.parametrize(
    ("rigs", "images", "told"),
    [
        ("r, a, 1, 0, 0, 0\n", "1, a, x.jpg\n", "rigs.txt:1: expected `rig, sensor"),
        (f"{RIGS}q, a, {POSE}\n", "1, a, x.jpg\n", "rigs.txt:3: sensor 'a' comes twice"),
        (RIGS, "1, a, x.jpg, y\n", "images.txt:1: expected `timestamp"),
        (RIGS, "1, c, x.jpg\n", "no query is in a frame"),
    ],
)
def test_wrong_files_of_lamar_are_told_in_one_line(tmp_path, rigs, images, told):
    (tmp_path / "rigs.txt").write_text(rigs)
    (tmp_path / "images.txt").write_text(images)
    with pytest.raises(InputError, match=told) as error:
        read_rigs(tmp_path, ["s/x.jpg"])
    assert "\n" not in str(error.value)


def test_a_model_without_rigs_and_frames_of_one_name_are_told(scene, tmp_path):
    with pytest.raises(InputError, match="no rig of several cameras"):
        read_rigs(scene.sfm, list(scene.db_names))
    path = tmp_path / "rigs.json"
    rig = [CAMERA | {"image_prefix": "x/a"}, OTHER | {"image_prefix": "x/b"}]
    path.write_text(json.dumps([{"cameras": rig}]))
    with pytest.raises(InputError, match="two frames would have the name"):
        read_rigs(path, ["x/a/1", "x/b/1", "x/a1"])
    with pytest.raises(InputError, match="rig 0 has no list"):
        path.write_text(json.dumps([3]))
        read_rigs(path, ["x"])


def test_rigs_without_a_common_folder_have_numbers(tmp_path):
    path = tmp_path / "rigs.json"
    second = [CAMERA | {"image_prefix": "c"}, OTHER | {"image_prefix": "d"}]
    path.write_text(json.dumps([{"cameras": [CAMERA, OTHER]}, {"cameras": second}]))
    frames = read_rigs(path, ["a", "b", "c1", "d1"])
    assert [frame.name for frame in frames] == ["rig-0", "rig-1/1"]


def run(scene, compressed, folder, queries, name="results", **options):
    if not (folder / "map.dpqed").exists():
        write_map(folder / "map.dpqed", compressed)
    (folder / "pairs.txt").write_text(
        "\n".join(f"{q} {r}" for q in scene.query_names for r in scene.db_names)
    )
    results = folder / f"{name}.txt"
    figures = localize.main(
        folder / "map.dpqed",
        queries,
        scene.features,
        results,
        folder / "pairs.txt",
        full_names=True,
        progress=False,
        threads=1,
        **options,
    )
    return figures, results


def test_command(scene, compressed, tmp_path, one_frame, monkeypatch):
    queries, path = one_frame
    figures, results = run(
        scene,
        compressed,
        tmp_path,
        queries,
        rigs=path,
        results_rigs=tmp_path / "rigs.txt",
        logs=tmp_path / "logs.json",
    )
    assert (figures["num_rigs"], figures["num_rigs_localized"]) == (1, 1)
    assert (figures["num_queries"], figures["num_localized"]) == (3, 3)
    poses, rig_poses = read_poses(results), read_poses(tmp_path / "rigs.txt")
    assert list(rig_poses) == ["0.jpg"]
    (frame,) = read_rigs(path, list(poses)[1:])
    for name, pose in zip(frame.images, frame.cams_from_rig, strict=True):
        np.testing.assert_allclose(poses[name], compose(pose, rig_poses["0.jpg"]), atol=1e-9)
    assert set(json.loads((tmp_path / "logs.json").read_text())) == set(poses)
    _, singles = run(scene, compressed, tmp_path, queries, "singles")
    alone = read_poses(singles)
    np.testing.assert_array_equal(alone["alone.jpg"], poses["alone.jpg"])
    assert not np.array_equal(alone[frame.images[0]], poses[frame.images[0]])

    # Interrupted after the first frame, and continued.
    before = Localizer.localize_rigs

    def interrupted(self, stream):
        for count, outcome in enumerate(before(self, stream)):
            if count == 1:
                raise KeyboardInterrupt
            yield outcome

    monkeypatch.setattr(Localizer, "localize_rigs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(scene, compressed, tmp_path, queries, "again", rigs=path)
    monkeypatch.setattr(Localizer, "localize_rigs", before)
    figures, again = run(scene, compressed, tmp_path, queries, "again", rigs=path)
    assert figures["num_resumed"] == 1
    assert again.read_bytes() == results.read_bytes()


def test_a_wrong_unit_is_told(scene, compressed, tmp_path, one_frame, caplog):
    queries, path = one_frame
    with caplog.at_level("WARNING", "hloc_dpqed"):
        figures, _ = run(scene, compressed, tmp_path, queries, rigs=path, rig_scale=0.1)
    assert figures["num_rigs_disagreeing"] == 1 and figures["num_localized"] == 3
    assert figures["baseline_ratio"] == pytest.approx(10, rel=0.02)
    assert "--rig_scale" in caplog.text


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"rig_scale": 0.0}, "positive number"),
        ({"rig_scale": 2.0}, "--rig_scale: needs --rigs"),
        ({"results_rigs": Path("x.txt")}, "--results_rigs: needs --rigs"),
        ({"rigs": Path("nowhere.json")}, "no such file or folder"),
    ],
)
def test_arguments_are_checked(scene, compressed, tmp_path, options, told):
    with pytest.raises(InputError, match=told):
        run(scene, compressed, tmp_path, scene.queries, **options)


def test_real_rigs_are_better_than_their_images(castle, tmp_path):
    """castle-P30's surveyed cameras in threes, on 3 % of the points."""
    from hloc_dpqed import compress

    compress.main(
        castle / "sfm",
        castle / "feats-superpoint.h5",
        tmp_path / "map.dpqed",
        fraction=0.03,
        codec="pq",
        code_bytes=8,
        progress=False,
    )
    truth = read_poses(castle / "poses_gt.txt")
    names = list(truth)
    rig_list = []
    for start in range(0, len(names) - 2, 3):
        cameras = []
        for name in names[start : start + 3]:
            known = pycolmap.Rigid3d(compose(truth[name], inverse(truth[names[start]])))
            cameras.append({"image_prefix": name, "ref_sensor": name == names[start]})
            if name != names[start]:
                cameras[-1]["cam_from_rig_rotation"] = known.rotation.quat[[3, 0, 1, 2]].tolist()
                cameras[-1]["cam_from_rig_translation"] = known.translation.tolist()
        rig_list.append({"cameras": cameras})
    (tmp_path / "rigs.json").write_text(json.dumps(rig_list))
    away = {}
    for name, more in (("alone", {}), ("rigs", {"rigs": tmp_path / "rigs.json"})):
        localize.main(
            tmp_path / "map.dpqed",
            castle / "queries.txt",
            castle / "feats-superpoint.h5",
            tmp_path / f"{name}.txt",
            castle / "pairs-query-vlad10.txt",
            progress=False,
            **more,
        )
        found = read_poses(tmp_path / f"{name}.txt")
        away[name] = [errors(found[n], truth[n])[0] if n in found else np.inf for n in names[:9]]
    assert np.median(away["rigs"]) < 0.75 * np.median(away["alone"])
    assert max(away["rigs"]) <= max(away["alone"])
