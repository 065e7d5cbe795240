"""What a selector gets: the map's geometry and statistics, no file and no model."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pycolmap

from ..codecs.base import Codec
from ..codecs.none import NoneCodec
from ..scene.reference import Observations, ReferenceMap
from ..scene.visibility import Visibility
from .statistics import reliability, survival


@dataclass(frozen=True)
class SelectionProblem:
    """Everything that a selector may look at. Rows are those of the ``ReferenceMap``.

    Attributes:
        visibility: I x P.
        xyz: (P, 3) float64 map units.
        reprojection_error: (P,) float32 pixels, -1 where unknown.
        cameras, camera_index, cam_from_world: as in ``ReferenceMap``.
        observations: descriptors, scores and keypoints in the order of ``visibility``, or None
            where only geometry is known.
        codec: gives the map's codec where it does not depend on the points that are chosen; else
            None.
    """

    visibility: Visibility
    xyz: np.ndarray
    reprojection_error: np.ndarray
    cameras: list[pycolmap.Camera]
    camera_index: np.ndarray
    cam_from_world: np.ndarray
    observations: Observations | None = None
    codec: Callable[[], Codec] | None = None

    @property
    def num_points(self) -> int:
        return self.visibility.num_points

    def in_image(self, image: int) -> tuple[np.ndarray, np.ndarray]:
        """Where an image's points project, beside it and behind it too.

        Returns:
            (n, 2) float64 pixels in COLMAP's convention as shares of width and height, not a
            number where there is none; and (n,) bool, in front of the camera.
        """
        points = self.visibility[image]
        if len(points) == 0:
            return np.zeros((0, 2)), np.zeros(0, bool)
        pose = self.cam_from_world[image]
        camera = self.cameras[self.camera_index[image]]
        in_camera = self.xyz[points] @ pose[:, :3].T + pose[:, 3]
        xy = np.asarray(camera.img_from_cam(in_camera), np.float64)
        return xy / [camera.width, camera.height], in_camera[:, 2] > 0

    @cached_property
    def reliability(self) -> np.ndarray:
        """``statistics.reliability`` of this map, computed once: budgets are found by trial."""
        return reliability(
            self.visibility,
            self.xyz,
            self.cameras,
            self.camera_index,
            self.cam_from_world,
            self.observations,
        )

    @cached_property
    def survival(self) -> np.ndarray:
        """``statistics.survival`` of the codec, or of the points' mean descriptors.

        (P,) float64, one each where no descriptors are given.
        """
        if self.observations is None:
            return np.ones(self.num_points)
        codec = NoneCodec(self.observations.dim) if self.codec is None else self.codec()
        codes = codec.encode_points(self.observations)
        return survival(self.observations, lambda rows: codec.decode(codes[rows]))

    @staticmethod
    def from_reference(
        reference: ReferenceMap,
        observations: Observations | None = None,
        codec: Callable[[], Codec] | None = None,
    ) -> "SelectionProblem":
        """View of a reference map (and its observations) as a selection problem."""
        return SelectionProblem(
            reference.visibility,
            reference.xyz,
            reference.reprojection_error,
            reference.cameras,
            reference.camera_index,
            reference.cam_from_world,
            observations,
            codec,
        )
