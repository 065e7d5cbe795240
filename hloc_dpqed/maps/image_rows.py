"""Which rows a database image has when the map is read as hloc's files."""

from typing import NamedTuple

import numpy as np

from ..errors import InputError
from .compressed import CompressedMap

MAX_MATCHABLE_ROWS = 32_767  # hloc stores matches as int16, so row 32,767 is the last that fits


class ImageRows(NamedTuple):
    """The rows of one database image, in the order of the image's points.

    Attributes:
        points: (n,) int32 rows of the map's points, strictly increasing.
        keypoints: (n, 2) float32 projections in hloc's convention (pixel centres at integers).
        codes: (n,) rows of the map's ``codes`` and ``scores``.
    """

    points: np.ndarray
    keypoints: np.ndarray
    codes: np.ndarray


def image_rows(compressed: CompressedMap, image: int) -> ImageRows:
    """Rows of database image ``image``: those whose point projects into it.

    A feature store, an exported feature file and an exported model all take their rows from here,
    so that row i means the same in each. Points that do not project to a finite pixel, lie behind
    the camera or fall outside the image are left out.
    """
    xy, visible = compressed.project(image)
    points = compressed.visibility[image][visible]
    codes = compressed.code_rows(image)[visible]
    # Subtracted in double precision, then rounded once.
    return ImageRows(points, (xy[visible] - 0.5).astype(np.float32), codes)


def check_matchable(name: str, rows: int) -> None:
    """Check that matches to an image of ``rows`` rows fit hloc's match files.

    Raises:
        InputError: they do not.
    """
    if rows > MAX_MATCHABLE_ROWS:
        raise InputError(
            f"image {name!r} has {rows:,} rows, but hloc stores matches as int16 and an image can "
            f"have at most {MAX_MATCHABLE_ROWS:,}; compress with a smaller --num_points or --budget"
        )
