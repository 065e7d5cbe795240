"""What a selector gets: the map's geometry and statistics, no file and no model."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pycolmap

from ..reference import Observations, ReferenceMap
from ..visibility import Visibility


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
    """

    visibility: Visibility
    xyz: np.ndarray
    reprojection_error: np.ndarray
    cameras: list[pycolmap.Camera]
    camera_index: np.ndarray
    cam_from_world: np.ndarray
    observations: Observations | None = None

    @property
    def num_points(self) -> int:
        return self.visibility.num_points

    @cached_property
    def reliability(self) -> np.ndarray:
        """``statistics.reliability`` of this map, computed once: budgets are found by trial."""
        from .statistics import reliability

        return reliability(self)

    @staticmethod
    def from_reference(
        reference: ReferenceMap, observations: Observations | None = None
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
        )
