"""Priors of poses, true and false ones, and sequences."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from moved_maps import TURN, moved_map, moved_pose
from synthetic import compressed_scene
from test_rigs import errors, frames_of, run, scene  # noqa: F401 (a fixture)

from hloc_dpqed import compress, localize
from hloc_dpqed.errors import InputError
from hloc_dpqed.io.features import open_features
from hloc_dpqed.io.lists import read_poses, read_queries
from hloc_dpqed.localization.guided import mutually_best, pairs_within
from hloc_dpqed.localization.localizer import Localizer, Query
from hloc_dpqed.localization.map_matcher import MapMatcher, surest_keypoints
from hloc_dpqed.localization.priors import Prior, images_near
from hloc_dpqed.mapfile import read_map
from hloc_dpqed.scene.projection import camera_centre, camera_centres


@pytest.fixture(scope="module", params=["as made", "earth-centred"])
def world(scene, request):  # noqa: F811
    """A map, the queries of its sequence, and their true poses."""
    made = compressed_scene(scene, with_global=False)
    frames, truth = frames_of(scene, made)
    queries = [query for frame in frames for query in frame.queries]
    if request.param == "as made":
        return made, queries, truth
    return moved_map(made), queries, {name: moved_pose(pose) for name, pose in truth.items()}


def of_noise(query):
    f = query.features
    noise = np.random.default_rng(0).standard_normal(f.descriptors.shape).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    return replace(query, features=replace(f, descriptors=noise))


@pytest.mark.parametrize("everywhere", [False, True])
def test_track_loses_no_frame(world, everywhere):
    compressed, queries, truth = world
    queries = [replace(query, retrieved=None) for query in queries] if everywhere else queries
    # A frame of noise in the middle is lost by anyone; the next is found again.
    frames = [*queries[:2], of_noise(queries[0]), *queries[2:]]
    localizer = Localizer(compressed)
    outcomes = list(localizer.track(frames))
    assert [outcome.name for outcome in outcomes] == [frame.name for frame in frames]
    assert [outcome.cam_from_world is None for outcome in outcomes] == [0, 0, 1, 0, 0]
    for outcome in outcomes:
        if outcome.cam_from_world is not None:
            away, turn = errors(outcome.cam_from_world, truth[outcome.name])
            assert away < 0.1 and turn < 0.5
    first = localizer.localize(queries[0])
    np.testing.assert_array_equal(outcomes[0].cam_from_world, first.cam_from_world)
    assert outcomes[1].tracked
    assert list(localizer.track([])) == []


def test_a_jump_is_followed(world, monkeypatch):
    """A frame that sees nothing of the last one's images is localized as ever, where frames are
    not followed quickly."""
    compressed, queries, truth = world
    localizer = Localizer(compressed)
    monkeypatch.setattr(MapMatcher, "by_neighbours", False)
    calls = []
    plain = localizer.localize

    def fails_where_narrow(query):
        calls.append(query.retrieved)
        if len(query.retrieved) <= 4:
            return plain(of_noise(query))
        return plain(query)

    localizer.localize = fails_where_narrow
    outcomes = list(localizer.track(queries))
    for outcome in outcomes:
        assert errors(outcome.cam_from_world, truth[outcome.name])[0] < 0.1
    assert len(calls) == 2 * len(queries) - 1


def test_frames_are_followed_by_what_the_last_one_saw(world):
    """Without a full search but for the first frame; a frame of another place is searched for."""
    compressed, queries, truth = world
    localizer = Localizer(compressed)
    searched = []
    plain = localizer.localize
    localizer.localize = lambda query: searched.append(query.name) or plain(query)
    outcomes = list(localizer.track(queries))
    assert searched == [queries[0].name]
    assert [outcome.tracked for outcome in outcomes] == [False] + [True] * (len(queries) - 1)
    for query, outcome in zip(queries, outcomes, strict=True):
        away, turn = errors(outcome.cam_from_world, truth[query.name])
        assert away < 0.1 and turn < 0.5
        found = outcome.correspondences
        assert outcome.num_inliers == outcome.inliers.sum() > 40
        assert np.isfinite(outcome.covariance).all()
        # What is guided is one to one.
        if outcome.tracked:
            for side in (found.keypoint_index, found.point_index):
                assert len(np.unique(side)) == len(side)
    searched.clear()
    shuffled = queries[1]
    order = np.random.default_rng(0).permutation(len(shuffled.features.descriptors))
    f = shuffled.features
    shuffled = replace(shuffled, features=replace(f, descriptors=f.descriptors[order]))
    lost = list(localizer.track([queries[0], shuffled, queries[2]]))
    assert searched == [query.name for query in queries[:3]]
    assert [outcome.cam_from_world is None for outcome in lost] == [False, True, False]


@pytest.mark.parametrize("radius", [0.5, 7.0, 300.0])
def test_pairs_within_a_radius(radius):
    rng = np.random.default_rng(1)
    keypoints, points = rng.uniform(-20, 500, (200, 2)), rng.uniform(0, 600, (150, 2))
    off = np.linalg.norm(keypoints[:, None] - points, axis=2)
    rows = pairs_within(keypoints, points, radius)
    assert set(zip(*map(np.ndarray.tolist, rows), strict=True)) == set(
        zip(*(side.tolist() for side in np.nonzero(off <= radius)), strict=True)
    )
    assert len(rows[0]) == (off <= radius).sum()
    assert [len(side) for side in pairs_within(keypoints[:0], points, radius)] == [0, 0]
    assert [len(side) for side in pairs_within(keypoints, points[:0], radius)] == [0, 0]


def test_mutually_best():
    keypoints, points = np.array([2, 2, 0, 0, 1, 3]), np.array([5, 6, 5, 7, 7, 9])
    similarity = np.array([0.9, 0.5, 0.8, 0.7, 0.6, 0.1], np.float32)
    found = mutually_best(keypoints, points, similarity, 0.2)
    assert found.pairs.tolist() == [[2, 5]]  # 0 prefers 5, 7 prefers 0, 3 is too unlike
    assert len(mutually_best(keypoints[:0], points[:0], similarity[:0], 0.2).pairs) == 0


def test_surest_keypoints(world):
    features = world[1][0].features
    count = len(features.keypoints)
    scores = np.random.default_rng(2).permutation(count).astype(np.float32)
    found = surest_keypoints(replace(features, scores=scores), 10)
    assert sorted(scores[found]) == list(range(count - 10, count))
    assert (np.diff(found) > 0).all()
    found = surest_keypoints(replace(features, scores=np.ones(count, np.float32)), 10)
    assert len(found) == 10 and found[0] == 0 and found[-1] == count - 1
    assert len(surest_keypoints(features, count + 1)) == count


@pytest.mark.parametrize("threads", [1, 3])
def test_the_command_tracks(world, scene, tmp_path, threads, monkeypatch):  # noqa: F811
    """The same bytes with any number of threads and after an interruption."""
    compressed, _, truth = world
    how = {"track": True, "results_jsonl": tmp_path / "l.jsonl", "logs": tmp_path / "logs.json"}
    figures, results = run(scene, compressed, tmp_path, scene.queries, "whole", **how)
    assert figures["num_localized"] == figures["num_tracked"] + 1 == 5
    lines = [json.loads(line) for line in (tmp_path / "l.jsonl").read_text().splitlines()]
    assert [line["tracked"] for line in lines] == [False] + 4 * [True]
    assert {log["tracked"] for log in json.loads((tmp_path / "logs.json").read_text()).values()}
    for name, pose in read_poses(results).items():
        away, turn = errors(pose, truth[name])
        assert away < 0.1 and turn < 0.5
    before = Localizer.track

    def interrupted(self, *args):
        for count, outcome in enumerate(before(self, *args)):
            if count == 2:
                raise KeyboardInterrupt
            yield outcome

    monkeypatch.setattr(Localizer, "track", interrupted)
    again = tmp_path / "again.txt"
    files = (tmp_path / "map.dpqed", scene.queries, scene.features, again, tmp_path / "pairs.txt")
    how = {"track": True, "threads": threads, "full_names": True, "progress": False}
    with pytest.raises(KeyboardInterrupt):
        localize.main(*files, **how)
    monkeypatch.setattr(Localizer, "track", before)
    figures = localize.main(*files, **how)
    assert figures["num_resumed"] == 2 and figures["num_tracked"] == 4
    assert again.read_bytes() == results.read_bytes()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"rigs": Path("r.json")}, "--track: excludes --rigs"),
        ({"priors": Path("p.txt")}, "--track: excludes --priors"),
        ({"min_confidence": "0.9@1/1"}, "--track: excludes --min_confidence"),
    ],
)
def test_what_a_sequence_excludes(world, scene, tmp_path, options, told):  # noqa: F811
    with pytest.raises(InputError, match=told):
        run(scene, world[0], tmp_path, scene.queries, track=True, **options)


def prior_at(truth, name, radius=1.0, off=0.0):
    position = camera_centre(truth[name]) + off * np.array([1.0, 0, 0])
    return Prior(position=position, radius=radius)


@pytest.mark.parametrize("quick", [True, False])
def test_a_true_position(world, quick):
    compressed, queries, truth = world
    localizer = Localizer(compressed)
    for query in queries:
        prior = prior_at(truth, query.name, 3.0)
        found = localizer.localize_with_prior(query, prior, quick)
        assert found.agrees and found.used and found.outcome.tracked == quick
        assert errors(found.outcome.cam_from_world, truth[query.name])[0] < 0.1
        away = np.linalg.norm(
            camera_centres(compressed.cam_from_world) - camera_centre(truth[query.name]), axis=1
        )
        near = images_near(compressed, query, prior)
        assert (away[near] <= 6).all() or len(near) == 7
        if not quick:  # of those that look most like the query, three are always among them
            assert set(found.outcome.images) == {*query.retrieved[:3], *near}


@pytest.mark.parametrize("off", [5.0, 100.0])
def test_a_false_position_is_told_and_changes_nothing(world, off):
    compressed, queries, _ = world
    truth = world[2]
    localizer = Localizer(compressed)
    for query in queries:
        found = localizer.localize_with_prior(query, prior_at(truth, query.name, 0.5, off))
        assert found.agrees is False and not found.used
        plain = localizer.localize(query)
        np.testing.assert_array_equal(found.outcome.cam_from_world, plain.cam_from_world)


def test_gravity(world):
    compressed, queries, truth = world
    down = np.array([0, 0, -9.81])
    down = TURN @ down if np.abs(compressed.xyz).max() > 1e5 else down
    localizer = Localizer(compressed)
    query = queries[0]
    seen = truth[query.name][:, :3] @ down
    for gravity, agrees in ((seen, True), (-seen, False), (np.roll(seen, 1), False)):
        prior = Prior(gravity=gravity, map_gravity=down)
        found = localizer.localize_with_prior(query, prior)
        assert found.agrees is agrees and not found.used
        assert errors(found.outcome.cam_from_world, truth[query.name])[0] < 0.1
    nothing = localizer.localize_with_prior(of_noise(query), prior)
    assert nothing.agrees is None and nothing.outcome.cam_from_world is None


@pytest.mark.parametrize(
    "prior",
    [
        Prior(position=np.zeros(3)),
        Prior(radius=1.0),
        Prior(position=np.zeros(2), radius=1.0),
        Prior(position=np.array([0, 0, np.nan]), radius=1.0),
        Prior(position=np.zeros(3), radius=0.0),
        Prior(gravity=np.ones(3)),
        Prior(gravity=np.ones(3), map_gravity=np.zeros(3)),
        Prior(gravity=np.ones(3), map_gravity=np.ones(3), gravity_degrees=0),
    ],
)
def test_impossible_priors(prior):
    with pytest.raises(InputError, match="prior: "):
        prior.check()


def test_frames_of_another_place_within_a_sequence(fountain, castle, tmp_path):
    """None is taken for where the last frame was, and the map's own frames are found again."""
    path = tmp_path / "map.dpqed"
    features = "feats-superpoint.h5"
    compress.main(fountain / "sfm", fountain / features, path, codec="pq", code_bytes=8, fraction=1)
    compressed = read_map(path)
    rows = list(range(compressed.num_images))
    frames, own = [], set()
    with open_features(fountain / features) as mine, open_features(castle / features) as others:
        foreign = read_queries(castle / "queries.txt")
        for k, (name, camera) in enumerate(read_queries(fountain / "queries.txt")):
            frames.append(Query(f"own/{name}", camera, mine.read(name), rows))
            own.add(f"own/{name}")
            for other, camera in foreign[2 * k : 2 * k + 2]:
                frames.append(Query(other, camera, others.read(other), rows))
    outcomes = list(Localizer(compressed).track(frames))
    assert len(outcomes) == 12
    assert {one.name for one in outcomes if one.cam_from_world is not None} == own
