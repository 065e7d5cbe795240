"""One device argument takes fitting and matching to a GPU: the same results but for rounding."""

import numpy as np
import pytest
import torch
from codec_helpers import make_observations, top1
from synthetic import compressed_scene, make_scene

from hloc_dpqed.codecs import fit_codec
from hloc_dpqed.evaluation.pose_errors import pose_error
from hloc_dpqed.io.features import FeatureFile
from hloc_dpqed.io.lists import read_poses, read_queries
from hloc_dpqed.localization.localizer import Localizer, Query
from hloc_dpqed.matching.nearest_neighbor import NN_CONFS, match_all, match_images

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")


@pytest.mark.parametrize("name", ["dpqed", "drqed"])
def test_a_codec_fitted_on_the_device_is_as_good(name):
    observations = make_observations(600, 4, dim=64)
    on_cpu = fit_codec(name, observations, 4, steps=100)
    on_device = fit_codec(name, observations, 4, steps=100, device=DEVICE)
    assert on_device.stored().tensors().keys() == on_cpu.tensors().keys()
    assert abs(top1(on_device, observations) - top1(on_cpu, observations)) < 0.05


@pytest.mark.parametrize("name", NN_CONFS)
def test_matches_are_those_of_the_processor(name):
    rng = np.random.default_rng(0)
    database = rng.standard_normal((500, 64)).astype(np.float32)
    query = np.concatenate(
        [database[:200] + 0.5 * rng.standard_normal((200, 64)), database[200:300]]
    )
    database, query = (
        torch.from_numpy(x / np.linalg.norm(x, axis=1, keepdims=True)).float()
        for x in (database, query)
    )
    images = [torch.arange(0, 300), torch.arange(0), torch.arange(100, 500), torch.tensor([7])]
    conf = NN_CONFS[name]
    here = match_images(query, database, images, conf)
    there = match_images(
        query.to(DEVICE), database.to(DEVICE), [rows.to(DEVICE) for rows in images], conf
    )
    here.append(match_all(query, database, conf))
    there.append(match_all(query.to(DEVICE), database.to(DEVICE), conf))
    assert len(here[0].pairs) > 50
    for one, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(one.pairs, other.pairs)
        np.testing.assert_allclose(one.similarity, other.similarity, atol=1e-5)


@pytest.mark.parametrize("whole_map", [False, True])
@pytest.mark.parametrize("memory_limit", [0, 1 << 30])
def test_poses_are_right(tmp_path, whole_map, memory_limit):
    scene = make_scene(tmp_path, dim=64)
    compressed = compressed_scene(scene, codec="none")
    localizer = Localizer(compressed, ransac_thresh=2, device=DEVICE, memory_limit=memory_limit)
    assert localizer._descriptors(np.arange(3)).device.type == DEVICE
    truth = read_poses(scene.poses)
    everything = None if whole_map else list(range(compressed.num_images))
    with FeatureFile(scene.features) as file:
        queries = [Query(n, c, file.read(n), everything) for n, c in read_queries(scene.queries)]
    outcomes = list(localizer.localize_many(queries))
    assert len(outcomes) == len(queries)
    for outcome in outcomes:
        translation, rotation = pose_error(outcome.cam_from_world, truth[outcome.name])
        assert translation < 1e-3 and rotation < 1e-3
