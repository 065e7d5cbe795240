"""Codebook entries and weights as they are stored: float16, or integers with scales."""

import numpy as np

from ..errors import InputError

ENTRIES = ("float16", "int8", "int4")
_CLIPS = np.array([1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4], np.float32)  # of the largest magnitude


def entries_to_arrays(
    name: str, values: np.ndarray, kind: str, parts: int = 1
) -> dict[str, np.ndarray]:
    """Arrays that store ``values``: float16, or int8 and (parts,) float32 scales.

    With 'int8' each of the ``parts`` slices along the first axis (all of them as one where it is 1)
    is divided by its largest magnitude over 127 and rounded. With 'int4' the integers are -7 .. 7,
    which a map file stores in at most 4 bits each; larger magnitudes are clipped where that
    lowers the squared error.
    """
    if kind not in ENTRIES:
        raise InputError(f"entries {kind!r}: expected {' or '.join(ENTRIES)}")
    if kind == "float16":
        return {name: values.astype(np.float16)}
    flat = values.reshape(parts, -1)
    largest = np.maximum(np.abs(flat).max(1), 1e-12).astype(np.float32)
    if kind == "int8":
        scale, limit = largest / np.float32(127), 127
    else:
        limit = 7
        scales = largest[:, None] * _CLIPS / np.float32(limit)
        errors = [
            ((flat - np.clip(np.round(flat / s), -limit, limit) * s) ** 2).sum(1)
            for s in scales.T[:, :, None]
        ]
        scale = scales[np.arange(parts), np.argmin(errors, 0)]
    steps = values / scale.reshape(-1, *[1] * (values.ndim - 1))
    return {
        name: np.clip(np.round(steps), -limit, limit).astype(np.int8),
        f"{name}_scale": scale.astype(np.float32),
    }


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
