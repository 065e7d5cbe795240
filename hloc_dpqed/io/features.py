"""hloc feature files: one HDF5 group for each image, read image by image."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from ..errors import InputError


@dataclass(frozen=True)
class ImageFeatures:
    """Local features of one image.

    Attributes:
        keypoints: (N, 2) float32 pixels, pixel centres at integers (hloc's convention).
        descriptors: (N, D) float16 or float32, L2-normalised rows.
        scores: (N,) float32, 1.0 where the file has none.
        image_size: (width, height), or None where the file has none.
    """

    keypoints: np.ndarray
    descriptors: np.ndarray
    scores: np.ndarray
    image_size: tuple[int, int] | None


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


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


class FeatureFile:
    """A local feature file, opened once; ``with`` closes it.

    Raises:
        InputError: from any method, one line naming the file, the image and what was expected.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._file = open_hdf5(self.path)

    def __enter__(self) -> "FeatureFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return isinstance(self._file.get(name), h5py.Group)

    def read(self, name: str) -> ImageFeatures:
        """Features of image ``name``, checked and normalised."""
        where = f"{self.path}: image {name!r}"
        try:
            group = self._file.get(name)
            if not isinstance(group, h5py.Group):
                raise InputError(f"{where}: not in the feature file")
            for key in ("keypoints", "descriptors"):
                if not isinstance(group.get(key), h5py.Dataset):
                    raise InputError(f"{where}: dataset {key!r} is missing")
            keypoints = group["keypoints"].__array__()
            descriptors = group["descriptors"].__array__()
            scores = group["scores"].__array__() if "scores" in group else None
            size = group["image_size"].__array__() if "image_size" in group else None
        except (OSError, RuntimeError, TypeError) as error:
            raise InputError(f"{where}: cannot be read ({_first_line(error)})") from error
        if keypoints.ndim != 2 or keypoints.shape[1] < 2:
            raise InputError(f"{where}: keypoints have shape {keypoints.shape}, expected (N, 2)")
        count = len(keypoints)
        if descriptors.ndim != 2 or descriptors.shape[1] != count:
            raise InputError(
                f"{where}: descriptors have shape {descriptors.shape}, expected (D, {count})"
            )
        descriptors = np.ascontiguousarray(descriptors.T)
        wide = descriptors.astype(np.float32)
        norms = np.linalg.norm(wide, axis=1)
        if not np.isfinite(norms).all() or not np.isfinite(keypoints).all():
            raise InputError(f"{where}: keypoints or descriptors are not finite")
        if count and norms.min() <= 0:
            raise InputError(f"{where}: descriptor {int(norms.argmin())} has zero length")
        if scores is None:
            scores = np.ones(count, np.float32)
        if scores.shape != (count,):
            raise InputError(f"{where}: scores have shape {scores.shape}, expected ({count},)")
        return ImageFeatures(
            keypoints[:, :2].astype(np.float32),
            (wide / np.maximum(norms, 1e-30)[:, None]).astype(np.float32),
            scores.astype(np.float32),
            None if size is None else (int(size[0]), int(size[1])),
        )


def read_global_descriptors(path: Path, names: list[str]) -> np.ndarray:
    """``global_descriptor`` of each image: (len(names), Dg) float32, L2-normalised.

    Raises:
        InputError: an image or its descriptor is missing, has another dimension or is not finite.
    """
    rows: list[np.ndarray] = []
    with open_hdf5(path) as file:
        for name in names:
            group = file.get(name)
            if not isinstance(group, h5py.Group) or "global_descriptor" not in group:
                raise InputError(f"{path}: image {name!r} has no global_descriptor")
            row = group["global_descriptor"].__array__().astype(np.float32).ravel()
            if rows and len(row) != len(rows[0]):
                raise InputError(
                    f"{path}: image {name!r}: global_descriptor has {len(row)} dimensions, "
                    f"expected {len(rows[0])}"
                )
            norm = np.linalg.norm(row)
            if not np.isfinite(norm) or norm <= 0:
                raise InputError(f"{path}: image {name!r}: global_descriptor is zero or not finite")
            rows.append(row / norm)
    return np.stack(rows) if rows else np.zeros((0, 0), np.float32)
