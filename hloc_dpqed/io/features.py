"""Local features, read image by image: hloc's HDF5 files, one group for each image, or a COLMAP
database; ``open_features`` tells them apart."""

import contextlib
import math
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import InputError
from ..libraries import torch
from .colmap_database import DatabaseFile, is_database
from .local_features import BINARY, ImageFeatures, LocalFeatures, checked_features


def open_hdf5(path: Path) -> h5py.File:
    """Open ``path`` for reading.

    Raises:
        InputError: the file is missing or is not HDF5.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected an HDF5 feature file")
    try:
        return h5py.File(str(path), "r", libver="latest")
    except OSError as error:
        raise InputError(f"{path}: not a readable HDF5 file ({_first_line(error)})") from error


# What h5py raises on damaged files.
_HDF5_ERRORS = (OSError, RuntimeError, TypeError, KeyError, ValueError, MemoryError)
# Bytes of a dataset for each byte of its file at most: deflate packs 1032 to one.
_MAX_EXPANSION = 1100


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def open_features(path: Path) -> LocalFeatures:
    """Local features at ``path``: hloc's feature file or a COLMAP database, whatever its name.

    Raises:
        InputError: the file is missing or is neither.
    """
    return DatabaseFile(path) if is_database(path) else FeatureFile(path)


class FeatureFile(LocalFeatures):
    """hloc's local feature file; see ``LocalFeatures``."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self._file = open_hdf5(self.path)

    def close(self) -> None:
        self._file.close()

    def __contains__(self, name: str) -> bool:
        try:
            return isinstance(self._file.get(name), h5py.Group)
        except _HDF5_ERRORS:
            return False

    def extractor(self) -> str | None:
        """Name of the extractor where the file tells it (attribute ``extractor``), else None."""
        return self._attribute("extractor")

    def extraction(self) -> str | None:
        return self._attribute("extraction")

    def _attribute(self, name: str) -> str | None:
        try:
            value = self._file.attrs.get(name)
        except _HDF5_ERRORS:
            return None
        return value if isinstance(value, str) else None

    def keypoint_uncertainty(self) -> float | None:
        """Detection noise in pixels, as hloc records it at each image's keypoints, of the first;
        None where there is none, or one that is no number."""
        found: list[float] = []

        def visit(name: str, item: object) -> bool | None:
            if isinstance(item, h5py.Dataset) and name.split("/")[-1] == "keypoints":
                value = item.attrs.get("uncertainty")
                found.extend([] if value is None else [float(value)])
                return True
            return None

        with contextlib.suppress(*_HDF5_ERRORS):
            self._file.visititems(visit)
        return found[0] if found and math.isfinite(found[0]) else None

    def image_size(self, name: str) -> tuple[int, int] | None:
        """(width, height) that the file tells of image ``name``, None where it tells none."""
        where = f"{self.path}: image {name!r}"
        try:
            dataset = self._file.get(f"{name}/image_size")
            if not isinstance(dataset, h5py.Dataset):
                return None
            size = _numbers(dataset, where)
        except _HDF5_ERRORS as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{where}: cannot be read ({_first_line(error)})") from error
        return _size(size, where)

    def read(self, name: str) -> ImageFeatures:
        """Features of image ``name``, checked and normalised.

        Descriptors of any length and number type become unit vectors, whoever extracted them:
        codecs and matchers here compare directions. Binary ones are refused.
        """
        where = f"{self.path}: image {name!r}"
        try:
            group = self._file.get(name)
            if not isinstance(group, h5py.Group):
                raise InputError(f"{where}: not in the feature file")
            for key in ("keypoints", "descriptors"):
                if not isinstance(group.get(key), h5py.Dataset):
                    raise InputError(f"{where}: dataset {key!r} is missing")
            keypoints = _numbers(group["keypoints"], where)
            descriptors = _numbers(group["descriptors"], where)
            scores = _numbers(group["scores"], where) if "scores" in group else None
            size = _numbers(group["image_size"], where) if "image_size" in group else None
        except _HDF5_ERRORS as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{where}: cannot be read ({_first_line(error)})") from error
        # More columns are scales and orientations, or an affine shape.
        if keypoints.ndim != 2 or keypoints.shape[1] < 2 or _is_turned(keypoints, descriptors):
            told = ": they are transposed" if _is_turned(keypoints, descriptors) else ""
            raise InputError(
                f"{where}: keypoints have shape {keypoints.shape}, expected (N, 2){told}"
            )
        count = len(keypoints)
        if descriptors.ndim != 2 or descriptors.shape[1] != count:
            turned = descriptors.ndim == 2 and descriptors.shape[0] == count
            told = ": they are transposed" if turned else ""
            raise InputError(
                f"{where}: descriptors have shape {descriptors.shape}, expected (D, {count}){told}"
            )
        if descriptors.dtype == np.uint8 and len(descriptors) in BINARY:
            raise InputError(
                f"{where}: descriptors of {len(descriptors)} bytes each (uint8) are binary, as of "
                f"{BINARY[len(descriptors)]}: they are matched by Hamming distance, which no codec "
                "keeps; expected float descriptors, or uint8 ones such as SIFT's 128"
            )
        return checked_features(
            where,
            keypoints,
            _rows(descriptors),
            np.ones(count, np.float32) if scores is None else scores,
            None if size is None else _size(size, where),
        )

    def nbytes(self, name: str) -> tuple[int, int]:
        local = descriptors = 0
        for key, dataset in self._file[name].items():
            if isinstance(dataset, h5py.Dataset):
                local += dataset.nbytes
                descriptors += dataset.nbytes if key == "descriptors" else 0
        return local, descriptors

    def dimension(self) -> int | None:
        found: list[int] = []
        binary: list[str] = []

        def visit(name: str, item: object) -> bool | None:
            if isinstance(item, h5py.Dataset) and name.split("/")[-1] == "descriptors":
                found.extend([int(item.shape[0])] if len(item.shape) == 2 and item.shape[1] else [])
                binary.extend([name] if item.dtype == np.uint8 and item.shape[0] in BINARY else [])
            return True if found else None

        with contextlib.suppress(*_HDF5_ERRORS):
            self._file.visititems(visit)
        return found[0] if found and not binary else None


def _is_turned(keypoints: np.ndarray, descriptors: np.ndarray) -> bool:
    """Whether keypoints of N > 6 are (2 .. 6, N), a column for each of N descriptors."""
    if keypoints.ndim != 2 or descriptors.ndim != 2:
        return False
    rows, columns = keypoints.shape
    return rows in (2, 3, 4, 6) and columns > 6 and columns in descriptors.shape


def _size(size: np.ndarray, where: str) -> tuple[int, int]:
    if size.shape != (2,):
        raise InputError(f"{where}: image_size has shape {size.shape}, expected (2,)")
    if not (np.isfinite(size).all() and (size >= 1).all()):
        raise InputError(f"{where}: image_size is {size.tolist()}, expected width and height")
    return int(size[0]), int(size[1])


def _rows(descriptors: np.ndarray) -> np.ndarray:
    """(D, N) numbers to (N, D) float32, contiguous."""
    if (
        torch is not None
        and descriptors.dtype.isnative
        and descriptors.dtype.name in ("float16", "float32")
    ):
        # numpy takes four times as long to transpose and widen.
        return torch.from_numpy(descriptors).T.contiguous().float().numpy()
    with np.errstate(over="ignore"):  # what does not fit is told as not finite
        return np.ascontiguousarray(descriptors.T, np.float32)


def _numbers(dataset: h5py.Dataset, where: str) -> np.ndarray:
    """The dataset as an array.

    Raises:
        InputError: it does not hold numbers, or claims more bytes than its file can hold.
    """
    size = os.path.getsize(dataset.file.filename)
    if dataset.nbytes > _MAX_EXPANSION * size:
        name = dataset.name.rsplit("/", 1)[-1]
        raise InputError(
            f"{where}: {name} has shape {dataset.shape}, more than a file of {size} bytes holds"
        )
    values = dataset.__array__()
    if values.dtype.kind not in "fiu":
        raise InputError(f"{where}: {dataset.name.rsplit('/', 1)[-1]} does not hold numbers")
    return values


def descriptor_dimension(path: Path) -> int | None:
    """``dimension`` of a file of local features: sizes can be refused before a map is read.

    Raises:
        InputError: the file is missing, or no file of local features.
    """
    with open_features(path) as file:
        return file.dimension()


def feature_kind(path: Path) -> dict[str, Any]:
    """What a feature file tells of its kind: its ``name``, as hloc's name the extractor; the
    ``extractor`` that its attribute of that name tells, or its descriptors' type in a COLMAP
    database; and the ``keypoint_uncertainty`` in pixels, where there are such."""
    with open_features(path) as file:
        told = {
            "extractor": file.extractor(),
            "extraction": file.extraction(),
            "keypoint_uncertainty": file.keypoint_uncertainty(),
        }
    return {"name": Path(path).stem} | {k: v for k, v in told.items() if v is not None}


def read_global_descriptors(path: Path, names: list[str]) -> np.ndarray:
    """``global_descriptor`` of each image: (len(names), Dg) float32, L2-normalised.

    Raises:
        InputError: an image or its descriptor is missing, has another dimension or is not finite.
    """
    rows: list[np.ndarray] = []
    with open_hdf5(path) as file:
        for name in names:
            where = f"{path}: image {name!r}"
            try:
                group = file.get(name)
                if not isinstance(group, h5py.Group) or "global_descriptor" not in group:
                    raise InputError(f"{where} has no global_descriptor")
                row = _numbers(group["global_descriptor"], where).astype(np.float32).ravel()
            except _HDF5_ERRORS as error:
                if isinstance(error, InputError):
                    raise
                raise InputError(f"{where}: cannot be read ({_first_line(error)})") from error
            if rows and len(row) != len(rows[0]):
                raise InputError(
                    f"{where}: global_descriptor has {len(row)} dimensions, expected {len(rows[0])}"
                )
            norm = np.linalg.norm(row)
            if not np.isfinite(norm) or norm <= 0:
                raise InputError(f"{where}: global_descriptor is zero or not finite")
            rows.append(row / norm)
    return np.stack(rows) if rows else np.zeros((0, 0), np.float32)
