import numpy as np
import torch
from codec_helpers import make_observations

from hloc_dpqed.training.batches import Tracks
from hloc_dpqed.training.reencode import _groups, best_candidates, candidate_costs


def brute_force(anchors, owner, defaults, options, rows, t):
    cost = np.zeros(options.shape[:2])
    for i, row in enumerate(rows):
        for j in range(options.shape[1]):
            for a, o in zip(anchors, owner, strict=True):
                others = [p for p in range(len(defaults)) if p != row]
                z = sum(np.exp(a @ defaults[p] / t) for p in others)
                e = np.exp(a @ options[i, j] / t)
                cost[i, j] += -np.log(e / (e + z)) if o == row else np.log((z + e) / z)
    return cost


def test_costs_against_brute_force():
    rng = np.random.default_rng(0)
    anchors, defaults = rng.normal(size=(9, 4)), rng.normal(size=(5, 4))
    options = rng.normal(size=(3, 2, 4))
    owner, rows = np.array([0, 0, 1, 2, 2, 3, 4, 4, 4]), np.array([1, 2, 4])
    args = (anchors, owner, defaults, options, rows)
    got = candidate_costs(*map(torch.from_numpy, args), 0.7).numpy()
    np.testing.assert_allclose(got, brute_force(*args, 0.7), rtol=1e-6)


def test_groups_cover_every_track_once():
    tracks = Tracks.from_observations(make_observations(1300, 3))
    fresh = np.concatenate([group[new] for group, new in _groups(tracks, 0)])
    np.testing.assert_array_equal(np.sort(fresh), np.arange(1300))
    assert max(len(group) for group, _ in _groups(tracks, 0)) <= 512


def test_a_point_takes_the_candidate_that_its_observations_match():
    observations = make_observations(40, 3, noise=0.05)
    good = torch.from_numpy(observations.descriptors[:40].astype(np.float32))
    bad = torch.roll(good, 1, 0)  # the descriptor of another point
    table = torch.stack([bad, good], 1).flatten(0, 1)
    options = np.arange(80).reshape(40, 2, 1)
    chosen = best_candidates(
        observations, lambda rows: options[rows], lambda codes: table[codes[:, 0]]
    )
    np.testing.assert_array_equal(chosen[:, 0], options[:, 1, 0])
