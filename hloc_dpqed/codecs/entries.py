"""Codebook entries and weights as they are stored: float16, or int8 with a scale for each part."""

import numpy as np

from ..errors import InputError

ENTRIES = ("float16", "int8")


def entries_to_arrays(
    name: str, values: np.ndarray, kind: str, parts: int = 1
) -> dict[str, np.ndarray]:
    """Arrays that store ``values``: float16, or int8 and (parts,) float32 scales.

    With int8 each of the ``parts`` slices along the first axis (all of them as one where it is 1)
    is divided by its largest magnitude over 127 and rounded.
    """
    if kind not in ENTRIES:
        raise InputError(f"entries {kind!r}: expected {' or '.join(ENTRIES)}")
    if kind == "float16":
        return {name: values.astype(np.float16)}
    largest = np.abs(values.reshape(parts, -1)).max(1).astype(np.float32)
    scale = np.maximum(largest, np.float32(1e-12)) / np.float32(127)
    steps = values / scale.reshape(-1, *[1] * (values.ndim - 1))
    return {name: np.round(steps).astype(np.int8), f"{name}_scale": scale}


def entries_from_arrays(name: str, arrays: dict[str, np.ndarray], ndim: int) -> np.ndarray:
    """The inverse of ``entries_to_arrays``: float32 of ``ndim`` dimensions.

    Raises:
        InputError: an array is missing, of a wrong type or shape, or not finite.
    """
    values, scale = arrays.get(name), arrays.get(f"{name}_scale")
    wrong = InputError(f"the codec's {name} is missing or has a wrong shape or type")
    if values is None or values.ndim != ndim or 0 in values.shape:
        raise wrong
    if values.dtype == np.int8:
        if (
            scale is None
            or scale.dtype != np.float32
            or scale.shape not in ((1,), values.shape[:1])
        ):
            raise wrong
        result = values.astype(np.float32) * scale.reshape(-1, *[1] * (ndim - 1))
    elif values.dtype in (np.float16, np.float32):
        result = values.astype(np.float32)
    else:
        raise wrong
    if not np.isfinite(result).all():
        raise InputError(f"the codec's {name} is not finite")
    return result
