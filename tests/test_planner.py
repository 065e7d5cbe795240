"""The planner: pseudo-queries from the map itself, and the best plan that fits a budget."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pycolmap
import pytest
from synthetic import make_scene

from hloc_dpqed import compress
from hloc_dpqed.codecs.file import codec_hash
from hloc_dpqed.codecs.shipped import shipped_codec
from hloc_dpqed.codecs.sign import SignCodec
from hloc_dpqed.compression.conf import CompressConf
from hloc_dpqed.compression.source import SharedCodec, Source
from hloc_dpqed.errors import InputError
from hloc_dpqed.evaluation.measures import PosedQuery
from hloc_dpqed.evaluation.pose_errors import pose_error
from hloc_dpqed.io.features import FeatureFile, read_global_descriptors
from hloc_dpqed.io.model import read_observations, read_reference
from hloc_dpqed.mapfile import map_info, read_map
from hloc_dpqed.planning import pseudo_queries
from hloc_dpqed.planning.planner import plan_compression
from hloc_dpqed.planning.plans import Plan, candidate_plans, neighbour_plans, shared_plans
from hloc_dpqed.planning.pseudo_queries import (
    RANSAC_SEEDS,
    expected_error,
    hold_out_queries,
    mean_log_error,
    num_folds,
    scene_extent,
    shared_points,
)
from hloc_dpqed.planning.trials import LEVEL, Outcome, Trials, best_first


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return make_scene(tmp_path_factory.mktemp("scene"), dim=32)


@pytest.fixture(scope="module")
def arrays(scene):
    reference = read_reference(scene.sfm)
    return reference, read_observations(reference, scene.features)


def run_plans(scene, arrays, plans, budget, scope="total", neighbours=lambda plan: []):
    with FeatureFile(scene.features) as file:
        trials = Trials(*arrays, CompressConf(selector="random"), file.read)
    return trials.search(plans, neighbours, budget, scope)


def test_every_image_is_held_out_in_one_fold(scene, arrays):
    reference, observations = arrays
    with FeatureFile(scene.features) as file:
        names = [
            query.name
            for fold in range(num_folds(reference.num_images))
            for query in hold_out_queries(
                reference, observations, 0, file.read, None, 3, fold=fold
            ).queries
        ]
    assert sorted(names) == sorted(reference.image_names)
    # 16 at most in one fold, 4 at least where there are twice as many
    assert [num_folds(count) for count in (4, 8, 20, 160, 1600)] == [2, 2, 5, 10, 100]


def test_pseudo_queries_are_gone_from_the_map_and_retrieve_what_they_share(scene, arrays):
    reference, observations = arrays
    with FeatureFile(scene.features) as file:
        held = hold_out_queries(reference, observations, 0, file.read, None, 3)
    names = {query.name for query in held.queries}
    assert names and not names & set(held.reference.image_names)
    for query in held.queries:
        shared = [
            len(
                np.intersect1d(
                    reference.visibility[query.image],
                    reference.visibility[reference.image_names.index(name)],
                )
            )
            for name in held.reference.image_names
        ]
        assert len(query.retrieved) == 3
        least = min(shared[held.reference.image_names.index(name)] for name in query.retrieved)
        assert sorted(shared)[-3] == least


def test_shared_points_counts_common_columns(arrays):
    visibility = arrays[0].visibility
    shared = shared_points(visibility, np.array([1]), np.array([0, 1]))
    expected = len(np.intersect1d(visibility[0], visibility[1]))
    assert shared.tolist() == [[expected, len(visibility[1])]]


def test_the_best_outcome_comes_first_and_fits(scene, arrays):
    plans = [Plan("pq", 1), Plan("pq", 4), Plan("none", 64)]
    outcomes = run_plans(scene, arrays, plans, 30_000)
    assert [o.score for o in outcomes] == sorted(o.score for o in outcomes)
    assert all(o.plan in plans for o in outcomes)
    assert all(o.total_bytes <= 30_000 and o.num_points >= 1 for o in outcomes)
    assert all(o.errors.shape[1:] == (RANSAC_SEEDS, 2) for o in outcomes)


def test_the_search_goes_on_to_neighbours_of_the_best(scene, arrays):
    def larger(plan):
        return [Plan("pq", 2 * plan.code_bytes), Plan("pq", 1)] if plan.code_bytes < 4 else []

    outcomes = run_plans(scene, arrays, [Plan("pq", 1)], 40_000, neighbours=larger)
    sizes = [o.plan.code_bytes for o in outcomes]
    assert {1, 2} <= set(sizes) <= {1, 2, 4} and len(set(sizes)) == len(sizes)


def test_plans_that_do_not_fit_are_left_out_and_none_at_all_is_told(scene, arrays):
    outcomes = run_plans(scene, arrays, [Plan("pq", 4), Plan("none", 64)], 12_000)
    assert [o.plan.codec for o in outcomes] == ["none"]
    with pytest.raises(InputError, match="smallest possible map"):
        run_plans(scene, arrays, [Plan("pq", 4)], 1_000)


def test_of_plans_that_do_not_fit_the_smallest_map_is_told(scene, tmp_path):
    output = tmp_path / "map.dpqed"
    with pytest.raises(InputError, match="nothing fits, the smallest possible map") as told:
        compress.main(scene.sfm, scene.features, output, budget=10, progress=False)
    size = re.search(r"has ([0-9.]+ KB)$", str(told.value))[1]
    compress.main(scene.sfm, scene.features, output, budget=size.replace(" ", ""), progress=False)
    assert map_info(output)["num_points"] >= 1


def test_stored_global_descriptors_are_no_part_of_what_is_planned(scene, arrays):
    reference, observations = arrays
    described = read_global_descriptors(scene.global_features, reference.image_names)
    wide = np.tile(described, (1, 2_000 // described.shape[1]))
    base = CompressConf(selector="random")
    taken = 2 * wide.size  # float16
    planned = [
        plan_compression(
            Source(reference, observations, scene.features, stored), size, "total", base
        )
        for size, stored in ((6_000, None), (6_000 + taken, wide))
    ]
    assert planned[0] == planned[1]


def test_the_same_seed_gives_the_same_outcomes(scene, arrays):
    first, second = (run_plans(scene, arrays, [Plan("pq", 2)], 40_000)[0] for _ in range(2))
    assert first.score == second.score and first.num_points == second.num_points
    assert np.array_equal(first.errors, second.errors)


def test_mean_log_error_clips_and_does_not_depend_on_the_scale():
    errors = np.array([[[0.01, 0.1]], [[np.inf, np.inf]], [[0.0, 0.0]], [[0.6, 1]]])
    expected = np.array([0.02, 0.1, 1e-9, 0.05])
    score = np.mean(np.log([0.002, 1.0, 1e-5, 0.06]))
    assert mean_log_error(errors, expected, 10.0) == pytest.approx(score)
    assert mean_log_error(errors * 7, expected * 7, 70.0) == pytest.approx(score)


def test_expected_error_is_what_noise_gives():
    """Against poses refined by pycolmap from matches with noise of one pixel."""
    rng = np.random.default_rng(0)
    camera = pycolmap.Camera(model="PINHOLE", width=800, height=600, params=[500, 500, 400, 300])
    pose = np.eye(3, 4)
    xyz = np.c_[rng.uniform(-2, 2, (60, 2)), rng.uniform(3, 8, 60)]
    exact = np.asarray(camera.img_from_cam(xyz))
    query = PosedQuery("q", camera, None, None, pose)
    expected, errors = [], []
    for _ in range(50):
        keypoints = exact + rng.normal(0, 1, exact.shape)
        expected.append(expected_error(xyz, keypoints, query, 100.0))
        refined = pycolmap.refine_absolute_pose(
            pycolmap.Rigid3d(), keypoints, xyz, np.ones(60, bool), camera
        )
        errors.append(pose_error(refined["cam_from_world"].matrix(), pose)[0])
    assert np.mean(expected) == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=0.2)
    nothing = expected_error(np.zeros((0, 3)), np.zeros((0, 2)), query, 100.0)
    assert nothing == pytest.approx(100 * np.sqrt(3))
    # Matches that are less exact than the others are no loss.
    exact_half = exact + np.where(np.arange(60)[:, None] < 30, 0.1, 3.0)
    half = expected_error(xyz[:30], exact_half[:30], query, 100.0)
    assert expected_error(xyz, exact_half, query, 100.0) < half


def test_scene_extent_is_the_diagonal_of_the_centres():
    poses = np.tile(np.eye(3, 4), (2, 1, 1))
    poses[1, :, 3] = (-3, -4, 0)
    assert scene_extent(poses) == pytest.approx(5)


def test_of_plans_with_level_scores_the_one_with_most_points_is_best():
    def made(score: float, points: int) -> Outcome:
        return Outcome(Plan("sign", points), points, score, np.zeros((1, 1, 2)), 1)

    few, many, worse = made(-8.0, 100), made(-8.0 + 0.9 * LEVEL, 200), made(-7.9, 300)
    assert best_first([worse, many, few]) == [many, few, worse]
    assert best_first([made(-8.0, 200), many])[0].score == -8.0
    assert best_first([worse]) == [worse]


def test_candidate_plans_respect_the_budget():
    plans = candidate_plans(256, 12_553, 250_000, "total")
    assert {p.codec for p in plans} == {"drqed", "sign", "pca"}
    base = CompressConf()
    assert all(p.conf(base, 250_000).sharpens for p in plans)
    asked = CompressConf(code_targets="mean")
    assert not any(p.conf(asked, 250_000).sharpens for p in plans)
    for plan in plans:
        near = neighbour_plans(plan)
        assert plan not in near and len(set(map(str, near))) == len(near)
        for p in [plan, *near]:
            assert p.conf(base, 250_000).codec_options.get("codec_budget_bytes", 0) <= 150_000
    assert candidate_plans(256, 1000, 1, "codes") == []
    # A budget that holds every point with the largest code leaves nothing to save.
    rich = candidate_plans(256, 1000, 10_000_000, "total")
    assert {p.code_bytes for p in rich if p.codec == "drqed"} == {8}
    assert {(p.xyz_pixels, p.score_levels) for p in rich} == {(0.25, 16)}
    assert {p.codes_per_point for p in rich} == {1.0}
    several = replace(rich[0], codes_per_point=3.81)
    assert several.conf(base, 1).codes_per_point == 3.81
    assert {p.codes_per_point for p in neighbour_plans(several)} == {3.0, 3.81, 4.0}


def test_shared_plans_have_sizes_that_the_codec_has():
    codec = shipped_codec("superpoint")
    plans = shared_plans(codec, 12_553, 25_000, "total")
    assert [p.code_bytes for p in plans] == [4, 6] and all(p.shared for p in plans)
    near = neighbour_plans(plans[0])
    assert {p.code_bytes for p in near} == {3, 4, 5} and all(p.shared for p in near)
    assert {p.codes_per_point for p in near} == {1.0, 1.2}
    assert all(p.conf(CompressConf(), 25_000).shared for p in near)
    assert [p.code_bytes for p in shared_plans(codec, 12_553, 200_000, "total")] == [6, 8]
    rich = shared_plans(codec, 1000, 10_000_000, "total")
    assert {(p.code_bytes, p.xyz_pixels) for p in rich} == {(8, 0.25)}
    assert {p.codes_per_point for p in neighbour_plans(rich[0])} == {1.0, 1.2}
    assert [p.code_bytes for p in shared_plans(codec, 1000, 5, "codes")] == [4]
    only = shared_plans(SignCodec(256), 12_553, 25_000, "total")
    assert [p.code_bytes for p in only] == [32]
    assert not any(p.code_bytes != 32 for p in neighbour_plans(only[0]))


def test_of_level_plans_of_two_families_the_one_with_more_matches_is_best():
    def made(score: float, points: int, correct: float, shared: bool) -> Outcome:
        plan = Plan("nested" if shared else "drqed", 4, shared=shared)
        return Outcome(plan, points, score, np.zeros((1, 1, 2)), 1, correct)

    many, matched = made(-8.0, 300, 50, True), made(-8.0 + 0.9 * LEVEL, 200, 60, True)
    fitted = made(-8.0, 250, 55, False)
    assert best_first([many, matched])[0] is matched
    assert best_first([many, matched, fitted])[0] is matched
    assert best_first([replace(fitted, correct=70), many, matched])[0].correct == 70
    # Of fitted plans alone the one with most points, as ever; with as many, more codes may win.
    several = replace(fitted, plan=replace(fitted.plan, codes_per_point=2.0), correct=60)
    assert best_first([fitted, several])[0] is several
    assert best_first([several, replace(fitted, correct=61)])[0].correct == 61
    assert best_first([several, replace(fitted, num_points=251)])[0].num_points == 251
    assert best_first([made(-8.0, 250, 90, False), made(-8.0, 300, 50, False)])[0].num_points == 300
    # Several shared codes a point are no reason to leave points out.
    shared = replace(matched, plan=replace(matched.plan, codes_per_point=1.2), correct=80)
    assert best_first([many, shared])[0] is many
    assert best_first([replace(many, num_points=200), shared])[0] is shared
    # Unless nothing else is level.
    assert best_first([replace(many, score=-7.0), shared])[0] is shared


@pytest.mark.parametrize(
    "asked", [{"granularity": "observation"}, {"codes_per_point": 1.5}], ids=str
)
def test_codes_of_a_point_that_were_asked_for_are_settled(scene, arrays, asked):
    with FeatureFile(scene.features) as file:
        trials = Trials(*arrays, CompressConf(selector="random", **asked), file.read)
    plans = [Plan("sign", 4), Plan("sign", 4, codes_per_point=2.0)]
    near = [replace(plans[0], codes_per_point=1.4), replace(plans[0], xyz_pixels=0.5)]
    found = trials.search(plans, lambda plan: near, 100_000, "total")
    assert {o.plan.codes_per_point for o in found} == {1.0}


def test_further_codes_are_not_tried_where_points_are_left_out(scene, arrays):
    more = Plan("sign", 4, codes_per_point=1.4)
    tight = run_plans(scene, arrays, [Plan("sign", 4)], 2_500, neighbours=lambda plan: [more])
    assert [o.plan for o in tight] == [Plan("sign", 4)]
    wide = run_plans(scene, arrays, [Plan("sign", 4)], 100_000, neighbours=lambda plan: [more])
    assert more in [o.plan for o in wide]


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({"budget": "6KB"}, "a"),
        pytest.param({"budget": "12KB"}, "ab", marks=SLOW),
        pytest.param({"target_recall": "0.5@1/10"}, "ab", marks=SLOW),
    ],
)
def test_a_codec_that_comes_along_is_planned_by_itself(fountain, tmp_path, asked, names):
    model, features = fountain / "sfm", fountain / "feats-superpoint.h5"
    for name in names:
        compress.main(
            model, features, tmp_path / name, codec="shipped", threads=1, progress=False, **asked
        )
    made = [(tmp_path / name).read_bytes() for name in names]
    assert made.count(made[0]) == len(names)
    info = map_info(tmp_path / "a")
    assert (info["codec"], info["codec_bytes"]) == ("nested", 0)
    assert info["codec_hash"] == codec_hash(shipped_codec("superpoint"))
    assert info["made"]["conf"]["asked"]["planned"] and info["total_bytes"] <= 12_000
    # A code size that is asked for is kept.
    compress.main(
        model, features, tmp_path / "c", codec="shipped", code_bytes=3, progress=False, **asked
    )
    assert map_info(tmp_path / "c")["code_bytes"] == 3


def test_the_planner_tries_the_codec_that_comes_along(fountain, monkeypatch):
    """Beside the plans that there are without it, which stay the same."""
    tried: list[Plan] = []

    def run(self, plan, budget, scope):
        tried.append(plan)
        return Outcome(plan, 10, float(plan.shared) - plan.code_bytes, np.zeros((1, 1, 2)), 1)

    monkeypatch.setattr(Trials, "run", run)
    reference = read_reference(fountain / "sfm")
    features = fountain / "feats-superpoint.h5"
    source = Source(reference, read_observations(reference, features), features)
    alone = plan_compression(source, 12_000, "total", CompressConf())
    before, tried[:] = list(tried), []
    shared = SharedCodec.of(shipped_codec("superpoint"))
    both = plan_compression(replace(source, shared=shared), 12_000, "total", CompressConf())
    assert [plan for plan in tried if not plan.shared] == before
    assert any(plan.shared for plan in tried)
    assert alone == both  # the best, by the scores above
    # Where codes alone count, a fitted codec costs nothing.
    tried[:] = []
    plan_compression(replace(source, shared=shared), 12_000, "codes", CompressConf())
    assert not any(plan.shared for plan in tried)


def test_unknown_descriptors_are_planned_without_the_codec(tmp_path):
    """Of the right name and dimension, but random: one line of warning."""
    made = make_scene(tmp_path, num_points=60, dim=256)
    features = tmp_path / "feats-superpoint.h5"
    shutil.copy(made.features, features)
    observations = read_observations(read_reference(made.sfm), features)
    assert compress._codec_to_try(features, observations) is None
    assert compress._codec_to_try(made.features, observations) is None  # of no known extractor


def test_compress_plans_within_the_budget(scene, tmp_path):
    output = tmp_path / "map.dpqed"
    compress.main(scene.sfm, scene.features, output, budget="20KB", progress=False)
    info = map_info(output)
    assert output.stat().st_size <= 20_000 and info["codec"] in ("drqed", "sign", "pca")


@pytest.mark.parametrize("asked", [{"budget": "20KB"}, {"target_recall": "0.5@1/10"}])
def test_plans_are_measured_with_the_matcher_that_is_named(asked, scene, tmp_path, monkeypatch):
    used = set()

    class Recorded(pseudo_queries.Localizer):
        def __init__(self, compressed, matcher, **options):
            used.add((matcher, options["matcher_weights"]))
            super().__init__(compressed, matcher, **options)

    monkeypatch.setattr(pseudo_queries, "Localizer", Recorded)
    output = tmp_path / "map.dpqed"
    compress.main(scene.sfm, scene.features, output, matcher="NN-ratio", progress=False, **asked)
    assert used == {("NN-ratio", None)}
    assert read_map(output).metadata["conf"]["asked"]["matcher"] == "NN-ratio"


def test_a_matcher_without_a_plan_is_refused(scene, tmp_path):
    output = tmp_path / "map.dpqed"
    for options in ({}, {"num_points": 50}, {"budget": "20KB", "codec": "pq"}):
        with pytest.raises(InputError, match="--matcher NN-ratio: only a plan depends on it"):
            compress.main(scene.sfm, scene.features, output, matcher="NN-ratio", **options)
    with pytest.raises(InputError, match="--matcher nothing: unknown"):
        compress.main(scene.sfm, scene.features, output, budget="20KB", matcher="nothing")
    with pytest.raises(InputError, match="takes descriptors of 128 dimensions"):
        compress.main(
            scene.sfm,
            scene.features,
            output,
            budget="20KB",
            matcher="aliked+lightglue-fast",
            progress=False,
        )
    assert not output.exists()
