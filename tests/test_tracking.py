"""Priors of poses, true and false ones, and sequences."""

from dataclasses import replace

import numpy as np
import pytest
from moved_maps import TURN, moved_map, moved_pose
from synthetic import compressed_scene
from test_rigs import errors, frames_of, scene  # noqa: F401 (a fixture)

from hloc_dpqed.errors import InputError
from hloc_dpqed.localization.localizer import Localizer
from hloc_dpqed.localization.priors import Prior
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
    assert len(outcomes[1].images) <= 4  # those that the first frame's points are seen by
    assert list(localizer.track([])) == []


def test_a_jump_is_followed(world):
    """A frame that sees nothing of the last one's images is localized as ever."""
    compressed, queries, truth = world
    localizer = Localizer(compressed)
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


def prior_at(truth, name, radius=1.0, off=0.0):
    position = camera_centre(truth[name]) + off * np.array([1.0, 0, 0])
    return Prior(position=position, radius=radius)


def test_a_true_position(world):
    compressed, queries, truth = world
    localizer = Localizer(compressed)
    for query in queries:
        found = localizer.localize_with_prior(query, prior_at(truth, query.name, 3.0))
        assert found.agrees and found.used
        assert errors(found.outcome.cam_from_world, truth[query.name])[0] < 0.1
        away = np.linalg.norm(
            camera_centres(compressed.cam_from_world) - camera_centre(truth[query.name]), axis=1
        )
        # Of those that look most like the query, three are always among them.
        assert set(query.retrieved[:3]) <= set(found.outcome.images)
        others = [image for image in found.outcome.images if image not in query.retrieved[:3]]
        assert (away[others] <= 6).all() or len(found.outcome.images) == 7


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
