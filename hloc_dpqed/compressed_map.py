"""The compressed map in memory: everything that localization needs, as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pycolmap

from .codecs import Codec
from .errors import InputError
from .visibility import Visibility

if TYPE_CHECKING:
    from .io.features import ImageFeatures
    from .localization import Localization

GRANULARITIES = ("point", "observation")
# Times the scene's size. A point so far away has no parallax left: its direction is that of one at
# a thousandth of the distance, to a fraction of a pixel.
FURTHEST = 1e6


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
        xyz: (P, 3) float64 coordinates of the kept points in map units.
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

    @property
    def num_images(self) -> int:
        return len(self.image_names)

    @property
    def num_points(self) -> int:
        return len(self.xyz)

    @staticmethod
    def load(path: Path | str, codec_file: Path | str | None = None) -> "CompressedMap":
        """Read a map file; see ``mapfile.read_map``."""
        from .mapfile import read_map

        return read_map(Path(path), None if codec_file is None else Path(codec_file))

    def info(self) -> dict[str, Any]:
        """What the map holds; ``hloc-dpqed info`` of its file tells the bytes of each section."""
        return {
            "num_points": self.num_points,
            "num_images": self.num_images,
            "num_observations": self.visibility.num_observations,
            "codec": self.codec.name,
            "code_bytes": self.codec.code_size,
            "descriptor_dim": self.codec.dim,
            "granularity": self.granularity,
            "descriptor_bytes": self.codes.nbytes,
            "distinct_codes": len(np.unique(self.codes, axis=0)),
        }

    def localize(
        self,
        features: "ImageFeatures",
        camera: pycolmap.Camera,
        retrieved: "Sequence[str | int] | None" = None,
        name: str = "query",
        **options: Any,
    ) -> "Localization":
        """Localize one query; a ``Localizer`` decodes the map once for many.

        Args:
            features: of the query, as ``io.features.FeatureFile.read`` gives them.
            camera: intrinsics of the query.
            retrieved: names or rows of the database images to match with, best first; None
                matches with the whole map.
            name: of the query; with ``seed`` among the options it seeds RANSAC.
            options: of ``Localizer``.

        Raises:
            InputError: an image is not in the map, or features of another dimension.
        """
        from .localization.localizer import Localizer, Query

        rows = None
        if retrieved is not None:
            row_of = {image: row for row, image in enumerate(self.image_names)}
            unknown = [r for r in retrieved if isinstance(r, str) and r not in row_of]
            if unknown:
                raise InputError(f"image {unknown[0]!r} is not in the map")
            rows = [row_of[r] if isinstance(r, str) else int(r) for r in retrieved]
        return Localizer(self, **options).localize(Query(name, camera, features, rows))

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


def project_points(
    points: np.ndarray, camera: pycolmap.Camera, cam_from_world: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Project (n, 3) world points: (n, 2) COLMAP pixels, and (n,) bool whether they are visible."""
    in_camera = points @ cam_from_world[:, :3].T + cam_from_world[:, 3]
    if len(points) == 0:
        return np.zeros((0, 2)), np.zeros(0, bool)
    xy = np.asarray(camera.img_from_cam(in_camera), np.float64)
    inside = (xy >= 0).all(1) & (xy[:, 0] <= camera.width) & (xy[:, 1] <= camera.height)
    return xy, np.isfinite(xy).all(1) & in_front(in_camera, camera) & inside


def camera_centre(cam_from_world: np.ndarray) -> np.ndarray:
    """(3,) float64 position of a camera given as (3, 4) [R | t]."""
    return -cam_from_world[:, :3].T @ cam_from_world[:, 3]


def camera_centres(cam_from_world: np.ndarray) -> np.ndarray:
    """(I, 3) float64 positions of cameras given as (I, 3, 4) [R | t]."""
    return -np.einsum("nji,nj->ni", cam_from_world[:, :, :3], cam_from_world[:, :, 3])


def too_far(positions: np.ndarray, xyz: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Which positions lie outside of any reasonable scene.

    Args:
        positions: (n, 3) points or cameras.
        xyz: (P, 3) the scene's points, whose median distance from the middle of the cameras is its
            size.
        centres: (I, 3) of the cameras.

    Returns:
        (n,) bool: further than ``FURTHEST`` times the scene's size from the middle of the cameras.
    """
    if len(xyz) == 0 or len(centres) == 0:
        return np.zeros(len(positions), bool)
    middle = np.median(centres, axis=0)
    size = np.median(np.linalg.norm(xyz - middle, axis=1))
    if size == 0:
        return np.zeros(len(positions), bool)
    return np.linalg.norm(positions - middle, axis=1) > FURTHEST * size


def in_front(in_camera: np.ndarray, camera: pycolmap.Camera) -> np.ndarray:
    """(n,) bool: whether the camera looks towards the (n, 3) points, in its own coordinates.

    A panorama looks everywhere.
    """
    if camera.model.name == "EQUIRECTANGULAR":
        return np.ones(len(in_camera), bool)
    return in_camera[:, 2] > 0
