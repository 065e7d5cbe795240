"""A COLMAP database in the place of a feature file: a copy in hloc's layout, made once."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import h5py
import numpy as np

from ..io.colmap_database import DatabaseFile

_copies: dict[tuple[str, int, int, int], Path] = {}


def feature_file_of(path: str | os.PathLike[str]) -> Path:
    """An HDF5 file with the features of the COLMAP database at ``path``.

    It is made at the first call in a process, for itself and its forks, and removed at its end.

    Raises:
        InputError: the database cannot be read.
    """
    stat = os.stat(path)
    log = Path(f"{os.fspath(path)}-wal")
    key = (
        os.path.realpath(path),
        stat.st_size,
        stat.st_mtime_ns,
        log.stat().st_mtime_ns if log.is_file() else 0,
    )
    if key not in _copies:
        folder = Path(tempfile.mkdtemp(prefix="hloc-dpqed-"))
        atexit.register(_remove, folder, os.getpid())
        _copies[key] = folder / f"{Path(path).stem}.h5"
        _write(Path(path), _copies[key])
    return _copies[key]


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a fork
        shutil.rmtree(folder, ignore_errors=True)


def _write(database: Path, output: Path) -> None:
    part = output.with_suffix(".part")
    with DatabaseFile(database) as source, h5py.File(str(part), "w", libver="latest") as file:
        extractor = source.extractor()
        if extractor is not None:
            file.attrs["extractor"] = extractor
        for name in source.names:
            local = source.read(name)
            group = file.create_group(name)
            group.create_dataset("keypoints", data=local.keypoints)
            group.create_dataset("descriptors", data=np.ascontiguousarray(local.descriptors.T))
            group.create_dataset("scores", data=local.scores)
            group.create_dataset("image_size", data=np.array(local.image_size))
    part.replace(output)
