"""What local features of an image are, and what every file of them answers."""

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..errors import InputError

# Bytes of binary descriptors, which a real-valued one of uint8 has not: SIFT's are 128 or more.
BINARY = {16: "BRIEF", 32: "ORB or BRIEF", 61: "AKAZE", 64: "BRISK, FREAK or BEBLID"}


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


F = TypeVar("F", bound="LocalFeatures")


class LocalFeatures(abc.ABC):
    """Local features of images by name, opened once; ``with`` closes them.

    Raises:
        InputError: from any method, one line naming the file, the image and what was expected.
    """

    path: Path
    kind = "feature file"  # what ``path`` is, for messages

    def __enter__(self: F) -> F:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the file."""

    @abc.abstractmethod
    def __contains__(self, name: str) -> bool: ...

    @abc.abstractmethod
    def extractor(self) -> str | None:
        """Name of the extractor where the file tells it, else None."""

    def extraction(self) -> str | None:
        """How the features were extracted, as ``mapping.extraction`` writes it, else None."""
        return None

    def keypoint_uncertainty(self) -> float | None:
        """Detection noise in pixels where the file tells it, else None."""
        return None

    def check_names(self, names: Sequence[str]) -> None:
        """Check that every image is in the file, before long work begins."""
        missing = [name for name in names if name not in self]
        if missing:
            raise InputError(
                f"{self.path}: {len(missing)} of {len(names)} images are not in the {self.kind}, "
                f"the first is {missing[0]!r}"
            )

    @abc.abstractmethod
    def image_size(self, name: str) -> tuple[int, int] | None:
        """(width, height) that the file tells of image ``name``, None where it tells none."""

    @abc.abstractmethod
    def read(self, name: str) -> ImageFeatures:
        """Features of image ``name``, checked and normalised."""

    @abc.abstractmethod
    def nbytes(self, name: str) -> tuple[int, int]:
        """Bytes of the arrays of image ``name``, and of its descriptors among them."""

    @abc.abstractmethod
    def dimension(self) -> int | None:
        """Dimension of the descriptors, of the first image that has any; None without, and where
        they are binary, which reading them tells. Reads no descriptor."""


def checked_features(
    where: str,
    keypoints: np.ndarray,
    descriptors: np.ndarray,
    scores: np.ndarray,
    size: tuple[int, int] | None,
) -> ImageFeatures:
    """Features of one image, checked and normalised.

    Args:
        where: file and image, for the message.
        keypoints: (N, 2 or more) numbers, hloc's convention.
        descriptors: (N, D) float32.
        scores: (N,) numbers.
        size: (width, height) of the image, or None.

    Raises:
        InputError: something is not finite, or a descriptor has no length.
    """
    count = len(keypoints)
    if scores.shape != (count,):
        raise InputError(f"{where}: scores have shape {scores.shape}, expected ({count},)")
    with np.errstate(over="ignore"):  # what does not fit float32 is told as not finite
        norms = np.linalg.norm(descriptors, axis=1)
        keypoints = keypoints[:, :2].astype(np.float32)
        scores = scores.astype(np.float32)
    for what, values in (("keypoints", keypoints), ("descriptors", norms), ("scores", scores)):
        if not np.isfinite(values).all():
            raise InputError(f"{where}: {what} are not finite")
    if count and norms.min() <= 0:
        raise InputError(f"{where}: descriptor {int(norms.argmin())} has zero length")
    unit = descriptors / np.maximum(norms, 1e-30)[:, None]
    return ImageFeatures(keypoints, unit, scores, size)
