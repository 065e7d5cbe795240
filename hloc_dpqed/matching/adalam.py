"""AdaLAM's filter of nearest neighbours, through kornia.

Source: Cavalli, Larsson, Oswald, Sattler, Pollefeys, "Handcrafted Outlier Detection Revisited",
ECCV 2020; the options are those of hloc's ``adalam`` configuration.
"""

from collections.abc import Mapping
from typing import Any

import torch

from ..errors import InputError

CONF: dict[str, Any] = {
    "area_ratio": 100,
    "search_expansion": 4,
    "ransac_iters": 128,
    "min_inliers": 6,
    "min_confidence": 200,
    "orientation_difference_threshold": 30,
    "scale_rate_threshold": 1.5,
    "detected_scale_rate_threshold": 5,
    "refit": True,
    "force_seed_mnn": True,
}


def adalam_matches(
    first: Mapping[str, Any], second: Mapping[str, Any], conf: Mapping[str, Any] = CONF
) -> torch.Tensor:
    """Match two images.

    Args:
        first, second: ``keypoints`` (n, 2) and ``descriptors`` (n, D) float32, ``size`` (two
            numbers, in pixels); ``scales`` and ``oris`` (n,) where the features have them. A map
            has none: the tests on scale and orientation are then left out.
        conf: AdaLAM's options, see kornia; unknown ones are ignored.

    Returns:
        (k, 2) int64 rows of the two images.

    Raises:
        InputError: kornia is not installed.
    """
    try:
        from kornia.feature.adalam import AdalamFilter
        from kornia.feature.adalam.adalam import get_adalam_default_config
    except ImportError as error:
        raise InputError(f"--matcher adalam needs kornia: pip install kornia ({error})") from error

    if min(len(first["keypoints"]), len(second["keypoints"])) < 2:
        return torch.zeros((0, 2), dtype=torch.int64)
    options: Any = get_adalam_default_config()
    options.update({key: conf[key] for key in options if key in conf})
    options["device"] = first["descriptors"].device
    scales = [side.get("scales") for side in (first, second)]
    oris = [side.get("oris") for side in (first, second)]
    if any(x is None for x in scales):
        scales, options["scale_rate_threshold"] = [None, None], None
    if any(x is None for x in oris):
        oris, options["orientation_difference_threshold"] = [None, None], None
    found = AdalamFilter(options).match_and_filter(
        first["keypoints"],
        second["keypoints"],
        first["descriptors"],
        second["descriptors"],
        first["size"],
        second["size"],
        o1=oris[0],
        o2=oris[1],
        s1=scales[0],
        s2=scales[1],
    )
    assert isinstance(found, torch.Tensor)  # distances were not asked for
    return found
