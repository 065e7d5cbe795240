"""Codebooks trained through a frozen LightGlue, against the tracks and the written-out loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from random_matchers import lightglue_state
from synthetic import compressed_scene, make_scene

from hloc_dpqed import append, compress
from hloc_dpqed.errors import InputError
from hloc_dpqed.io.model import read_observations, read_reference
from hloc_dpqed.localization import Localizer
from hloc_dpqed.mapfile import read_map
from hloc_dpqed.matching import tuning
from hloc_dpqed.matching.learned import load_fast_lightglue
from hloc_dpqed.matching.lightglue import FastLightGlue, LogAssignment
from hloc_dpqed.scene.reference import mean_descriptors

kornia = pytest.importorskip("kornia.feature", reason="kornia is not installed")


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    made = make_scene(tmp_path_factory.mktemp("scene"), num_points=300, dim=64)
    reference = read_reference(made.sfm)
    return made, reference, read_observations(reference, made.features)


def small_network(seed=0):
    """Three layers, filled at random."""
    torch.manual_seed(seed)
    net = kornia.LightGlue(None, input_dim=64, descriptor_dim=96, n_layers=3, num_heads=1)
    return FastLightGlue(net.eval())


def test_a_pair_is_what_the_tracks_and_the_projections_say(scene):
    _, reference, observations = scene
    kept = np.arange(0, reference.num_points, 2)
    sampler = tuning.PairSampler(reference, observations, kept, keypoints=40)
    rng = np.random.default_rng(0)
    for _ in range(20):
        pair = sampler.draw(rng)
        (first,) = np.unique(observations.image_index[pair.observed])
        assert first != pair.image
        assert 0 < len(pair.observed) <= 40 and 0 < len(pair.points) <= 40
        assert set(pair.points) <= set(kept) & set(reference.visibility[pair.image])
        expected = {
            (m, n)
            for m, p in enumerate(observations.point_index[pair.observed])
            for n, q in enumerate(pair.points)
            if p == q
        }
        assert set(map(tuple, pair.matches)) == expected
        assert 1 <= len(pair.matches) <= tuning.MATCHED * 40
        camera = reference.cameras[reference.camera_index[pair.image]]
        pose = reference.cam_from_world[pair.image]
        in_camera = reference.xyz[pair.points] @ pose[:, :3].T + pose[:, 3]
        np.testing.assert_allclose(camera.img_from_cam(in_camera) - 0.5, pair.keypoints, atol=1e-3)
        assert sampler.size(pair.image) == (camera.width, camera.height)


def test_codes_of_one_point_match_each_other(scene):
    """An image sees one of a point's codes; a keypoint of another image may have another."""
    _, reference, observations = scene
    places = np.arange(reference.num_points) // 2  # any two rows, for the test
    both = replace(observations, places=places)
    sampler = tuning.PairSampler(reference, both, np.arange(reference.num_points), keypoints=400)
    pair = sampler.draw(np.random.default_rng(0))
    seen = places[observations.point_index[pair.observed[pair.matches[:, 0]]]]
    np.testing.assert_array_equal(seen, places[pair.points[pair.matches[:, 1]]])
    rows = observations.point_index[pair.observed[pair.matches[:, 0]]]
    assert (rows != pair.points[pair.matches[:, 1]]).any()


def test_images_that_share_nothing_are_refused(scene):
    _, reference, observations = scene
    with pytest.raises(InputError, match="--tune: no two images"):
        tuning.PairSampler(reference, observations, np.arange(10), 100)


def test_the_loss_is_that_of_the_paper():
    rng = np.random.default_rng(0)
    sim, a, b = rng.normal(size=(5, 4)), rng.normal(size=5), rng.normal(size=4)
    matches = [(0, 1), (3, 2)]

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    e = np.exp(sim)
    assignment = e / e.sum(1, keepdims=True) * e / e.sum(0) * sigmoid(a)[:, None] * sigmoid(b)[None]
    expected = -np.mean([np.log(assignment[m]) for m in matches])
    alone = [np.log(1 - sigmoid(a))[[1, 2, 4]].mean(), np.log(1 - sigmoid(b))[[0, 3]].mean()]
    expected -= tuning.UNMATCHED / 2 * sum(alone)
    answer = LogAssignment(*(torch.from_numpy(x) for x in (sim, a, b)))
    found = tuning.matching_loss(answer, torch.tensor(matches))
    assert found.item() == pytest.approx(expected)


def losses(codec, codes, network, reference, observations):
    """Of the last layer, for pairs that the tuning did not draw."""
    sampler = tuning.PairSampler(reference, observations, np.arange(reference.num_points), 200)
    decoded = torch.from_numpy(codec.decode(codes))
    total = 0.0
    for seed in range(8):
        pair = sampler.draw(np.random.default_rng(seed))
        first = int(observations.image_index[pair.observed[0]])
        described = observations.descriptors[pair.observed].astype(np.float32)
        with torch.no_grad():
            query = network.tokens(
                torch.from_numpy(observations.keypoints[pair.observed]),
                torch.from_numpy(described),
                sampler.size(first),
            )
            image = network.tokens(
                torch.from_numpy(pair.keypoints), decoded[pair.points], sampler.size(pair.image)
            )
            (answer,) = network.log_assignments(query, image, [network.num_layers - 1])
        total += tuning.matching_loss(answer, torch.from_numpy(pair.matches)).item()
    return total / 8


def tune(scene, **options):
    _, reference, observations = scene
    everything = np.arange(reference.num_points)
    options = {"bits": [4, 4], "steps": 30, "keypoints": 100, "learning_rate": 1e-2, **options}
    network = options.pop("network", None) or small_network()
    return tuning.tuned_codec(network, reference, observations, everything, 1, **options)


def test_tuning_lowers_the_networks_loss_and_leaves_it_as_it_is(scene):
    _, reference, observations = scene
    network = small_network()
    before = {k: v.clone() for k, v in network.net.state_dict().items()}
    start, codes = tune(scene, steps=1, learning_rate=1e-9)
    tuned, same = tune(scene, network=network)
    np.testing.assert_array_equal(codes, same)
    at_first = losses(start, codes, network, reference, observations)
    assert losses(tuned, codes, network, reference, observations) < at_first - 0.05
    assert all(torch.equal(v, network.net.state_dict()[k]) for k, v in before.items())


def test_equal_seeds_give_equal_codecs(scene):
    first, again, other = (tune(scene, steps=3, seed=seed)[0].tensors() for seed in (0, 0, 1))
    assert all((again[k] == v).all() for k, v in first.items())
    assert any(other[k].shape != v.shape or (other[k] != v).any() for k, v in first.items())


def test_the_start_is_near_in_the_networks_eyes(scene):
    _, _, observations = scene
    codec, codes = tune(scene, steps=1, learning_rate=1e-9, bits=[8])
    weight = small_network().net.input_proj.weight.detach().numpy()
    means = mean_descriptors(observations)
    decoded = codec.decode(codes)
    shuffled = decoded[np.random.default_rng(0).permutation(len(decoded))]
    error, chance = ((((means - d) @ weight.T) ** 2).sum(1).mean() for d in (decoded, shuffled))
    assert error < 0.2 * chance


def test_compress_tunes_and_stores_the_codes(scene, tmp_path, monkeypatch, caplog):
    made, _, _ = scene
    monkeypatch.setattr(
        "hloc_dpqed.matching.learned.load_fast_lightglue", lambda *_: small_network()
    )
    monkeypatch.setattr(compress, "check_matched", lambda *_: None)
    maps = [
        read_map(
            compress.main(
                made.sfm,
                made.features,
                tmp_path / f"{steps}.dpqed",
                code_bytes=2,
                fraction=0.6,
                matcher="aliked+lightglue",
                tune=True,
                codec_options={"bits": [6, 6], "used_bits": 12, "steps": steps},
            )
        )
        for steps in (1, 4)
    ]
    np.testing.assert_array_equal(maps[0].codes, maps[1].codes)
    assert (maps[0].codec.codebooks[0] != maps[1].codec.codebooks[0]).any()
    assert maps[0].metadata["conf"]["tuned_for"] == "aliked+lightglue"
    assert maps[0].codec.bits == [6, 6, 4] and (maps[0].codes[:, 1] < 16).all()
    # Codes of further points would not be found as these were, and others' networks see less.
    with pytest.raises(InputError, match=r"was tuned for aliked\+lightglue"):
        append.main(tmp_path / "1.dpqed", made.sfm, made.features, tmp_path / "more.dpqed")
    caplog.clear()
    Localizer(maps[0])
    assert "tuned for aliked+lightglue" in caplog.text


def test_a_network_that_finds_no_match_is_told(scene, caplog):
    """Such as one for other features, or features of other images."""
    made, reference, observations = scene
    shuffled = np.random.default_rng(0).permutation(len(observations))
    wrong = replace(observations, descriptors=observations.descriptors[shuffled])
    with caplog.at_level("WARNING"):
        tune((made, reference, wrong), steps=tuning.LAST)
    assert "% of the tracks' matches: are the features those of the model" in caplog.text


def test_a_map_far_from_the_origin_is_tuned_alike(scene):
    """In earth-centred coordinates a point is millions of units away."""
    _, reference, observations = scene
    shift = np.array([4.2e6, 6.1e5, 4.7e6])
    poses = reference.cam_from_world.copy()
    poses[:, :, 3] -= poses[:, :, :3] @ shift
    moved = replace(reference, xyz=reference.xyz + shift, cam_from_world=poses)
    everything = np.arange(reference.num_points)
    pairs = [
        tuning.PairSampler(r, observations, everything, 100).draw(np.random.default_rng(0))
        for r in (reference, moved)
    ]
    np.testing.assert_array_equal(pairs[0].points, pairs[1].points)
    np.testing.assert_allclose(pairs[0].keypoints, pairs[1].keypoints, atol=0.01)


def test_a_matcher_of_other_features_is_refused(scene, tmp_path):
    made, _, _ = scene
    with pytest.raises(InputError, match=r"takes descriptors of 128 dimensions.* of 64"):
        compress.main(
            made.sfm, made.features, tmp_path / "m.dpqed", matcher="disk+lightglue", tune=True
        )


@pytest.mark.parametrize(
    "options, line",
    [
        ({"matcher": "NN-mutual"}, "--tune: --matcher NN-mutual has no network"),
        ({"codec": "pq"}, "--tune: takes --codec drqed"),
        ({"granularity": "observation"}, "--tune: takes --codec drqed and a code for each point"),
        ({"codec_options": {"temperature": 0.1}}, "--tune: codec drqed: no option 'temperature'"),
        ({"budget": "10KB"}, "--tune: a plan does not tune"),
        ({"target_recall": "0.9@0.1/1"}, "--tune: a plan does not tune"),
    ],
)
def test_what_cannot_be_tuned_is_refused(scene, tmp_path, options, line):
    made, _, _ = scene
    options = {"matcher": "aliked+lightglue", "tune": True, **options}
    with pytest.raises(InputError, match=line):
        compress.main(made.sfm, made.features, tmp_path / "map.dpqed", **options)
    assert not (tmp_path / "map.dpqed").exists()


@pytest.mark.parametrize("code_bytes, prune", [(1, False), (2, True)])
def test_points_of_short_codes_are_not_pruned(tmp_path, monkeypatch, code_bytes, prune):
    made = make_scene(tmp_path, num_points=300, dim=128)
    stored = compressed_scene(made, code_bytes=code_bytes)
    asked = []

    def load(name, weights, device, prune):
        asked.append(prune)
        return lambda *_: np.zeros((0, 2), np.int64)

    monkeypatch.setattr("hloc_dpqed.matching.learned.load_matcher", load)
    Localizer(stored, "aliked+lightglue")
    assert asked == [prune]


def test_a_network_that_does_not_prune(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(lightglue_state(128), path)
    kept, all_of_them = (
        load_fast_lightglue("disk+lightglue", path, prune=p) for p in (True, False)
    )
    assert kept.width_confidence > 0 > all_of_them.width_confidence
    assert kept.depth_confidence == all_of_them.depth_confidence > 0


@pytest.mark.parametrize("kept, steps", [(300, 200), (10_240, 500), (10**6, 1000)])
def test_each_point_is_shown_as_often_up_to_a_limit(kept, steps):
    assert tuning.planned_steps(kept, 512) == steps
