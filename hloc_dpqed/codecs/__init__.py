"""Codecs by name: descriptors to codes and back, all behind one interface."""

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..reference import Observations
from ..threads import single_threaded
from ..training.checkpoint import FitCheckpoint, fit_key
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


CODE_TARGETS = ("mean", "sharpened")


def codec_class(name: str) -> type[Codec]:
    """The codec registered as ``name``.

    Raises:
        InputError: there is none.
    """
    if name not in CODECS:
        raise InputError(f"--codec {name}: unknown, expected one of {', '.join(CODECS)}")
    return CODECS[name]


def sharpens(name: str, code_targets: str | None = None) -> bool:
    """Whether codes of points aim at sharpened targets (``training.sharpen``) or at the means.

    Args:
        name: of the codec.
        code_targets: 'sharpened' or 'mean'; None leaves it to the codec.

    Raises:
        InputError: there is no such codec or target.
    """
    known = codec_class(name)
    if code_targets is None:
        return known.sharpens
    if code_targets not in CODE_TARGETS:
        raise InputError(
            f"--code_targets {code_targets}: expected one of {', '.join(CODE_TARGETS)}"
        )
    return code_targets == "sharpened"


def fit_codec(
    name: str,
    observations: Observations,
    code_bytes: int,
    *,
    resume: Path | None = None,
    **options: Any,
) -> Codec:
    """Fit the codec ``name``; see ``Codec.fit``. The result is as it will be when stored.

    Fitted on one thread: any number of threads gives the same bytes.

    Args:
        resume: folder for the states of codecs that train; an interrupted fit of the same
            arguments continues from there, to the same bytes.

    Raises:
        InputError: see ``Codec.fit``; or nothing can be written to ``resume``.
    """
    known = codec_class(name)
    if resume is not None and known.trains:
        decisive = {key: value for key, value in options.items() if key != "progress"}
        key = fit_key(name, observations, code_bytes, decisive)
        options["checkpoint"] = FitCheckpoint(Path(resume) / f"{key}.safetensors")
    # Sums are taken in another order with other numbers of threads, and k-means and training then
    # end in another optimum: up to 1.5 % fewer or more correct matches.
    with single_threaded():
        return known.fit(observations, code_bytes, **options).stored()


def load_codec(name: str, tensors: dict[str, np.ndarray], config: dict[str, Any]) -> Codec:
    """The codec ``name`` from what its ``tensors()`` and ``config()`` gave."""
    return codec_class(name).from_tensors(tensors, config)


__all__ = [
    "CODECS",
    "CODE_TARGETS",
    "Codec",
    "codec_class",
    "fit_codec",
    "load_codec",
    "sharpens",
]
