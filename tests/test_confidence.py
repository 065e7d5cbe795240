"""Covariances against drawn noise, and the calibrated probability of a pose."""

import json
from dataclasses import replace

import numpy as np
import pycolmap
import pytest
from moved_maps import ECEF, TURN, moved_map, moved_pose
from synthetic import compressed_scene, make_scene
from test_rigs import frames_of, made_rig, run, scene  # noqa: F401 (a fixture)

from hloc_dpqed import compress, prune
from hloc_dpqed.errors import InputError
from hloc_dpqed.io.sizes import parse_size
from hloc_dpqed.localization import rigs
from hloc_dpqed.localization.confidence import (
    Calibration,
    Evidence,
    coverage,
    evidence_of,
    fit_calibration,
)
from hloc_dpqed.localization.doubt import LeastConfidence
from hloc_dpqed.localization.localizer import Localizer
from hloc_dpqed.localization.pose import estimate_pose, estimation_options
from hloc_dpqed.mapfile import map_info, read_map, write_map
from hloc_dpqed.scene.projection import camera_centre
from hloc_dpqed.scene.rigid import compose

# pycolmap's robust loss of scale 1 widens the covariance where errors are as large as that.
NOISE = 0.1


def drawn(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(6,) rotation vector in the camera's frame and difference of the centres."""
    turn = found[:, :3] @ truth[:, :3].T  # so small that its sine is its angle
    skew = (turn - turn.T) / 2
    vector = [skew[2, 1], skew[0, 2], skew[1, 0]]
    return np.r_[vector, camera_centre(found) - camera_centre(truth)]


def assert_covariance(told: np.ndarray, draws: np.ndarray, noise: float) -> None:
    """The covariance, for a pixel of noise, is that of the draws."""
    measured = np.cov(draws.T) / noise**2
    std = np.sqrt(np.diag(measured))
    np.testing.assert_allclose(np.sqrt(np.diag(told)), std, rtol=0.25)
    np.testing.assert_allclose(told / np.outer(std, std), measured / np.outer(std, std), atol=0.35)


@pytest.mark.parametrize("unit", [None, 1.0, 100.0])
def test_covariance_is_that_of_drawn_noise(unit):
    """In the map's frame and unit, wherever its origin is."""
    matched, _, poses, cameras, rig = made_rig(np.random.default_rng(0), (60,), 0, noise=0)
    truth, points = compose(poses[0], rig), matched[0][1]
    if unit is not None:
        points, truth = unit * points @ TURN.T + ECEF, moved_pose(truth, unit)
    options = estimation_options(4, {"refinement": {"gradient_tolerance": 1e-12}})
    draws, told = [], []
    for seed in range(150):
        noise = NOISE * np.random.default_rng(seed).standard_normal((60, 2))
        answer = estimate_pose(matched[0][0] + noise, points, cameras[0], options, seed)
        draws.append(drawn(answer["cam_from_world"].matrix(), truth))
        told.append(answer["covariance"])
    assert_covariance(np.mean(told, axis=0), np.array(draws), NOISE)


def test_covariance_of_cameras_on_a_rig():
    matched, best, poses, cameras, truth = made_rig(
        np.random.default_rng(3), (30, 30), 0, noise=0, spread=3
    )
    options = estimation_options(4, {"refinement": {"gradient_tolerance": 1e-12}})
    draws, told = [], []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        noisy = [(px + NOISE * rng.standard_normal(px.shape), points) for px, points in matched]
        found, _, covariance = rigs.estimate_rig_pose(
            noisy, best, poses, cameras, options, seed, "pycolmap"
        )
        second = compose(poses[1], found)
        draws.append(drawn(second, compose(poses[1], truth)))
        told.append(rigs.covariance_on_rig(covariance, found, poses[1]))
    assert_covariance(np.mean(told, axis=0), np.array(draws), NOISE)


def test_coverage_counts_cells():
    camera = pycolmap.Camera(model="SIMPLE_PINHOLE", width=600, height=300, params=[1, 1, 1])
    assert coverage(np.zeros((0, 2)), camera) == 0
    assert coverage(np.array([[1.0, 1], [2, 2]]), camera) == 1 / 36
    assert coverage(np.array([[1.0, 1], [600, 300], [-1, 1]]), camera) == 2 / 36
    x, y = np.meshgrid(np.arange(50, 600, 100), np.arange(25, 300, 50))
    assert coverage(np.stack([x.ravel(), y.ravel()], 1).astype(float), camera) == 1


def made_poses(rng, count):
    """Errors that follow their evidence, but for failures where there are few inliers."""
    poses = []
    for _ in range(count):
        inliers = int(rng.integers(5, 200))
        std = 3 / inliers
        evidence = Evidence(std, 10 * std, inliers, 250, min(1, inliers / 100))
        fails = rng.random() < np.exp(-inliers / 20)
        scale = 50 if fails else 1
        away, turn = np.linalg.norm(rng.standard_normal((2, 3)), axis=1) / 3**0.5
        poses.append((evidence, scale * std * away, scale * 10 * std * turn))
    return poses


def test_what_is_fitted_is_calibrated():
    calibration = fit_calibration(made_poses(np.random.default_rng(0), 150))
    said, was = [], []
    for evidence, away, turn in made_poses(np.random.default_rng(1), 2000):
        for translation in (0.02, 0.1, 0.5):
            said.append(calibration.probability(evidence, translation, 10 * translation))
            was.append(away < translation and turn < 10 * translation)
    said, was = np.array(said), np.array(was, float)
    gap = 0.0
    for low in np.arange(0, 1, 0.2):
        mine = (said >= low) & (said < low + 0.2)
        assert mine.sum() > 30
        assert abs(said[mine].mean() - was[mine].mean()) < 0.25
        gap += mine.mean() * abs(said[mine].mean() - was[mine].mean())
    assert gap < 0.08
    assert np.mean((said - was) ** 2) < 0.6 * was.mean() * (1 - was.mean())
    # Looser thresholds are never less probable, and any unit of the map is the same.
    evidence = Evidence(0.1, 1.0, 50, 100, 0.5)
    wider = [calibration.probability(evidence, t, 10 * t) for t in np.geomspace(1e-3, 1e3, 30)]
    assert (np.diff(wider) >= 0).all() and wider[0] < 0.1 and wider[-1] > 0.8
    far = replace(evidence, position_std=100.0)
    assert calibration.probability(far, 200.0, 3.0) == pytest.approx(
        calibration.probability(evidence, 0.2, 3.0)
    )
    assert calibration.probability(None, 1, 1) == 0
    assert Calibration.from_json(json.loads(json.dumps(calibration.to_json()))).num_poses == 150
    with pytest.raises(InputError, match="no held-out image"):
        fit_calibration([])


NAMES = ["one", "threshold", "inliers", "share", "coverage"]


@pytest.mark.parametrize(
    "told",
    [3, {"features": ["one"]}, {"features": 3}]
    + [
        {"features": NAMES, "weights": weights, "num_poses": 1}
        for weights in ([1], ["x"] * 5, [float("nan")] * 5)
    ],
)
def test_damaged_calibrations(told):
    if told == {"features": ["one"]}:
        assert Calibration.from_json(told) is None  # of another version
        return
    with pytest.raises(InputError, match="damaged"):
        Calibration.from_json(told)
    assert Calibration.from_json(None) is None


def test_evidence_is_that_of_the_map_s_unit(scene):  # noqa: F811
    compressed = compressed_scene(scene, with_global=False)
    query = frames_of(scene, compressed)[0][0].queries[0]
    here = Localizer(compressed).localize(query)
    there = Localizer(moved_map(compressed, 20.0)).localize(query)
    assert here.evidence.num_inliers == there.evidence.num_inliers > 50
    assert there.evidence.position_std == pytest.approx(20 * here.evidence.position_std, rel=1e-2)
    assert there.evidence.rotation_std == pytest.approx(here.evidence.rotation_std, rel=1e-2)
    assert 0 < here.evidence.coverage <= 1
    assert evidence_of(None, 3, 4, 0.5) is None
    assert evidence_of(np.full((6, 6), np.nan), 3, 4, 0.5) is None


SURE = Calibration((0.0, 1.0, 0.0, 0.0, 0.0), 10).to_json()


def test_command_leaves_out_doubtful_poses(scene, tmp_path):  # noqa: F811
    made = compressed_scene(scene, with_global=False)
    with pytest.raises(InputError, match="compress --calibrate"):
        run(scene, made, tmp_path, scene.queries, min_confidence="0.9@0.25/2")
    write_map(tmp_path / "map.dpqed", replace(made, confidence=SURE))
    path = tmp_path / "all.jsonl"
    options = {"results_jsonl": path, "fallback": "none"}
    figures, everything = run(
        scene, made, tmp_path, scene.queries, "all", min_confidence="0.01@1e-9/1e-9", **options
    )
    assert figures["num_doubtful"] == 0 and figures["num_localized"] == 5
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    covariance = np.array(lines[0]["covariance"])
    assert covariance.shape == (6, 6) and (np.linalg.eigvalsh(covariance) > 0).all()
    (said,) = lines[0]["probability"].values()
    expected = Calibration.from_json(SURE).probability(Evidence(**lines[0]["evidence"]), 1e-9, 1e-9)
    assert said == pytest.approx(expected, abs=1e-6)
    stds = sorted(line["evidence"]["position_std"] for line in lines)
    # With this calibration a pose is more probable than not where its deviation is smaller.
    middle = (stds[1] + stds[2]) / 2
    figures, results = run(
        scene, made, tmp_path, scene.queries, "some", min_confidence=f"0.5@{middle}/90"
    )
    assert figures["num_doubtful"] == 3 and figures["num_localized"] == 2
    kept = results.read_text().splitlines()
    assert len(kept) == 2 and set(kept) < set(everything.read_text().splitlines())


@pytest.mark.parametrize(
    "text", ["0.9", "x@1/1", "0@1/1", "1@1/1", "0.5@0/1", "0.5@1/inf", "0.5@1"]
)
def test_thresholds_are_checked(text):
    with pytest.raises(InputError, match="--min_confidence"):
        LeastConfidence.parse(text)


def test_compress_calibrates(tmp_path):
    names = tuple(f"db/{k}.jpg" for k in range(12))
    made = make_scene(tmp_path / "scene", dim=32, db_names=names, keypoint_noise=1.0)
    options = {"codec": "pq", "code_bytes": 8, "progress": False, "threads": 1}
    files = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.dpqed"
        files.append(compress.main(made.sfm, made.features, path, calibrate=True, **options))
    assert files[0].read_bytes() == files[1].read_bytes()
    calibration = Calibration.from_json(read_map(files[0]).confidence)
    assert calibration.num_poses > 10
    plain = compress.main(made.sfm, made.features, tmp_path / "plain.dpqed", **options)
    assert read_map(plain).confidence is None
    sizes = [map_info(path)["total_bytes"] for path in (files[0], plain)]
    assert 0 < sizes[0] - sizes[1] < 400
    pruned = prune.main(files[0], tmp_path / "pruned.dpqed", num_points=100)
    assert read_map(pruned).confidence is None  # it is of another map
    budget = compress.main(
        made.sfm, made.features, tmp_path / "c.dpqed", budget="20KB", calibrate=True, **options
    )
    assert budget.stat().st_size <= parse_size("20KB")
    assert read_map(budget).confidence is not None
