import numpy as np
import pytest

from hloc_dpqed.codecs.entries import entries_from_arrays, entries_to_arrays
from hloc_dpqed.errors import InputError


@pytest.mark.parametrize("parts", [1, 3])
def test_int8_is_within_half_a_step_of_each_part(parts):
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(3, 7, 5)) * np.array([1, 10, 100])[:, None, None]).astype(np.float32)
    arrays = entries_to_arrays("x", values, "int8", parts)
    assert arrays["x"].dtype == np.int8 and arrays["x_scale"].shape == (parts,)
    steps = np.abs(values.reshape(parts, -1)).max(1) / 127
    error = np.abs(entries_from_arrays("x", arrays, 3) - values).reshape(parts, -1).max(1)
    assert (error <= steps * 0.5001).all()


def test_float16_and_zeros():
    values = np.array([[1 / 3, 2.0]], np.float32)
    arrays = entries_to_arrays("x", values, "float16")
    np.testing.assert_array_equal(entries_from_arrays("x", arrays, 2), values.astype(np.float16))
    zeros = entries_to_arrays("x", np.zeros((2, 2), np.float32), "int8")
    np.testing.assert_array_equal(entries_from_arrays("x", zeros, 2), np.zeros((2, 2)))


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"x": np.zeros((2, 2), np.int8)},
        {"x": np.zeros((2, 2), np.int8), "x_scale": np.ones(3, np.float32)},
        {"x": np.zeros((2, 2), np.int8), "x_scale": np.full(1, np.nan, np.float32)},
        {"x": np.zeros((2, 2), np.int32)},
        {"x": np.zeros(2, np.float16)},
        {"x": np.zeros((0, 2), np.float16)},
    ],
)
def test_wrong_arrays_are_input_errors(arrays):
    with pytest.raises(InputError):
        entries_from_arrays("x", arrays, 2)


def test_int4_clips_outliers_where_that_helps():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(1, 4096)).astype(np.float32)
    values[0, 0] = 8
    arrays = entries_to_arrays("x", values, "int4")
    assert np.abs(arrays["x"]).max() == 7
    error = np.square(entries_from_arrays("x", arrays, 2) - values).mean()
    unclipped = np.square(np.round(values / (8 / 7)) * (8 / 7) - values).mean()
    assert error < 0.5 * unclipped
