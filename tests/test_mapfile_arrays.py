import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from hloc_dpqed.entropy.arrays import DTYPES, decode_arrays, dtype_name, encode_arrays


@given(st.data())
def test_round_trip_of_any_arrays(data):
    kinds = data.draw(st.lists(st.sampled_from(sorted(DTYPES)), min_size=1, max_size=4))
    shapes = array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=9)
    given_arrays = [data.draw(arrays(DTYPES[kind], shapes)) for kind in kinds]
    specs = [(dtype_name(array), array.shape) for array in given_arrays]
    for array, read in zip(
        given_arrays, decode_arrays(encode_arrays(given_arrays), specs), strict=True
    ):
        assert read.dtype == array.dtype and read.tobytes() == array.tobytes()


@pytest.mark.parametrize("spread", [2, 20])
def test_columns_are_coded_together_or_apart_whichever_is_smaller(spread):
    rng = np.random.default_rng(0)
    # Few rows of one distribution: a table for each column costs more than it gains.
    alike = np.round(rng.normal(size=(256, 64)) * spread).astype(np.int8)
    entropy = 256 * 64 * np.log2(spread * np.sqrt(2 * np.pi * np.e)) / 8
    assert len(encode_arrays([alike])) < 1.05 * entropy + 100
    # Many rows, each column of a distribution of its own: together they cost more.
    scales = np.repeat([1, 4, 16, 30], 4)
    different = np.round(rng.normal(size=(4000, 16)) * scales).clip(-127, 127).astype(np.int8)
    entropy = 4000 * np.log2(np.maximum(scales, 1) * np.sqrt(2 * np.pi * np.e)).sum() / 8
    assert len(encode_arrays([different])) < 1.03 * entropy + 1000
