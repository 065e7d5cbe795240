"""The map as a learned matcher sees it from one place: all points near a query, in one view. Ours.

hloc matches a query with each retrieved image, since an image is all that it has. A map has points
and can be looked at from anywhere: from where the query is, as far as that is known.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pycolmap

from ..libraries import torch
from ..maps.compressed import CompressedMap
from ..scene.projection import project_points

MOST_POINTS = 4096  # in a view: those that look most like something in the query


class View(NamedTuple):
    """What a camera sees of some of the map's points.

    Attributes:
        points: (n,) int64 rows of the map's points, increasing.
        codes: (n,) int64 a row of the map's codes for each.
        keypoints: (n, 2) float32 projections in hloc's convention (pixel centres at integers).
        image_size: (width, height) of the camera.
    """

    points: np.ndarray
    codes: np.ndarray
    keypoints: np.ndarray
    image_size: tuple[int, int]

    def keep(self, rows: np.ndarray) -> View:
        return self._replace(
            points=self.points[rows], codes=self.codes[rows], keypoints=self.keypoints[rows]
        )


def points_of_images(compressed: CompressedMap, images: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """The points that any of the images sees: their rows, increasing, and a row of codes for each,
    of the first of the images that sees it."""
    if not images:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    points = np.concatenate([compressed.visibility[i] for i in images]).astype(np.int64)
    codes = np.concatenate([compressed.code_rows(i) for i in images]).astype(np.int64)
    distinct, first = np.unique(compressed.place_of_point[points], return_index=True)
    return distinct, codes[first]


def view_from(
    compressed: CompressedMap,
    points: np.ndarray,
    codes: np.ndarray,
    camera: pycolmap.Camera,
    cam_from_world: np.ndarray,
) -> View:
    """What ``camera`` at ``cam_from_world`` (3, 4) sees of the points, through walls too."""
    xy, visible = project_points(compressed.xyz[points], camera, cam_from_world)
    return View(
        points[visible],
        codes[visible],
        (xy[visible] - 0.5).astype(np.float32),
        (camera.width, camera.height),
    )


def most_plausible(query: torch.Tensor, seen: torch.Tensor, count: int) -> np.ndarray:
    """Positions, increasing, of the ``count`` of the (n, D) rows ``seen`` that are most similar to
    some row of ``query``; of equal ones the first."""
    best = torch.cat([(part @ query.T).amax(1) for part in seen.split(1024)])
    order = torch.sort(best, descending=True, stable=True).indices[:count]
    return np.sort(order.numpy())
