"""The codec files that come with the package, for maps of any scene (docs/codecs.md).

A file is named ``EXTRACTOR-NUMBER.HASH.safetensors`` with 16 digits of its codec's hash. A codec is
never changed, only added under the next number: a map that refers to one stays readable.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..scene.reference import Observations, normalise_rows
from .base import Codec
from .file import read_codec

SIMILARITY = "similarity"  # in ``made``: mean cosine of what a codec was fitted on and its codes
MORE_ERROR = 2.5  # times that of the codec's own training, which a map's descriptors may have
_SAMPLE = 512  # descriptors that are looked at
_RANDOM = 64  # random vectors beside them, whose similarities hardly differ
PRETRAINED = Path(__file__).parent / "pretrained"


def shipped_codecs(folder: Path = PRETRAINED) -> dict[str, Path]:
    """Files by name, such as ``superpoint-1``, and by extractor the one of the highest number."""
    files = {path.name.split(".")[0]: path for path in sorted(folder.glob("*-*.*.safetensors"))}
    newest: dict[str, Path] = {}
    for name in sorted(files, key=_number):
        newest[name.rpartition("-")[0]] = files[name]
    return {**files, **newest}


def _number(name: str) -> int:
    return int(name.rpartition("-")[2])


def shipped_file(digest: str, folder: Path = PRETRAINED) -> Path | None:
    """The file of the codec of this hash, None where the package has none."""
    for path in folder.glob(f"*-*.{digest[:16]}.safetensors"):
        return path
    return None


def shipped_path(name: str, folder: Path = PRETRAINED) -> Path:
    """The file of the codec ``name`` (an extractor, or an extractor and a number).

    Raises:
        InputError: there is none of that name.
    """
    files = shipped_codecs(folder)
    if name not in files:
        raise InputError(
            f"{name}: no such file, and no codec of that name comes with the package, "
            f"{_listed(files)}"
        )
    return files[name]


def shipped_codec(name: str, folder: Path = PRETRAINED) -> Codec:
    """The codec ``name``, see ``shipped_path``, in its longest codes."""
    return read_codec(shipped_path(name, folder))


def shipped_for(extractor: str | None, where: Path, folder: Path = PRETRAINED) -> str:
    """The name of the shipped codec for features of ``extractor``.

    Args:
        extractor: as a feature file tells it, see ``maps.same_features``; None if it does not.
        where: the feature file, for the message.

    Raises:
        InputError: there is none, or the extractor is not known.
    """
    files = shipped_codecs(folder)
    if extractor is None:
        raise InputError(
            f"{where}: its name (feats-EXTRACTOR...) does not tell the extractor, which --codec "
            f"shipped needs; pass --codec_file with the name of one, {_listed(files)}"
        )
    if extractor not in files:
        raise InputError(
            f"{where}: no codec for features of {extractor} comes with the package, "
            f"{_listed(files)}"
        )
    return extractor


def mean_similarity(codec: Codec, descriptors: np.ndarray) -> float:
    """Mean cosine similarity of (N, D) descriptors and what their whole codes decode to."""
    x = np.asarray(descriptors, np.float32)
    whole = codec.whole()
    return float((whole.decode(whole.encode(x)) * x).sum(1).mean())


def check_described(
    codec: Codec, observations: Observations, trained: float | None, where: str
) -> None:
    """Check that a codec for any scene knows such descriptors at all.

    A codec is for one extractor; features of another may have its dimension. They are told by
    ``MORE_ERROR``, and by being described less than half as well above random unit vectors as
    the extractor's own: codes of ALIKED, whose descriptors fill their space, have large errors.

    Args:
        codec: in its longest codes or shorter ones.
        observations: of the map.
        trained: ``mean_similarity`` of what the codec was fitted on; None checks nothing.
        where: features and codec, for the message.

    Raises:
        InputError: decoded codes are so far from the descriptors as the extractor's own are not.
    """
    count = len(observations)
    if trained is None or count == 0:
        return
    rows = np.arange(0, count, max(1, count // _SAMPLE))[:_SAMPLE]
    similarity = mean_similarity(codec, observations.descriptors[rows])
    random = np.random.default_rng(0).standard_normal((_RANDOM, codec.dim))
    chance = mean_similarity(codec, normalise_rows(random))
    least = max(1 - MORE_ERROR * (1 - trained), (trained + chance) / 2)
    if similarity < least:
        raise InputError(
            f"{where} describes them at a mean cosine similarity of {similarity:.2f} only, "
            f"expected {least:.2f} and more: are they of another extractor?"
        )


def _listed(names: Iterable[str]) -> str:
    return f"there are {', '.join(sorted(names))}"
