"""The compressed map in memory: everything that localization needs, as arrays."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pycolmap

from ..codecs.base import Codec
from ..scene.projection import project_points
from ..scene.visibility import Visibility


def places_of(xyz: np.ndarray, visibility: Visibility) -> np.ndarray:
    """For each row the lowest one that is the same 3D point: (P,) int64.

    One point with several codes is several rows of equal coordinates, of which an image sees one
    (``scene.appearances``). Rows that an image sees together are points of their own: detectors
    find corners twice, in two orientations.
    """
    lowest = first_rows(xyz)
    rows = np.arange(len(xyz))
    if (lowest == rows).all():
        return lowest
    seen = visibility.image_of_observation().astype(np.int64) * len(xyz)
    keys, counts = np.unique(seen + lowest[visibility.indices], return_counts=True)
    together = np.zeros(len(xyz), bool)
    together[keys[counts > 1] % len(xyz)] = True
    return np.where(together[lowest], rows, lowest)


def first_rows(xyz: np.ndarray) -> np.ndarray:
    """For each row of (P, 3) ``xyz`` the lowest row that equals it: (P,) int64."""
    order = np.lexsort(xyz.T)  # stable: the lowest of equal rows comes first
    inside = xyz[order]
    first = np.r_[True, (inside[1:] != inside[:-1]).any(1)][: len(order)]
    lowest = np.empty(len(order), np.int64)
    lowest[order] = order[first][np.cumsum(first) - 1]
    return lowest


@dataclass(frozen=True)
class GlobalDescriptors:
    """Global image descriptors of the database, as codes.

    Attributes:
        codec: decodes to L2-normalised rows.
        codes: (I, codec.code_size) uint8.
    """

    codec: Codec
    codes: np.ndarray


@dataclass(frozen=True)
class CompressedMap:
    """A compressed map, in the frame and unit of its model. Image rows are sorted by name.

    Attributes:
        image_names: names of the I database images, sorted.
        cameras: the distinct cameras of the images.
        camera_index: (I,) int32 into ``cameras``.
        cam_from_world: (I, 3, 4) float64 poses [R | t].
        xyz: (P, 3) float64 coordinates of the kept points in map units. A point with a code for
            each of its appearances is several rows of equal coordinates.
        visibility: I x P, from the tracks.
        granularity: 'point' (a code for each point) or 'observation' (one for each entry of
            ``visibility``).
        codec: decodes the codes.
        codes: (P or N, codec.code_size) uint8.
        scores: (P or N,) float32 detection scores.
        global_descriptors: of the database images, or None.
        metadata: JSON-able: how the map was made.
        codec_hash: of the codec file that the map file refers to, instead of holding the codec
            itself; None where it does.
        confidence: JSON-able ``localization.confidence.Calibration`` of poses in this map, or None.
    """

    image_names: list[str]
    cameras: list[pycolmap.Camera]
    camera_index: np.ndarray
    cam_from_world: np.ndarray
    xyz: np.ndarray
    visibility: Visibility
    granularity: str
    codec: Codec
    codes: np.ndarray
    scores: np.ndarray
    global_descriptors: GlobalDescriptors | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    codec_hash: str | None = None
    confidence: dict[str, Any] | None = None

    @property
    def num_images(self) -> int:
        return len(self.image_names)

    @property
    def num_points(self) -> int:
        return len(self.xyz)

    @cached_property
    def place_of_point(self) -> np.ndarray:
        """``places_of`` the map: (P,) int64."""
        return places_of(self.xyz, self.visibility)

    @property
    def num_places(self) -> int:
        return len(np.unique(self.place_of_point))

    def places_seen(self, image: int) -> np.ndarray:
        """The points that ``image`` sees, each by its first row: (n,) int64."""
        return self.place_of_point[self.visibility[image]]

    def info(self) -> dict[str, Any]:
        """What the map holds; ``hloc-dpqed info`` of its file tells the bytes of each section."""
        return {
            "num_points": self.num_points,
            "num_places": self.num_places,
            "num_images": self.num_images,
            "num_observations": self.visibility.num_observations,
            "codec": self.codec.name,
            "code_bytes": self.codec.code_size,
            "descriptor_dim": self.codec.dim,
            "granularity": self.granularity,
            "descriptor_bytes": self.codes.nbytes,
            "distinct_codes": len(np.unique(self.codes, axis=0)),
        }

    def code_rows(self, image: int) -> np.ndarray:
        """Rows of ``codes`` that belong to the image's points, in the order of its points."""
        if self.granularity == "point":
            return self.visibility[image]
        return np.arange(self.visibility.indptr[image], self.visibility.indptr[image + 1])

    def project(self, image: int) -> tuple[np.ndarray, np.ndarray]:
        """Projections of the image's points into it.

        Returns:
            (n, 2) float64 pixels in COLMAP's convention (subtract 0.5 for hloc's), and (n,) bool:
            finite, in front of the camera and inside the image.
        """
        points = self.xyz[self.visibility[image]]
        return project_points(
            points, self.cameras[self.camera_index[image]], self.cam_from_world[image]
        )
