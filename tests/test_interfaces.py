"""What every codec, selector and matcher keeps, run on each that is registered."""

import numpy as np
import pytest
import torch
from codec_helpers import make_observations
from conftest import WEIGHTS
from random_matchers import lightglue_state, superglue_state
from selection_maps import random_problem

from hloc_dpqed.codecs import CODECS, fit_codec, load_codec
from hloc_dpqed.errors import InputError
from hloc_dpqed.io.features import ImageFeatures
from hloc_dpqed.matching.learned import (
    FAST_FEATURES,
    PAIR_MATCHERS,
    lightglue_matcher,
    lightglue_with,
    load_matcher,
)
from hloc_dpqed.matching.nearest_neighbor import NN_CONFS, match_images
from hloc_dpqed.scene.reference import normalise_rows
from hloc_dpqed.selection import ORDERS, SELECTORS, select_points, selection_order

QUICK = {"dpqed": {"steps": 5}, "drqed": {"steps": 5}}  # options of codecs that train


@pytest.fixture(scope="module")
def observations():
    return make_observations(300, 3)


@pytest.fixture(scope="module")
def fitted(observations):
    made = {}

    def get(name):
        if name not in made:
            made[name] = fit_codec(name, observations, 4, seed=1, **QUICK.get(name, {}))
        return made[name]

    return get


# --- codecs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CODECS)
def test_codec_shapes_and_norms(fitted, observations, name):
    codec = fitted(name)
    assert codec.name == name and codec.dim == 32
    codes = codec.encode(observations.descriptors.astype(np.float32))
    assert codes.dtype == np.uint8 and codes.shape == (900, codec.code_size)
    decoded = codec.decode(codes)
    assert decoded.dtype == np.float32 and decoded.shape == (900, 32)
    np.testing.assert_allclose(np.linalg.norm(decoded, axis=1), 1, atol=1e-4)
    assert codec.encode_points(observations).shape == (300, codec.code_size)
    assert codec.decode(codes[:0]).shape == (0, 32)
    assert codec.encode(np.zeros((0, 32), np.float32)).shape == (0, codec.code_size)


@pytest.mark.parametrize("name", CODECS)
def test_codec_says_more_than_the_mean(fitted, observations, name):
    codec, x = fitted(name), observations.descriptors.astype(np.float32)
    similarity = (codec.decode(codec.encode(x)) * x).sum(1).mean()
    assert similarity > (x @ normalise_rows(x.mean(0, keepdims=True)).T).mean()


@pytest.mark.parametrize("name", CODECS)
def test_codec_is_what_its_tensors_say(fitted, observations, name):
    codec, x = fitted(name), observations.descriptors.astype(np.float32)
    again = load_codec(name, codec.tensors(), codec.config())
    np.testing.assert_array_equal(codec.encode(x), again.encode(x))
    np.testing.assert_array_equal(codec.decode(codec.encode(x)), again.decode(again.encode(x)))
    assert codec.config() == again.config()
    for key, values in codec.tensors().items():
        np.testing.assert_array_equal(values, again.tensors()[key])
        assert values.dtype == again.tensors()[key].dtype


@pytest.mark.parametrize("name", CODECS)
def test_codec_of_one_seed(fitted, observations, name):
    again = fit_codec(name, observations, 4, seed=1, **QUICK.get(name, {}))
    for key, values in fitted(name).tensors().items():
        np.testing.assert_array_equal(values, again.tensors()[key])


@pytest.mark.parametrize("name", CODECS)
def test_codec_refuses_wrong_tensors(fitted, name):
    codec = fitted(name)
    for key, values in codec.tensors().items():
        wrong = [values[None]]
        if values.dtype.kind == "f" and values.size:
            wrong.append(np.full_like(values, np.nan))
        for damaged in wrong:
            with pytest.raises(InputError):
                load_codec(name, {**codec.tensors(), key: damaged}, codec.config())
        less = codec.tensors()
        del less[key]
        with pytest.raises(InputError):
            load_codec(name, less, codec.config())


@pytest.mark.parametrize("name", CODECS)
def test_codec_refuses_unknown_options(observations, name):
    with pytest.raises((InputError, TypeError)):
        fit_codec(name, observations, 4, no_such_option=1)


# --- selectors -------------------------------------------------------------------------------

BUDGETED = [name for name in SELECTORS if name != "all"]


@pytest.mark.parametrize("name", BUDGETED)
def test_selector_count_order_and_seed(name):
    problem, _ = random_problem(num_points=150)
    for num_points in (1, 40, 149, 150, 400):
        rows = select_points(problem, name, num_points, seed=2)
        assert rows.dtype == np.int64 and len(rows) == min(num_points, 150)
        assert (np.diff(rows) > 0).all() and rows[0] >= 0 and rows[-1] < 150
        np.testing.assert_array_equal(rows, select_points(problem, name, num_points, seed=2))


@pytest.mark.parametrize("name", ORDERS)
def test_selector_heads(name):
    problem, _ = random_problem(num_points=150)
    order = selection_order(problem, name, 120, seed=2)
    assert len(order) == len(set(order.tolist())) == 120
    for k in (1, 17, 60, 120):
        np.testing.assert_array_equal(np.sort(order[:k]), select_points(problem, name, k, seed=2))


@pytest.mark.parametrize("name", BUDGETED)
def test_selector_floor(name):
    problem, _ = random_problem(num_points=150)
    rows = select_points(problem, name, 90, seed=2, min_per_image=3)
    visibility = problem.visibility
    kept = np.bincount(
        visibility.image_of_observation()[np.isin(visibility.indices, rows)],
        minlength=visibility.num_images,
    )
    assert len(rows) == 90
    assert (kept >= np.minimum(3, np.diff(visibility.indptr))).all()


# --- matchers --------------------------------------------------------------------------------

DIMS = {
    "xfeat+lighterglue": 64,
    "disk+lightglue": 128,
    "aliked+lightglue": 128,
    "disk+lightglue-fast": 128,
    "aliked+lightglue-fast": 128,
}


def image_of(descriptors, keypoints):
    return ImageFeatures(keypoints, descriptors, np.ones(len(keypoints), np.float32), (640, 480))


def two_views(dim):
    """A view, and a shifted one whose row i is row ``order[i]`` of the first."""
    rng = np.random.default_rng(0)
    keypoints = (rng.random((80, 2)) * [600, 440] + 10).astype(np.float32)
    descriptors = normalise_rows(rng.normal(size=(80, dim)))
    order = rng.permutation(80)
    noisy = normalise_rows(descriptors[order] + 0.02 * rng.normal(size=(80, dim)))
    # A little noise: kornia before 0.9 takes matches without any residual for copies of one.
    moved = (keypoints[order] + 3 + rng.normal(0, 0.3, (80, 2))).astype(np.float32)
    return image_of(descriptors, keypoints), image_of(noisy, moved), order


def pair_matcher(name, tmp_path):
    """The matcher with its own weights where it has none that are downloaded, else random ones."""
    if name == "xfeat+lighterglue":
        weights = WEIGHTS / "lighterglue_L3.onnx"
        if not weights.is_file():
            pytest.skip("no LighterGlue weights; set HLOC_DPQED_WEIGHTS")
        return load_matcher(name, weights)
    if name.endswith("+lightglue"):
        net = lightglue_with(lightglue_state(DIMS.get(name, 256)), name.split("+")[0], "random")
        return lightglue_matcher(net.eval())
    if name in FAST_FEATURES:
        file = tmp_path / "lightglue.pth"
        torch.save(lightglue_state(DIMS.get(name, 256)), file)
        return load_matcher(name, file)
    if name.startswith("superglue"):
        file = tmp_path / "superglue.pth"
        torch.save(superglue_state(), file)
        return load_matcher(name, file)
    return load_matcher(name)


def check_pairs(pairs, count0, count1):
    assert pairs.dtype == np.int64 and pairs.ndim == 2 and pairs.shape[1] == 2
    assert (np.diff(pairs[:, 0]) > 0).all(), "by query row, each at most once"
    assert ((pairs >= 0) & (pairs < [count0, count1])).all()


@pytest.mark.parametrize("name", PAIR_MATCHERS)
def test_pair_matcher(name, tmp_path):
    match = pair_matcher(name, tmp_path)
    first, second, order = two_views(DIMS.get(name, 256))
    pairs = match(first, second)
    check_pairs(pairs, 80, 80)
    np.testing.assert_array_equal(pairs, match(first, second))
    if name != "xfeat+lighterglue":  # which knows real descriptors, not random ones
        assert (order[pairs[:, 1]] == pairs[:, 0]).mean() > 0.9 and len(pairs) > 40
    none = image_of(first.descriptors[:0], first.keypoints[:0])
    for a, b in ((none, second), (first, none), (none, none)):
        assert match(a, b).shape == (0, 2)


@pytest.mark.parametrize("name", NN_CONFS)
def test_nearest_neighbour_matcher(name):
    first, second, order = two_views(64)
    query, database = torch.from_numpy(first.descriptors), torch.from_numpy(second.descriptors)
    rows = torch.arange(80)
    every, half, nothing = match_images(
        query, database, [rows, rows[:40], rows[:0]], NN_CONFS[name]
    )
    for found, count in ((every, 80), (half, 40), (nothing, 0)):
        check_pairs(found.pairs, 80, count)
        assert found.similarity.shape == (len(found.pairs),)
    assert len(every.pairs) > 70 and (order[every.pairs[:, 1]] == every.pairs[:, 0]).all()
