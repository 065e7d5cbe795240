"""``export --format colmap``: COLMAP itself matches and registers a query with what is written."""

import shutil
import sqlite3

import numpy as np
import pycolmap
import pytest
from colmap_files import TYPED
from test_map import SIZE, camera_of, yard  # noqa: F401  (a fixture)

from hloc_dpqed import compress, export, map as mapping
from hloc_dpqed.cli import main as cli
from hloc_dpqed.errors import InputError
from hloc_dpqed.evaluation.pose_errors import pose_error
from hloc_dpqed.io.colmap_export import check_exportable, sift_bytes, write_database
from hloc_dpqed.io.features import open_features
from hloc_dpqed.io.lists import read_poses
from hloc_dpqed.io.model import load_reconstruction, read_observations, read_reference
from hloc_dpqed.mapfile import read_map
from hloc_dpqed.mapping.colmap import quiet_colmap


@pytest.fixture(scope="module")
def exported(yard):  # noqa: F811
    """A map of the rendered photos with quantized descriptors, written for COLMAP."""
    scene = yard / "for-export"
    mapping.main(yard / "photos", scene, yard / "poses", max_keypoints=1000, progress=False)
    path = yard / "export.dpqed"
    compress.main(
        scene / "sfm", scene / "features.h5", path, codec="sq8", selector="all", progress=False
    )
    assert cli(["export", str(path), "--output", str(yard / "colmap"), "--format", "colmap"]) == 0
    return yard / "colmap"


def test_model_and_database_agree(yard, exported):  # noqa: F811
    assert sorted(p.name for p in exported.iterdir()) == ["database.db", "sparse"]
    compressed = read_map(yard / "export.dpqed")
    model = load_reconstruction(exported / "sparse")
    with pycolmap.Database.open(str(exported / "database.db")) as database:
        images = {image.image_id: image for image in database.read_all_images()}
        assert {i: im.name for i, im in images.items()} == {
            i: im.name for i, im in model.images.items()
        }
        assert database.num_rigs() == len(model.rigs)
        assert database.num_frames() == len(model.frames)
        for image_id, image in model.images.items():
            xy = np.array([point.xy for point in image.points2D])
            np.testing.assert_allclose(database.read_keypoints(image_id), xy, atol=1e-3)
            assert images[image_id].camera_id == image.camera_id
        camera = database.read_camera(1)
        np.testing.assert_array_equal(camera.params, model.cameras[1].params)
    # It is a database that a map can be made from again.
    reference = read_reference(exported / "sparse")
    observations = read_observations(reference, exported / "database.db")
    with open_features(exported / "database.db") as file:
        assert file.extractor() == "COLMAP's SIFT"
    decoded = compressed.codec.decode(compressed.codes)[observations.point_index]
    assert (decoded * observations.descriptors).sum(1).min() > 0.99


@pytest.mark.parametrize("name", ["3.png", "6.png"])
def test_colmap_registers_a_query(yard, exported, tmp_path, name):  # noqa: F811
    """COLMAP's extraction, its matcher and its registration, by pycolmap."""
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copyfile(yard / "queries" / name, folder / name)
    database = shutil.copyfile(exported / "database.db", tmp_path / "database.db")
    options = pycolmap.ImageReaderOptions()
    words = camera_of(yard).split()
    options.camera_model, options.camera_params = words[0], ",".join(words[3:])
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.use_gpu, extraction.num_threads = False, 1
    extraction.sift.first_octave = 0
    device = pycolmap.Device.cpu
    with quiet_colmap():
        pycolmap.import_images(
            str(database), str(folder), pycolmap.CameraMode.SINGLE, [name], options
        )
        pycolmap.extract_features(
            str(database), str(folder), [name], extraction_options=extraction, device=device
        )
        pycolmap.match_exhaustive(str(database), device=device)
        how = pycolmap.IncrementalPipelineOptions()
        how.fix_existing_frames, how.num_threads = True, 1
        how.extract_colors = False
        how.ba_refine_focal_length = how.ba_refine_extra_params = False
        (tmp_path / "out").mkdir()
        models = pycolmap.incremental_mapping(
            str(database), str(folder), str(tmp_path / "out"), how, str(exported / "sparse")
        )
    found = {
        image.name: image.cam_from_world()
        for model in models.values()
        for image in model.images.values()
        if image.has_pose
    }
    assert name in found
    translation, rotation = pose_error(
        in_the_exported_frame(found, name, load_reconstruction(exported / "sparse")),
        read_poses(yard / "truth.txt")[name],
    )
    assert translation < 0.05 and rotation < 0.5


def in_the_exported_frame(found, name, model):
    """The pose (3, 4) of ``name``: some versions of COLMAP move and scale what they return."""
    given = {image.name: image.cam_from_world() for image in model.images.values()}
    first, last = min(given), max(given)

    def distance(poses):
        centres = [poses[n].inverse().translation for n in (first, last)]
        return np.linalg.norm(np.subtract(*centres))

    relative = found[name] * found[first].inverse()
    relative.translation = relative.translation * (distance(given) / distance(found))
    return (relative * given[first]).matrix()


def test_sift_bytes_are_colmaps():
    """What COLMAP stores comes back, and what a codec made negative is nothing."""
    codes = np.random.default_rng(0).integers(0, 90, (40, 128)).astype(np.float32)
    codes = np.round(512 * codes / np.linalg.norm(codes, axis=1, keepdims=True))
    unit = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    assert np.abs(sift_bytes(unit).astype(int) - codes).max() <= 1
    unit[:, 0] = -0.1
    assert (sift_bytes(unit)[:, 0] == 0).all()


def test_what_colmap_does_not_know_is_refused(yard, exported, tmp_path):  # noqa: F811
    for extractor, dim in (("superpoint", 256), (None, 64), ("COLMAP's SIFT", 64)):
        with pytest.raises(InputError, match="COLMAP's matchers"):
            check_exportable(extractor, dim, "m.dpqed")
    assert check_exportable("feats-sift", 128, "m.dpqed") == "SIFT"
    if TYPED:
        assert check_exportable("COLMAP's ALIKED_N32", 128, "m") == "ALIKED_N32"
    with pytest.raises(InputError, match="--format text2"):
        export.main(yard / "export.dpqed", tmp_path / "x", format="text2")
    assert not (tmp_path / "x").exists()


def test_an_earlier_export_is_replaced_only_when_told(yard, exported, tmp_path):  # noqa: F811
    output = tmp_path / "colmap"
    shutil.copytree(exported, output)
    with pytest.raises(InputError, match="--overwrite"):
        export.main(yard / "export.dpqed", output, progress=False, format="colmap")
    export.main(yard / "export.dpqed", output, progress=False, overwrite=True, format="colmap")
    with sqlite3.connect(output / "database.db") as file:
        assert file.execute("SELECT count(*) FROM keypoints").fetchone()[0] == 8
    file.close()
    with pytest.raises(InputError, match="holds other than"):
        export.main(yard / "export.dpqed", output, progress=False, overwrite=True)
    assert SIZE == (480, 360)


@pytest.mark.skipif(not TYPED, reason="pycolmap before 4.0 has no types of descriptors")
def test_descriptors_of_another_type_are_written_as_they_are(yard, exported, tmp_path):  # noqa: F811
    model = load_reconstruction(exported / "sparse")
    rng = np.random.default_rng(0)
    written = {}
    for image in model.images.values():
        rows = rng.normal(size=(len(image.points2D), 128)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        written[image.name] = (np.array([p.xy for p in image.points2D], np.float32), rows)
    features = [(i, *written[image.name]) for i, image in model.images.items()]
    write_database(tmp_path / "database.db", model, features, "ALIKED_N32")
    with open_features(tmp_path / "database.db") as file:
        assert file.extractor() == "COLMAP's ALIKED_N32"
        for name, (keypoints, rows) in written.items():
            read = file.read(name)
            np.testing.assert_allclose(read.descriptors, rows, atol=1e-6)
            np.testing.assert_allclose(read.keypoints, keypoints - 0.5, atol=1e-3)
