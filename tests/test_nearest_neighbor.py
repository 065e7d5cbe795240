"""hloc's rules of matching, against a plain pair-by-pair search and against hloc itself."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from hloc_dpqed.matching.nearest_neighbor import (
    NN_CONFS,
    Matches,
    NearestNeighborConf,
    match_all,
    match_images,
)

CONFS = {
    **NN_CONFS,
    "one way": NearestNeighborConf(do_mutual_check=False),
    "one way, ratio": NearestNeighborConf(ratio_threshold=0.9, do_mutual_check=False),
    "one way, distance": NearestNeighborConf(distance_threshold=0.9, do_mutual_check=False),
    "all": NearestNeighborConf(ratio_threshold=0.95, distance_threshold=1.2),
}


def brute_force(query, database, conf) -> np.ndarray:
    """hloc's nearest-neighbour rules for one pair of images, a row at a time: (k, 2) int64."""
    alone = min(len(query), len(database)) == 1

    def neighbour(row, others):
        similarity = np.round(others.astype(float) @ row, 9)
        best = int(np.argmax(similarity))  # the lowest of equal ones
        distance = 2 * (1 - similarity[best])
        if conf.ratio_threshold and not alone:
            second = np.sort(similarity)[-2]
            if distance > conf.ratio_threshold**2 * (2 * (1 - second)):
                return -1
        if conf.distance_threshold and distance > conf.distance_threshold**2:
            return -1
        return best

    if not len(query) or not len(database):
        return np.zeros((0, 2), np.int64)
    forward = [neighbour(row, database) for row in query]
    backward = [neighbour(row, query) for row in database]
    pairs = [
        (i, j)
        for i, j in enumerate(forward)
        if j >= 0 and (not conf.do_mutual_check or backward[j] == i)
    ]
    return np.array(pairs, np.int64).reshape(-1, 2)


def grid(rng, count, dim=4) -> np.ndarray:
    """Unit rows whose products are exact in float32, so that ties are ties: halves and signs."""
    rows = np.array(
        [np.r_[s * 1.0, 0, 0, 0][np.roll(np.arange(4), k)] for s in (1, -1) for k in range(4)]
        + [0.5 * np.array(s) for s in np.ndindex(2, 2, 2, 2) for s in [2 * np.array(s) - 1]]
    )
    return rows[rng.integers(0, len(rows), count)].astype(np.float32)


def unit(rng, count, dim=16) -> np.ndarray:
    rows = rng.standard_normal((count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def of_images(query, database, images, conf) -> list[Matches]:
    rows = [torch.from_numpy(np.asarray(r, np.int64)) for r in images]
    return match_images(torch.from_numpy(query), torch.from_numpy(database), rows, conf)


@pytest.mark.parametrize("name", CONFS)
@pytest.mark.parametrize("make", [grid, unit], ids=["with ties", "without ties"])
@settings(max_examples=60)
@given(
    st.integers(0, 10_000),
    st.integers(0, 12),
    st.integers(1, 12),
    st.lists(st.integers(0, 12), max_size=4),
)
def test_each_image_as_if_alone(name, make, seed, num_queries, num_rows, sizes):
    rng = np.random.default_rng(seed)
    conf = CONFS[name]
    query, database = make(rng, num_queries), make(rng, num_rows)
    # Rows repeat within an image: several points may share a code.
    images = [rng.integers(0, num_rows, size) for size in sizes]
    found = of_images(query, database, images, conf)
    assert len(found) == len(images)
    for rows, matches in zip(images, found, strict=True):
        expected = brute_force(query, database[rows], conf)
        pairs = matches.pairs
        if make is grid and conf.do_mutual_check and not conf.ratio_threshold:
            # Where a query row ties with another and so do two different points, which of them
            # are each other's nearest is a matter of taste: more pairs may be mutual by value.
            assert {*map(tuple, expected)} <= {*map(tuple, pairs)}
            values = query @ database[rows].T
            assert (values[tuple(pairs.T)] == values[pairs[:, 0]].max(1, initial=-1)).all()
            assert (values[tuple(pairs.T)] == values[:, pairs[:, 1]].max(0, initial=-1)).all()
            assert len(np.unique(pairs[:, 0])) == len(pairs)
        else:
            np.testing.assert_array_equal(pairs, expected)
        similarity = (query[pairs[:, 0]] * database[rows][pairs[:, 1]]).sum(1)
        np.testing.assert_allclose(matches.similarity, similarity, atol=1e-6)
        assert matches.pairs.dtype == np.int64 and matches.similarity.dtype == np.float32


@pytest.mark.parametrize("name", CONFS)
@pytest.mark.parametrize("make", [grid, unit], ids=["with ties", "without ties"])
@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(0, 12), st.integers(0, 12), st.integers(1, 13))
def test_the_whole_map_as_one_image_in_blocks(name, make, seed, num_queries, num_rows, block):
    rng = np.random.default_rng(seed)
    query, database = make(rng, num_queries), make(rng, num_rows)
    conf = CONFS[name]
    found = match_all(torch.from_numpy(query), torch.from_numpy(database), conf, block)
    np.testing.assert_array_equal(found.pairs, brute_force(query, database, conf))


@pytest.mark.parametrize("name", CONFS)
@pytest.mark.parametrize("shape", [(300, 500), (1, 50), (50, 1), (1, 1), (0, 5), (5, 0)])
def test_as_hloc_itself(name, shape):
    pytest.importorskip("hloc", reason="hloc is not installed")
    from hloc.matchers.nearest_neighbor import NearestNeighbor

    rng = np.random.default_rng(1)
    conf = CONFS[name]
    database = unit(rng, shape[1], 64)
    query = unit(rng, shape[0], 64)
    half = min(shape) // 2
    noisy = database[:half] + 0.05 * rng.standard_normal((half, 64))
    query[:half] = noisy / np.linalg.norm(noisy, axis=1, keepdims=True)
    model = NearestNeighbor(
        {
            "ratio_threshold": conf.ratio_threshold,
            "distance_threshold": conf.distance_threshold,
            "do_mutual_check": conf.do_mutual_check,
        }
    )
    data = {
        "descriptors0": torch.from_numpy(query.T.copy())[None],
        "descriptors1": torch.from_numpy(database.T.copy())[None],
    }
    told = model(data)["matches0"]
    # For an empty image hloc answers with the shape of the descriptors; there is no match.
    row = told[0].numpy() if min(shape) else np.full(shape[0], -1)
    assert not min(shape) or told.shape == (1, shape[0])
    expected = np.stack([np.flatnonzero(row >= 0), row[row >= 0]], 1)
    (found,) = of_images(query, database, [np.arange(shape[1])], conf)
    np.testing.assert_array_equal(found.pairs, expected)
    whole = match_all(torch.from_numpy(query), torch.from_numpy(database), conf, 64)
    np.testing.assert_array_equal(whole.pairs, expected)
    if half > 100:
        assert len(expected) > 100  # the test looks at matches, not at their absence


def test_thresholds_are_hlocs():
    match_features = pytest.importorskip("hloc.match_features", reason="hloc is not installed")
    for name, conf in NN_CONFS.items():
        model = {"ratio_threshold": None, "distance_threshold": None, "do_mutual_check": True}
        model |= match_features.confs[name]["model"]
        assert model.pop("name") == "nearest_neighbor"
        assert vars(conf) == model


def test_real_images_give_the_same(fountain):
    """All pairs of a real scene's query with its retrieved images, one by one."""
    from hloc_dpqed.io.features import FeatureFile
    from hloc_dpqed.io.lists import read_pairs
    from hloc_dpqed.io.model import read_observations, read_reference

    reference = read_reference(fountain / "sfm")
    observations = read_observations(reference, fountain / "feats-superpoint.h5")
    database = observations.descriptors.astype(np.float32)
    (pairs,) = fountain.glob("pairs-query-*.txt")
    query, names = next(iter(read_pairs(pairs).items()))
    with FeatureFile(fountain / "feats-superpoint.h5") as file:
        features = file.read(query).descriptors[:300]
    indptr = reference.visibility.indptr
    images = [
        np.arange(indptr[i], indptr[i + 1])[:400]
        for i in (reference.image_names.index(name) for name in names[:2])
    ]
    for conf in (NN_CONFS["NN-mutual"], NN_CONFS["NN-ratio"], NN_CONFS["NN-superpoint"]):
        found = of_images(features, database, images, conf)
        for rows, matches in zip(images, found, strict=True):
            expected = brute_force(features, database[rows], conf)
            np.testing.assert_array_equal(matches.pairs, expected)
            assert len(expected) > 10


@pytest.mark.parametrize("name", CONFS)
def test_with_any_number_of_threads(name):
    rng = np.random.default_rng(3)
    database = unit(rng, 700)
    query = np.concatenate([database[::2], unit(rng, 550)])[rng.permutation(900)]
    images = [np.sort(rng.integers(0, 700, size)) for size in (300, 0, 500, 1)]
    before = torch.get_num_threads()
    found = {}
    try:
        for count in (1, 2, 3, 16):
            torch.set_num_threads(count)
            found[count] = of_images(query, database, images, CONFS[name])
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)
    assert len(found[1][2].pairs) > 100
    for count in (2, 3, 16):
        for one, other in zip(found[1], found[count], strict=True):
            np.testing.assert_array_equal(one.pairs, other.pairs)
            if CONFS[name].do_mutual_check and not CONFS[name].ratio_threshold:
                np.testing.assert_array_equal(one.similarity, other.similarity)
