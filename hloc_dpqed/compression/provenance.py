"""How a map was made."""

import platform
from typing import Any

import faiss
import h5py
import numpy as np
import pycolmap
import torch

from .. import __version__
from .conf import CompressConf


def provenance(conf: CompressConf) -> dict[str, Any]:
    """How a map was made: configuration and versions."""
    asked: dict[str, Any] = {"asked": conf.asked} if conf.asked else {}
    if conf.codec_train != CompressConf.codec_train:
        asked["codec_train"] = conf.codec_train
    if conf.code_targets is not None:
        asked["code_targets"] = conf.code_targets
    if conf.codes_per_point != CompressConf.codes_per_point:
        asked["codes_per_point"] = conf.codes_per_point
    if conf.tuned_for is not None:
        asked["tuned_for"] = conf.tuned_for
    return {
        "conf": {
            "selector": conf.selector,
            "codec": conf.codec,
            "code_bytes": conf.code_bytes,
            "granularity": conf.granularity,
            "seed": conf.seed,
            "selector_options": conf.selector_options,
            "codec_options": conf.codec_options,
            **asked,
        },
        "versions": library_versions(),
    }


def library_versions() -> dict[str, str]:
    """Versions of this package and of what it computes with."""
    return {
        "hloc_dpqed": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "faiss": faiss.__version__,
        "pycolmap": pycolmap.__version__,
        "h5py": h5py.__version__,
    }
