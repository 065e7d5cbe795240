"""Priors from a file: what is read, true and false ones, and that no pose becomes wrong."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from hypothesis import given, settings, strategies as st
from moved_maps import TURN, moved_map, moved_pose
from synthetic import compressed_scene
from test_rigs import errors, run, scene  # noqa: F401 (a fixture)

from hloc_dpqed import compress, localize
from hloc_dpqed.cli import build_parser
from hloc_dpqed.errors import InputError
from hloc_dpqed.io.features import open_features
from hloc_dpqed.io.lists import read_pairs, read_poses, read_queries, write_poses
from hloc_dpqed.io.priors import read_priors
from hloc_dpqed.localization.confidence import Calibration
from hloc_dpqed.localization.localizer import Localizer, Query
from hloc_dpqed.localization.priors import Prior, images_seeing
from hloc_dpqed.mapfile import read_map, write_map
from hloc_dpqed.scene.projection import camera_centre, project_points

DOWN = np.array([0, 0, -9.81])
NAMES = ["a/x.jpg", "b/x.jpg", "c/y 1.jpg", "z", "z 1"]


def written(path, text):
    path.write_text(text)
    return path


def test_what_is_read(tmp_path):
    path = written(
        tmp_path / "p.txt",
        "# comment\na/x.jpg 1 2 3 0.5\na/x.jpg gravity 0 1 0\n\ny 1.jpg -1e3 .5 +2\n"
        "b/x.jpg 0.5 -0.5 0.5 0.5 1 2 3\nother.jpg 1 2 3\n",
    )
    found = read_priors(path, NAMES)
    assert list(found) == ["a/x.jpg", "c/y 1.jpg", "b/x.jpg"]
    one, two, three = found.values()
    np.testing.assert_array_equal(one.position, [1, 2, 3])
    np.testing.assert_array_equal(one.gravity, [0, 1, 0])
    assert one.radius == 0.5 and two.radius is None and one.cam_from_world is None
    np.testing.assert_array_equal(two.position, [-1000, 0.5, 2])
    np.testing.assert_allclose(three.cam_from_world[:, 3], [1, 2, 3])
    poses = {"b/x.jpg": three.cam_from_world}
    write_poses(tmp_path / "again.txt", poses)  # hloc's own results are such a file
    again = read_priors(tmp_path / "again.txt", NAMES)["b/x.jpg"].cam_from_world
    np.testing.assert_allclose(again, three.cam_from_world, atol=1e-15)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it is empty"),
        ("other.jpg 1 2 3\n", "it has 'other.jpg', there are queries such as 'a/x.jpg'"),
        ("x.jpg 1 2 3\n", "it has 'x.jpg'"),  # of two queries
        ("a/x.jpg 1 2\n", ":1: expected `name x y z"),
        ("a/x.jpg 1 2 3 4 5\n", ":1: expected `name x y z"),
        ("a/x.jpg, 1, 2, 3\n", ":1: expected .* separated by spaces"),
        ("a/x.jpg 1 2 three\n", ":1: expected"),
        ("a/x.jpg 1 2 nan\n", "not finite"),
        ("a/x.jpg 1 2 3 0\n", "radius 0, expected a positive number"),
        ("a/x.jpg 1 2 3 -1\n", "radius -1"),
        ("a/x.jpg gravity 0 0 0\n", "gravity of no length"),
        ("a/x.jpg gravity 0 1\n", ":1: expected"),
        ("a/x.jpg 1 2 3 0.5 0.5 0.5 0.5\n", "a quaternion of length 3.77"),
        ("a/x.jpg 1 2 3\na/x.jpg 1 2 3\n", ":2: 'a/x.jpg' has a position for the second time"),
        ("a/x.jpg 1 0 0 0 1 2 3\na/x.jpg 1 2 3\n", ":2: 'a/x.jpg' has a position for the second"),
        ("a/x.jpg gravity 1 2 3\na/x.jpg gravity 1 2 3\n", "has a gravity for the second time"),
        ("z 1 2 3 4\n", "can be read as a prior of 'z' and of 'z 1'"),
    ],
)
def test_mistakes_in_the_file(tmp_path, text, told):
    with pytest.raises(InputError, match=told):
        read_priors(written(tmp_path / "p.txt", text), NAMES)


def test_impossible_whole_poses():
    pose = np.eye(4)[:3]
    Prior(cam_from_world=pose, radius=1.0).check()
    for changed, told in (
        ({"radius": None}, "needs a radius"),
        ({"position": np.zeros(3)}, "not both"),
        ({"cam_from_world": 2 * pose}, "no rotation"),
        ({"cam_from_world": -pose}, "no rotation"),
        ({"cam_from_world": np.eye(4)}, "cam_from_world"),
        ({"rotation_degrees": 0.0}, "rotation_degrees"),
    ):
        with pytest.raises(InputError, match=told):
            Prior(**{"cam_from_world": pose, "radius": 1.0} | changed).check()


@pytest.fixture(scope="module", params=["as made", "earth-centred"])
def world(scene, request, tmp_path_factory):  # noqa: F811
    """A map, the true poses of its queries, what is localized without priors, down."""
    compressed, truth, down = (
        compressed_scene(scene, with_global=False),
        read_poses(scene.poses),
        DOWN,
    )
    if request.param != "as made":
        compressed, down = moved_map(compressed), TURN @ DOWN
        truth = {name: moved_pose(pose) for name, pose in truth.items()}
    folder = tmp_path_factory.mktemp("plain")
    run(scene, compressed, folder, scene.queries, "plain")
    return compressed, truth, read_poses(folder / "plain.txt"), down


def turned(pose, degrees):
    """The pose, its camera turned about its own down axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ pose


def lines_of(kind, truth, compressed, down):
    """The text of a prior of each query, true or false in one way."""
    middle = np.median(compressed.xyz, axis=0)
    for name, pose in truth.items():
        centre = camera_centre(pose)
        if kind.startswith("gravity"):
            x, y, z = pose[:, :3] @ down * (-1 if "wrong" in kind else 1)
            yield f"{name} gravity {x:.17g} {y:.17g} {z:.17g}\n"
        elif kind.startswith("pose"):
            pose = turned(pose, 40) if "wrong" in kind else turned(pose, 3)
            rigid = pycolmap.Rigid3d(pose)
            values = [*rigid.rotation.quat[[3, 0, 1, 2]], *rigid.translation]
            yield f"{name} {' '.join(f'{value:.17g}' for value in values)}\n"
        else:
            if kind == "wrong side":
                centre = 2 * middle - centre
            if kind == "other unit":
                centre = 100 * centre
            if kind == "another frame":
                centre = TURN @ centre + 1e6
            x, y, z = centre
            yield f"{name} {x:.17g} {y:.17g} {z:.17g} 1.5\n"


@pytest.mark.parametrize("kind", ["position", "gravity", "pose"])
def test_true_priors(world, scene, tmp_path, kind, caplog):  # noqa: F811
    compressed, truth, plain, down = world
    path = written(tmp_path / "p.txt", "".join(lines_of(kind, truth, compressed, down)))
    lines, logs = tmp_path / "l.jsonl", tmp_path / "logs.json"
    with caplog.at_level("WARNING", "hloc_dpqed"):
        figures, results = run(
            scene, compressed, tmp_path, scene.queries, priors=path, results_jsonl=lines,
            logs=logs, prior_radius=1.5, map_gravity=down.tolist(),
        )  # fmt: skip
    assert figures["num_priors"] == figures["num_localized"] == 5
    assert figures["num_priors_false"] == 0 and "false" not in caplog.text
    assert figures["num_priors_used"] == (0 if kind == "gravity" else 5)
    for name, pose in read_poses(results).items():
        away, turn = errors(pose, truth[name])
        assert away < 0.1 and turn < 0.5
        if kind == "gravity":
            np.testing.assert_array_equal(pose, plain[name])
    for line in map(json.loads, lines.read_text().splitlines()):
        assert line["prior"]["agrees"] is True
        assert (line["prior"]["distance"] is None) == (kind == "gravity")
        assert (line["prior"]["angle"] is None) == (kind == "position")
    assert all("prior" in log for log in json.loads(logs.read_text()).values())


@pytest.mark.parametrize(
    "kind", ["wrong side", "other unit", "another frame", "gravity wrong", "pose wrong"]
)
def test_false_priors_are_told_and_change_nothing(world, scene, tmp_path, kind, caplog):  # noqa: F811
    compressed, truth, plain, down = world
    path = written(tmp_path / "p.txt", "".join(lines_of(kind, truth, compressed, down)))
    lines = tmp_path / "l.jsonl"
    with caplog.at_level("WARNING", "hloc_dpqed"):
        figures, results = run(
            scene, compressed, tmp_path, scene.queries, priors=path, results_jsonl=lines,
            prior_radius=1.5, map_gravity=down.tolist(),
        )  # fmt: skip
    assert figures["num_priors_false"] == 5 and figures["num_priors_used"] == 0
    assert "5 of 5 priors are false" in caplog.text
    if kind == "other unit":
        assert "in another unit" in caplog.text
        assert figures["prior_ratio"] == pytest.approx(0.01, rel=0.05)
    if kind == "another frame":
        assert "in another frame" in caplog.text
    found = read_poses(results)
    assert set(found) == set(plain)
    for name, pose in found.items():
        np.testing.assert_array_equal(pose, plain[name])
    assert all(
        json.loads(line)["prior"]["agrees"] is False for line in lines.read_text().splitlines()
    )


def test_a_run_with_priors_continues(world, scene, tmp_path, monkeypatch):  # noqa: F811
    compressed, truth, _, down = world
    path = written(
        tmp_path / "p.txt", "".join(list(lines_of("position", truth, compressed, down))[:3])
    )
    whole, wanted = run(scene, compressed, tmp_path, scene.queries, "whole", priors=path)
    assert (whole["num_priors"], whole["num_priors_used"]) == (3, 3)
    before = Localizer.localize_with_priors

    def interrupted(self, *args):
        for count, outcome in enumerate(before(self, *args)):
            if count == 2:
                raise KeyboardInterrupt
            yield outcome

    monkeypatch.setattr(Localizer, "localize_with_priors", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(scene, compressed, tmp_path, scene.queries, "again", priors=path)
    monkeypatch.setattr(Localizer, "localize_with_priors", before)
    figures, again = run(scene, compressed, tmp_path, scene.queries, "again", priors=path)
    assert figures["num_resumed"] == 2 and figures["num_priors_used"] == 3
    assert again.read_bytes() == wanted.read_bytes()


def test_a_prior_stands_for_retrieval(world, scene, tmp_path):  # noqa: F811
    """A query without pairs is localized among the images near its prior."""
    compressed, truth, _, down = world
    queries = list(truth)
    pairs = written(tmp_path / "few.txt", f"{queries[0]} {scene.db_names[0]}\n")
    path = written(
        tmp_path / "p.txt", "".join(list(lines_of("position", truth, compressed, down))[:2])
    )
    write_map(tmp_path / "map.dpqed", compressed)
    figures = localize.main(
        tmp_path / "map.dpqed", scene.queries, scene.features, tmp_path / "r.txt", pairs,
        full_names=True, progress=False, threads=1, priors=path,
    )  # fmt: skip
    assert figures["num_localized"] == 2
    assert set(read_poses(tmp_path / "r.txt")) == set(queries[:2])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"prior_radius": 1.0}, "--prior_radius: needs --priors"),
        ({"map_gravity": [0, 0, 1]}, "--map_gravity: needs --priors"),
        ({"priors": True, "prior_radius": 0.0}, "--prior_radius 0.0: expected a positive"),
        ({"priors": True, "prior_angle": 200.0}, "--prior_angle 200.0"),
        ({"priors": True, "map_gravity": [0, 0, 0]}, "--map_gravity: expected three numbers"),
        ({"priors": True}, "has no radius, pass --prior_radius"),
        ({"priors": True, "prior_radius": 1.0}, "has a gravity, pass --map_gravity"),
        ({"priors": True, "rigs": True}, "--priors: excludes --rigs"),
    ],
)
def test_arguments_are_checked(world, scene, tmp_path, options, told):  # noqa: F811
    name = read_queries(scene.queries)[0][0]
    path = written(tmp_path / "p.txt", f"{name} 0 0 0\n{name} gravity 0 1 0\n")
    options = {key: path if value is True else value for key, value in options.items()}
    with pytest.raises(InputError, match=told):
        run(scene, world[0], tmp_path, scene.queries, **options)


def test_images_that_see_what_a_pose_sees(world, scene):  # noqa: F811
    compressed, truth, *_ = world
    camera = read_queries(scene.queries)[0][1]
    pose = truth[read_queries(scene.queries)[0][0]]
    visible = project_points(compressed.xyz, camera, pose)[1]
    votes = [visible[compressed.visibility[k]].sum() for k in range(compressed.num_images)]
    found = images_seeing(compressed, camera, pose, 3)
    assert [votes[k] for k in found] == sorted(votes, reverse=True)[:3]
    behind = turned(pose, 180)
    everything = project_points(compressed.xyz, camera, behind)[1]
    assert bool(images_seeing(compressed, camera, behind, 3)) == bool(everything.any())


def test_false_priors_on_a_real_scene(castle, tmp_path):
    """The other side of the courtyard, and other images' whole poses: told, and nothing is lost."""
    path = tmp_path / "map.dpqed"
    compress.main(
        castle / "sfm", castle / "feats-superpoint.h5", path, codec="pq", code_bytes=8, fraction=1.0
    )
    compressed, truth = read_map(path), read_poses(castle / "poses_gt.txt")
    row_of = {name: row for row, name in enumerate(compressed.image_names)}
    (pairs,) = castle.glob("pairs-query-*.txt")
    retrieved = read_pairs(pairs)
    localizer = Localizer(compressed)
    middle = np.median(compressed.xyz, axis=0)
    false = 0
    with open_features(castle / "feats-superpoint.h5") as file:
        for name, camera in read_queries(castle / "queries.txt")[::4]:
            rows = [row_of[reference] for reference in retrieved[name]]
            query = Query(name, camera, file.read(name), rows)
            plain = localizer.localize(query).cam_from_world
            centre = camera_centre(truth[name])
            for prior in (
                Prior(position=2 * middle - centre, radius=3.0),
                Prior(cam_from_world=turned(truth[name], 180), radius=3.0),
            ):
                found = localizer.localize_with_prior(query, prior)
                false += found.agrees is False
                np.testing.assert_array_equal(found.outcome.cam_from_world, plain)
            near = Prior(cam_from_world=turned(truth[name], 5), radius=1.0)
            found = localizer.localize_with_prior(query, near)
            assert found.agrees and found.used
            assert errors(found.outcome.cam_from_world, truth[name])[0] < 0.3
    assert false == 6


def test_probabilities_are_of_what_is_matched_as_calibrations_are(scene, tmp_path):  # noqa: F811
    """With --min_confidence nothing is looked for as in a sequence, whose poses have none."""
    compressed, truth = compressed_scene(scene, with_global=False), read_poses(scene.poses)
    calibration = Calibration((3.0, 1.0, 0.1, 0.1, 0.1), 10).to_json()
    compressed = replace(compressed, confidence=calibration)
    path = written(
        tmp_path / "p.txt", "".join(list(lines_of("position", truth, compressed, DOWN))[:3])
    )
    told = {}
    for name, least in (("sure", "0.01@1/10"), ("any", None)):
        lines = tmp_path / f"{name}.jsonl"
        run(
            scene, compressed, tmp_path, scene.queries, name, priors=path, results_jsonl=lines,
            min_confidence=least,
        )  # fmt: skip
        told[name] = [json.loads(line) for line in lines.read_text().splitlines()]
    assert all(line["probability"] for line in told["sure"])
    for line in told["any"]:
        used = line["prior"] is not None and line["prior"]["used"]
        assert (line["probability"] is None) == used
    assert sum(line["probability"] is None for line in told["any"]) == 3


WORDS = st.sampled_from(
    [
        "a/x.jpg",
        "z",
        "1",
        "z 1",
        "gravity",
        "0.5",
        "-2e3",
        "nan",
        "inf",
        "1e999",
        ",",
        "#",
        "é",
        "\t",
    ]
)


@given(st.lists(st.lists(WORDS, max_size=10).map(" ".join), max_size=6).map("\n".join))
@settings(max_examples=300)
def test_any_text_is_read_or_refused(text):
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder) / "p.txt", text)
        try:
            found = read_priors(path, NAMES)
        except InputError as error:
            assert "\n" not in str(error)
            return
    assert found and set(found) <= set(NAMES)
    for known in found.values():
        for value in (known.position, known.cam_from_world, known.gravity):
            assert value is None or np.isfinite(value).all()


def test_arguments_of_the_command():
    argv = "localize --map m --results r --queries q --features f --priors p --map_gravity 0 0 -9.8"
    args = build_parser().parse_args(argv.split())
    assert args.map_gravity == [0, 0, -9.8] and args.prior_radius is None and not args.track
