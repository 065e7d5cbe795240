"""Fuzz the reader of map files; run by ``test_fuzz.py``, or alone:

``python tests/fuzz/fuzz_map.py -runs=100000 NEW_FOLDER tests/fuzz/corpus`` (libFuzzer's options).
"""

import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

KEY = "hloc_dpqed"


def split(data: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Metadata and sections, hashes not checked."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    metadata = json.loads(header.pop("__metadata__")[KEY])
    sections = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        sections[name] = data[start + first : start + last]
    return metadata, sections


def join(metadata: dict[str, Any], sections: dict[str, bytes]) -> bytes:
    """A file with right hashes."""
    from hloc_dpqed.mapfile.container import pack

    own = {k: v for k, v in metadata.items() if k not in ("sections", "sha256", "optional")}
    return pack(sections, list(metadata["optional"]), own)


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Change one section or the metadata under right hashes: else all would end at a wrong one."""
    import atheris

    rng = random.Random(seed)
    try:
        metadata, sections = split(data)
        if rng.random() < 0.2:
            text = json.dumps(metadata).encode()
            metadata = json.loads(atheris.Mutate(text, len(text) + 50))
        else:
            name = rng.choice(sorted(sections))
            sections[name] = atheris.Mutate(sections[name], len(sections[name]) + 50)
        return join(metadata, sections)[:max_size]
    except Exception:
        return atheris.Mutate(data, max_size)


def check(data: bytes) -> bool:
    """Read ``data`` as a map: whether it is one. Anything but a map or one line is an error."""
    from hloc_dpqed.errors import InputError
    from hloc_dpqed.mapfile import read_map

    with tempfile.NamedTemporaryFile(suffix=".dpqed") as file:
        file.write(data)
        file.flush()
        try:
            read_map(Path(file.name))
        except InputError as error:
            assert "\n" not in str(error)
            return False
    return True


def one(data: bytes) -> None:
    """libFuzzer's target."""
    check(data)


def main() -> None:
    """Hand over to libFuzzer."""
    import atheris

    with atheris.instrument_imports(include=["hloc_dpqed"]):
        import hloc_dpqed.mapfile  # noqa: F401

    atheris.Setup(sys.argv, one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
