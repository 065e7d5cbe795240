"""Selections that budgets share, and what they cost."""

import dataclasses

import numpy as np
import pytest
from synthetic import make_scene

from hloc_dpqed.codecs import fit_codec
from hloc_dpqed.compression.conf import CompressConf
from hloc_dpqed.compression.engine import Compressor
from hloc_dpqed.compression.kept import keep_points
from hloc_dpqed.io.model import read_observations, read_reference
from hloc_dpqed.selection import select_points
from hloc_dpqed.selection.statistics import survival


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    scene = make_scene(tmp_path_factory.mktemp("kept"), num_points=150, dim=32)
    reference = read_reference(scene.sfm)
    return reference, read_observations(reference, scene.features)


@pytest.mark.parametrize("selector", ["hybrid", "kcover", "random", "ilp"])
def test_rows_are_those_of_the_selector(arrays, selector):
    kept = keep_points(*arrays, CompressConf(selector))
    for count in (20, 60, 10, 150):
        expected = select_points(kept.problem, selector, count)
        np.testing.assert_array_equal(kept.rows(count), expected)


def test_the_codec_is_looked_at_where_it_does_not_depend_on_the_points(arrays):
    observations = arrays[1]
    codec = fit_codec("pq", observations, 1)
    stored = codec.decode(codec.encode_points(observations))
    expected = survival(observations, stored.__getitem__)
    conf = CompressConf("hybrid", "pq", 1, codec_train="all")
    for compressor in (Compressor(*arrays, conf), Compressor(*arrays, conf, codec=codec)):
        np.testing.assert_array_equal(compressor.problem.survival, expected)
    kept = Compressor(*arrays, dataclasses.replace(conf, codec_train="kept"))
    floats = fit_codec("none", observations, 0)
    stored = floats.decode(floats.encode_points(observations))
    np.testing.assert_array_equal(kept.problem.survival, survival(observations, stored.__getitem__))
    assert kept.problem.survival.mean() > expected.mean()


def test_selections_are_shared_between_precisions(arrays):
    kept = keep_points(*arrays, CompressConf("kcover"))
    coarse = kept.at(2.0, 0)
    assert coarse.cost(100)[0] < kept.cost(100)[0]
    assert coarse.cost(100)[1] == kept.cost(100)[1]
    assert coarse.rows(100).tolist() == kept.rows(100).tolist()


@pytest.mark.parametrize("per_observation", [False, True])
def test_what_a_budget_holds_is_about_right(arrays, per_observation):
    granularity = "observation" if per_observation else "point"
    conf = CompressConf("kcover", "sign", 4, granularity)
    compressor = Compressor(*arrays, conf)
    whole = compressor.compress(75)
    size = len(compressor.to_bytes(whole))
    fixed = len(compressor.to_bytes(compressor.compress(1))) - compressor.kept.cost(1)[0]
    count = compressor.kept.affordable(size, fixed, 4, per_observation, False)
    assert 60 <= count <= 90
    codes = compressor.kept.affordable(whole.codes.nbytes, 0, 4, per_observation, True)
    assert 60 <= codes <= 90
    assert compressor.kept.affordable(fixed // 2, fixed, 4, per_observation, False) == 0


def test_the_codec_is_fitted_on_the_kept_points(arrays):
    reference, observations = arrays
    conf = CompressConf("kcover", "pq", 2)
    compressor = Compressor(reference, observations, conf)
    rows = compressor.kept.rows(40)
    visibility, kept = reference.visibility.keep_points(rows)
    own = fit_codec("pq", observations.subset(kept, visibility.indices, 40), 2)
    made = compressor.compress(40).codec.tensors()
    np.testing.assert_array_equal(made["centroids"], own.tensors()["centroids"])
    whole = fit_codec("pq", observations, 2)
    given = Compressor(reference, observations, conf, codec=whole).compress(40)
    assert given.codec is whole
