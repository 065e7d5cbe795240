"""The sparse matrix, against a dense one."""

import numpy as np
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from hloc_dpqed.scene.visibility import Visibility


def dense(visibility: Visibility) -> np.ndarray:
    out = np.zeros((visibility.num_images, visibility.num_points), bool)
    for image in range(visibility.num_images):
        out[image, visibility[image]] = True
    return out


def sparse(matrix: np.ndarray) -> Visibility:
    return Visibility.from_lists([np.flatnonzero(row) for row in matrix], matrix.shape[1])


matrices = st.tuples(st.integers(1, 7), st.integers(1, 9)).flatmap(
    lambda shape: arrays(bool, shape)
)


@given(matrices)
def test_rows_counts_and_lengths(matrix):
    visibility = sparse(matrix)
    np.testing.assert_array_equal(dense(visibility), matrix)
    assert visibility.num_observations == matrix.sum()
    np.testing.assert_array_equal(visibility.track_lengths(), matrix.sum(0))
    np.testing.assert_array_equal(visibility.image_of_observation(), np.nonzero(matrix)[0])
    assert visibility.indices.dtype == np.int32 and visibility.indptr.dtype == np.int64


@given(matrices)
def test_transpose(matrix):
    visibility = sparse(matrix)
    other, order = visibility.transpose()
    np.testing.assert_array_equal(dense(other), matrix.T)
    # Each observation of the transpose is the one that `order` says.
    np.testing.assert_array_equal(visibility.indices[order], other.image_of_observation())
    np.testing.assert_array_equal(visibility.image_of_observation()[order], other.indices)


@given(matrices, st.data())
def test_keep_points(matrix, data):
    visibility = sparse(matrix)
    keep = data.draw(arrays(bool, matrix.shape[1]))
    smaller, kept = visibility.keep_points(np.flatnonzero(keep))
    np.testing.assert_array_equal(dense(smaller), matrix[:, keep])
    expected = np.flatnonzero(keep[visibility.indices])
    np.testing.assert_array_equal(kept, expected)


def test_lists_are_sorted_and_made_unique():
    visibility = Visibility.from_lists([np.array([3, 1, 3]), np.array([], int)], 5)
    np.testing.assert_array_equal(visibility[0], [1, 3])
    assert len(visibility[1]) == 0
    assert Visibility.from_lists([], 4).num_images == 0
