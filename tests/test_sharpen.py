"""Sharpened targets: the gradient by autograd, fewer confusions than the mean, same bytes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from codec_helpers import make_observations

from hloc_dpqed.codecs import fit_codec
from hloc_dpqed.scene.reference import mean_descriptors, normalise_rows, target_descriptors
from hloc_dpqed.threads import set_num_threads
from hloc_dpqed.training.losses import contrastive_loss
from hloc_dpqed.training.sharpen import contrastive_gradient, sharpened_descriptors


def look_alikes(seed: int = 0):
    """400 points in 8 images, whose descriptors vary most in four dimensions that tell nothing."""
    observations = make_observations(400, 8, noise=0.0, seed=seed)
    rng = np.random.default_rng(seed)
    centres = normalise_rows(rng.normal(size=(400, 32)))
    noise = 0.2 * rng.normal(size=(len(observations), 32))
    noise[:, :4] *= 3
    rows = normalise_rows(centres[observations.point_index] + noise)
    return replace(observations, descriptors=rows.astype(np.float16))


def mutual(decoded: np.ndarray, observations) -> int:
    """Mutual nearest neighbours of each image's observations that are right, by brute force."""
    right = 0
    for image in np.unique(observations.image_index):
        rows = np.flatnonzero(observations.image_index == image)
        similarity = observations.descriptors[rows].astype(np.float32) @ decoded.T
        forth = similarity.argmax(1)
        mine = observations.point_index[rows]
        back = rows[similarity.argmax(0)[mine]]
        right += int(((forth == mine) & (back == rows)).sum())
    return right


def test_gradient_is_autograds():
    torch.manual_seed(0)
    anchors = torch.nn.functional.normalize(torch.randn(9, 5, dtype=torch.float64), dim=1)
    keys = torch.nn.functional.normalize(torch.randn(9, 5, dtype=torch.float64), dim=1)
    keys.requires_grad_()
    labels = torch.arange(9)
    contrastive_loss(anchors, keys, labels, labels, 0.1, both_ways=True)["total"].sum().backward()
    assert keys.grad is not None
    torch.testing.assert_close(contrastive_gradient(anchors, keys.detach(), 0.1), keys.grad)


def test_unseen_images_confuse_fewer_points():
    everything = look_alikes()
    seen = everything.image_index < 5
    known = everything.subset(seen, everything.point_index[seen], 400)
    asked = everything.subset(~seen, everything.point_index[~seen], 400)
    sharp = sharpened_descriptors(known).astype(np.float32)
    assert mutual(sharp, asked) > 1.2 * mutual(mean_descriptors(known), asked)


def test_targets_are_unit_vectors_near_the_mean():
    observations = look_alikes()
    sharp = sharpened_descriptors(observations)
    assert sharp.dtype == np.float16 and sharp.shape == (400, 32)
    np.testing.assert_allclose(np.linalg.norm(sharp.astype(np.float32), axis=1), 1, atol=2e-3)
    assert ((sharp * mean_descriptors(observations)).sum(1)).min() > 0.6


def test_points_that_nothing_resembles_stay():
    observations = replace(
        make_observations(8, 4, dim=8),
        descriptors=np.tile(np.eye(8, dtype=np.float16), (4, 1)),
    )
    np.testing.assert_allclose(sharpened_descriptors(observations), np.eye(8), atol=1e-3)


def test_same_seed_same_bytes_on_any_threads():
    observations = look_alikes()
    set_num_threads(1)
    first = sharpened_descriptors(observations, seed=3)
    set_num_threads(2)
    assert first.tobytes() == sharpened_descriptors(observations, seed=3).tobytes()
    assert first.tobytes() != sharpened_descriptors(observations, seed=4).tobytes()


@pytest.mark.parametrize("count", [0, 1, 10])
def test_tiny_maps(count):
    observations = make_observations(count, 1)
    sharp = sharpened_descriptors(observations)
    assert sharp.shape == (count, 32) and np.isfinite(sharp).all()


def test_points_without_observations_have_zero_rows():
    observations = replace(make_observations(10, 2), num_points=12)
    sharp = sharpened_descriptors(observations)
    assert not sharp[10:].any() and sharp[:10].any(1).all()


@pytest.mark.parametrize("name", ["none", "pq", "drqed"])
def test_codes_are_those_of_the_targets(name):
    observations = make_observations(300, 3)
    targets = mean_descriptors(observations)[::-1].astype(np.float16)
    codec = fit_codec(name, observations, 4, **({"steps": 5} if name == "drqed" else {}))
    aimed = replace(observations, targets=targets)
    assert (codec.encode_points(aimed) == codec.encode(targets)).all()
    np.testing.assert_array_equal(target_descriptors(aimed), targets.astype(np.float32))


def test_drqed_learns_to_decode_to_the_targets():
    observations = make_observations(300, 3)
    targets = normalise_rows(np.random.default_rng(0).normal(size=(300, 32))).astype(np.float16)
    options = {"steps": 60, "reconstruction_weight": 20.0}
    near = [
        float((codec.decode(codec.encode(targets)) * targets.astype(np.float32)).sum(1).mean())
        for codec in (
            fit_codec("drqed", observations, 4, **options),
            fit_codec("drqed", replace(observations, targets=targets), 4, **options),
        )
    ]
    assert 1 - near[1] < 0.1 * (1 - near[0])
