"""Pose errors and recall."""

import numpy as np
import pycolmap
import pytest
from hypothesis import given, strategies as st
from scipy.spatial.transform import Rotation

from hloc_dpqed import evaluate
from hloc_dpqed.errors import InputError
from hloc_dpqed.evaluation.pose_errors import match_names, parse_thresholds, pose_error, summarize
from hloc_dpqed.io.lists import write_poses


def pose(seed: int = 0, translation=(0, 0, 0), rotation=None) -> np.ndarray:
    rotation = Rotation.random(random_state=seed) if rotation is None else rotation
    return np.c_[rotation.as_matrix(), translation]


def moved(truth: np.ndarray, distance: float, degrees: float, seed: int = 0) -> np.ndarray:
    """A camera whose centre is ``distance`` away and which is turned by ``degrees``."""
    rng = np.random.default_rng(seed)
    direction, axis = rng.standard_normal((2, 3))
    centre = -truth[:, :3].T @ truth[:, 3] + distance * direction / np.linalg.norm(direction)
    turn = Rotation.from_rotvec(np.radians(degrees) * axis / np.linalg.norm(axis))
    rotation = turn.as_matrix() @ truth[:, :3]
    return np.c_[rotation, -rotation @ centre]


@given(st.integers(0, 1000), st.floats(0, 100), st.floats(0, 179.9))
def test_errors_are_those_that_were_made(seed, distance, degrees):
    truth = pose(seed, np.random.default_rng(seed).uniform(-10, 10, 3))
    translation, rotation = pose_error(moved(truth, distance, degrees, seed), truth)
    assert translation == pytest.approx(distance, abs=1e-9)
    assert rotation == pytest.approx(degrees, abs=1e-6)


def test_tiny_and_half_turns():
    truth = pose(3, (1, 2, 3))
    assert pose_error(truth, truth) == (0.0, pytest.approx(0.0, abs=1e-7))
    assert pose_error(moved(truth, 0, 1e-5), truth)[1] == pytest.approx(1e-5, rel=1e-3)
    assert pose_error(moved(truth, 0, 180), truth)[1] == pytest.approx(180, abs=1e-5)


def test_recall_counts_all_queries_and_is_strict():
    errors = np.array([[0.1, 1.0], [0.25, 1.0], [0.1, 2.0], [np.inf, np.inf]])
    figures = summarize(errors, [(0.25, 2.0), (5.0, 10.0)])
    assert figures["num_queries"] == 4 and figures["num_localized"] == 3
    assert [row["fraction"] for row in figures["recall"]] == [0.25, 0.75]
    assert figures["median_translation"] == pytest.approx(0.175)


def test_medians_over_missing_queries_are_null():
    errors = np.array([[0.1, 1.0], [np.inf, np.inf], [np.inf, np.inf]])
    figures = summarize(errors, [(1.0, 1.0)])
    assert figures["median_translation"] is None and figures["median_rotation"] is None


def test_thresholds():
    assert parse_thresholds("0.25/2,0.5/5") == [(0.25, 2.0), (0.5, 5.0)]
    for text in ("", "1", "1/2/3", "a/b", "0/2", "-1/2", "1/2,", "nan/2", "inf/2"):
        with pytest.raises(InputError, match="expected translation/rotation pairs"):
            parse_thresholds(text)


def test_results_under_hlocs_names():
    truth = dict.fromkeys(["query/day/a.jpg", "query/night/b.jpg", "c.jpg"])
    assert match_names(truth, dict.fromkeys(["a.jpg", "night/b.jpg", "c.jpg"])) == {
        "query/day/a.jpg": "a.jpg",
        "query/night/b.jpg": "night/b.jpg",
        "c.jpg": "c.jpg",
    }


def test_a_whole_name_is_the_images_own():
    truth = dict.fromkeys(["x/a.jpg", "a.jpg"])
    assert match_names(truth, dict.fromkeys(["a.jpg"])) == {"a.jpg": "a.jpg"}
    both = {"x/a.jpg": "x/a.jpg", "a.jpg": "a.jpg"}
    assert match_names(truth, dict.fromkeys(["x/a.jpg", "a.jpg"])) == both


def test_results_that_could_be_two_images():
    with pytest.raises(InputError, match=r"'a\.jpg' could be 'x/a\.jpg' or 'y/a\.jpg'"):
        match_names(dict.fromkeys(["x/a.jpg", "y/a.jpg"]), dict.fromkeys(["a.jpg"]))


@pytest.fixture
def files(tmp_path):
    truth = {f"q/{k}.jpg": pose(k, (k, 0, 0)) for k in range(4)}
    truth["with space.jpg"] = pose(9)
    estimated = {f"{k}.jpg": moved(truth[f"q/{k}.jpg"], 0.1 * k, k) for k in range(3)}
    write_poses(tmp_path / "truth.txt", truth)
    write_poses(tmp_path / "results.txt", estimated)
    return tmp_path


def test_a_file_of_poses(files):
    figures = evaluate.main(files / "results.txt", files / "truth.txt", "0.15/5")
    assert figures["num_queries"] == 5 and figures["num_localized"] == 3
    assert figures["recall"] == [{"translation": 0.15, "rotation": 5.0, "fraction": 0.4}]
    assert figures["median_translation"] == pytest.approx(0.2)


def test_listed_queries_only(files):
    listed = files / "queries.txt"
    listed.write_text(
        "q/0.jpg PINHOLE 1 1 1 1 1 1\r\n# q/1.jpg\n\nq/3.jpg\nother.jpg\nwith space.jpg PINHOLE 1\n"
    )
    figures = evaluate.main(files / "results.txt", files / "truth.txt", queries=listed)
    assert figures["num_queries"] == 3 and figures["num_localized"] == 1
    with pytest.raises(InputError, match="no such file"):
        evaluate.main(files / "results.txt", files / "truth.txt", queries=files / "absent")
    listed.write_text("nobody.jpg\n")
    with pytest.raises(InputError, match="holds no pose of a query"):
        evaluate.main(files / "results.txt", files / "truth.txt", queries=listed)


def test_no_result_at_all(files):
    (files / "results.txt").write_text("")
    figures = evaluate.main(files / "results.txt", files / "truth.txt")
    assert figures["num_localized"] == 0 and figures["median_translation"] is None
    assert {row["fraction"] for row in figures["recall"]} == {0.0}


def test_files_of_different_scenes(files):
    write_poses(files / "other.txt", {"elsewhere.jpg": pose()})
    with pytest.raises(InputError, match="shares no image name"):
        evaluate.main(files / "other.txt", files / "truth.txt")


def test_a_model_as_reference(tmp_path):
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_frames_per_rig, options.num_points3D = 1, 4, 10
    model = pycolmap.synthesize_dataset(options)
    (tmp_path / "sfm").mkdir()
    model.write(tmp_path / "sfm")
    poses = {i.name: i.cam_from_world().matrix() for i in model.images.values()}
    write_poses(tmp_path / "results.txt", poses)
    figures = evaluate.main(tmp_path / "results.txt", tmp_path / "sfm")
    assert figures["num_localized"] == figures["num_queries"] == 4
    assert figures["median_translation"] < 1e-9 and figures["median_rotation"] < 1e-6
