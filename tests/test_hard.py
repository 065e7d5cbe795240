"""benchmarks/hard.py and hard_scenes.py: which queries meet which map, what is read and counted."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from conftest import scene_path
from PIL import Image
from synthetic import make_scene

pytest.importorskip("kornia", reason="kornia is not installed")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import hard
import hard_scenes

from hloc_dpqed.evaluation.measures import PosedQuery
from hloc_dpqed.io.features import FeatureFile, ImageFeatures
from hloc_dpqed.io.lists import read_poses, read_queries
from hloc_dpqed.io.model import read_observations, read_reference
from hloc_dpqed.mapping import extraction


def church(folder, count=4):
    """Photos of noise with calibrations on a circle, as the data has them."""
    (folder / "images").mkdir(parents=True)
    (folder / "ground_truth").mkdir()
    rng = np.random.default_rng(0)
    for k in range(count):
        Image.fromarray(rng.integers(0, 255, (60, 80 + 2 * k, 3), np.uint8)).save(
            folder / "images" / f"p{k}.jpg"
        )
        c, s = np.cos(0.3 * k), np.sin(0.3 * k)
        with h5py.File(folder / "ground_truth" / f"calibration_p{k}.h5", "w") as file:
            file["K"] = np.array([[90.0, 0, 40 + k], [0, 91, 30], [0, 0, 1]])
            file["R"] = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
            file["T"] = np.array([3.0 * k, 0.0, 7.0])
    return folder


def test_the_church_is_in_units_of_its_median_camera_distance(tmp_path):
    photos = hard_scenes.read_church(church(tmp_path / "church"))
    assert list(photos) == ["p0.jpg", "p1.jpg", "p2.jpg", "p3.jpg"]
    centres = [-p.cam_from_world[:, :3].T @ p.cam_from_world[:, 3] for p in photos.values()]
    distances = [np.linalg.norm(a - b) for i, a in enumerate(centres) for b in centres[:i]]
    assert np.median(distances) == pytest.approx(1)
    assert photos["p1.jpg"].camera.params.tolist() == [90, 91, 41, 30]
    assert photos["p1.jpg"].retrieved == ["p0.jpg", "p2.jpg", "p3.jpg"]


@pytest.mark.parametrize("fault", ["missing", "middle", "mirrored"])
def test_a_calibration_that_is_not_the_photos_is_refused(tmp_path, fault):
    root = church(tmp_path / "church")
    path = root / "ground_truth" / "calibration_p1.h5"
    if fault == "missing":
        path.unlink()
    else:
        with h5py.File(path, "a") as file:
            if fault == "middle":
                file["K"][0, 2] = 60
            else:
                file["R"][2] = -file["R"][2]
    with pytest.raises(SystemExit, match=r"calibration_p1\.h5"):
        hard_scenes.read_church(root)


def test_the_real_church():
    photos = hard_scenes.read_church(scene_path("sacre-coeur"))
    assert len(photos) == 10
    for photo in photos.values():
        assert photo.path.is_file() and len(photo.retrieved) == 9


def test_hard_photos_get_hlocs_files(tmp_path, monkeypatch):
    def network(conf, images, names, weights, device):
        for name in names:
            with Image.open(images / name) as image:
                size = image.size
            corner = np.array([[size[0] - 1.0, size[1] - 1.0]], np.float32)
            yield name, ImageFeatures(corner, np.eye(1, 256, dtype=np.float32), np.ones(1), size)

    monkeypatch.setattr(extraction, "_by_network", network)
    photos = hard_scenes.read_church(church(tmp_path / "church", 3))
    folder = tmp_path / "hard"
    conf = hard_scenes.extraction("sacre-coeur", "superpoint")
    hard_scenes.harden(photos, ["far", "roll"], folder, conf)
    queries = dict(read_queries(folder / "queries.txt"))
    poses = read_poses(folder / "poses_gt.txt")
    names = {f"{r}/p{k}.png" for r in ("far", "roll") for k in range(3)}
    assert set(queries) == set(poses) == names
    with FeatureFile(folder / "features.h5") as file:
        for name, camera in queries.items():
            with Image.open(folder / "images" / name) as image:
                assert image.size == (camera.width, camera.height)
            assert file.read(name).image_size == (camera.width, camera.height)
    far, photo = queries["far/p0.png"], photos["p0.jpg"].camera
    assert far.params[0] / photo.params[0] == pytest.approx(far.width / photo.width)
    np.testing.assert_allclose(poses["far/p0.png"], photos["p0.jpg"].cam_from_world, atol=1e-8)
    retrieved = {"p1.jpg": ["p0.jpg", "p2.jpg"]}
    (query,) = hard.hard_queries(folder, ["roll"], retrieved)
    assert query.name == "roll/p1.png" and query.retrieved == ["p0.jpg", "p2.jpg"]
    turn = query.cam_from_world[:, :3] @ photos["p1.jpg"].cam_from_world[:, :3].T
    assert np.degrees(np.arccos((np.trace(turn) - 1) / 2)) == pytest.approx(35)


def test_intervals_draw_a_photo_with_all_made_from_it():
    names = ["0:night/a.png", "0:far/a.png", "0:clean/b.jpg", "1:night/a.png"]
    assert [hard.photo_of(n) for n in names] == ["0:a", "0:a", "0:b", "1:a"]
    # Eight copies of two photos say no more than two queries do.
    differences = np.repeat([0.0, 1.0], 4)
    mean, low, high = hard.clustered(differences, ["a"] * 4 + ["b"] * 4)
    assert (mean, low, high) == (0.5, 0.0, 1.0)
    _, narrow, wide = hard.clustered(differences, list("abcdefgh"))
    assert narrow > 0 and wide < 1
    assert hard.verdict(0.1, 0.2, 0.05) == "+" and hard.verdict(-0.04, 0.1, 0.05) == "="
    assert hard.verdict(-0.2, -0.1, 0.05) == "-" and hard.verdict(-0.2, 0.1, 0.05) == "?"


def cell(names, errors):
    count = len(names)
    return {
        "names": names,
        "correct": [2] * count,
        "keypoints": [2] * count,
        "matched": [4] * count,
        "errors": errors,
        "points": 5,
    }


def test_recall_counts_runs_and_seeds():
    first = cell(["clean/a", "night/a"], [[[0.01, 0.1], [0.2, 0.1]], [[np.inf, np.inf], [0, 2]]])
    second = cell(["clean/a", "night/a"], [[[0.01, 0.1], [0.01, 0.1]], [[0.01, 0.9], [0, 2]]])
    figures = hard.Figures([[first], [second]])
    assert figures.values["recall"].tolist() == [0.75, 0.25]
    assert figures.values["precision"].tolist() == [0.5, 0.5]
    assert figures.of(["night"]).mean("recall") == 0.25
    both = hard.joined([figures, figures])
    assert both.names[2] == "1:clean/a" and both.mean("recall") == 0.5
    with pytest.raises(ValueError, match="other queries"):
        hard.interval(figures, figures.of(["night"]), "recall")
    with pytest.raises(SystemExit, match="other queries"):
        hard.Figures([[first], [cell(["clean/b", "night/b"], [[[0, 0]], [[0, 0]]])]])


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    scene = make_scene(tmp_path_factory.mktemp("scene") / "s", num_points=120, dim=16)
    reference = read_reference(scene.sfm)
    observations = read_observations(reference, scene.features)
    name = reference.image_names[0]
    with FeatureFile(scene.features) as file:
        features = file.read(name)
    query = PosedQuery(
        f"clean/{name}",
        reference.cameras[reference.camera_index[0]],
        features,
        reference.image_names[1:],
        reference.cam_from_world[0],
    )
    size = hard.input_bytes(scene.sfm, scene.features, reference.image_names)
    return hard.Problem("toy", lambda: (reference, observations, [query], size), scene.features)


def options(tmp_path, **more):
    return SimpleNamespace(
        seed=0,
        matchers=["NN-mutual"],
        matcher_weights=None,
        ransac_seeds=2,
        codec="pq",
        output=tmp_path,
        **more,
    )


def test_cells_are_measured_once(problem, tmp_path, monkeypatch):
    args = options(tmp_path)
    cells = hard.Cells(tmp_path, "codecs", "superpoint", 2, "listed")
    found = hard.codec_cell(problem, cells, "pq:4", "NN-mutual", args)
    assert found["names"] == problem.read()[2][0].name.split() and found["points"] == 120
    assert found["input_bytes"] > 2 * found["total_bytes"] > 0
    assert hard.Figures([[found]]).mean("recall") == 1
    kept = hard.selector_cell(problem, cells, "hybrid", "0.3", 0, {}, args)
    assert kept["points"] == 36 and kept["of"] == 120
    # The codec comes from its file, and the cells from theirs.
    monkeypatch.setattr(hard, "measure", None)
    monkeypatch.setattr(hard.Compressor, "fit", None)
    assert hard.codec_cell(problem, cells, "pq:4", "NN-mutual", args) == found
    assert hard.selector_cell(problem, cells, "hybrid", "0.3", 0, {}, args) == kept
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    assert json.loads(cells.path("toy", "pq:4", "NN-mutual", 0).read_text()) == found


def test_a_whole_file_is_within_its_share(problem, tmp_path):
    cells = hard.Cells(tmp_path, "files", "superpoint", 2, "listed")
    found = hard.file_cell(problem, cells, 4, options(tmp_path))
    assert found["total_bytes"] <= found["input_bytes"] / 4
    assert 0 < found["points"] <= 120
