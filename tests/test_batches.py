import numpy as np
from codec_helpers import make_observations

from hloc_dpqed.scene.reference import Observations
from hloc_dpqed.training.batches import Tracks


def scattered(seed: int = 0) -> Observations:
    """Observations in random order, points without any, images of two groups that share none."""
    full = make_observations(60, 6)
    keep = np.random.default_rng(seed).permutation(360)[:150]
    keep = keep[full.point_index[keep] % 7 != 0]
    group = full.point_index[keep] % 2
    part = full.subset(keep, full.point_index[keep], 60)
    return Observations(
        part.descriptors,
        part.scores,
        part.keypoints,
        part.point_index,
        part.image_index * 2 + group,
        60,
    )


def test_groups_by_point_and_image():
    observations = scattered()
    tracks = Tracks.from_observations(observations)
    np.testing.assert_array_equal(tracks.points, np.unique(observations.point_index))
    np.testing.assert_array_equal(tracks.points[tracks.track_of], observations.point_index)
    for t, (start, count) in enumerate(zip(tracks.starts, tracks.counts, strict=True)):
        expected = np.flatnonzero(observations.point_index == tracks.points[t])
        np.testing.assert_array_equal(tracks.order[start : start + count], expected)
    for image in range(observations.image_index.max() + 1):
        rows = tracks.image_order[tracks.image_starts[image] : tracks.image_starts[image + 1]]
        np.testing.assert_array_equal(rows, np.flatnonzero(observations.image_index == image))


def test_draws_are_distinct_and_of_their_track():
    observations = scattered()
    tracks = Tracks.from_observations(observations)
    rng = np.random.default_rng(0)
    for size in (1, 5, 30, 1000):
        drawn = tracks.draw_points(rng, size)
        assert len(np.unique(drawn)) == len(drawn) <= max(size, 1)
        rows = tracks.draw_observation(rng, drawn)
        np.testing.assert_array_equal(tracks.track_of[rows], drawn)
    assert len(tracks.draw_points(rng, 1000)) == len(tracks.points)


def test_every_observation_of_a_track_is_drawn_alike():
    tracks = Tracks.from_observations(make_observations(1, 4))
    rows = tracks.draw_observation(np.random.default_rng(0), np.zeros(4000, np.int64))
    assert np.bincount(rows, minlength=4).min() > 850


def test_neighbours_share_images():
    observations = scattered()
    tracks = Tracks.from_observations(observations)
    rng = np.random.default_rng(0)
    for _ in range(20):
        drawn = tracks.draw_neighbours(rng, 20)
        assert 1 <= len(np.unique(drawn)) == len(drawn) <= 20
        # The two groups of images share no point, so a batch is of one group.
        assert len(np.unique(tracks.points[drawn] % 2)) == 1
