"""Local features in a COLMAP database, read as hloc's feature file is.

The file is read by sqlite, and never written: opening it with ``pycolmap.Database`` would bring the
tables of an older COLMAP to its own version, and needs a folder that can be written. The tables are
those of COLMAP 3.0 to 4.2 (``src/colmap/scene/database_sqlite.cc``).
"""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from ..errors import InputError
from ..logger import logger
from .local_features import BINARY, ImageFeatures, LocalFeatures, checked_features

_MAGIC = b"SQLite format 3\0"
# Number of COLMAP's FeatureExtractorType to the name that a map records. A database of COLMAP
# before 4.0 has no types, and holds SIFT.
_TYPES = {0: "SIFT", 1: "ALIKED_N16ROT", 2: "ALIKED_N32", 3: "LOMA_B", 4: "LOMA_B128"}
_UNDEFINED, _SIFT, _SIFT_BYTES = -1, 0, 128
_KEYPOINT_COLUMNS = (2, 4, 6)  # x, y; scale, orientation; or an affine shape
# Median sum of a unit descriptor's components: 8.5 to 9.3 in RootSIFT, 6.2 to 7.2 in SIFT, of 12
# images of four scenes (docs/colmap.md).
_ROOT_SUM = 7.85
_SAMPLE, _LEAST_SAMPLE = 2_000, 50  # descriptors that tell which it is, and at least


def is_database(path: Path) -> bool:
    """Whether ``path`` is a file that begins as a COLMAP database (or another of sqlite) does."""
    try:
        with open(path, "rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


class DatabaseFile(LocalFeatures):
    """The features of a COLMAP database; see ``LocalFeatures``.

    Keypoints lose the half pixel that COLMAP adds. Descriptors are of the type that the database
    tells: SIFT's 128 bytes, read as RootSIFT (Arandjelović and Zisserman, CVPR 2012) whichever of
    COLMAP's two normalisations they have, or float32. Scores are 1: COLMAP has none.

    Args:
        path: of the database.
        is_root: whether SIFT is stored as RootSIFT; None where the numbers shall tell.

    Raises:
        InputError: no COLMAP database, none that has descriptors, or descriptors of several types.
    """

    kind = "COLMAP database"

    def __init__(self, path: Path, is_root: bool | None = None):
        self.path = Path(path)
        if not is_database(self.path):
            raise InputError(f"{path}: no such file, or no COLMAP database")
        # A log of a database that is open elsewhere is read too; without one, nothing is locked
        # and the folder need not be writable.
        log = Path(f"{self.path}-wal")
        self._logged = log.is_file() and log.stat().st_size > 0
        mode = "mode=ro" if self._logged else "mode=ro&immutable=1"
        self._lock = threading.Lock()
        self._is_root = is_root
        with self._told():
            uri = f"{self.path.resolve().as_uri()}?{mode}"
            self._database = sqlite3.connect(uri, uri=True, check_same_thread=False)
            self._database.execute("PRAGMA query_only = 1")
        try:
            self._check_tables()
            self._ids, self._cameras = self._read_images()
            self._type, self._columns = self._read_type()
        except InputError:
            self.close()
            raise

    def close(self) -> None:
        self._database.close()

    def __contains__(self, name: str) -> bool:
        return name in self._ids

    @property
    def names(self) -> list[str]:
        """Names of all images, sorted."""
        return sorted(self._ids)

    def extractor(self) -> str | None:
        """The type of the descriptors, such as ``COLMAP's SIFT``; None where it is not told."""
        if self._type == _UNDEFINED:
            return None
        return f"COLMAP's {_TYPES.get(self._type, f'type {self._type}')}"

    def camera(self, name: str) -> pycolmap.Camera:
        """Intrinsics of image ``name``, as COLMAP guessed or calibrated them."""
        model, width, height, params = self._cameras[self._id(name)]
        known = {int(m): n for n, m in pycolmap.CameraModelId.__members__.items()}
        if model not in known:
            raise InputError(
                f"{self._where(name)}: its camera has the model number {model}, which this "
                f"pycolmap, {pycolmap.__version__}, does not know; upgrade it"
            )
        if not isinstance(params, bytes) or len(params) % 8:
            raise InputError(f"{self._where(name)}: its camera's parameters are damaged")
        values = np.frombuffer(params, "<f8")
        return pycolmap.Camera(model=known[model], width=width, height=height, params=values)

    def image_size(self, name: str) -> tuple[int, int] | None:
        """(width, height) of the image's camera: COLMAP's keypoints are in its pixels."""
        return self._cameras[self._id(name)][1:3]

    def read(self, name: str) -> ImageFeatures:
        where = self._where(name)
        keypoints = self._matrix("keypoints", name, np.dtype("<f4"))
        if keypoints.shape[1] not in _KEYPOINT_COLUMNS and len(keypoints):
            raise InputError(
                f"{where}: keypoints have {keypoints.shape[1]} columns, expected 2, 4 or 6"
            )
        descriptors = self._descriptors(name)
        if len(descriptors) != len(keypoints):
            raise InputError(
                f"{where}: {len(keypoints)} keypoints, but {len(descriptors)} descriptors"
            )
        return checked_features(
            where,
            keypoints[:, :2] - np.float32(0.5),
            self._rooted(descriptors),
            np.ones(len(keypoints), np.float32),
            self.image_size(name),
        )

    def scales(self, name: str) -> np.ndarray:
        """(N,) float32 size of each keypoint in pixels, 1 where the database tells none."""
        rows = self._matrix("keypoints", name, np.dtype("<f4"))
        if rows.shape[1] == 6:
            return np.sqrt(np.abs(rows[:, 2] * rows[:, 5] - rows[:, 3] * rows[:, 4]))
        return rows[:, 2].copy() if rows.shape[1] == 4 else np.ones(len(rows), np.float32)

    def nbytes(self, name: str) -> tuple[int, int]:
        query = "SELECT length(data) FROM {} WHERE image_id = ?"
        lengths = [
            sum(n or 0 for (n,) in self._rows(query.format(table), self._id(name)))
            for table in ("keypoints", "descriptors")
        ]
        return sum(lengths), lengths[1]

    def dimension(self) -> int | None:
        if self._is_float:
            return self._columns // 4
        return None if self._columns in BINARY else self._columns

    # --- of the tables -----------------------------------------------------------------------

    def _where(self, name: str) -> str:
        return f"{self.path}: image {name!r}"

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        # sqlite's own errors, and names that are not UTF-8.
        except (sqlite3.Error, UnicodeDecodeError, MemoryError, OverflowError) as error:
            message = str(error).splitlines()[0] if str(error) else type(error).__name__
            hint = ""
            if self._logged:
                hint = "; another program has it open, or left its log (-wal) behind"
            raise InputError(f"{self.path}: not a readable database ({message}{hint})") from error

    def _rows(self, query: str, *values: Any) -> list[Any]:
        with self._lock, self._told():
            return self._database.execute(query, values).fetchall()

    def _check_tables(self) -> None:
        tables = {name for (name,) in self._rows("SELECT name FROM sqlite_master")}
        missing = {"cameras", "images", "keypoints", "descriptors"} - tables
        if missing:
            raise InputError(
                f"{self.path}: not a COLMAP database, it has no table {min(missing)!r}"
            )

    def _read_images(self) -> tuple[dict[str, int], dict[int, tuple[int, int, int, bytes]]]:
        """Id of each image, by name; and its camera's model, width, height and parameters."""
        rows = self._rows(
            "SELECT images.name, images.image_id, model, width, height, params FROM images "
            "JOIN cameras ON images.camera_id = cameras.camera_id"
        )
        ids: dict[str, int] = {}
        cameras: dict[int, tuple[int, int, int, bytes]] = {}
        for name, image, model, width, height, params in rows:
            if not (_whole(model, width, height, least=0) and min(width, height) > 0):
                raise InputError(
                    f"{self.path}: image {name!r} has a camera of {width} x {height} pixels"
                )
            ids[str(name)] = image
            cameras[image] = (model, width, height, params)
        return ids, cameras

    def _read_type(self) -> tuple[int, int]:
        """COLMAP's number of the descriptors' type, and the bytes of a descriptor."""
        columns = [row[1] for row in self._rows("PRAGMA table_info(descriptors)")]
        kind = "type" if "type" in columns else "NULL"
        rows = self._rows(
            f"SELECT {kind}, cols, min(image_id) FROM descriptors WHERE rows > 0 GROUP BY 1, 2"
        )
        if not rows and self._rows("SELECT 1 FROM descriptors LIMIT 1"):
            return _SIFT, _SIFT_BYTES  # of photos in which nothing was found
        if not rows:
            raise InputError(
                f"{self.path}: the database holds no descriptors (hloc writes none to it); "
                "expected one of COLMAP's feature extraction, or hloc's feature file"
            )
        if len(rows) > 1:
            names = {image: name for name, image in self._ids.items()}
            told = [
                f"{n} bytes of {_TYPES.get(t, 'no type' if t is None else f'type {t}')} "
                f"in image {names.get(image, image)!r}"
                for t, n, image in rows[:2]
            ]
            raise InputError(
                f"{self.path}: descriptors of several kinds, {told[0]} and {told[1]}; expected one"
            )
        found, length, _ = rows[0]
        if not _whole(length, least=1) or not (found is None or _whole(found, least=-1)):
            raise InputError(f"{self.path}: descriptors of {length} bytes and type {found}")
        if found is None:
            found = _SIFT if length == _SIFT_BYTES else _UNDEFINED
        return found, length

    @property
    def _is_float(self) -> bool:
        return self._type not in (_UNDEFINED, _SIFT)

    def _id(self, name: str) -> int:
        if name not in self._ids:
            raise InputError(f"{self._where(name)}: not in the COLMAP database")
        return self._ids[name]

    def _matrix(self, table: str, name: str, dtype: np.dtype) -> np.ndarray:
        """An image's row of ``table`` as a matrix; COLMAP counts columns of descriptors in bytes.

        Raises:
            InputError: there is none, or its bytes are not as many as it says.
        """
        rows = self._rows(
            f"SELECT rows, cols, data FROM {table} WHERE image_id = ?", self._id(name)
        )
        if not rows:
            raise InputError(f"{self._where(name)}: the database holds no {table} of it")
        count, columns, data = rows[0]
        data = b"" if data is None else data
        if not (isinstance(data, bytes) and _whole(count, columns, least=0)):
            raise InputError(f"{self._where(name)}: {table} are damaged")
        if table == "descriptors":
            columns //= dtype.itemsize
        if count * columns * dtype.itemsize != len(data):
            raise InputError(
                f"{self._where(name)}: {table} of {len(data)} bytes, expected {count} rows of "
                f"{columns} numbers"
            )
        return np.frombuffer(data, dtype).reshape(count, columns)

    def _descriptors(self, name: str) -> np.ndarray:
        """(N, D) float32, as they are stored."""
        stored = self._matrix("descriptors", name, np.dtype("<f4" if self._is_float else "u1"))
        if not self._is_float and stored.shape[1] in BINARY and len(stored):
            raise InputError(
                f"{self._where(name)}: descriptors of {stored.shape[1]} bytes each (uint8) are "
                f"binary, as of {BINARY[stored.shape[1]]}, which no codec keeps; expected SIFT's "
                "128 bytes, or float ones with their type, as COLMAP 4 writes them"
            )
        return np.ascontiguousarray(stored, np.float32)

    def _rooted(self, descriptors: np.ndarray) -> np.ndarray:
        """SIFT as RootSIFT, of any length; others as they are."""
        if self._type != _SIFT or descriptors.shape[1] != _SIFT_BYTES or self._sift_is_root():
            return descriptors
        return np.sqrt(descriptors)

    def _sift_is_root(self) -> bool:
        """Whether SIFT was stored as RootSIFT, COLMAP's L1_ROOT, and not as L2: nothing in the
        database tells, but the numbers do."""
        if self._is_root is None:
            taken: list[np.ndarray] = []
            for name in self._ids:
                with contextlib.suppress(InputError):  # told where it is read
                    taken.append(self._descriptors(name))
                if sum(len(part) for part in taken) >= _SAMPLE:
                    break
            sample = np.concatenate(taken)
            sums = sample.sum(1) / np.maximum(np.linalg.norm(sample, axis=1), 1)
            # Of a handful nothing is concluded: it is COLMAP's default.
            self._is_root = len(sums) < _LEAST_SAMPLE or bool(np.median(sums) >= _ROOT_SUM)
            if not self._is_root:
                logger.info(f"{self.path}: SIFT of normalization L2, read as RootSIFT")
        return self._is_root


def _whole(*values: Any, least: int) -> bool:
    """Whether they are whole numbers: sqlite keeps whatever was written to a column."""
    return all(isinstance(value, int) and value >= least for value in values)
