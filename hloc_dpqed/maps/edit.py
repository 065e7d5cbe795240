"""Maps made smaller from themselves alone: fewer points, fewer images, shorter codes."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..errors import InputError
from ..scene.visibility import Visibility
from .compressed import CompressedMap, GlobalDescriptors


def take_points(compressed: CompressedMap, rows: np.ndarray) -> CompressedMap:
    """The map of the points ``rows``, (k,) increasing."""
    visibility, kept = compressed.visibility.keep_points(rows)
    code_rows = rows if compressed.granularity == "point" else kept
    return replace(
        compressed,
        xyz=compressed.xyz[rows],
        visibility=visibility,
        codes=compressed.codes[code_rows],
        scores=compressed.scores[code_rows],
        confidence=None,  # it was calibrated on the map as it was
    )


def remove_images(compressed: CompressedMap, names: Sequence[str]) -> CompressedMap:
    """The map without the images ``names``, nor the points that no other image sees.

    Raises:
        InputError: a name is not of the map, or no image is left.
    """
    unknown = sorted(set(names) - set(compressed.image_names))
    if unknown:
        raise InputError(
            f"{len(unknown)} of {len(set(names))} images are not of the map, the first is "
            f"{unknown[0]!r}"
        )
    gone = set(names)
    keep = np.array([i for i, name in enumerate(compressed.image_names) if name not in gone], int)
    if len(keep) == 0:
        raise InputError(f"all {compressed.num_images} images would be removed")
    old = compressed.visibility
    lists = [old[i] for i in keep]
    codes, scores = compressed.codes, compressed.scores
    if compressed.granularity == "observation":
        rows = np.concatenate([compressed.code_rows(i) for i in keep])
        codes, scores = codes[rows], scores[rows]
    used, camera_index = np.unique(compressed.camera_index[keep], return_inverse=True)
    stored = compressed.global_descriptors
    smaller = replace(
        compressed,
        image_names=[compressed.image_names[i] for i in keep],
        cameras=[compressed.cameras[i] for i in used],
        camera_index=camera_index.astype(np.int32),
        cam_from_world=compressed.cam_from_world[keep],
        visibility=Visibility.from_lists(lists, old.num_points),
        codes=codes,
        scores=scores,
        global_descriptors=stored and GlobalDescriptors(stored.codec, stored.codes[keep]),
    )
    return take_points(smaller, np.flatnonzero(smaller.visibility.track_lengths() > 0))


def shorten_codes(compressed: CompressedMap, code_bytes: int) -> CompressedMap:
    """The map with the first ``code_bytes`` bytes of each code.

    Raises:
        InputError: heads of the codec's codes are no codes, or the map's are shorter.
    """
    if code_bytes > compressed.codec.code_size:
        raise InputError(
            f"--code_bytes {code_bytes}: the map has codes of {compressed.codec.code_size} bytes"
        )
    codec = compressed.codec.head(code_bytes)
    codes = heads_of_codes(compressed.codes, codec)
    return replace(compressed, codec=codec, codes=codes, confidence=None)


def heads_of_codes(codes: np.ndarray, codec) -> np.ndarray:
    """(N, B) codes to those of ``codec``, a head of their own codec."""
    return np.ascontiguousarray(codes[:, : codec.code_size])
