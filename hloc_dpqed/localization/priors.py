"""What is known of a query's pose before it is localized, and whether the result agrees with it.

A prior narrows the images that a query is matched with. It decides nothing: the images that look
most like the query are always among them, so that RANSAC sees both places where the prior is false.
A pose that is found so is believed as ever and must agree with the prior; without such a pose the
query is localized as if there were none.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pycolmap

from ..errors import InputError
from ..maps.compressed import CompressedMap
from ..scene.projection import camera_centre, camera_centres, project_points
from .queries import Localization, Query

PRIOR_IMAGES = 8  # that are matched, at most, of those that a prior allows
GRAVITY_DEGREES = 5.0
ROTATION_DEGREES = 10.0
SURE = 2.0  # times the inliers that a pose needs: with fewer, the query is also localized alone
LOOKED_AT = 100  # the nearest images, of which those are taken that see most of what a pose sees
# The images that look most like a query, which are matched too: facades repeat, and among a false
# prior's images alone 5 % of castle-P30's queries have a pose of many inliers.
WITNESSES = 3
ORTHONORMAL = 1e-6  # how far a rotation's rows may be from that


@dataclass(frozen=True)
class Prior:
    """What is known of a pose; what is None is not known.

    Attributes:
        position: (3,) of the camera's centre in the map.
        radius: map units that the position, or that of ``cam_from_world``, may be off.
        gravity: (3,) down in the camera's frame (x right, y down, z forward), of any length.
        map_gravity: (3,) down in the map, which ``gravity`` needs.
        gravity_degrees: that the direction may be off.
        cam_from_world: (3, 4) a whole pose, such as the last frame's, instead of a position.
        rotation_degrees: that its rotation may be off.
    """

    position: np.ndarray | None = None
    radius: float | None = None
    gravity: np.ndarray | None = None
    map_gravity: np.ndarray | None = None
    gravity_degrees: float = GRAVITY_DEGREES
    cam_from_world: np.ndarray | None = None
    rotation_degrees: float = ROTATION_DEGREES

    @property
    def centre(self) -> np.ndarray | None:
        """(3,) where the camera should be; None where nothing says it."""
        if self.cam_from_world is not None:
            return camera_centre(np.asarray(self.cam_from_world, float))
        return None if self.position is None else np.asarray(self.position, float)

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
        if self.cam_from_world is not None:
            self._check_pose(np.asarray(self.cam_from_world, float))
        if (self.centre is None) != (self.radius is None):
            raise InputError("prior: a position needs a radius, and a radius a position")
        if self.radius is not None and not 0 < self.radius < np.inf:
            raise InputError(f"prior: radius {self.radius}, expected a positive number")
        if (self.gravity is None) != (self.map_gravity is None):
            raise InputError("prior: gravity needs map_gravity, down in the map, and vice versa")
        for value in (self.gravity, self.map_gravity):
            if value is not None and not np.linalg.norm(value) > 0:
                raise InputError("prior: gravity of no length")
        for name in ("gravity_degrees", "rotation_degrees"):
            if not 0 < getattr(self, name) <= 180:
                raise InputError(
                    f"prior: {name} {getattr(self, name)}, expected above 0, at most 180"
                )

    def _check_pose(self, pose: np.ndarray) -> None:
        if self.position is not None:
            raise InputError("prior: a position or a whole pose, not both")
        if pose.shape != (3, 4) or not np.isfinite(pose).all():
            raise InputError("prior: cam_from_world, expected (3, 4) finite numbers")
        rotation = pose[:, :3]
        off = np.abs(rotation @ rotation.T - np.eye(3)).max()
        if off > ORTHONORMAL or np.linalg.det(rotation) < 0:
            raise InputError("prior: cam_from_world, its first three columns are no rotation")

    def described(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            key: value.tolist() if isinstance(value, np.ndarray) else value
            for key, value in vars(self).items()
        }

    def distance(self, cam_from_world: np.ndarray) -> float | None:
        """Map units between where a (3, 4) pose is and where the prior has it, None if nowhere."""
        centre = self.centre
        if centre is None:
            return None
        return float(np.linalg.norm(camera_centre(cam_from_world) - centre))

    def turn(self, cam_from_world: np.ndarray) -> float | None:
        """Degrees between the rotation of a (3, 4) pose and the prior's, None if it has none."""
        if self.cam_from_world is None:
            return None
        return _angle(cam_from_world[:, :3] @ np.asarray(self.cam_from_world, float)[:, :3].T)

    def tilt(self, cam_from_world: np.ndarray) -> float | None:
        """Degrees between down as a (3, 4) pose and as the prior has it, None if it has none."""
        if self.gravity is None or self.map_gravity is None:
            return None
        down = cam_from_world[:, :3] @ np.asarray(self.map_gravity, float)
        own = np.asarray(self.gravity, float)
        cosine = down @ own / (np.linalg.norm(down) * np.linalg.norm(own))
        return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))

    def agrees(self, cam_from_world: np.ndarray) -> bool:
        """Whether a (3, 4) pose is one that the prior allows."""
        limits = (
            (self.distance(cam_from_world), self.radius),
            (self.turn(cam_from_world), self.rotation_degrees),
            (self.tilt(cam_from_world), self.gravity_degrees),
        )
        return all(off is None or (most is not None and off <= most) for off, most in limits)


def _angle(rotation: np.ndarray) -> float:
    """Degrees of a (3, 3) rotation."""
    return float(np.degrees(pycolmap.Rotation3d(rotation).angle()))


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
    """Rows of the images to match with, ``PRIOR_IMAGES`` at most; None where the prior says nothing
    of places.

    Whoever stands within the radius sees what images see that stand as near: of these the first
    retrieved ones, or where none were the nearest. Of a whole pose, those that see most of what it
    sees, if any does.
    """
    centre = prior.centre
    if centre is None or prior.radius is None:
        return None
    away = np.linalg.norm(camera_centres(compressed.cam_from_world) - centre, axis=1)
    if prior.cam_from_world is not None:
        pose = np.asarray(prior.cam_from_world, float)
        seen = images_seeing(compressed, query.camera, pose, PRIOR_IMAGES)
        if seen:
            return seen
    if query.retrieved is not None:
        near = [row for row in query.retrieved if away[row] <= 2 * prior.radius]
        if near:
            return near[:PRIOR_IMAGES]
    order = np.argsort(away, kind="stable")[:PRIOR_IMAGES]
    near = [int(row) for row in order if away[row] <= 2 * prior.radius]
    return near or [int(row) for row in order]


def images_seeing(
    compressed: CompressedMap, camera: pycolmap.Camera, pose: np.ndarray, count: int
) -> list[int]:
    """Rows of the images that see most of the points which lie in a camera's view, best first.

    Args:
        compressed: the map.
        camera: its intrinsics.
        pose: (3, 4) camera from world.
        count: at most; only the ``LOOKED_AT`` nearest images are looked at.
    """
    centre = camera_centre(pose)
    away = np.linalg.norm(camera_centres(compressed.cam_from_world) - centre, axis=1)
    nearest = np.argsort(away, kind="stable")[:LOOKED_AT].tolist()
    rows = [compressed.visibility[image] for image in nearest]
    inside = np.zeros(compressed.num_points, bool)
    for of_image in rows:
        inside[of_image] = True
    points = np.flatnonzero(inside)
    inside[points] = project_points(compressed.xyz[points], camera, pose)[1]
    votes = np.array([np.count_nonzero(inside[of_image]) for of_image in rows], np.int64)
    best = np.argsort(-votes, kind="stable")[:count]
    return [nearest[k] for k in best if votes[k] > 0]


def localize_with_prior(
    compressed: CompressedMap,
    query: Query,
    prior: Prior,
    localize: Callable[[Query], Localization],
    least: Callable[[Localization], int],
    most_alike: Callable[[Query], list[int]],
    follow: Callable[[Query, list[int]], Localization | None] | None = None,
) -> WithPrior:
    """Localize among the images that the prior allows, and as ever where that is not sure.

    Args:
        compressed: the map.
        query: the query.
        prior: checked.
        localize: a query.
        least: inliers that the pose of an outcome needs.
        most_alike: images that look like a query for which none were retrieved, best first.
        follow: a query among the points of images, quickly, None where it is not sure; see
            ``following``. None where that cannot be.
    """
    images = images_near(compressed, query, prior)
    narrow: Localization | None = None
    if images is not None:
        alike = most_alike(query) if query.retrieved is None else list(query.retrieved)
        together = list(dict.fromkeys([*alike[:WITNESSES], *images]))
        if follow is not None:
            quick = follow(query, together)
            pose = None if quick is None else quick.cam_from_world
            if quick is not None and pose is not None and prior.agrees(pose):
                return WithPrior(quick, True, True)
        else:
            narrow = localize(replace(query, retrieved=together))
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
