"""A codec in a file of its own, known by the hash of its content, for many maps to share."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from ..errors import InputError
from . import CODECS, load_codec
from .base import Codec

_KEY = "hloc_dpqed_codec"


def codec_hash(codec: Codec) -> str:
    """SHA-256 of what decides a codec's behaviour: name, settings and tensors. 64 hex digits."""
    return _content_hash(codec.name, codec.config(), codec.tensors())


def _content_hash(name: str, config: dict[str, Any], tensors: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    digest.update(json.dumps([name, config], sort_keys=True).encode())
    for key, tensor in sorted(tensors.items()):
        little = np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<"))
        digest.update(f"{key} {little.dtype.str} {little.shape}\n".encode())
        digest.update(little.tobytes())
    return digest.hexdigest()


def codec_file_name(digest: str) -> str:
    """The name under which a map finds its codec file in its own folder."""
    return f"codec-{digest[:16]}.safetensors"


def codec_to_bytes(codec: Codec, metadata: dict[str, Any] | None = None) -> bytes:
    """The bytes of a codec file, a safetensors container.

    Args:
        codec: a fitted codec.
        metadata: JSON-able: how it was made; not part of the hash.
    """
    header = {
        "name": codec.name,
        "config": codec.config(),
        "hash": codec_hash(codec),
        "made": metadata or {},
    }
    tensors = {name: np.ascontiguousarray(value) for name, value in codec.tensors().items()}
    return safetensors.numpy.save(tensors, metadata={_KEY: json.dumps(header, sort_keys=True)})


def read_codec(path: Path, expected: str | None = None) -> Codec:
    """Read a codec file.

    Args:
        path: written by ``fit_codec.main``.
        expected: the hash that it must have.

    Raises:
        InputError: the file is missing, is no codec file, its content has not its hash, or that is
            not the one expected.
    """
    name, config, tensors = read_codec_parts(path, expected)
    try:
        codec = load_codec(name, tensors, config)
        same = codec_hash(codec) == _content_hash(name, config, tensors)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(f"{path}: not a codec file of hloc_dpqed") from error
    if not same:
        raise InputError(f"{path}: the content does not have the hash that the file states")
    return codec


def codec_made(path: Path) -> dict[str, Any]:
    """How the codec of a file that ``read_codec`` reads was made, as the file tells it."""
    with safetensors.safe_open(str(path), framework="numpy") as file:
        made = json.loads(file.metadata()[_KEY]).get("made")
    return made if isinstance(made, dict) else {}


def read_codec_parts(
    path: Path, expected: str | None = None
) -> tuple[str, dict[str, Any], dict[str, np.ndarray]]:
    """Name, settings and tensors of a codec file, without making the codec.

    Raises:
        InputError: as of ``read_codec``, but for what only the codec itself can tell.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a codec file of fit-codec")
    try:
        with safetensors.safe_open(str(path), framework="numpy") as file:
            header = json.loads(file.metadata()[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        name, config, stored = header["name"], header["config"], header["hash"]
        if name not in CODECS:
            raise InputError(f"{path}: codec {str(name)[:40]!r} is unknown to this version")
        actual = _content_hash(name, config, tensors)
    except InputError:
        raise
    except (OSError, TypeError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: not a codec file of hloc_dpqed") from error
    if actual != stored:
        raise InputError(f"{path}: the content does not have the hash that the file states")
    if expected is not None and stored != expected:
        raise InputError(
            f"{path}: is codec {stored[:16]}, but the map was made with codec {expected[:16]}"
        )
    return name, config, tensors
