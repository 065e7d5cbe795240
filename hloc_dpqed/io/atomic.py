"""Atomic writes: a reader sees the old file or the new one, never a part of it."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from ..errors import InputError


def check_output(path: Path) -> None:
    """Check that a file can be written at ``path``, before long work begins. Creates nothing.

    Raises:
        InputError: ``path`` is a folder, or no file can be created in its folder.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise InputError(f"{path}: cannot be written (it is a folder)")
        folder = path.absolute().parent
        while not folder.exists():
            folder = folder.parent
        if not folder.is_dir():
            raise InputError(f"{path}: cannot be written ({folder} is not a folder)")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise InputError(f"{path}: cannot be written (no permission in {folder})")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that replaces it when the block succeeds.

    The temporary file has a name of its own for each writer, so two processes writing the same
    output do not corrupt it: the last one wins whole.

    Raises:
        InputError: the folder cannot be created or written, or the disk is full.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(fd)
        temporary = Path(name)
        yield temporary
        # mkstemp makes private files; the result gets what a plain open() would have given.
        os.chmod(temporary, 0o666 & ~_umask())
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path`` atomically."""
    write_bytes(path, text.encode())


@contextlib.contextmanager
def atomic_directory(path: Path, replaces: Collection[str] | None = None) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``path`` when the block succeeds.

    Args:
        path: the folder.
        replaces: names that an existing folder may hold to be replaced; None for no name.

    Raises:
        InputError: the folder cannot be written, or ``path`` exists and is not empty, or holds
            other than what ``replaces`` names.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        if replaces is None:
            raise InputError(
                f"{path}: exists already and is not an empty folder, pass --overwrite to replace it"
            )
        if not path.is_dir() or {entry.name for entry in path.iterdir()} - set(replaces):
            raise InputError(
                f"{path}: holds other than {', '.join(sorted(replaces))}, not replaced"
            )
    temporary: Path | None = None
    old: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())
        if path.exists() and any(path.iterdir()):
            # A folder replaces an empty one only: the earlier one steps aside first.
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
            os.replace(path, old)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        if old is not None and not path.exists():  # the new folder could not take its place
            os.replace(old, path)
        elif old is not None:
            shutil.rmtree(old, ignore_errors=True)
