"""Codecs by name: descriptors to codes and back, all behind one interface."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import choices
from ..choices import CODE_TARGETS
from ..errors import InputError, told_missing
from .base import Codec

if TYPE_CHECKING:
    from ..scene.reference import Observations

_HOMES = {
    "none": ("none", "NoneCodec"),
    "dpqed": ("dpqed", "DPQEDCodec"),
    "drqed": ("drqed", "DRQEDCodec"),
    "pq": ("pq", "PQCodec"),
    "opq": ("pq", "OPQCodec"),
    "rq": ("additive", "RQCodec"),
    "lsq": ("additive", "LSQCodec"),
    "prq": ("additive", "PRQCodec"),
    "pca": ("scalar", "PCACodec"),
    "sq8": ("scalar", "SQ8Codec"),
    "sign": ("sign", "SignCodec"),
    "rabitq": ("scalar", "RaBitQCodec"),
    "nested": ("nested", "NestedCodec"),
}


class _Codecs(Mapping[str, type[Codec]]):
    """The codecs, each imported when it is first asked for: most need torch or faiss."""

    def __getitem__(self, name: str) -> type[Codec]:
        module, kind = _HOMES[name]
        try:
            return getattr(import_module(f".{module}", __name__), kind)
        except ModuleNotFoundError as error:
            told = told_missing(error)
            if told is None:
                raise
            raise InputError(f"codec {name}: {told}") from error

    def __iter__(self) -> Iterator[str]:
        return iter(choices.CODECS)

    def __len__(self) -> int:
        return len(choices.CODECS)

    def __contains__(self, name: object) -> bool:
        return name in choices.CODECS


CODECS: Mapping[str, type[Codec]] = _Codecs()


HEADED = ("nested",)  # codecs whose codes have codes as their heads, see ``Codec.head``


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
    observations: "Observations",
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
    from ..threads import single_threaded
    from ..training.checkpoint import FitCheckpoint, fit_key

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
    "HEADED",
    "Codec",
    "codec_class",
    "fit_codec",
    "load_codec",
    "sharpens",
]
