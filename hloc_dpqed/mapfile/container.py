"""The container: sections of bytes in a safetensors file, JSON metadata, and hashes of both."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from ..errors import InputError

METADATA_KEY = "hloc_dpqed"
HASH_KEY = "sha256"
HASH_DIGITS = 16
NO_HASH = "0" * HASH_DIGITS


def section_hash(name: str, data: bytes) -> str:
    """First 16 hexadecimal digits of SHA-256 of the name, a zero byte and the data."""
    return hashlib.sha256(name.encode() + b"\0" + data).hexdigest()[:HASH_DIGITS]


def pack(sections: dict[str, bytes], optional: list[str], metadata: dict[str, Any]) -> bytes:
    """The file's bytes; the same arguments give the same bytes.

    Raises:
        InputError: the metadata cannot be written as JSON.
    """
    full = {
        **metadata,
        "optional": sorted(name for name in optional if name in sections),
        "sections": {name: section_hash(name, data) for name, data in sections.items()},
        HASH_KEY: NO_HASH,
    }
    try:
        text = json.dumps(full, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"the map's metadata cannot be stored as JSON ({error})") from error
    digest = hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]
    at = text.rindex(f'"{HASH_KEY}":"{NO_HASH}"') + len(HASH_KEY) + 4
    text = text[:at] + digest + text[at + HASH_DIGITS :]
    arrays = {name: np.frombuffer(data, np.uint8) for name, data in sections.items()}
    return safetensors.numpy.save(arrays, metadata={METADATA_KEY: text})


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a member of its metadata comes twice")
    return members


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def unpack(data: bytes, path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Metadata and sections of a file's bytes, all hashes checked.

    Raises:
        InputError: the bytes are not those of a map file, or not as written.
    """
    try:
        tensors = safetensors.deserialize(data)
        size = int.from_bytes(data[:8], "little")
        text = json.loads(data[8 : 8 + size])["__metadata__"][METADATA_KEY]
        metadata = json.loads(text, object_pairs_hook=_members, parse_constant=_refuse)
        digest, hashes = metadata[HASH_KEY], metadata["sections"]
        if not isinstance(digest, str) or not isinstance(hashes, dict):
            raise TypeError("its metadata are not those of a map file")
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not a map file of hloc_dpqed, or damaged ({reason})") from error
    start, found, end = text.rpartition(f'"{HASH_KEY}":"{digest}"')
    blank = f'{start}"{HASH_KEY}":"{NO_HASH}"{end}'
    if not found or hashlib.sha256(blank.encode()).hexdigest()[:HASH_DIGITS] != digest:
        raise InputError(f"{path}: damaged, the metadata do not have their hash")
    sections = {}
    for name, tensor in tensors:
        content = bytes(tensor["data"])
        if tensor["dtype"] != "U8" or tensor["shape"] != [len(content)]:
            raise InputError(f"{path}: damaged, section {name!r} is not one of bytes")
        sections[name] = content
    if sections.keys() != hashes.keys():
        names = ", ".join(sorted(sections.keys() ^ hashes.keys()))
        raise InputError(f"{path}: damaged, missing or surplus sections ({names[:100]})")
    for name, content in sections.items():
        if section_hash(name, content) != hashes[name]:
            raise InputError(f"{path}: damaged, section {name!r} does not have its hash")
    return metadata, sections
