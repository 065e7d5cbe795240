"""Codes that a point's images choose: against the costs written out, and on a real map."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hloc_dpqed import compress
from hloc_dpqed.codecs.file import codec_hash
from hloc_dpqed.codecs.nested import ChosenCodes
from hloc_dpqed.codecs.shipped import shipped_codec
from hloc_dpqed.compression.conf import CompressConf
from hloc_dpqed.compression.engine import Compressor
from hloc_dpqed.io.model import read_observations, read_reference
from hloc_dpqed.scene.reference import Observations
from hloc_dpqed.training.rivals import best_options


def unit(rng, *shape):
    x = rng.normal(size=shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def made(seed=0, images=4, keys=9, dropped=5, dim=6, each=5):
    """Observations of keys and of points without one, and options near each key."""
    rng = np.random.default_rng(seed)
    places = unit(rng, keys + dropped, dim)
    image, point = [], []
    for i in range(images):
        seen = np.flatnonzero(rng.random(keys + dropped) < 0.7)
        image += [i] * len(seen)
        point += list(seen)
    image, point = np.array(image), np.array(point)
    seen = places[point] + 0.3 * rng.normal(size=(len(point), dim))
    seen = (seen / np.linalg.norm(seen, axis=1, keepdims=True)).astype(np.float32)
    options = places[:keys, None] + 0.5 * rng.normal(size=(keys, each, dim))
    options = (options / np.linalg.norm(options, axis=2, keepdims=True)).astype(np.float32)
    errors = ((options - places[:keys, None]) ** 2).sum(2).astype(np.float32)
    mixed = rng.permutation(len(point))
    key = np.where(point < keys, point, -1)
    return seen[mixed], image[mixed], key[mixed], options, errors


def costs(seen, images, keys, defaults, place, options, errors, t, faithful):
    """The formula of ``best_options``, one term after the other, in double precision."""
    total = faithful / t * errors.astype(np.float64)
    for i in np.unique(images):
        rows = np.flatnonzero(images == i)
        for a in rows[keys[rows] >= 0]:
            p = keys[a]
            if place[p] < 0:
                continue
            others = [keys[b] for b in rows if keys[b] >= 0 and b != a]
            for c, d in enumerate(options[place[p]].astype(np.float64)):
                finds = sum(np.exp(seen[a] @ (defaults[k] - d) / t) for k in others)
                found = sum(np.exp((seen[b] - seen[a]) @ d / t) for b in rows if b != a)
                cost = np.log1p(finds) + np.log1p(found)
                for b in rows:
                    if b == a or keys[b] < 0:
                        continue
                    z = sum(
                        np.exp(seen[b] @ defaults[keys[e]] / t)
                        for e in rows
                        if keys[e] >= 0 and keys[e] != p
                    )
                    cost += np.log1p(np.exp(seen[b] @ d / t) / z)
                total[place[p], c] += cost
    return total


def test_the_cost_is_the_formula():
    for seed in range(5):
        seen, images, keys, options, errors = made(seed)
        which = np.array([0, 2, 3, 7])  # the others stay as they are
        place = np.full(9, -1)
        place[which] = np.arange(4)
        defaults = options[:, 0]
        expected = costs(
            seen, images, keys, defaults, place, options[which], errors[which], 0.1, 0.3
        ).argmin(1)
        found = best_options(
            torch.from_numpy(seen),
            images,
            keys,
            torch.from_numpy(defaults.copy()),
            which,
            torch.from_numpy(options[which]),
            torch.from_numpy(errors[which]),
            temperature=0.1,
            faithful=0.3,
            rivals=100,
            rounds=1,
        )
        assert (found == expected).all()
        assert (found > 0).any()


def test_points_that_nothing_shows_keep_the_nearest():
    seen, images, keys, options, errors = made()
    keys[keys == 4] = -1
    errors = np.sort(errors, 1)
    arguments = (np.arange(9), torch.from_numpy(options), torch.from_numpy(errors))
    defaults = torch.from_numpy(options[:, 0].copy())
    found = best_options(torch.from_numpy(seen), images, keys, defaults, *arguments)
    assert found[4] == 0
    nothing = best_options(torch.from_numpy(seen[:0]), images[:0], keys[:0], defaults, *arguments)
    assert (nothing == 0).all()
    none = torch.from_numpy(options[:0])
    assert len(best_options(torch.zeros(0, 6), images[:0], keys[:0], none[:, 0], keys[:0], none,
                            torch.from_numpy(errors[:0]))) == 0  # fmt: skip


def self_matches(reference, observations, codec, codes):
    """Share of observations that are mutual nearest neighbours of their point's decoded code."""
    decoded, found = codec.decode(codes), 0
    for i in range(reference.num_images):
        rows = np.flatnonzero(observations.image_index == i)
        scores = observations.descriptors[rows].astype(np.float32)
        scores = scores @ decoded[observations.point_index[rows]].T
        own = np.arange(len(rows))
        found += ((scores.argmax(1) == own) & (scores.argmax(0) == own)).sum()
    return found / len(observations)


def test_a_real_map_matches_itself_better(fountain):
    reference = read_reference(fountain / "sfm")
    observations = read_observations(reference, fountain / "feats-superpoint.h5")
    codec = shipped_codec("superpoint").head(4)
    conf = CompressConf("all", "nested", 4)
    compressor = Compressor(reference, observations, conf, codec=codec)
    rows = np.arange(reference.num_points)
    aimed = compressor._observations_of(rows)
    plain, chosen = codec.encode_points(aimed), compressor._codes(codec, rows)
    before, after = (self_matches(reference, observations, codec, c) for c in (plain, chosen))
    assert after > before + 0.05 and 0.3 < (plain != chosen).any(1).mean() < 1
    assert (compressor._codes(codec, rows) == chosen).all()
    # Codes of the mean are the nearest ones, as asked.
    plainly = Compressor(reference, observations, replace(conf, code_targets="mean"), codec=codec)
    assert (plainly._codes(codec, rows) == codec.encode_points(observations)).all()


def test_few_centroids_give_fewer_options(fountain):
    """Codes of one byte: 256 in all, of which a point may not be offered one twice in a row."""
    reference = read_reference(fountain / "sfm")
    observations = read_observations(reference, fountain / "feats-superpoint.h5")
    codec = shipped_codec("superpoint").head(1)
    codes = codec.point_encoder(observations)(np.arange(reference.num_points))
    assert codes.shape == (reference.num_points, 1) and codes.dtype == np.uint8


@pytest.mark.parametrize("budget", [6_000, 9_111])
def test_budgets_hold_what_points_choose(fountain, tmp_path, budget):
    """The size is searched with codes that are not chosen yet."""
    features = fountain / "feats-superpoint.h5"
    for name, threads in (("a", 1), ("b", 2)):
        compress.main(
            fountain / "sfm",
            features,
            tmp_path / name,
            codec="shipped",
            code_bytes=3,
            budget=budget,
            threads=threads,
            progress=False,
        )
    assert 0.97 * budget < (tmp_path / "a").stat().st_size <= budget
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_budgets_are_kept_where_chosen_codes_take_more(fountain, monkeypatch):
    reference = read_reference(fountain / "sfm")
    observations = read_observations(reference, fountain / "feats-superpoint.h5")
    codec = shipped_codec("superpoint").head(4)
    alike = lambda self, rows: np.zeros((len(rows), 4), np.uint8)  # noqa: E731
    monkeypatch.setattr(ChosenCodes, "nearest", alike)  # entropy-coded to nothing
    conf = CompressConf("random", "nested", 4)
    compressor = Compressor(
        reference, observations, conf, codec=codec, codec_hash=codec_hash(codec.whole())
    )
    compressed, data = compressor.fit_budget(9_000, "total")
    assert 6_000 < len(data) <= 9_000 and compressed.num_points > 100


@pytest.mark.parametrize("points, size, beam", [(1600, 4, 32), (5508, 8, 8), (12_553, 4, 5)])
def test_maps_of_few_points_look_wider(points, size, beam):
    observations = Observations(
        np.eye(1, 256, dtype=np.float16).repeat(points, 0),
        np.ones(points, np.float32),
        np.zeros((points, 2), np.float32),
        np.arange(points, dtype=np.int32),
        np.zeros(points, np.int32),
        points,
    )
    codec = shipped_codec("superpoint-2").head(size)
    assert ChosenCodes(codec, observations)._beam == beam
