"""Bad input through the command line, one line and exit code 2 each; and odd input that is valid.

What each reader refuses in detail is in ``test_features.py``, ``test_lists.py``, ``test_model.py``.
"""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pycolmap
import pytest
from mapfile_maps import CAMERA_MODELS, make_camera
from synthetic import Scene, make_scene, model_of
from test_cli import compress, localize, refused, run

from hloc_dpqed.evaluation.pose_errors import pose_error
from hloc_dpqed.io.lists import read_poses
from hloc_dpqed.scene.reference import normalise_rows

DIM = 16


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("inputs"), num_points=60, dim=DIM)


@pytest.fixture(scope="module")
def map_file(scene) -> Path:
    path = scene.folder / "map.dpqed"
    run_quietly(compress(scene, path))
    return path


def run_quietly(argv: list[str]) -> None:
    from hloc_dpqed import cli

    assert cli.main(argv) == 0


def put(group: h5py.Group, key: str, value: np.ndarray) -> None:
    del group[key]
    group[key] = value


def spoil(group: h5py.Group, case: str) -> None:
    """Make the features of one image bad."""
    descriptors, keypoints = group["descriptors"][:], group["keypoints"][:]
    if case.startswith("no "):
        del group[case.removeprefix("no ")]
    elif case == "transposed descriptors":
        put(group, "descriptors", descriptors.T)
    elif case == "fewer descriptors":
        put(group, "descriptors", descriptors[:, :-1])
    elif case == "flat keypoints":
        put(group, "keypoints", keypoints.ravel())
    elif case == "fewer scores":
        put(group, "scores", group["scores"][:-1])
    elif case == "NaN descriptor":
        descriptors[3, 2] = np.nan
        put(group, "descriptors", descriptors)
    elif case == "infinite keypoint":
        # Beyond float32, though not beyond its own type.
        put(group, "keypoints", np.where(np.arange(2) == 0, 1e300, keypoints.astype(float)))
    elif case == "zero-length descriptor":
        descriptors[:, 2] = 0
        put(group, "descriptors", descriptors)
    elif case == "text":
        put(group, "descriptors", np.full(descriptors.shape, b"x"))
    elif case == "absurd count":
        del group["keypoints"]
        group.create_dataset("keypoints", (1 << 40, 2), "f4", chunks=(1024, 2))
    elif case == "dangling link":
        del group["keypoints"]
        group["keypoints"] = h5py.SoftLink("/nowhere")


BAD_FEATURES = {
    "no keypoints": "dataset 'keypoints' is missing",
    "no descriptors": "dataset 'descriptors' is missing",
    "transposed descriptors": "descriptors have shape",
    "fewer descriptors": "descriptors have shape",
    "flat keypoints": "keypoints have shape",
    "fewer scores": "scores have shape",
    "NaN descriptor": "descriptors are not finite",
    "infinite keypoint": "keypoints are not finite",
    "zero-length descriptor": "has zero length",
    "text": "does not hold numbers",
    "absurd count": "more than a file of",
    "dangling link": "dataset 'keypoints' is missing",
}


@pytest.mark.parametrize("case", ["missing image", *BAD_FEATURES])
def test_bad_features(scene, map_file, tmp_path, capfd, case):
    told = BAD_FEATURES.get(case, "in the feature file")
    results = tmp_path / "results.txt"
    for image, argv in [
        (scene.db_names[1], compress(scene, tmp_path / "out.dpqed")),
        (scene.query_names[1], localize(scene, map_file, results)),
    ]:
        path = tmp_path / "feats.h5"
        shutil.copy(scene.features, path)
        with h5py.File(path, "a") as file:
            if case == "missing image":
                del file[image]
            else:
                spoil(file[image], case)
        line = refused([*argv, "--features", str(path)], told, capfd)
        assert str(path) in line and repr(image) in line
    # What was finished before the bad image is kept for the next run.
    assert {p.name for p in tmp_path.iterdir()} <= {"feats.h5", "results.txt.part"}


@pytest.mark.parametrize("case", ["empty", "cut", "text"])
def test_features_that_are_no_hdf5(scene, map_file, tmp_path, capfd, case):
    data = scene.features.read_bytes()
    path = tmp_path / "feats.h5"
    path.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "text": b"text\n" * 99}[case])
    for argv in (compress(scene, tmp_path / "m"), localize(scene, map_file, tmp_path / "r")):
        refused([*argv, "--features", str(path)], str(path), capfd)


def test_damaged_hdf5_gives_a_map_or_one_line(scene, tmp_path, capfd):
    data = scene.features.read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "feats.h5"
    codes = []
    for _ in range(25):
        damaged = bytearray(data)
        # Most of the structure of so small a file is at its start.
        for position in rng.integers(0, len(data) // 4, 20):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        argv = compress(scene, tmp_path / "m", "--overwrite", "--features", path)
        code, _, lines = run(argv, capfd)
        assert (code, len(lines)) in {(0, 0), (2, 1)}, lines
        codes.append(code)
    assert 2 in codes


def test_odd_attributes_are_not_needed(scene, tmp_path, capfd):
    path = tmp_path / "feats.h5"
    shutil.copy(scene.features, path)
    with h5py.File(path, "a") as file:
        file.attrs["extractor"] = np.arange(3)
        for name in scene.db_names:
            file[name]["keypoints"].attrs["uncertainty"] = "some"
    assert run(compress(scene, tmp_path / "m", "--features", path), capfd)[0] == 0


def test_unsorted_linked_and_undecodable_names_in_features(scene, map_file, tmp_path, capfd):
    """Only the names of the model count; neither their order nor other entries of the file do."""
    path = tmp_path / scene.features.name
    with h5py.File(scene.features) as old, h5py.File(path, "w", track_order=True) as new:
        for name in sorted((*scene.db_names, *scene.query_names), reverse=True):
            old.copy(name, new.require_group(name.rsplit("/", 1)[0]))
        new["again.jpg"] = new[scene.db_names[0]]
        new.create_group(b"d\xe9j\xe0/vu.jpg")
    argv = compress(scene, tmp_path / "m.dpqed", "--features", path)
    assert run(argv, capfd) == (0, "", [])
    assert (tmp_path / "m.dpqed").read_bytes() == map_file.read_bytes()


BAD_LISTS = {
    "no model": ("queries", b"{q} 640 480 500 320 240\n", "no known camera model"),
    "unknown model": ("queries", b"{q} NO_MODEL 640 480 500 320 240\n", "no known camera model"),
    "too few": ("queries", b"{q} PINHOLE 640 480 500 320 240\n", "bad intrinsics"),
    "too many": ("queries", b"{q} SIMPLE_PINHOLE 640 480 500 500 320 240\n", "bad intrinsics"),
    "no number": ("queries", b"{q} SIMPLE_PINHOLE 640 480 f 320 240\n", "bad intrinsics"),
    "blank": ("queries", b"\n \r\n", "holds no query"),
    "twice": ("queries", b"{q} SIMPLE_PINHOLE 9 9 9 4 4\n" * 2, "comes twice"),
    "latin-1": ("queries", b"\xe9.jpg SIMPLE_PINHOLE 9 9 9 4 4\n", "not UTF-8"),
    "pairs in latin-1": ("retrieval", b"{q} \xe9.jpg\n", "not UTF-8"),
    "pairs of one name": ("retrieval", b"{q}\n", "expected two image names"),
    "pairs of three": ("retrieval", b"a b c\n", "expected two image names"),
    "pairs with unknown images": ("retrieval", b"{q} nobody.jpg\n", "no pair of a listed query"),
    "pairs of other queries": ("retrieval", b"nobody.jpg {d}\n", "no pair of a listed query"),
}


@pytest.mark.parametrize("case", BAD_LISTS)
def test_bad_lists(scene, map_file, tmp_path, capfd, case):
    option, text, told = BAD_LISTS[case]
    path = tmp_path / "list.txt"
    for key, name in (("{q}", scene.query_names[0]), ("{d}", scene.db_names[0])):
        text = text.replace(key.encode(), name.encode())
    path.write_bytes(text)
    argv = localize(scene, map_file, tmp_path / "r.txt", f"--{option}", path)
    assert str(path) in refused(argv, told, capfd) or case == "twice"
    assert not (tmp_path / "r.txt").exists()


def test_odd_lists_that_are_valid(scene, map_file, tmp_path, capfd):
    """Blank lines, Windows line ends, comments; some pairs with unknown images."""
    plain, odd = tmp_path / "plain.txt", tmp_path / "odd.txt"
    assert run(localize(scene, map_file, plain), capfd)[0] == 0
    queries, pairs = tmp_path / "queries.txt", tmp_path / "pairs.txt"
    text = "\ufeff# a comment\n\n" + scene.queries.read_text() + "\n \n"
    queries.write_bytes(text.replace("\n", "\r\n").encode())
    more = f"\n\n{scene.query_names[0]} nobody.jpg\nnobody.jpg {scene.db_names[0]}\n"
    pairs.write_bytes((scene.pairs.read_text() + more).replace("\n", "\r\n").encode())
    argv = localize(scene, map_file, odd, "--queries", queries, "--retrieval", pairs)
    assert run(argv, capfd)[0] == 0
    assert odd.read_bytes() == plain.read_bytes()


def test_image_registered_twice(scene, tmp_path, capfd):
    """COLMAP's own reader lets it pass."""
    camera = make_camera(pycolmap.CameraModelId.PINHOLE)
    names = [scene.db_names[0]] * 2
    pose = pycolmap.Rigid3d()
    images = [(k + 1, name, 1, [[1, 1]], pose) for k, name in enumerate(names)]
    model_of([camera], images, [([0, 0, 5], [(1, 0), (2, 0)])]).write(tmp_path)
    argv = compress(scene, tmp_path / "m.dpqed", "--reference_sfm", tmp_path)
    line = refused(argv, "", capfd)
    assert names[0] in line or "not a readable COLMAP model" in line
    assert not (tmp_path / "m.dpqed").exists()


@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
def test_damaged_models(scene, tmp_path, capfd, name):
    shutil.copytree(scene.sfm, tmp_path / "sfm")
    path = tmp_path / "sfm" / f"{name}.bin"
    data = path.read_bytes()
    argv = compress(scene, tmp_path / "m.dpqed", "--reference_sfm", tmp_path / "sfm")
    for content in (b"", data[: len(data) // 2], b"\xff" * 8 + data[8:]):
        path.write_bytes(content)
        refused(argv, "truncated or damaged", capfd)
    path.unlink()
    refused(argv, "expected cameras, images and points3D", capfd)


def own_scene(model: pycolmap.Reconstruction, folder: Path) -> Scene:
    """Files of a model whose images are its queries too, with a descriptor for each point."""
    rng = np.random.default_rng(0)
    described = {i: rng.standard_normal(DIM) for i in sorted(model.points3D)}
    images = [image for image in model.images.values() if image.has_pose]
    names = tuple(image.name for image in images)
    scene = Scene(folder, names, names)
    queries, poses, pairs = [], [], []
    with h5py.File(scene.features, "w") as file:
        for image in images:
            rows = [
                described[p.point3D_id] if p.has_point3D() else rng.standard_normal(DIM)
                for p in image.points2D
            ]
            group = file.create_group(image.name)
            xy = np.array([p.xy for p in image.points2D]).reshape(-1, 2)
            group["keypoints"] = xy - 0.5
            descriptors = normalise_rows(np.reshape(rows, (-1, DIM)))
            group["descriptors"] = descriptors.T.astype(np.float16)
            camera, pose = image.camera, image.cam_from_world()
            params = " ".join(str(float(p)) for p in camera.params)
            size = f"{camera.width} {camera.height}"
            queries.append(f"{image.name} {camera.model.name} {size} {params}\n")
            values = [*pose.rotation.quat[[3, 0, 1, 2]], *pose.translation]
            poses.append(" ".join([image.name, *map(str, map(float, values))]) + "\n")
            pairs += [f"{image.name} {name}\n" for name in names]
    scene.sfm.mkdir()
    model.write(scene.sfm)
    for path, lines in ((scene.queries, queries), (scene.poses, poses), (scene.pairs, pairs)):
        path.write_text("".join(lines))
    return scene


def whole_way(scene: Scene, tmp_path: Path, capfd, *more: str) -> dict[str, np.ndarray]:
    """Compress, localize and export; the poses."""
    path, results = tmp_path / "own.dpqed", tmp_path / "own.txt"
    argv = compress(scene, path, "--codec", "none", *more)
    assert run(argv, capfd) == (0, "", [])
    argv = localize(scene, path, results, "--full_names", "--ransac_thresh", 2, "--json")
    code, out, lines = run(argv, capfd)
    assert (code, lines) == (0, [])
    assert json.loads(out)["num_queries"] == len(scene.query_names)
    argv = ["export", str(path), "--output", str(tmp_path / "exported")]
    assert run(argv, capfd)[0] == 0
    exported = pycolmap.Reconstruction(tmp_path / "exported" / "sfm")
    assert {image.name for image in exported.images.values()} == set(scene.db_names)
    return read_poses(results)


def synthesize(**options) -> pycolmap.Reconstruction:
    pycolmap.set_random_seed(0)
    chosen = pycolmap.SyntheticDatasetOptions()
    defaults = {"num_rigs": 1, "num_frames_per_rig": 3, "num_points3D": 40}
    for key, value in (defaults | options).items():
        setattr(chosen, key, value)
    return pycolmap.synthesize_dataset(chosen)


@pytest.mark.parametrize("model", CAMERA_MODELS, ids=lambda m: m.name)
def test_every_camera_model_the_whole_way(tmp_path, capfd, model):
    camera = make_camera(model)
    made = synthesize(camera_model_id=model, camera_params=list(camera.params),
                      camera_width=camera.width, camera_height=camera.height)  # fmt: skip
    scene = own_scene(made, tmp_path)
    truth = read_poses(scene.poses)
    poses = whole_way(scene, tmp_path, capfd)
    assert set(poses) == set(truth)
    for name, pose in poses.items():
        translation, rotation = pose_error(pose, truth[name])
        assert translation < 0.05 and rotation < 0.5


def test_rigs_and_mixed_cameras_the_whole_way(tmp_path, capfd):
    made = synthesize(num_rigs=2, num_cameras_per_rig=2, num_frames_per_rig=2)
    models = ("OPENCV_FISHEYE", "SIMPLE_RADIAL", "PINHOLE", "FULL_OPENCV")
    sizes = {camera_id: (c.width, c.height) for camera_id, c in made.cameras.items()}
    # Other distortion models with the images' own keypoints: projected again.
    for camera, name in zip(made.cameras.values(), models, strict=True):
        fresh = make_camera(pycolmap.CameraModelId.__members__[name])
        camera.model, camera.width, camera.height = fresh.model, fresh.width, fresh.height
        camera.params = fresh.params
    for image in made.images.values():
        ratio = np.divide([image.camera.width, image.camera.height], sizes[image.camera_id])
        for point2D in image.points2D:
            point2D.xy = point2D.xy * ratio  # in the image still
            if point2D.has_point3D():
                local = image.cam_from_world() * made.points3D[point2D.point3D_id].xyz
                pixel = image.camera.img_from_cam(local)
                point2D.xy = pixel if pixel is not None else point2D.xy
    scene = own_scene(made, tmp_path)
    truth = read_poses(scene.poses)
    poses = whole_way(scene, tmp_path, capfd)
    assert set(poses) == set(truth) and len(truth) == 8
    errors = [pose_error(pose, truth[name]) for name, pose in poses.items()]
    assert np.median([t for t, _ in errors]) < 0.05 and np.median([r for _, r in errors]) < 0.5


def test_odd_models_the_whole_way(tmp_path, capfd):
    """Images without points, points seen once or never, points behind a camera."""
    cameras = [make_camera(pycolmap.CameraModelId.PINHOLE)]
    rng = np.random.default_rng(0)
    pose = pycolmap.Rigid3d()
    xyz = [*(rng.uniform(-1, 1, (12, 3)) + np.array([0, 0, 5])), np.array([0.5, 0.5, -5.0])]
    keypoints = [cameras[0].img_from_cam(p) for p in xyz[:12]] + [np.array([600.0, 20.0])]
    images = [
        (1, "a b/sees.jpg", 1, keypoints, pose),
        (2, "Straße/夜.jpg", 1, [[5, 5], [9, 9]], pose),
        (3, "empty.jpg", 1, [], pose),
    ]
    points = [(p, [(1, k)]) for k, p in enumerate(xyz)] + [(np.ones(3), [])]
    scene = own_scene(model_of(cameras, images, points), tmp_path)
    poses = whole_way(scene, tmp_path, capfd)
    # A pixel is off by half of itself in two of three images, which see nothing.
    assert pose_error(poses["a b/sees.jpg"], np.eye(3, 4))[0] < 0.05
