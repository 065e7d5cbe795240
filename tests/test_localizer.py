"""The in-memory localizer: matches, conventions, ties, seeds and threads."""

import dataclasses
import threading

import numpy as np
import pycolmap
import pytest
import torch
from synthetic import compressed_scene, make_scene

from hloc_dpqed.errors import InputError
from hloc_dpqed.evaluation.pose_errors import pose_error
from hloc_dpqed.io.features import FeatureFile, ImageFeatures
from hloc_dpqed.io.lists import read_poses, read_queries
from hloc_dpqed.localization.direct import voted_images
from hloc_dpqed.localization.localizer import (
    Correspondences,
    Localizer,
    Query,
    common_basis,
    covisible_groups,
    distinct_rows,
)
from hloc_dpqed.localization.pose import (
    POSE_ESTIMATORS,
    estimate_pose,
    estimation_options,
    query_seed,
    ransac_poselib,
)
from hloc_dpqed.maps.compressed import CompressedMap
from hloc_dpqed.matching.nearest_neighbor import Matches
from hloc_dpqed.scene.reference import normalise_rows
from hloc_dpqed.scene.visibility import Visibility


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return make_scene(tmp_path_factory.mktemp("localizer"), dim=64)


@pytest.fixture(scope="module")
def compressed(scene) -> CompressedMap:
    return compressed_scene(scene, codec="none")


@pytest.fixture(scope="module")
def queries(scene, compressed) -> list[Query]:
    everything = list(range(compressed.num_images))
    with FeatureFile(scene.features) as file:
        return [Query(n, c, file.read(n), everything) for n, c in read_queries(scene.queries)]


def same(a, b) -> bool:
    return (
        a.name == b.name
        and np.array_equal(a.cam_from_world, b.cam_from_world)
        and np.array_equal(a.inliers, b.inliers)
        and np.array_equal(a.correspondences.keypoint_index, b.correspondences.keypoint_index)
        and np.array_equal(a.correspondences.point_index, b.correspondences.point_index)
    )


@pytest.mark.parametrize("granularity", ["point", "observation"])
@pytest.mark.parametrize("whole_map", [False, True])
@pytest.mark.parametrize("best_first", [True, False])
@pytest.mark.parametrize("pose_estimator", POSE_ESTIMATORS)
def test_exact_keypoints_give_the_exact_pose(
    scene, queries, granularity, whole_map, best_first, pose_estimator
):
    """An error of half a pixel in the convention would show: it moves the camera."""
    pytest.importorskip(pose_estimator)
    compressed = compressed_scene(scene, codec="none", granularity=granularity)
    localizer = Localizer(
        compressed, ransac_thresh=2, best_first=best_first, pose_estimator=pose_estimator
    )
    truth = read_poses(scene.poses)
    for query in queries:
        if whole_map:
            query = dataclasses.replace(query, retrieved=None)
        outcome = localizer.localize(query)
        assert outcome.num_inliers > 30
        # Keypoints are rounded to float32 in the feature file.
        translation, rotation = pose_error(outcome.cam_from_world, truth[query.name])
        assert translation < 1e-3 and rotation < 1e-3
        assert outcome.images == ([] if whole_map else list(query.retrieved))


def test_matches_are_the_right_points(compressed, queries):
    """Synthetic descriptors are unambiguous: each inlier reprojects onto its keypoint."""
    outcome = Localizer(compressed).localize(queries[0])
    found = outcome.correspondences
    rows = outcome.inliers
    assert rows.mean() > 0.9
    pose = pycolmap.Rigid3d(outcome.cam_from_world)
    for keypoint, point in zip(found.keypoint_index[rows], found.point_index[rows], strict=True):
        xy = queries[0].camera.img_from_cam(pose * compressed.xyz[point])
        np.testing.assert_allclose(xy - 0.5, queries[0].features.keypoints[keypoint], atol=0.1)


def test_decoding_at_each_query_changes_nothing(compressed, queries):
    kept = Localizer(compressed)
    lean = Localizer(compressed, memory_limit=0)
    for query in queries:
        assert same(kept.localize(query), lean.localize(query))
    assert lean._decoded is None and kept._decoded is not None


def test_equal_codes_are_broken_by_the_lowest_row(compressed, queries):
    codes = compressed.codes.copy()
    seen = compressed.visibility[0]
    codes[seen[5:10]] = codes[seen[5]]
    tied = dataclasses.replace(compressed, codes=codes)
    (matches,) = Localizer(tied).match(queries[0].features, [0])
    assert not np.isin(matches.pairs[:, 1], seen[6:10]).any()
    whole = Localizer(tied).match_whole_map(queries[0].features)
    lowest = np.flatnonzero((codes == codes[seen[5]]).all(1))[0]
    others = np.setdiff1d(seen[5:10], [lowest])
    assert not np.isin(whole.pairs[:, 1], others).any()


def test_descriptors_of_a_subspace_are_matched_within_it(compressed, queries):
    """A basis of fewer dimensions, and none: the same matches."""
    rng = np.random.default_rng(0)
    inside = np.linalg.qr(rng.normal(size=(256, 40)))[0].astype(np.float32)
    rows = torch.from_numpy(normalise_rows(rng.normal(size=(2000, 40)) @ inside.T))
    basis = common_basis(rows)
    assert basis is not None and basis.shape == (256, 40)
    query = torch.from_numpy(normalise_rows(rng.normal(size=(50, 256))))
    full = query @ rows.T
    assert torch.allclose(full, (query @ basis) @ (rows @ basis).T, atol=1e-5)
    assert common_basis(torch.from_numpy(normalise_rows(rng.normal(size=(2000, 256))))) is None
    assert common_basis(rows[:100]) is None  # too few to tell


def test_direct_matching_through_lists(compressed, queries, monkeypatch):
    """An inverted file whose lists are all searched finds what the exact search finds."""
    exact = Localizer(compressed)
    monkeypatch.setattr("hloc_dpqed.localization.localizer.EXACT_POINTS", 0)
    monkeypatch.setattr("hloc_dpqed.localization.direct.PROBES", 1 << 20)
    lists = Localizer(compressed)
    assert lists._searches_lists()
    for query in queries:
        a, b = (loc.match_whole_map(query.features) for loc in (exact, lists))
        np.testing.assert_array_equal(a.pairs, b.pairs)
        np.testing.assert_allclose(a.similarity, b.similarity, atol=1e-6)


def test_images_are_voted_for():
    seen_by = Visibility.from_lists([np.array(x) for x in ([0, 1], [1], [1, 2], [3])], 5)
    assert voted_images(np.array([0, 1, 2]), seen_by) == [1, 0, 2]
    assert voted_images(np.array([0, 1, 2]), seen_by, 1) == [1]
    assert voted_images(np.zeros(0, np.int64), seen_by) == []


def test_distinct_rows():
    codes = np.array([[1, 2], [0, 0], [1, 2], [3, 1], [0, 0]], np.uint8)
    lowest, row_of = distinct_rows(codes)
    np.testing.assert_array_equal(lowest, [0, 1, 3])
    np.testing.assert_array_equal(row_of, [0, 1, 0, 2, 1])
    np.testing.assert_array_equal(codes[lowest][row_of], codes)
    assert [len(x) for x in distinct_rows(np.zeros((0, 4), np.uint8))] == [0, 0]


def test_correspondences_collapse():
    one = Matches(np.array([[0, 5], [2, 1]]), np.array([0.9, 0.8], np.float32))
    two = Matches(np.array([[0, 5], [0, 4], [3, 1]]), np.array([0.95, 0.99, 0.1], np.float32))
    found = Correspondences.collect([one, two], 6)
    np.testing.assert_array_equal(found.keypoint_index, [0, 0, 2, 3])
    np.testing.assert_array_equal(found.point_index, [4, 5, 1, 1])
    np.testing.assert_array_equal(found.votes, [1, 2, 1, 1])
    np.testing.assert_allclose(found.similarity, [0.99, 0.95, 0.8, 0.1])
    assert found.num_matches == 5 and len(found) == 4
    best = found.best_of_keypoints()  # votes count more than similarity
    np.testing.assert_array_equal(found.point_index[best], [5, 1, 1])
    nothing = Correspondences.collect([], 6)
    assert len(nothing) == len(nothing.best_of_keypoints()) == 0


def components(sees: list[set], images: list[int]) -> list[set]:
    """Connected components by repeated merging, in the order of their first image."""
    groups: list[set] = []
    for k in range(len(images)):
        joined = {k}
        for group in [g for g in groups if any(sees[images[j]] & sees[images[k]] for j in g)]:
            groups.remove(group)
            joined |= group
        groups.append(joined)
    return sorted(groups, key=lambda g: (-len(g), min(g)))


def test_covisible_groups(compressed):
    for seed in range(30):
        rng = np.random.default_rng(seed)
        sees = [set(rng.choice(40, rng.integers(0, 5), replace=False).tolist()) for _ in range(9)]
        visibility = Visibility.from_lists([np.array(sorted(s), np.int32) for s in sees], 40)
        several = dataclasses.replace(compressed, visibility=visibility)
        images = rng.permutation(9)[:6].tolist()
        groups = covisible_groups(several, images)
        assert [set(g) for g in groups] == components(sees, images)
        assert all(g == sorted(g) for g in groups)


def test_clustering_picks_the_group_with_most_inliers(compressed, queries):
    plain = Localizer(compressed).localize(queries[0])
    clustered = Localizer(compressed, covisibility_clustering=True).localize(queries[0])
    assert same(plain, clustered)  # every image sees every point: there is one group
    alone = dataclasses.replace(compressed, visibility=_split(compressed.visibility))
    outcome = Localizer(alone, covisibility_clustering=True).localize(queries[0])
    assert 0 < len(outcome.images) < compressed.num_images
    assert outcome.num_inliers > 0


def _split(visibility: Visibility) -> Visibility:
    """Even and odd images see even and odd points."""
    rows = [visibility[i][visibility[i] % 2 == i % 2] for i in range(visibility.num_images)]
    return Visibility.from_lists(rows, visibility.num_points)


@pytest.mark.parametrize("clustering", [False, True])
def test_queries_that_cannot_be_localized(compressed, queries, clustering):
    """Nothing retrieved, no keypoint, one keypoint, images without points: no pose, no error."""
    localizer = Localizer(compressed, covisibility_clustering=clustering)
    features = queries[0].features
    cut = [
        ImageFeatures(features.keypoints[:n], features.descriptors[:n], features.scores[:n], None)
        for n in (0, 1)
    ]
    nobody = dataclasses.replace(
        compressed,
        visibility=Visibility.from_lists([np.zeros(0, int)] * 7, compressed.num_points),
    )
    for attempt, query in [
        (localizer, dataclasses.replace(queries[0], retrieved=[])),
        (localizer, dataclasses.replace(queries[0], features=cut[0])),
        (localizer, dataclasses.replace(queries[0], features=cut[0], retrieved=None)),
        (localizer, dataclasses.replace(queries[0], features=cut[1])),
        (Localizer(nobody, covisibility_clustering=clustering), queries[0]),
    ]:
        outcome = attempt.localize(query)
        assert outcome.cam_from_world is None and outcome.num_inliers == 0
        assert len(outcome.inliers) == len(outcome.correspondences)


def test_descriptors_of_another_dimension(compressed, queries):
    features = dataclasses.replace(queries[0].features, descriptors=np.eye(3, dtype=np.float32))
    with pytest.raises(InputError, match=r"3 dimensions .* of 64"):
        Localizer(compressed).localize(dataclasses.replace(queries[0], features=features))


def test_unknown_matchers(compressed):
    with pytest.raises(InputError, match="--matcher nobody: unknown, expected one of NN-mutual"):
        Localizer(compressed, "nobody")


def test_each_query_has_its_own_seed():
    assert query_seed(0, "a") != query_seed(0, "b") != query_seed(1, "b")
    assert query_seed(0, "a") == query_seed(0, "a")
    seeds = [query_seed(s, f"q{k}.jpg") for s in range(20) for k in range(20)]
    assert len(set(seeds)) == 400 and min(seeds) >= 0 and max(seeds) < 2**31


def test_hlocs_options_of_the_estimation():
    assert estimation_options(7, None)["estimation"] == {"ransac": {"max_error": 7.0}}
    config = {"estimation": {"ransac": {"max_error": 3.0}}, "refinement": {"max_num_iterations": 0}}
    assert estimation_options(7, config) == config
    assert estimation_options(7, {"refinement": {}})["estimation"]["ransac"]["max_error"] == 7.0


def noisy(queries, pixels=3.0):
    """Queries for which RANSAC has something to decide."""
    rng = np.random.default_rng(0)
    shifted = []
    for query in queries:
        keypoints = query.features.keypoints
        keypoints = keypoints + rng.normal(0, pixels, keypoints.shape).astype(np.float32)
        features = dataclasses.replace(query.features, keypoints=keypoints)
        shifted.append(dataclasses.replace(query, features=features))
    return shifted


def test_the_seed_decides_and_the_order_does_not(compressed, queries):
    hard = noisy(queries)
    runs = {seed: Localizer(compressed, ransac_thresh=4, seed=seed) for seed in (0, 1)}
    first = [runs[0].localize(q) for q in hard]
    again = [Localizer(compressed, ransac_thresh=4).localize(q) for q in reversed(hard)]
    assert all(same(a, b) for a, b in zip(first, reversed(again), strict=True))
    other = [runs[1].localize(q) for q in hard]
    assert not all(same(a, b) for a, b in zip(first, other, strict=True))


def test_any_number_of_threads_gives_the_same(compressed, queries, threads):
    many = [dataclasses.replace(q, name=f"{k}/{q.name}") for k in range(8) for q in noisy(queries)]
    outcomes = {}
    for count in (1, 2, 3, 8):
        threads(count)
        outcomes[count] = list(Localizer(compressed, ransac_thresh=4).localize_many(iter(many)))
        assert [o.name for o in outcomes[count]] == [q.name for q in many]
        assert all(same(a, b) for a, b in zip(outcomes[1], outcomes[count], strict=True))
    alone = [Localizer(compressed, ransac_thresh=4).localize(q) for q in many]
    assert all(same(a, b) for a, b in zip(outcomes[1], alone, strict=True))


@pytest.mark.parametrize("whole_map", [False, True])
def test_the_correspondences_of_a_stream_are_those_of_each_query(
    compressed, queries, threads, whole_map
):
    if whole_map:
        queries = [dataclasses.replace(q, retrieved=None) for q in queries]
    expected = [Localizer(compressed).localize(q).correspondences for q in queries]
    for count in (1, 2):
        threads(count)
        found = list(Localizer(compressed).correspond_many(iter(queries)))
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a.keypoint_index, b.keypoint_index)
            np.testing.assert_array_equal(a.point_index, b.point_index)
            np.testing.assert_array_equal(a.votes, b.votes)


def test_eight_threads_share_one_localizer(compressed, queries):
    localizer = Localizer(compressed)
    expected = [localizer.localize(q) for q in queries]
    wrong = []

    def work():
        for _ in range(4):
            for query, outcome in zip(queries, expected, strict=True):
                if not same(localizer.localize(query), outcome):
                    wrong.append(query.name)

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


def test_a_stream_is_not_read_ahead(compressed, queries, threads):
    """At most two queries a thread wait in memory."""
    threads(2)
    taken = []

    def stream():
        for k in range(40):
            taken.append(k)
            yield queries[0]

    for done, _ in enumerate(Localizer(compressed).localize_many(stream()), 1):
        assert len(taken) - done < 2 * 2 + 1


def test_an_error_in_the_stream_comes_through(compressed, queries):
    def stream():
        yield queries[0]
        raise InputError("the stream broke")

    with pytest.raises(InputError, match="the stream broke"):
        list(Localizer(compressed).localize_many(stream()))


@pytest.mark.parametrize("best_first", [True, False])
def test_poselib_depends_on_the_seed_alone(compressed, queries, threads, best_first):
    pytest.importorskip("poselib")
    noisy = []
    for k, query in enumerate(queries):
        noise = np.random.default_rng(k).normal(0, 1.5, query.features.keypoints.shape)
        keypoints = (query.features.keypoints + noise).astype(np.float32)
        features = dataclasses.replace(query.features, keypoints=keypoints)
        noisy.append(dataclasses.replace(query, features=features))

    def run(order, count, seed):
        threads(count)
        localizer = Localizer(
            compressed, ransac_thresh=2, best_first=best_first, pose_estimator="poselib", seed=seed
        )
        found = {o.name: o for o in localizer.localize_many(order)}
        return [found[query.name] for query in noisy]

    first = run(noisy, 1, 0)
    again = run(noisy[::-1], 3, 0)
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    other = run(noisy, 1, 1)
    assert not all(same(a, b) for a, b in zip(first, other, strict=True))


def test_poselib_takes_the_options_of_pycolmap():
    pytest.importorskip("poselib")
    rng = np.random.default_rng(0)
    points3D = rng.uniform(-1, 1, (200, 3)) + np.array([0, 0, 4])
    camera = pycolmap.Camera(model="PINHOLE", width=640, height=480, params=[500, 500, 320, 240])
    points2D = np.asarray(camera.img_from_cam(points3D)) + rng.normal(0, 2, (200, 2))
    near = estimation_options(1, None)
    far = estimation_options(1, {"estimation": {"ransac": {"max_error": 8.0}}})
    few = [ransac_poselib(points2D, points3D, camera, options, 0) for options in (near, far)]
    assert few[0][1].sum() < 100 < 190 < few[1][1].sum()
    assert estimate_pose(points2D[:3], points3D[:3], camera, near, 0, "poselib") is None
    nonsense = rng.uniform(0, 480, (20, 2))
    exact = estimation_options(1e-3, None)
    assert estimate_pose(nonsense, points3D[:20], camera, exact, 0, "poselib") is None


def test_poselib_refuses_what_it_does_not_know(compressed, monkeypatch):
    pytest.importorskip("poselib")
    camera = pycolmap.Camera(model="FOV", width=640, height=480, params=[500, 500, 320, 240, 0.1])
    options = estimation_options(1, None)
    with pytest.raises(InputError, match="poselib: it does not know cameras of model FOV"):
        estimate_pose(np.zeros((9, 2)), np.zeros((9, 3)), camera, options, 0, "poselib")
    with pytest.raises(InputError, match="expected one of pycolmap, poselib"):
        Localizer(compressed, pose_estimator="opencv")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install 'hloc_dpqed\\[poselib\\]'"):
        Localizer(compressed, pose_estimator="poselib")
