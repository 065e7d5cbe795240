"""How many inliers a pose needs to be believed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pycolmap

from ..errors import InputError
from .pose import ransac_options

# A pose is believed from ``LEAST_INLIERS`` on, and from so many more for each that chance gives:
# measured in docs/reliability.md (benchmarks/false_poses.py).
PER_CHANCE = 20.0
CHANCE_SHARE = 0.04  # of the matches at most: in small images the threshold covers much
MOST_INLIERS = 1_000_000  # that can be asked for: more is a mistake


def check_min_inliers(min_inliers: int) -> None:
    """Check the argument.

    Raises:
        InputError: it is negative, or more than any query has.
    """
    if not 0 <= min_inliers <= MOST_INLIERS:
        raise InputError(f"--min_inliers {min_inliers}: expected 0 (every pose) to {MOST_INLIERS}")


def least_inliers(
    num_matches: int, camera: pycolmap.Camera, options: dict[str, Any], min_inliers: int
) -> int:
    """``least_inliers_together`` of one camera."""
    return least_inliers_together([num_matches], [camera], options, min_inliers)


def least_inliers_together(
    num_matches: Sequence[int],
    cameras: Sequence[pycolmap.Camera],
    options: dict[str, Any],
    min_inliers: int,
) -> int:
    """How many inliers a pose needs to be believed.

    ``min_inliers``, and ``PER_CHANCE`` for each inlier that a pose is expected to have by chance:
    matches times the share of the image that lies within the threshold of a projection. The latter
    are ``CHANCE_SHARE`` of the matches at most, and all together half of them, but for
    ``min_inliers`` itself. Ours, after the a-contrario idea of
    Moisan and Stival, "A Probabilistic Criterion to Detect Rigid Point Matches Between Two Images
    and Estimate the Fundamental Matrix", IJCV 2004: false matches are not spread evenly, so that
    the factor is measured.

    Args:
        num_matches: that RANSAC was given, in each camera.
        cameras: of the query: one, or those of a rig.
        options: as ``estimation_options`` gives them.
        min_inliers: 0 believes every pose, as hloc does.
    """
    if min_inliers == 0:
        return 0
    threshold = ransac_options(options)["max_error"]
    wanted = float(min_inliers)
    for count, camera in zip(num_matches, cameras, strict=True):
        share = min(np.pi * threshold**2 / max(camera.width * camera.height, 1), 1.0)
        wanted += min(PER_CHANCE * share, CHANCE_SHARE) * count
    return max(min_inliers, min(int(np.ceil(wanted)), (sum(num_matches) + 1) // 2))
