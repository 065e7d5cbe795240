"""The forward pass for a processor, against kornia's module; and real weights, where they are."""

import numpy as np
import pytest
import torch
from learned_weights import aliked_or_disk

from hloc_dpqed.io.features import ImageFeatures
from hloc_dpqed.matching.learned import load_matcher
from hloc_dpqed.matching.lightglue import FastLightGlue

kornia = pytest.importorskip("kornia.feature", reason="kornia is not installed")
SIZE = (640, 480)


def random_net(**conf):
    """A network whose descriptors decide, that stops early and prunes."""
    torch.manual_seed(0)
    net = kornia.LightGlue(None, input_dim=128, filter_threshold=0.0, **conf).eval()
    with torch.no_grad():
        for layer in net.transformers:
            for block in (layer.self_attn, layer.cross_attn):
                block.ffn[-1].weight *= 0.1
        for i, head in enumerate(net.log_assignment):
            head.final_proj.weight.copy_(30 * torch.eye(256))
            if i < 2:
                head.matchability.weight *= 100
        for i, head in enumerate(net.token_confidence):
            head.token[0].bias.fill_(i - 1)
            head.token[0].weight *= 5
    return net


def random_pair(seed, n=310, m=190):
    rng = np.random.default_rng(seed)
    sides = [(rng.random((k, 2)) * (639, 479)).astype(np.float32) for k in (n, m)]
    a = rng.normal(size=(n, 128)).astype(np.float32)
    b = (a[:m] + 0.5 * rng.normal(size=(m, 128))).astype(np.float32)
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    return [
        ImageFeatures(k, d, np.ones(len(k), np.float32), SIZE)
        for k, d in zip(sides, (a, b), strict=True)
    ]


def by_kornia(net, pair):
    data = {
        f"image{i}": {
            "keypoints": torch.from_numpy(f.keypoints)[None],
            "descriptors": torch.from_numpy(f.descriptors)[None],
            "image_size": torch.tensor([SIZE]),
        }
        for i, f in enumerate(pair)
    }
    with torch.no_grad():
        out = net(data)
    return out["matches"][0], out["scores"][0], out["stop"]


def by_us(net, pair):
    fast = FastLightGlue(net)
    return fast.match(
        *(
            fast.tokens(torch.from_numpy(f.keypoints), torch.from_numpy(f.descriptors), SIZE)
            for f in pair
        )
    )


@pytest.mark.parametrize(
    "conf",
    [
        {"depth_confidence": -1, "width_confidence": -1},
        {"depth_confidence": -1, "width_confidence": 0.9},
        {"depth_confidence": 0.6, "width_confidence": -1},
        {"depth_confidence": 0.8, "width_confidence": 0.9},
        {"descriptor_dim": 96, "n_layers": 3, "num_heads": 1, "width_confidence": 0.9},
    ],
)
def test_matches_and_scores_are_kornias(conf):
    if "descriptor_dim" in conf:
        torch.manual_seed(0)
        net = kornia.LightGlue(None, input_dim=128, filter_threshold=0.0, **conf).eval()
    else:
        net = random_net(**conf)
    for seed in range(3):
        pair = random_pair(seed)
        expected, scores, _ = by_kornia(net, pair)
        found, ours = by_us(net, pair)
        assert len(expected) > 20
        assert found.tolist() == expected.tolist()
        torch.testing.assert_close(ours, scores, rtol=1e-3, atol=1e-4)


def test_the_random_network_stops_and_prunes():
    """Else the test above would compare nothing of it."""
    stops = {by_kornia(random_net(depth_confidence=0.6), random_pair(s))[2] for s in range(3)}
    assert max(stops) < 9
    net = random_net(depth_confidence=-1, width_confidence=0.9)
    fast = FastLightGlue(net)
    pair = random_pair(0)
    tokens = fast.tokens(
        torch.from_numpy(pair[0].keypoints), torch.from_numpy(pair[0].descriptors), SIZE
    )
    with torch.no_grad():
        assert 0 < len(fast._kept(0, tokens, None)) < len(tokens.x)


def test_nothing_is_left_after_pruning():
    net = random_net(depth_confidence=-1, width_confidence=0.9)
    with torch.no_grad():
        for head in net.log_assignment:
            head.matchability.bias.fill_(-1e4)
    found, scores = by_us(net, random_pair(0))
    assert found.shape == (0, 2) and len(scores) == 0
    found, sure = in_view(net, random_pair(0))
    assert found.shape == (0, 2) and sure == 0


def in_view(net, pair):
    fast = FastLightGlue(net)
    fast.filter_threshold = 0.01
    sides = [(torch.from_numpy(f.keypoints), torch.from_numpy(f.descriptors)) for f in pair]
    return fast.match_view(*(fast.tokens(*side, SIZE) for side in sides))


def test_a_view_has_the_mutual_matches_and_points_that_share_a_keypoint():
    net = random_net(depth_confidence=-1, width_confidence=-1)
    pair = random_pair(0)
    sure = {
        tuple(p)
        for p, s in zip(*map(torch.Tensor.tolist, by_us(net, pair)), strict=True)
        if s > 0.01
    }
    found, count = in_view(net, pair)
    rows = {tuple(p) for p in found.tolist()}
    assert sure <= rows and len(rows) == len(found) and count == len(sure)
    assert len(found[:, 1].unique()) == len(found)  # a point has one keypoint
    # A second copy of each point, next to it: neither is a mutual best twice.
    twice = [
        pair[0],
        ImageFeatures(
            np.repeat(pair[1].keypoints, 2, 0) + np.tile([[0, 0], [0.5, 0]], (190, 1)).astype("f4"),
            np.repeat(pair[1].descriptors, 2, 0),
            np.ones(380, np.float32),
            SIZE,
        ),
    ]
    found, count = in_view(net, twice)
    assert count <= len(found[:, 0].unique()) < len(found)
    keypoint = dict(found[:, [1, 0]].tolist())
    both = [p for p in range(190) if 2 * p in keypoint and 2 * p + 1 in keypoint]
    assert len(both) > 100
    assert np.mean([keypoint[2 * p] == keypoint[2 * p + 1] for p in both]) > 0.95


def test_networks_with_scales_are_refused():
    with pytest.raises(ValueError, match="no scales"):
        FastLightGlue(kornia.LightGlue(None, input_dim=128, add_scale_ori=True))


def textured(seed=0, size=320):
    """(size, size) smooth random texture in [0, 1] with corners of many sizes."""
    rng = np.random.default_rng(seed)
    image = np.zeros((size, size), np.float32)
    for _ in range(250):
        x, y = rng.integers(0, size, 2)
        w, h = rng.integers(4, 60, 2)
        image[y : y + h, x : x + w] = rng.random()
    return image


@pytest.mark.parametrize("name", ["aliked", "disk"])
def test_real_weights_match_a_shifted_image(name):
    """ALIKED and DISK with LightGlue's published weights, from the package that carries them."""
    extract = aliked_or_disk(name)
    scene, shift = textured(), np.array([37, 21])
    first, second = scene[:256, :256], scene[shift[1] : shift[1] + 256, shift[0] : shift[0] + 256]
    a, b = extract(first), extract(second)
    found = load_matcher(f"{name}+lightglue")(a, b)
    moved = a.keypoints[found[:, 0]] - b.keypoints[found[:, 1]]
    near = np.linalg.norm(moved - shift, axis=1) < 2
    assert near.sum() > 40 and near.mean() > 0.9
    # Shuffled rows give the same matches.
    order = np.random.default_rng(0).permutation(len(b.keypoints))
    mixed = ImageFeatures(b.keypoints[order], b.descriptors[order], b.scores[order], b.image_size)
    again = load_matcher(f"{name}+lightglue")(a, mixed)
    back = {(i, int(order[j])) for i, j in again.tolist()}
    same = len(back & {*map(tuple, found.tolist())})
    assert same >= 0.99 * len(found)
