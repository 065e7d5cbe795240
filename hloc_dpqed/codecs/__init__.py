"""Codecs by name: descriptors to codes and back, all behind one interface."""

from typing import Any

import numpy as np

from ..errors import InputError
from ..reference import Observations
from .additive import LSQCodec, PRQCodec, RQCodec
from .base import Codec
from .dpqed import DPQEDCodec
from .drqed import DRQEDCodec
from .none import NoneCodec
from .pq import OPQCodec, PQCodec
from .scalar import PCACodec, RaBitQCodec, SignCodec, SQ8Codec

CODECS: dict[str, type[Codec]] = {
    c.name: c
    for c in (
        NoneCodec,
        DPQEDCodec,
        DRQEDCodec,
        PQCodec,
        OPQCodec,
        RQCodec,
        LSQCodec,
        PRQCodec,
        PCACodec,
        SQ8Codec,
        SignCodec,
        RaBitQCodec,
    )
}


def codec_class(name: str) -> type[Codec]:
    """The codec registered as ``name``.

    Raises:
        InputError: there is none.
    """
    if name not in CODECS:
        raise InputError(f"--codec {name}: unknown, expected one of {', '.join(CODECS)}")
    return CODECS[name]


def fit_codec(name: str, observations: Observations, code_bytes: int, **options: Any) -> Codec:
    """Fit the codec ``name``; see ``Codec.fit``. The result is as it will be when stored."""
    return codec_class(name).fit(observations, code_bytes, **options).stored()


def load_codec(name: str, tensors: dict[str, np.ndarray], config: dict[str, Any]) -> Codec:
    """The codec ``name`` from what its ``tensors()`` and ``config()`` gave."""
    return codec_class(name).from_tensors(tensors, config)


__all__ = ["CODECS", "Codec", "codec_class", "fit_codec", "load_codec"]
