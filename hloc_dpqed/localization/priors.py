"""What is known of a query's pose before it is localized, and whether the result agrees with it.

A prior narrows the images that a query is matched with. It decides nothing: a pose that is found
with it is believed as ever and must agree with it, and without such a pose the query is localized
as if there were no prior.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..errors import InputError
from ..maps.compressed import CompressedMap
from ..scene.projection import camera_centre, camera_centres
from .queries import Localization, Query

PRIOR_IMAGES = 20  # of the nearest ones, where nothing else says which
GRAVITY_DEGREES = 5.0
SURE = 2.0  # times the inliers that a pose needs: with fewer, the query is also localized alone


@dataclass(frozen=True)
class Prior:
    """What is known of a pose; what is None is not known.

    Attributes:
        position: (3,) of the camera's centre in the map.
        radius: map units that the position may be off.
        gravity: (3,) down in the camera's frame (x right, y down, z forward), of any length.
        map_gravity: (3,) down in the map, which ``gravity`` needs.
        gravity_degrees: that the direction may be off.
    """

    position: np.ndarray | None = None
    radius: float | None = None
    gravity: np.ndarray | None = None
    map_gravity: np.ndarray | None = None
    gravity_degrees: float = GRAVITY_DEGREES

    def check(self) -> None:
        """Check the numbers.

        Raises:
            InputError: one is missing or impossible.
        """
        for name, value in (
            ("position", self.position),
            ("gravity", self.gravity),
            ("map_gravity", self.map_gravity),
        ):
            if value is not None and (
                np.shape(value) != (3,) or not np.isfinite(np.asarray(value, float)).all()
            ):
                raise InputError(f"prior: {name} {value}, expected three finite numbers")
        if (self.position is None) != (self.radius is None):
            raise InputError("prior: a position needs a radius, and a radius a position")
        if self.radius is not None and not 0 < self.radius < np.inf:
            raise InputError(f"prior: radius {self.radius}, expected a positive number")
        if (self.gravity is None) != (self.map_gravity is None):
            raise InputError("prior: gravity needs map_gravity, down in the map, and vice versa")
        for value in (self.gravity, self.map_gravity):
            if value is not None and not np.linalg.norm(value) > 0:
                raise InputError("prior: gravity of no length")
        if not 0 < self.gravity_degrees <= 180:
            raise InputError(
                f"prior: gravity_degrees {self.gravity_degrees}, expected above 0, at most 180"
            )

    def agrees(self, cam_from_world: np.ndarray) -> bool:
        """Whether a (3, 4) pose is one that the prior allows."""
        if self.position is not None and self.radius is not None:
            away = np.linalg.norm(camera_centre(cam_from_world) - self.position)
            if away > self.radius:
                return False
        if self.gravity is not None and self.map_gravity is not None:
            down = cam_from_world[:, :3] @ np.asarray(self.map_gravity, float)
            own = np.asarray(self.gravity, float)
            cosine = down @ own / (np.linalg.norm(down) * np.linalg.norm(own))
            return bool(np.degrees(np.arccos(np.clip(cosine, -1, 1))) <= self.gravity_degrees)
        return True


@dataclass(frozen=True)
class WithPrior:
    """The outcome of a query with a prior.

    Attributes:
        outcome: of the query.
        agrees: whether its pose is one that the prior allows; None without a pose. False says that
            the prior is false, or the pose.
        used: the pose was found among the images that the prior allows.
    """

    outcome: Localization
    agrees: bool | None
    used: bool


def images_near(compressed: CompressedMap, query: Query, prior: Prior) -> list[int] | None:
    """Rows of the images to match with, of those that were retrieved or of all; None where the
    prior says nothing of places.

    Whoever stands within the radius sees what images see that stand as near. Where there are none,
    the nearest ones are taken.
    """
    if prior.position is None or prior.radius is None:
        return None
    away = np.linalg.norm(camera_centres(compressed.cam_from_world) - prior.position, axis=1)
    if query.retrieved is not None:
        near = [row for row in query.retrieved if away[row] <= 2 * prior.radius]
        if near:
            return near
    order = np.argsort(away, kind="stable")[:PRIOR_IMAGES]
    near = [int(row) for row in order if away[row] <= 2 * prior.radius]
    return near or [int(row) for row in order]


def localize_with_prior(
    compressed: CompressedMap,
    query: Query,
    prior: Prior,
    localize: Callable[[Query], Localization],
    least: Callable[[Localization], int],
) -> WithPrior:
    """Localize among the images that the prior allows, and as ever where that is not sure.

    Args:
        compressed: the map.
        query: the query.
        prior: checked.
        localize: a query.
        least: inliers that the pose of an outcome needs.
    """
    images = images_near(compressed, query, prior)
    narrow: Localization | None = None
    if images is not None:
        narrow = localize(replace(query, retrieved=images))
        if narrow.cam_from_world is None or not prior.agrees(narrow.cam_from_world):
            narrow = None
        elif narrow.num_inliers >= SURE * least(narrow):
            return WithPrior(narrow, True, True)
    everywhere = localize(query)
    if narrow is not None and (
        everywhere.cam_from_world is None or narrow.num_inliers >= everywhere.num_inliers
    ):
        return WithPrior(narrow, True, True)
    pose = everywhere.cam_from_world
    return WithPrior(everywhere, None if pose is None else prior.agrees(pose), False)
