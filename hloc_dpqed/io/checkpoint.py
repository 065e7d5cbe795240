"""Where an interrupted localization continues: finished queries, one JSON line each."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from ..errors import InputError

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # not on this platform: nothing keeps two processes apart, so no resuming
    fcntl = None


class Checkpoint:
    """Records of the finished queries of one run, in a file beside its results.

    The first line holds ``key``, which stands for all that the records depend on; records under
    another key are dropped, and so is a last line that a kill cut short. One process at a time
    uses the file: another that would write the same results meanwhile keeps its records in a file
    of its own and resumes nothing.

    Args:
        path: of the file; ``finish`` removes it.
        key: of the run.

    Attributes:
        num_resumed: how many records an earlier run left.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, path: Path, key: str):
        self.path: Path | None = Path(path)
        self.num_resumed = 0
        header = json.dumps({"key": key}).encode() + b"\n"
        with _told(path):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a+b")  # noqa: SIM115
            if not _lock(self._file):
                self._file.close()
                self.path = None
                self._file = tempfile.TemporaryFile(dir=Path(path).parent)  # noqa: SIM115
            self._file.seek(0)
            end = 0
            if self._file.readline() == header:
                end = self._file.tell()
                for line in self._file:
                    if not line.endswith(b"\n"):
                        break
                    end += len(line)
                    self.num_resumed += 1
            self._file.truncate(end)
            self._file.seek(end)
            if end == 0:
                self._file.write(header)
                self._file.flush()
        self._where = path
        self._empty = self.num_resumed == 0

    def add(self, record: dict[str, Any]) -> None:
        """Append a record; what was added survives a kill."""
        with _told(self._where):
            self._file.write(json.dumps(record).encode() + b"\n")
            self._file.flush()
        self._empty = False

    def records(self) -> Iterator[dict[str, Any]]:
        """All records, in the order in which they were added."""
        self._file.seek(0)
        self._file.readline()
        for line in self._file:
            yield json.loads(line)
        self._file.seek(0, os.SEEK_END)

    def finish(self) -> None:
        """Remove the file: the results are written."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *_: object) -> None:
        if self._empty:  # nothing to continue from
            self.finish()
        with contextlib.suppress(OSError):  # of a full disk, told before
            self._file.close()


def _lock(file: BinaryIO) -> bool:
    """Take the file for this process until it is closed; False where another has it."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error


def run_key(contents: list[Path], stamps: list[Path], conf: dict[str, Any]) -> str:
    """A key of everything that a run's records depend on: hexadecimal SHA-256.

    Args:
        contents: files that count by their bytes.
        stamps: large files, which count by path, size and time of change.
        conf: JSON-able configuration.
    """
    digest = hashlib.sha256(json.dumps(conf, sort_keys=True).encode())
    for path in contents:
        digest.update(hashlib.sha256(Path(path).read_bytes()).digest())
    logs = [Path(f"{path}-wal") for path in stamps]  # what a database holds beside its file
    for path in [*stamps, *(log for log in logs if log.is_file())]:
        stat = Path(path).stat()
        digest.update(f"{Path(path).resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()
