"""COLMAP databases in the place of feature files: what is read, that nothing is written, that
figures are those of the same features in hloc's layout, and what is refused."""

import hashlib
import json
import shutil
import sqlite3
import struct

import h5py
import numpy as np
import pycolmap
import pytest
from colmap_files import TYPED, scene_database, scene_features, sift_of, write_database
from synthetic import make_scene

from hloc_dpqed import compress, evaluate, fit_codec, localize, report, sweep
from hloc_dpqed.cli import main as cli
from hloc_dpqed.errors import InputError
from hloc_dpqed.io.colmap_database import DatabaseFile, is_database
from hloc_dpqed.io.features import (
    FeatureFile,
    descriptor_dimension,
    feature_kind,
    open_features,
)
from hloc_dpqed.io.model import load_reconstruction
from hloc_dpqed.mapfile import read_map
from hloc_dpqed.maps.same_features import features_of

CAMERA = pycolmap.Camera(model="SIMPLE_RADIAL", width=64, height=48, params=[50, 32, 24, 0.01])
NAMES = ("a/1.jpg", "with space/1 .jpg", "Straße/夜.jpg")


def rng(seed=0):
    return np.random.default_rng(seed)


def some_sift(count=30, seed=0):
    """RootSIFT of length 512, as COLMAP rounds it."""
    unit = np.abs(rng(seed).standard_normal((count, 128)))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return np.round(512 * unit).astype(np.uint8)


def some_keypoints(count=30, columns=6, seed=0):
    return rng(seed).uniform(1, 47, (count, columns)).astype(np.float32)


def images(columns=6, count=30):
    return {
        name: (some_keypoints(count, columns, i), some_sift(count, i), CAMERA)
        for i, name in enumerate(NAMES)
    }


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return make_scene(tmp_path_factory.mktemp("colmap"), dim=128, num_points=200)


@pytest.fixture(scope="module")
def database(scene):
    return scene_database(scene, scene.folder / "database.db")


@pytest.fixture(scope="module")
def equivalent(scene):
    return scene_features(scene, scene.folder / "equivalent.h5")


@pytest.fixture(scope="module")
def sift_map(scene, database):
    output = scene.folder / "m.dpqed"
    return compress.main(scene.sfm, database, output, codec="none", progress=False)


# What is read


@pytest.mark.parametrize("columns", [2, 4, 6])
def test_rows_are_those_that_pycolmap_reads(tmp_path, columns):
    path = write_database(tmp_path / "some name#1?.db", images(columns))
    assert is_database(path)
    with open_features(path) as file, pycolmap.Database.open(str(path)) as oracle:
        assert isinstance(file, DatabaseFile)
        assert file.names == sorted(NAMES)
        for image in oracle.read_all_images():
            local = file.read(image.name)
            keypoints = np.array(oracle.read_keypoints(image.image_id))
            stored = oracle.read_descriptors(image.image_id)
            codes = np.array(getattr(stored, "data", stored)).astype(np.float64)
            np.testing.assert_allclose(local.keypoints + 0.5, keypoints[:, :2], atol=1e-5)
            unit = codes / np.linalg.norm(codes, axis=1, keepdims=True)
            np.testing.assert_allclose(local.descriptors, unit, atol=1e-6)
            assert local.image_size == (64, 48) and (local.scores == 1).all()
            dtypes = {local.keypoints.dtype, local.descriptors.dtype, local.scores.dtype}
            assert dtypes == {np.dtype(np.float32)}
            camera = file.camera(image.name)
            assert camera.model.name == "SIMPLE_RADIAL"
            np.testing.assert_array_equal(camera.params, CAMERA.params)
    assert descriptor_dimension(path) == 128
    assert feature_kind(path)["extractor"] == "COLMAP's SIFT"


def test_an_image_without_features(tmp_path):
    none = (np.zeros((0, 6), np.float32), np.zeros((0, 128), np.uint8), CAMERA)
    path = write_database(tmp_path / "d.db", images() | {"empty.jpg": none})
    with open_features(path) as file:
        local = file.read("empty.jpg")
    assert local.keypoints.shape == (0, 2) and local.descriptors.shape == (0, 128)


@pytest.mark.skipif(not TYPED, reason="pycolmap before 4.0 has no types of descriptors")
@pytest.mark.parametrize(("kind", "dim"), [("ALIKED_N16ROT", 128), ("ALIKED_N32", 96)])
def test_float_descriptors(tmp_path, kind, dim):
    x = rng().standard_normal((30, dim)).astype(np.float32) * 3
    path = write_database(tmp_path / "d.db", {"1.jpg": (some_keypoints(), x, CAMERA)}, kind)
    with open_features(path) as file:
        local = file.read("1.jpg")
        assert file.nbytes("1.jpg") == (30 * 6 * 4 + 30 * dim * 4, 30 * dim * 4)
    unit = x.astype(np.float64) / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(local.descriptors, unit, atol=1e-6)
    assert descriptor_dimension(path) == dim
    assert feature_kind(path)["extractor"] == f"COLMAP's {kind}"


def old_database(path, keypoints, descriptors):
    """The tables as COLMAP 3.0 to 3.13 makes them, by hand."""
    with sqlite3.connect(path) as made:
        made.executescript(
            "CREATE TABLE cameras (camera_id INTEGER, model INTEGER, width INTEGER, "
            "height INTEGER, params BLOB, prior_focal_length INTEGER);"
            "CREATE TABLE images (image_id INTEGER, name TEXT, camera_id INTEGER, prior_qw REAL);"
            "CREATE TABLE keypoints (image_id INTEGER, rows INTEGER, cols INTEGER, data BLOB);"
            "CREATE TABLE descriptors (image_id INTEGER, rows INTEGER, cols INTEGER, data BLOB);"
        )
        made.execute(
            "INSERT INTO cameras VALUES (7, 0, 64, 48, ?, 0)", (struct.pack("<3d", 50, 32, 24),)
        )
        made.execute("INSERT INTO images VALUES (3, '1.jpg', 7, NULL)")
        for table, rows in (("keypoints", keypoints), ("descriptors", descriptors)):
            made.execute(f"INSERT INTO {table} VALUES (3, ?, ?, ?)", (*rows.shape, rows.tobytes()))
    made.close()
    return path


def test_a_database_of_an_older_colmap_is_read_and_left_as_it_is(tmp_path):
    keypoints, codes = some_keypoints(), some_sift()
    path = old_database(tmp_path / "d.db", keypoints, codes)
    before = path.read_bytes()
    with open_features(path) as file:
        local = file.read("1.jpg")
        assert file.extractor() == "COLMAP's SIFT"
        assert file.camera("1.jpg").params.tolist() == [50, 32, 24]
    np.testing.assert_array_equal(local.keypoints, keypoints[:, :2] - np.float32(0.5))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_database_that_is_open_elsewhere(tmp_path):
    path = write_database(tmp_path / "d.db", images())
    with pycolmap.Database.open(str(path)) as database:
        cid = database.write_camera(CAMERA)
        image = database.write_image(pycolmap.Image(name="late.jpg", camera_id=cid))
        database.write_keypoints(image, some_keypoints())
        with open_features(path) as file:  # in the log, not in the file
            assert "late.jpg" in file
    with open_features(path) as file:
        assert "late.jpg" in file


def test_sift_of_either_normalization_is_rootsift(tmp_path):
    """The same pixels extracted with COLMAP's two normalisations give the same descriptors."""
    from hloc_dpqed.demo.render import Renderer
    from hloc_dpqed.demo.scene import courtyard
    from hloc_dpqed.demo.views import database_poses, pinhole, random_light

    renderer, camera = Renderer(courtyard(0, 40.0), 0), pinhole(320, 240, 0.82)
    picture = renderer.render(camera, database_poses(4, 0)[0], random_light(rng()), rng()).image
    pycolmap.Bitmap.from_array(picture).write(str(tmp_path / "1.jpg"))
    found = {}
    for name in ("L1_ROOT", "L2"):
        path = tmp_path / f"{name}.db"
        with pycolmap.Database.open(str(path)):
            pass
        pycolmap.import_images(str(path), str(tmp_path), pycolmap.CameraMode.SINGLE, ["1.jpg"])
        options = pycolmap.FeatureExtractionOptions()
        options.use_gpu, options.num_threads = False, 1
        options.sift.normalization = getattr(pycolmap.Normalization, name)
        options.sift.first_octave = 0
        pycolmap.extract_features(
            str(path),
            str(tmp_path),
            ["1.jpg"],
            extraction_options=options,
            device=pycolmap.Device.cpu,
        )
        with DatabaseFile(path) as file:
            found[name] = file.read("1.jpg")
            assert file._sift_is_root() == (name == "L1_ROOT")
    root, squared = found["L1_ROOT"], found["L2"]
    assert len(root.keypoints) > 100
    np.testing.assert_array_equal(root.keypoints, squared.keypoints)
    assert (root.descriptors * squared.descriptors).sum(1).min() > 0.995


# The same as from hloc's file


def test_features_are_those_of_the_equivalent_file_to_the_bit(scene, database, equivalent):
    assert is_database(database) and not is_database(equivalent)
    with open_features(database) as ours, open_features(equivalent) as theirs:
        assert isinstance(theirs, FeatureFile)
        for name in sift_of(scene.features):
            one, two = ours.read(name), theirs.read(name)
            assert one.image_size == two.image_size
            for key in ("keypoints", "descriptors", "scores"):
                np.testing.assert_array_equal(getattr(one, key), getattr(two, key), strict=True)


@pytest.mark.parametrize("options", [{"codec": "pq"}, {"budget": "12KB", "codec": "sq8"}])
def test_maps_and_poses_are_those_of_the_equivalent_file(
    scene, database, equivalent, tmp_path, options
):
    outputs = {}
    for kind, features in (("db", database), ("h5", equivalent)):
        path = tmp_path / f"{kind}.dpqed"
        compress.main(scene.sfm, features, path, progress=False, **options)
        results = tmp_path / f"{kind}.txt"
        figures = localize.main(
            path, scene.queries, features, results, scene.pairs, progress=False, min_inliers=0
        )
        assert figures["num_localized"] == len(scene.query_names)
        truth = evaluate.main(results, scene.poses)
        outputs[kind] = (read_map(path), results.read_bytes(), truth)
    (ours, poses, errors), (theirs, same_poses, same_errors) = outputs["db"], outputs["h5"]
    np.testing.assert_array_equal(ours.codes, theirs.codes)
    assert poses == same_poses and errors == same_errors
    assert errors["median_translation"] < 0.05
    told = {"name": "database", "extractor": "COLMAP's SIFT", "dim": 128}
    assert features_of(ours) == told


def test_recalls_are_planned_with_a_database(scene, database, equivalent, tmp_path):
    """Planning reads held-out images whole."""
    paths = [tmp_path / "db.dpqed", tmp_path / "h5.dpqed"]
    how = {"target_recall": "0.3@0.5/10", "codec": "none", "progress": False}
    for path, features in zip(paths, (database, equivalent), strict=True):
        compress.main(scene.sfm, features, path, **how)
    ours, theirs = (read_map(path) for path in paths)
    np.testing.assert_array_equal(ours.codes, theirs.codes)


def test_every_stage_takes_a_database(scene, database, tmp_path, sift_map):
    codec = fit_codec.main(
        [scene.sfm], [database], tmp_path / "c.safetensors", codec="pq", progress=False
    )
    assert codec.is_file()
    table = sweep.main(
        scene.sfm, database, scene.queries, scene.pairs, scene.poses, tmp_path / "sweep",
        codecs=["pq"], fractions=[1], seeds=1, ransac_seeds=1, plots=False, progress=False,
    )  # fmt: skip
    assert len(table.read_text().splitlines()) == 2
    pytest.importorskip("plotly")
    page = report.main(
        [sift_map], scene.queries, database, scene.pairs, tmp_path / "r.html", scene.sfm,
        reference_features=database, reference_poses=scene.poses, ransac_seeds=1, progress=False,
    )  # fmt: skip
    assert "database.db" in page.read_text(encoding="utf-8")


def test_the_command_line(scene, database, tmp_path, capfd):
    argv = ["--reference_sfm", scene.sfm, "--features", database, "--codec", "none"]
    assert cli(["compress", *map(str, argv), "--output", str(tmp_path / "m.dpqed")]) == 0
    argv = ["--map", tmp_path / "m.dpqed", "--queries", scene.queries, "--features", database]
    argv += ["--retrieval", "none", "--results", tmp_path / "r.txt", "--json"]
    capfd.readouterr()
    assert cli(["localize", *map(str, argv)]) == 0
    assert json.loads(capfd.readouterr().out)["num_localized"] == len(scene.query_names)


# What is refused


def refused(function, *args, **kwargs):
    with pytest.raises(InputError) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def edited(database, path, *statements):
    shutil.copyfile(database, path)
    with sqlite3.connect(path) as file:
        file.create_function("nans", 1, lambda count: b"\xff" * count)
        for statement in statements:
            file.execute(statement)
    file.close()
    return path


def read_all(path):
    with open_features(path) as file:
        for name in file.names:
            file.read(name)


def test_other_rows_than_the_models_are_refused_with_both_counts(scene, database, tmp_path):
    name = scene.db_names[0]
    with pycolmap.Database.open(str(database)) as file:
        found = {image.name: image.image_id for image in file.read_all_images()}[name]
    n = len(sift_of(scene.features)[name][0]) - 1
    path = edited(
        database,
        tmp_path / "short.db",
        f"UPDATE keypoints SET rows = {n}, data = substr(data, 1, {n * 24}) "
        f"WHERE image_id = {found}",
        f"UPDATE descriptors SET rows = {n}, data = substr(data, 1, {n * 128}) "
        f"WHERE image_id = {found}",
    )
    message = refused(compress.main, scene.sfm, path, tmp_path / "m.dpqed", progress=False)
    assert name in message and str(path) in message
    assert f"{n} keypoints" in message and f"{n + 1} in the model" in message
    assert not (tmp_path / "m.dpqed").exists()


def test_keypoints_in_another_order_are_refused(scene, tmp_path):
    shuffled = {}
    for name, (keypoints, codes, (width, height)) in sift_of(scene.features).items():
        order = rng().permutation(len(keypoints))
        camera = pycolmap.Camera(
            model="SIMPLE_PINHOLE", width=width, height=height, params=[width, 1, 1]
        )
        shuffled[name] = (keypoints[order], codes[order], camera)
    path = write_database(tmp_path / "shuffled.db", shuffled)
    message = refused(compress.main, scene.sfm, path, tmp_path / "m.dpqed", progress=False)
    assert "the same keypoints in another order" in message


def test_images_agree_by_name_whatever_their_ids(scene, database):
    with pycolmap.Database.open(str(database)) as file:
        ids = {image.name: image.image_id for image in file.read_all_images()}
    model = load_reconstruction(scene.sfm)
    assert any(ids[image.name] != image.image_id for image in model.images.values())


CASES = {
    "no table": (["DROP TABLE descriptors"], "no table 'descriptors'"),
    "no descriptors": (["DELETE FROM descriptors"], "holds no descriptors"),
    "none of an image": (
        ["DELETE FROM descriptors WHERE image_id = 1"],
        "holds no descriptors of it",
    ),
    "none of keypoints": (["DELETE FROM keypoints WHERE image_id = 1"], "no keypoints of it"),
    "cut": (
        ["UPDATE keypoints SET data = substr(data, 1, 50) WHERE image_id = 1"],
        "50 bytes, expected 30 rows of 6",
    ),
    "three columns": (
        ["UPDATE keypoints SET cols = 3, data = substr(data, 1, 360) WHERE image_id = 1"],
        "3 columns, expected 2, 4 or 6",
    ),
    "fewer descriptors": (
        ["UPDATE descriptors SET rows = 29, data = substr(data, 1, 3712) WHERE image_id = 1"],
        "30 keypoints, but 29 descriptors",
    ),
    "binary": (
        ["UPDATE descriptors SET cols = 32, data = substr(data, 1, 960)"],
        "binary, as of ORB",
    ),
    "two kinds": (
        ["UPDATE descriptors SET cols = 64, data = substr(data, 1, 1920) WHERE image_id = 1"],
        "several kinds",
    ),
    "text": (["UPDATE keypoints SET data = 'abc' WHERE image_id = 1"], "are damaged"),
    "words": (["UPDATE descriptors SET cols = 'many'"], "of many bytes"),
    "no size": (["UPDATE cameras SET width = 0"], "a camera of 0 x 48"),
    "zero": (
        ["UPDATE descriptors SET data = zeroblob(3840) WHERE image_id = 1"],
        "descriptor 0 has zero length",
    ),
    "not finite": (
        ["UPDATE keypoints SET data = nans(720)"],
        "keypoints are not finite",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_refused_in_one_line(tmp_path, case):
    statements, expected = CASES[case]
    whole = write_database(tmp_path / "whole.db", images())
    path = edited(whole, tmp_path / "edited.db", *statements)
    message = refused(read_all, path)
    assert expected in message and str(path) in message


def test_files_that_are_none(tmp_path):
    assert "no such file" in refused(open_features, tmp_path / "absent.db")
    assert "no such file" in refused(DatabaseFile, tmp_path / "absent.db")
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as file:
        file.execute("CREATE TABLE things (id INTEGER)")
    file.close()
    assert "no table 'cameras'" in refused(open_features, other)


def test_a_damaged_file_is_refused_or_read(tmp_path):
    """No other exception, whatever bytes are changed."""
    whole = write_database(tmp_path / "whole.db", images()).read_bytes()
    path, outcomes = tmp_path / "damaged.db", set()
    for seed in range(150):
        data = bytearray(whole)
        for at in rng(seed).integers(16, len(data), 40):
            data[at] = rng(seed + int(at)).integers(256)
        path.write_bytes(data[: len(data) - 4096 * (seed % 3)])
        try:
            read_all(path)
            outcomes.add("read")
        except InputError as error:
            assert "\n" not in str(error)
            outcomes.add("refused")
    assert "refused" in outcomes


def test_another_extractor_is_refused(scene, database, sift_map, tmp_path):
    """ALIKED has as many dimensions as SIFT."""
    other = tmp_path / "feats-aliked-n16.h5"
    with h5py.File(other, "w") as file:
        for name, (keypoints, codes, size) in sift_of(scene.features).items():
            group = file.create_group(name)
            group["keypoints"] = keypoints - np.float32(0.5)
            group["descriptors"] = codes.T.astype(np.float32)
            group["image_size"] = np.array(size)
    run = (localize.main, sift_map, scene.queries)
    where = {"retrieval": "none", "progress": False}
    message = refused(*run, other, tmp_path / "r.txt", **where)
    assert "features of aliked, but the map was made from features of COLMAP's SIFT" in message
    run[0](*run[1:], other, tmp_path / "r.txt", allow_other_extractor=True, **where)
    sift = shutil.copyfile(other, tmp_path / "feats-sift.h5")
    run[0](*run[1:], sift, tmp_path / "r2.txt", **where)
    if TYPED:
        path = edited(database, tmp_path / "t.db", "UPDATE descriptors SET type = 1")
        message = refused(*run, path, tmp_path / "r3.txt", **where)
        assert "32 dimensions" in message or "COLMAP's ALIKED_N16ROT" in message


def test_results_continue_only_with_the_same_database(scene, database, sift_map, tmp_path):
    """What a log beside the file adds counts as a change of the file."""
    from hloc_dpqed.io.checkpoint import run_key

    path = shutil.copyfile(database, tmp_path / "d.db")
    before = run_key([sift_map], [path], {})
    log = tmp_path / "d.db-wal"
    log.write_bytes(b"x")
    assert run_key([sift_map], [path], {}) != before
    log.unlink()
    assert run_key([sift_map], [path], {}) == before


def test_nothing_is_written_to_the_database(scene, database, tmp_path):
    folder = tmp_path / "kept"
    folder.mkdir()
    path = folder / "d.db"
    shutil.copyfile(database, path)
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    compress.main(scene.sfm, path, tmp_path / "m.dpqed", codec="none", progress=False)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert list(folder.iterdir()) == [path]


def test_an_image_that_is_not_there(tmp_path):
    scene = make_scene(tmp_path, num_points=40)
    path = scene_database(scene, tmp_path / "database.db")
    with open_features(path) as file:
        for ask in (file.read, file.camera, file.image_size):
            with pytest.raises(InputError, match="not in the COLMAP database"):
                ask("nowhere.jpg")


def test_a_camera_of_damaged_parameters(tmp_path):
    scene = make_scene(tmp_path, num_points=40)
    path = scene_database(scene, tmp_path / "database.db")
    with sqlite3.connect(path) as database:
        database.execute("UPDATE cameras SET params = x'00'")
    with open_features(path) as file, pytest.raises(InputError, match="parameters are damaged"):
        file.camera(scene.db_names[0])
