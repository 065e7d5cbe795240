"""Poses of too few inliers: rejected, counted apart, not written."""

import json
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from hypothesis import given, strategies as st
from synthetic import Scene, make_scene, write_compressed_scene

from hloc_dpqed import cli, compress, load, localize
from hloc_dpqed.errors import InputError
from hloc_dpqed.evaluation.measures import measure
from hloc_dpqed.evaluation.posed_queries import read_posed_queries
from hloc_dpqed.io.lists import read_poses
from hloc_dpqed.localization.belief import least_inliers
from hloc_dpqed.localization.localizer import Localizer
from hloc_dpqed.localization.pose import estimation_options
from hloc_dpqed.mapfile import read_map


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> tuple[Scene, Scene, Path]:
    """A scene, another with the same names, and the map of the first."""
    folder = tmp_path_factory.mktemp("false")
    own = make_scene(folder / "own", num_points=200, dim=32)
    other = make_scene(folder / "other", num_points=200, dim=32, seed=1)
    return own, other, write_compressed_scene(own, folder / "map.dpqed", codec="none")


def run(map_file, scene, results, **options):
    fixed = {"progress": False, "full_names": True, "overwrite": True}
    options = {"retrieval": scene.pairs, **fixed, **options}
    return localize.main(map_file, scene.queries, scene.features, results, **options)


@pytest.mark.parametrize("retrieval", ["pairs", "none"])
@pytest.mark.parametrize("clustering", [False, True])
def test_queries_of_another_scene(scenes, tmp_path, retrieval, clustering):
    own, other, map_file = scenes
    options = {"covisibility_clustering": clustering}
    if retrieval == "none":
        options["retrieval"] = "none"
    results, logs = tmp_path / "r.txt", tmp_path / "logs.json"
    as_hloc = run(map_file, other, results, min_inliers=0, **options)
    assert as_hloc["num_localized"] == 3 and as_hloc["num_rejected"] == 0
    assert len(read_poses(results)) == 3  # three points always fit some pose
    figures = run(map_file, other, results, logs=logs, **options)
    assert figures["num_localized"] == 0 and figures["num_rejected"] == 3
    assert read_poses(results) == {} and figures["mean_inliers"] == 0
    told = json.loads(logs.read_text())
    assert all(query["rejected"] and query["num_inliers"] >= 3 for query in told.values())
    figures = run(map_file, own, results, logs=logs, **options)
    assert figures["num_localized"] == 3 and figures["num_rejected"] == 0
    assert not any(query["rejected"] for query in json.loads(logs.read_text()).values())


def test_the_closest_image_takes_the_place_of_a_rejected_pose(scenes, tmp_path):
    _, other, map_file = scenes
    figures = run(map_file, other, tmp_path / "r.txt", fallback="closest")
    assert figures["num_localized"] == 0 and figures["num_rejected"] == 3
    closest = read_map(map_file).cam_from_world[0]
    for pose in read_poses(tmp_path / "r.txt").values():
        np.testing.assert_allclose(pose, closest, atol=1e-9)


def test_the_command_tells_of_them(scenes, tmp_path, capsys):
    own, other, map_file = scenes
    argv = ["localize", "--map", map_file, "--results", tmp_path / "r.txt", "--overwrite"]
    for scene, told in [
        (other, "localized 0 of 3 queries (3 poses rejected for too few inliers), "),
        (own, "localized 3 of 3 queries, "),
    ]:
        files = ["--queries", scene.queries, "--features", scene.features]
        assert cli.main([str(a) for a in [*argv, *files, "--retrieval", scene.pairs]]) == 0
        assert capsys.readouterr().out.startswith(told)
    argv += [*files, "--retrieval", own.pairs, "--min_inliers", 1000, "--json"]
    assert cli.main([str(a) for a in argv]) == 0
    assert json.loads(capsys.readouterr().out)["num_rejected"] == 3
    assert cli.main([str(a) for a in [*argv, "--min_inliers", -1]]) == 2
    assert "--min_inliers -1: expected 0" in capsys.readouterr().err


def test_measures_and_the_python_interface_reject_them_too(scenes):
    _, other, map_file = scenes
    compressed = load(map_file)
    posed = read_posed_queries(other.queries, other.features, other.pairs, other.poses)
    assert np.isinf(measure(Localizer(compressed), posed, 2).errors).all()
    assert np.isfinite(measure(Localizer(compressed, min_inliers=0), posed, 2).errors).all()
    query = posed[0]
    found = compressed.localize(query.features, query.camera, query.retrieved)
    assert found.cam_from_world is None and found.rejected and found.num_inliers > 0
    with pytest.raises(InputError, match="--min_inliers -3"):
        compressed.localize(query.features, query.camera, query.retrieved, min_inliers=-3)


def camera(width=1024, height=768):
    params = [800, 800, width / 2, height / 2]
    return pycolmap.Camera(model="PINHOLE", width=width, height=height, params=params)


@given(st.integers(0, 20_000), st.integers(0, 50), st.floats(0.5, 50), st.integers(16, 4000))
def test_the_least_number_of_inliers(matches, floor, threshold, side):
    options = estimation_options(threshold, None)
    least = least_inliers(matches, camera(side, side), options, floor)
    if floor == 0:
        assert least == 0
        return
    assert floor <= least <= max(floor, (matches + 1) // 2)
    assert least <= least_inliers(matches + 1, camera(side, side), options, floor)
    assert least <= least_inliers(matches, camera(side, side), estimation_options(51, None), floor)
    assert least >= least_inliers(matches, camera(side + 9, side), options, floor)


def test_the_threshold_of_hlocs_config_counts():
    wide = estimation_options(4, {"estimation": {"ransac": {"max_error": 12.0}}})
    assert least_inliers(4000, camera(), wide, 8) == least_inliers(
        4000, camera(), estimation_options(12, None), 8
    )
    assert least_inliers(4000, camera(), estimation_options(4, None), 8) < 20


def test_photographs_of_another_place(fountain, south_building, tmp_path):
    """South Building is not in the courtyard of Ettlingen."""
    map_file, results = tmp_path / "map.dpqed", tmp_path / "r.txt"
    features = "feats-superpoint.h5"
    compress.main(fountain / "sfm", fountain / features, map_file, codec="pq", progress=False)
    for scene, localized in ((fountain, 4), (south_building, 0)):
        figures = localize.main(
            map_file, scene / "queries.txt", scene / features, results, "none",
            progress=False, overwrite=True,
        )  # fmt: skip
        assert figures["num_localized"] == localized == len(read_poses(results))
        assert figures["num_rejected"] == figures["num_queries"] - localized
