"""What is drawn lies where the map says; the notebook's test draws the rest."""

import numpy as np
import pytest
from synthetic import compressed_scene, make_scene

from hloc_dpqed import visualization
from hloc_dpqed.errors import InputError
from hloc_dpqed.maps.image_rows import image_rows


def test_points_in_an_image_are_its_rows(tmp_path):
    compressed = compressed_scene(make_scene(tmp_path))
    rows = image_rows(compressed, 2)
    pixels, shown = visualization.points_in_image(compressed, 2, np.arange(compressed.num_points))
    np.testing.assert_array_equal(shown, rows.points)
    np.testing.assert_allclose(pixels[shown], rows.keypoints, atol=1e-3)
    assert np.isnan(np.delete(pixels, shown, axis=0)).all()


def test_lines_join_both_photos_and_are_no_more_than_asked_for():
    figure = pytest.importorskip("matplotlib.figure", reason="matplotlib is not installed")
    axes = figure.Figure().subplots()
    photos = np.zeros((40, 60, 3), np.uint8), np.zeros((50, 30, 3), np.uint8)
    starts, ends = np.full((9, 2), 5.0), np.full((9, 2), 7.0)
    good = np.arange(9) < 3
    assert visualization.draw_matches(axes, *photos, starts, ends, good) == 9
    bad, kept = (c for c in axes.collections if hasattr(c, "get_segments"))
    assert (len(bad.get_segments()), len(kept.get_segments())) == (6, 3)
    np.testing.assert_array_equal(kept.get_segments()[0], [[5, 5], [60 + 12 + 7, 7]])
    assert axes.images[0].get_array().shape == (50, 60 + 12 + 30, 3)
    other = figure.Figure().subplots()
    assert visualization.draw_matches(other, *photos, starts, ends, good, max_lines=4) == 4


def test_a_file_that_is_no_photo(tmp_path):
    with pytest.raises(InputError, match="not a readable image"):
        visualization.read_photo(tmp_path / "none.jpg")
