"""How many codes of a point fit a budget."""

from dataclasses import replace

import pytest
from synthetic import make_scene

from hloc_dpqed.compression.conf import CompressConf
from hloc_dpqed.compression.engine import Compressor
from hloc_dpqed.io.features import FeatureFile
from hloc_dpqed.io.model import read_observations, read_reference
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
    # Where all observations have codes of their own there is nothing left to save.
    assert (best.xyz_pixels == 0.25) == (budget > 1_000_000)
