"""Learned matchers that see the map from the query's place; their networks are filled at random."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from random_matchers import lightglue_state
from synthetic import compressed_scene, make_scene

from hloc_dpqed.errors import InputError
from hloc_dpqed.evaluation.pose_errors import pose_error
from hloc_dpqed.io.features import FeatureFile
from hloc_dpqed.io.lists import read_poses, read_queries
from hloc_dpqed.localization.localizer import Localizer, Query
from hloc_dpqed.localization.view import most_plausible, points_of_images, view_from
from hloc_dpqed.matching.nearest_neighbor import Matches


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return make_scene(tmp_path_factory.mktemp("view"), num_points=150, dim=128)


@pytest.fixture(scope="module")
def compressed(scene):
    return compressed_scene(scene, codec="none")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "aliked_lightglue.pth"
    torch.save(lightglue_state(128), path)
    return path


@pytest.fixture(scope="module")
def queries(scene, compressed):
    everything = list(range(compressed.num_images))
    with FeatureFile(scene.features) as file:
        return [Query(n, c, file.read(n), everything) for n, c in read_queries(scene.queries)]


def fast(compressed, weights, **options):
    return Localizer(compressed, "aliked+lightglue-fast", matcher_weights=weights, **options)


def counted(localizer, monkeypatch):
    """Lists that grow with each view and each image that the network matches."""
    views, images = [], []
    match_view, match_image = localizer._match_view, localizer._match_image

    def view(network, features, view):
        views.append(len(view.points))
        return match_view(network, features, view)

    def image(features, image):
        images.append(image)
        return match_image(features, image)

    monkeypatch.setattr(localizer, "_match_view", view)
    monkeypatch.setattr(localizer, "_match_image", image)
    return views, images


def rows(matches):
    return {tuple(pair) for m in matches for pair in m.pairs.tolist()}


def test_one_call_a_query(scene, compressed, weights, queries, monkeypatch):
    localizer = fast(compressed, weights, ransac_thresh=4)
    views, images = counted(localizer, monkeypatch)
    poses = read_poses(scene.poses)
    for query in queries:
        found = localizer.localize(query)
        assert len(found.correspondences) > 60
        pose = found.cam_from_world
        assert pose_error(pose, poses[query.name])[1] < 0.1
    assert len(views) == len(queries) and not images


def test_matches_belong_to_the_images_that_see_their_point(compressed, weights, queries):
    query = queries[0]
    matches = fast(compressed, weights).match(query.features, [2, 0, 5], query.camera)
    assert len(matches) == 3
    for image, found in zip([2, 0, 5], matches, strict=True):
        assert np.isin(found.pairs[:, 1], compressed.visibility[image]).all()
        everywhere = np.array(sorted(rows(matches)))
        seen = np.isin(everywhere[:, 1], compressed.visibility[image])
        assert rows([found]) == {*map(tuple, everywhere[seen].tolist())}


def test_without_a_place_it_asks_image_by_image(compressed, weights, queries, monkeypatch):
    localizer = fast(compressed, weights)
    views, images = counted(localizer, monkeypatch)
    expected = rows(localizer.match(queries[0].features, [0, 1, 2], queries[0].camera))
    assert len(views) == 1
    nothing = lambda features, retrieved: [Matches.empty() for _ in retrieved]  # noqa: E731
    monkeypatch.setattr(localizer, "_match_nearest", nothing)
    found = rows(localizer.match(queries[0].features, [0, 1, 2], queries[0].camera))
    # The first image tells the place: the same view, but for what the pose moves.
    assert images == [0] and len(views) == 2
    assert len(found & expected) > 0.95 * len(expected)


def test_a_view_of_few_matches_is_not_believed(compressed, weights, queries, monkeypatch):
    """A false place has some matches that fit it: the query is then matched as hloc does."""
    localizer = fast(compressed, weights)
    views, images = counted(localizer, monkeypatch)
    match_view = localizer._match_view
    query = queries[0]

    def few(network, features, view):
        found, _ = match_view(network, features, view)
        assert len(found.pairs) > 100  # that keypoints share points does not make a view right
        return found, 31

    big = replace(
        query.features,
        keypoints=np.tile(query.features.keypoints, (4, 1)),
        descriptors=np.tile(query.features.descriptors, (4, 1)),
        scores=np.tile(query.features.scores, 4),
    )
    monkeypatch.setattr(localizer, "_match_view", few)
    monkeypatch.setattr("hloc_dpqed.localization.map_matcher.LEAST_VIEW_SHARE", 0.5)
    found = localizer.match(big, [0, 1], query.camera)
    assert images == [0, 1] and len(views) >= 1
    for one, image in zip(found, [0, 1], strict=True):
        np.testing.assert_array_equal(one.pairs, localizer._match_image(big, image).pairs)


def test_what_is_nowhere_is_matched_as_hloc_does(compressed, weights, queries, monkeypatch):
    localizer = fast(compressed, weights)
    _, images = counted(localizer, monkeypatch)
    rng = np.random.default_rng(0)
    strange = rng.normal(size=queries[0].features.descriptors.shape).astype(np.float32)
    strange /= np.linalg.norm(strange, axis=1, keepdims=True)
    query = replace(queries[0], features=replace(queries[0].features, descriptors=strange))
    outcome = localizer.localize(query)
    assert outcome.cam_from_world is None
    assert images == list(query.retrieved)
    pairs = localizer.match(query.features, query.retrieved)  # no camera: image by image
    assert rows(pairs) == {
        (int(a), int(b))
        for a, b in zip(
            outcome.correspondences.keypoint_index, outcome.correspondences.point_index, strict=True
        )
    }
    assert localizer.match(query.features, [], query.camera) == []


def test_a_moved_map_has_the_same_matches(compressed, weights, queries):
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    shift = np.array([4.2e6, 1.7e5, 4.8e6])
    rotation, translation = compressed.cam_from_world[:, :, :3], compressed.cam_from_world[:, :, 3]
    moved_rotation = rotation @ turn.T
    moved = replace(
        compressed,
        xyz=compressed.xyz @ turn.T + shift,
        cam_from_world=np.concatenate(
            [moved_rotation, (translation - moved_rotation @ shift)[..., None]], 2
        ),
    )
    for query in queries:
        here = rows(fast(compressed, weights).match(query.features, [0, 1, 2, 3], query.camera))
        there = rows(fast(moved, weights).match(query.features, [0, 1, 2, 3], query.camera))
        assert len(here & there) > 0.97 * len(here | there) > 50


@pytest.mark.parametrize("granularity", ["point", "observation"])
def test_the_points_of_images(scene, granularity):
    compressed = compressed_scene(scene, codec="none", granularity=granularity)
    points, codes = points_of_images(compressed, [3, 1])
    expected = {}
    for image in (3, 1):
        for point, code in zip(
            compressed.visibility[image], compressed.code_rows(image), strict=True
        ):
            expected.setdefault(int(point), int(code))
    assert dict(zip(points.tolist(), codes.tolist(), strict=True)) == expected
    assert (np.diff(points) > 0).all()
    assert [len(x) for x in points_of_images(compressed, [])] == [0, 0]


def test_a_view_at_an_images_pose_is_that_image(compressed):
    camera = compressed.cameras[compressed.camera_index[2]]
    points, codes = points_of_images(compressed, [2])
    view = view_from(compressed, points, codes, camera, compressed.cam_from_world[2])
    xy, visible = compressed.project(2)
    np.testing.assert_array_equal(view.points, compressed.visibility[2][visible])
    np.testing.assert_allclose(view.keypoints, xy[visible] - 0.5, atol=1e-3)
    assert view.image_size == (camera.width, camera.height)
    part = view.keep(np.array([1, 4]))
    np.testing.assert_array_equal(part.points, view.points[[1, 4]])
    away = compressed.cam_from_world[2].copy()
    away[:2] *= -1
    away[:, 3] += [0, 0, -1e6]
    assert len(view_from(compressed, points, codes, camera, away).points) == 0


def test_the_most_plausible_rows():
    rng = np.random.default_rng(0)
    query = torch.from_numpy(rng.normal(size=(30, 8)).astype(np.float32))
    seen = torch.from_numpy(rng.normal(size=(2100, 8)).astype(np.float32))
    seen[1500] = seen[3]
    best = (seen.numpy() @ query.numpy().T).max(1)
    for count in (1, 50, 5000):
        kept = most_plausible(query, seen, count)
        expected = np.sort(np.argsort(-best, kind="stable")[:count])
        np.testing.assert_array_equal(kept, expected)


def test_the_fast_matchers_run_on_the_processor(compressed, weights):
    with pytest.raises(InputError, match=r"-fast runs on the processor, not on cuda"):
        fast(compressed, weights, device="cuda")
