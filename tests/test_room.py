"""How many codes of a point fit a budget."""

from dataclasses import replace

import numpy as np
import pytest
from synthetic import make_scene

from hloc_dpqed.compression.conf import CompressConf
from hloc_dpqed.compression.engine import Compressor
from hloc_dpqed.io.features import FeatureFile
from hloc_dpqed.io.model import read_observations, read_reference
from hloc_dpqed.mapfile import read_map, with_stored_xyz, write_map
from hloc_dpqed.planning.plans import Plan
from hloc_dpqed.planning.room import Room
from hloc_dpqed.planning.trials import Outcome, Trials

PLAN = Plan("sign", 16)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return make_scene(tmp_path_factory.mktemp("room"), num_points=600, dim=128)


@pytest.fixture(scope="module")
def arrays(scene):
    reference = read_reference(scene.sfm)
    return reference, read_observations(reference, scene.features)


@pytest.mark.parametrize("budget", [24_000, 30_000, 38_000])
def test_a_budget_is_filled_with_codes_of_all_points(arrays, budget):
    reference, observations = arrays
    conf = CompressConf("random")
    room = Room(reference, observations, conf)
    most = room.most_codes(PLAN, budget, "total")
    assert 1 < most < room.all_codes
    own = replace(PLAN, codes_per_point=most).conf(conf, budget)
    compressed, data = Compressor(reference, observations, own).fit_budget(budget, "total")
    assert compressed.num_places == reference.num_points
    assert 0.96 * budget < len(data) <= budget
    coarse = replace(PLAN, xyz_pixels=1.0, score_levels=0)
    assert room.most_codes(coarse, budget, "total") > most


def test_at_least_one_code_and_at_most_one_for_each_observation(arrays):
    reference, observations = arrays
    room = Room(reference, observations, CompressConf("random"))
    each = len(observations) / reference.num_points
    assert each <= room.all_codes < each + 0.02
    assert room.most_codes(PLAN, 1_000, "total") == 1.0
    assert room.most_codes(PLAN, 10_000_000, "total") == room.all_codes
    codes = room.most_codes(PLAN, 2 * 16 * reference.num_points, "codes")
    assert 1.98 <= codes <= 2.0
    part = replace(PLAN, codec_part=0.5)
    assert room.most_codes(part, 50_000, "total") < room.most_codes(PLAN, 50_000, "total")


@pytest.mark.parametrize("budget", [30_000, 10_000_000])
def test_a_search_tries_as_many_codes_as_fit(scene, arrays, monkeypatch, budget):
    tried: list[Plan] = []

    def run(self, plan, budget, scope):
        tried.append(plan)
        points = self.held.reference.num_points
        return Outcome(plan, points, -plan.codes_per_point, [], 1, plan.codes_per_point)

    monkeypatch.setattr(Trials, "run", run)
    with FeatureFile(scene.features) as file:
        trials = Trials(*arrays, CompressConf("random"), file.read)
    start = [replace(PLAN, shared=True), Plan("sign", 8)]
    best = trials.search(start, lambda plan: [], budget, "total")[0].plan
    assert tried[:2] == start and tried[2:] == [best]
    assert best.codes_per_point == trials.room.most_codes(best, budget, "total") > 1


def test_finer_coordinates_are_tried_with_the_codes_that_they_leave_room_for(
    scene, arrays, monkeypatch
):
    tried: list[Plan] = []

    def run(self, plan, budget, scope):
        tried.append(plan)
        return Outcome(plan, self.held.reference.num_points, 0.0, [], 1, plan.codes_per_point)

    monkeypatch.setattr(Trials, "run", run)
    with FeatureFile(scene.features) as file:
        trials = Trials(*arrays, CompressConf("random"), file.read)
    start = [replace(PLAN, shared=True, xyz_pixels=1.0)]
    trials.search(start, lambda plan: [replace(plan, xyz_pixels=0.25)], 30_000, "total")
    coarse, fine = tried[1:]
    assert fine.xyz_pixels == 0.25 < coarse.xyz_pixels
    assert 1 < fine.codes_per_point < coarse.codes_per_point


def test_trials_localize_in_coordinates_of_the_file(scene, arrays, monkeypatch, tmp_path):
    seen = {}

    def measure(self, plan, compressed, size):
        seen["map"] = compressed
        return Outcome(plan, 1, 0.0, [], size)

    monkeypatch.setattr(Trials, "measure", measure)
    with FeatureFile(scene.features) as file:
        trials = Trials(*arrays, CompressConf("random"), file.read)
    held = trials.held
    outcome = trials.run(replace(PLAN, xyz_pixels=0.5), 30_000, "total")
    assert outcome.num_points == held.reference.num_points
    conf = PLAN.conf(CompressConf("random", xyz_pixels=0.5), 30_000)
    whole = Compressor(held.reference, held.observations, conf).compress(held.reference.num_points)
    write_map(tmp_path / "map", whole, xyz_pixels=0.5)
    stored = read_map(tmp_path / "map").xyz
    np.testing.assert_array_equal(with_stored_xyz(whole, 0.5).xyz, stored)
    assert np.isin(seen["map"].xyz, stored).all()
    assert not np.isin(whole.xyz, stored).any(0).all()
