"""Hold database images out of a map, to use them as queries whose poses are known.

Defaults (codec, loss, selector, plan) are chosen on such pseudo-queries. What a held-out image
contributed to the map is undone: its observations are dropped, the points that it saw are
triangulated again from the remaining observations, and points with fewer than two observations
go. Two things stay that the image had a part in: the poses and intrinsics of the others, which the
map states as known, and the grouping of observations into tracks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pycolmap

from ..errors import InputError
from ..io.features import ImageFeatures
from ..io.same_image import in_model
from ..scene.reference import Observations, ReferenceMap
from ..scene.triangulation import reprojection_errors, triangulate_tracks, undistort
from ..scene.visibility import Visibility


@dataclass(frozen=True)
class HeldOutImage:
    """A database image in the role of a query.

    Attributes:
        name: its name.
        image: its row in the full map.
        camera: its intrinsics.
        cam_from_world: (3, 4) float64, its pose: the ground truth.
        features: all its local features, or None where no reader was given.
        retrieved: names of the database images retrieved for it, best first; empty where no
            global descriptors were given.
    """

    name: str
    image: int
    camera: pycolmap.Camera
    cam_from_world: np.ndarray
    features: ImageFeatures | None
    retrieved: list[str]


@dataclass(frozen=True)
class HoldOut:
    """A map without some of its images, and these images as queries.

    Attributes:
        reference: the smaller map; ``point_ids`` and ``image_ids`` are those of the full map.
        observations: of the smaller map.
        queries: the images held out, in the order of their rows.
        point_rows: (P',) int64, the row in the full map of each kept point.
        image_rows: (I',) int64, the row in the full map of each kept image.
    """

    reference: ReferenceMap
    observations: Observations
    queries: list[HeldOutImage]
    point_rows: np.ndarray
    image_rows: np.ndarray


def hold_out(
    reference: ReferenceMap,
    observations: Observations,
    held_out: np.ndarray,
    *,
    read_features: Callable[[str], ImageFeatures] | None = None,
    global_descriptors: np.ndarray | None = None,
    num_retrieved: int = 10,
    min_angle: float = 1.5,
) -> HoldOut:
    """Take images out of a map and use them as queries.

    Args:
        reference: the full map.
        observations: of the full map, in the order of its visibility.
        held_out: rows of the images to hold out.
        read_features: gives an image's local features by name, such as ``LocalFeatures.read``.
        global_descriptors: (I, Dg) float32, L2-normalised, of the full map's images; gives each
            query its ``num_retrieved`` nearest remaining images.
        num_retrieved: length of the retrieval lists.
        min_angle: degrees; points that were triangulated again and whose rays all lie within this
            angle are dropped, as COLMAP's mapper does (1.5 by default there).

    Raises:
        InputError: no image, an unknown image or every image is held out.
    """
    held_out = np.unique(np.asarray(held_out, np.int64))
    if len(held_out) == 0 or held_out[0] < 0 or held_out[-1] >= reference.num_images:
        raise InputError(f"images to hold out: expected rows in 0 .. {reference.num_images - 1}")
    if len(held_out) == reference.num_images:
        raise InputError("every image is held out, nothing is left to build a map from")
    visibility = reference.visibility
    is_out = np.zeros(reference.num_images, bool)
    is_out[held_out] = True
    image_rows = np.flatnonzero(~is_out)
    out_observation = is_out[visibility.image_of_observation()]
    affected = np.zeros(reference.num_points, bool)
    affected[visibility.indices[out_observation]] = True

    xyz = reference.xyz.copy()
    error = reference.reprojection_error.copy()
    left = np.flatnonzero(~out_observation)
    keep = np.bincount(visibility.indices[left], minlength=reference.num_points) >= 2
    again = np.flatnonzero(affected & keep)
    xyz[again], angle, error[again] = _triangulate_again(reference, observations, left, again)
    keep[again[(angle < min_angle) | ~np.isfinite(xyz[again]).all(1)]] = False
    point_rows = np.flatnonzero(keep)

    # Rows of the kept images, then columns of the kept points.
    lengths = np.diff(visibility.indptr)[image_rows]
    images_left = Visibility(
        np.r_[0, np.cumsum(lengths)].astype(np.int64),
        visibility.indices[left],
        reference.num_points,
    )
    small, kept = images_left.keep_points(point_rows)
    kept = left[kept]
    smaller = ReferenceMap(
        image_names=[reference.image_names[i] for i in image_rows],
        image_ids=reference.image_ids[image_rows],
        cameras=reference.cameras,
        camera_index=reference.camera_index[image_rows],
        cam_from_world=reference.cam_from_world[image_rows],
        point_ids=reference.point_ids[point_rows],
        xyz=xyz[point_rows],
        reprojection_error=error[point_rows],
        visibility=small,
        keypoint_index=reference.keypoint_index[kept],
    )
    smaller_observations = Observations(
        observations.descriptors[kept],
        observations.scores[kept],
        observations.keypoints[kept],
        small.indices,
        small.image_of_observation(),
        len(point_rows),
    )
    retrieved: list[list[str]] = [[] for _ in held_out]
    if global_descriptors is not None:
        similarity = global_descriptors[held_out] @ global_descriptors[image_rows].T
        best = np.argsort(-similarity, axis=1, kind="stable")[:, :num_retrieved]
        retrieved = [[smaller.image_names[i] for i in row] for row in best]
    queries = []
    for i, names in zip(held_out, retrieved, strict=True):
        name = reference.image_names[i]
        features = None
        if read_features is not None:
            features = in_model(reference, int(i), read_features(name), f"image {name!r}")
        camera = reference.cameras[reference.camera_index[i]]
        pose = reference.cam_from_world[i]
        queries.append(HeldOutImage(name, int(i), camera, pose, features, names))
    return HoldOut(smaller, smaller_observations, queries, point_rows, image_rows)


def _triangulate_again(
    reference: ReferenceMap, observations: Observations, left: np.ndarray, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points from the observations ``left``: xyz, angle in degrees, mean error in pixels."""
    new_row = np.full(reference.num_points, -1, np.int64)
    new_row[points] = np.arange(len(points))
    track = new_row[reference.visibility.indices[left]]
    mine = np.flatnonzero(track >= 0)
    mine = mine[np.argsort(track[mine], kind="stable")]
    track, rows = track[mine], left[mine]
    lengths = np.bincount(track, minlength=len(points))
    images = reference.visibility.image_of_observation()[rows]
    pixels = observations.keypoints[rows].astype(np.float64) + 0.5  # hloc's to COLMAP's
    rays = undistort(pixels, reference.cameras, reference.camera_index[images])
    xyz, angle = triangulate_tracks(
        rays, reference.cam_from_world, images, np.r_[0, np.cumsum(lengths)].astype(np.int64)
    )
    errors = reprojection_errors(
        xyz[track],
        pixels,
        reference.cameras,
        reference.camera_index,
        reference.cam_from_world,
        images,
    )
    sums = np.bincount(track, np.where(np.isfinite(errors), errors, 0), minlength=len(points))
    return xyz, angle, (sums / np.maximum(lengths, 1)).astype(np.float32)
