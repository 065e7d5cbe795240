"""Means over the observations of a point, against plain loops."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

import hloc_dpqed.scene.reference
from hloc_dpqed.scene.reference import Observations, mean_descriptors, mean_scores, normalise_rows


def random_observations(seed: int, count: int, num_points: int, dim: int = 6) -> Observations:
    rng = np.random.default_rng(seed)
    return Observations(
        normalise_rows(rng.standard_normal((count, dim))).astype(np.float16),
        rng.uniform(0, 1, count).astype(np.float32),
        rng.uniform(0, 100, (count, 2)).astype(np.float32),
        rng.integers(0, num_points, count).astype(np.int32),
        np.sort(rng.integers(0, 5, count)).astype(np.int32),
        num_points,
    )


@given(st.integers(0, 1000), st.integers(1, 60), st.integers(1, 20))
def test_means_are_those_of_a_loop(seed, count, num_points):
    observations = random_observations(seed, count, num_points)
    descriptors, scores = mean_descriptors(observations), mean_scores(observations)
    assert descriptors.dtype == scores.dtype == np.float32
    for point in range(num_points):
        own = observations.point_index == point
        if not own.any():
            assert not descriptors[point].any() and scores[point] == 1
            continue
        total = observations.descriptors[own].astype(np.float64).sum(0)
        np.testing.assert_allclose(descriptors[point], total / np.linalg.norm(total), atol=1e-5)
        np.testing.assert_allclose(scores[point], observations.scores[own].mean(), rtol=1e-5)


def test_points_that_span_two_chunks():
    """The chunk of `mean_descriptors` must not cut a point's sum."""
    count = (1 << 17) + 1000
    observations = random_observations(1, count, 3)
    expected = np.stack(
        [
            observations.descriptors[observations.point_index == p].astype(np.float64).sum(0)
            for p in range(3)
        ]
    )
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(mean_descriptors(observations), expected, atol=1e-3)


def test_zero_rows_stay_zero():
    x = np.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(normalise_rows(x), [[0.6, 0.8], [0, 0]], rtol=1e-6)
    assert normalise_rows(x).dtype == np.float32


def test_observations_that_cancel_out():
    observations = random_observations(0, 2, 1)
    opposite = np.stack([observations.descriptors[0], -observations.descriptors[0]])
    cancelling = Observations(
        opposite,
        observations.scores,
        observations.keypoints,
        np.zeros(2, np.int32),
        observations.image_index,
        1,
    )
    assert not mean_descriptors(cancelling).any()


def test_subset():
    observations = random_observations(3, 20, 8)
    rows = np.array([2, 5, 11])
    part = observations.subset(rows, [0, 1, 0], 2)
    assert len(part) == 3 and part.num_points == 2 and part.dim == observations.dim
    np.testing.assert_array_equal(part.descriptors, observations.descriptors[rows])
    np.testing.assert_array_equal(part.keypoints, observations.keypoints[rows])
    assert part.point_index.dtype == np.int32


def test_maps_and_observations_are_frozen():
    observations = random_observations(3, 4, 2)
    with pytest.raises(AttributeError):
        observations.num_points = 3
    assert hloc_dpqed.scene.reference.ReferenceMap.__dataclass_params__.frozen
