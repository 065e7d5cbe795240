"""Are keypoints where a model or a camera says they are? A feature file of another extraction, or
of images of another size, has names, counts and dimensions as they should be."""

from dataclasses import replace

import numpy as np
import pycolmap

from ..errors import InputError
from ..scene.reference import ReferenceMap
from .features import ImageFeatures

# How far a keypoint may lie from its place in the model: conventions differ by half a pixel,
# float16 rounds by one at 4,000 pixels, some models hold projections (COLMAP keeps errors to 4).
PLACE_PX, PLACE_PART = 4.0, 0.005  # pixels, or this part of the image's longer side
SHARE_IN_PLACE = 0.75  # of an image's observed keypoints, at least
MARGIN_PX, MARGIN_PART = 2.0, 0.01  # around the image, where a padded one was searched
OUTSIDE = 0.15  # of the keypoints, at most: a turned image has about 0.25 of them there


def scaled_keypoints(
    keypoints: np.ndarray, size: tuple[int, int], wanted: tuple[int, int]
) -> np.ndarray:
    """(N, 2) keypoints of an image of ``size`` in the same image of size ``wanted``.

    Pixel centres lie at integers, as hloc has them; sizes are (width, height).
    """
    ratio = np.divide(wanted, size).astype(np.float32)
    return ((keypoints + np.float32(0.5)) * ratio - np.float32(0.5)).astype(np.float32)


def features_in_model(
    features: ImageFeatures,
    rows: np.ndarray,
    positions: np.ndarray,
    camera: pycolmap.Camera,
    where: str,
) -> ImageFeatures:
    """An image's features in pixels of the model's camera, where they lie in their places.

    Args:
        features: of the image.
        rows: (n,) keypoint of each observation.
        positions: (n, 2) their places in the model, COLMAP's convention. Where they are all the
            same or not finite the model holds no places, and nothing is compared.
        camera: of the image, in the model.
        where: file and image, for the message.

    Returns:
        ``features`` themselves; keypoints of a resized image, as ``image_size`` tells it, are
        scaled.

    Raises:
        InputError: fewer than ``SHARE_IN_PLACE`` of them lie near their places; the line tells how
            far off they are, and whether they are in another order.
    """
    known = np.isfinite(positions).all(1)
    if not known.any() or (len(rows) > 1 and (positions[known] == positions[known][0]).all()):
        return features
    places = positions[known].astype(np.float32) - np.float32(0.5)
    limit = max(PLACE_PX, PLACE_PART * max(camera.width, camera.height))
    size, wanted = features.image_size, (camera.width, camera.height)
    attempts = [features]
    if size is not None and size != wanted and min(*size, *wanted) > 0:
        scaled = scaled_keypoints(features.keypoints, size, wanted)
        attempts.append(replace(features, keypoints=scaled, image_size=wanted))
    distances = []
    for attempt in attempts:
        distance = np.linalg.norm(attempt.keypoints[rows][known] - places, axis=1)
        if np.mean(distance <= limit) >= SHARE_IN_PLACE:
            return attempt
        distances.append(distance)
    best = int(np.argmin([np.median(distance) for distance in distances]))
    candidates = attempts[best].keypoints
    nearest = np.array([np.linalg.norm(candidates - place, axis=1).min() for place in places])
    reason = "they are of another extraction, or of other images"
    if float((nearest <= limit).mean()) >= SHARE_IN_PLACE and len(places) > 2:
        reason = "the same keypoints in another order"
    off = distances[best]
    raise InputError(
        f"{where}: {int((off > limit).sum())} of {len(off)} keypoints that the model observes lie "
        f"elsewhere than in the model, the median {np.median(off):.1f} pixels off: {reason}"
    )


def in_model(
    reference: ReferenceMap, image: int, features: ImageFeatures, where: str
) -> ImageFeatures:
    """``features_in_model`` of row ``image`` of a model; ``features`` where it holds no places."""
    rows = slice(reference.visibility.indptr[image], reference.visibility.indptr[image + 1])
    if reference.keypoint_positions is None or rows.start == rows.stop:
        return features
    return features_in_model(
        features,
        reference.keypoint_index[rows],
        reference.keypoint_positions[rows],
        reference.cameras[reference.camera_index[image]],
        where,
    )


def features_for_camera(
    features: ImageFeatures, camera: pycolmap.Camera, where: str
) -> ImageFeatures:
    """A query's features in pixels of its camera, as hloc has them.

    Where ``image_size`` is another size of the same shape, keypoints are scaled to the camera (and
    not the camera to them), so that thresholds stay in pixels of the query's camera.

    Args:
        features: of the query.
        camera: its intrinsics.
        where: file and image, for the message.

    Returns:
        ``features`` themselves where nothing is to be scaled.

    Raises:
        InputError: ``image_size`` is of another shape than the camera's image, or more than
            ``OUTSIDE`` of the keypoints lie outside the image.
    """
    size, wanted = features.image_size, (camera.width, camera.height)
    _check_inside(features.keypoints, size or wanted, size is not None, where)
    if size is None or size == wanted:
        return features
    if not same_shape(size, wanted):
        raise InputError(f"{where}: {_sizes(size, wanted)}")
    return replace(
        features,
        keypoints=scaled_keypoints(features.keypoints, size, wanted),
        image_size=wanted,
    )


def scaling(where: str, features: ImageFeatures, camera: pycolmap.Camera) -> str:
    """The line that tells of a first query whose keypoints are scaled to its camera."""
    width, height = features.image_size or (0, 0)
    return (
        f"{where}: features of an image of {width} x {height}, a camera of {camera.width} x "
        f"{camera.height}: keypoints are scaled to the camera, here and wherever sizes differ"
    )


def _sizes(size: tuple[int, int], wanted: tuple[int, int]) -> str:
    turned = " (turned by 90 degrees)" if same_shape(size, wanted[::-1]) else ""
    return (
        f"features of an image of {size[0]} x {size[1]}, but the query list's camera has "
        f"{wanted[0]} x {wanted[1]}: images of another shape{turned}, the intrinsics are not theirs"
    )


def same_shape(size: tuple[int, int], wanted: tuple[int, int]) -> bool:
    """Whether two (width, height) are of one image resized, each side rounded to whole pixels."""
    (w, h), (w2, h2) = size, wanted
    if min(w, h, w2, h2) < 1:
        return False
    # The smaller image's sides are off by less than a pixel each.
    low, high = (((w - 1) / w2, (w + 1) / w2), ((h - 1) / h2, (h + 1) / h2))
    if w > w2:
        low, high = (((w2 - 1) / w, (w2 + 1) / w), ((h2 - 1) / h, (h2 + 1) / h))
    return max(low[0], high[0]) <= min(low[1], high[1])


def _check_inside(
    keypoints: np.ndarray, size: tuple[int, int], of_features: bool, where: str
) -> None:
    if len(keypoints) == 0:
        return
    margin = max(MARGIN_PX, MARGIN_PART * max(size))
    outside = (keypoints < -margin).any(1) | (keypoints > np.array(size) - 1 + margin).any(1)
    if outside.mean() <= OUTSIDE:
        return
    low, high = keypoints.min(0), keypoints.max(0)
    whose = "their image_size" if of_features else "the query list's camera"
    raise InputError(
        f"{where}: keypoints from ({low[0]:.0f}, {low[1]:.0f}) to ({high[0]:.0f}, {high[1]:.0f}) "
        f"do not lie in the image of {size[0]} x {size[1]} that {whose} tells"
    )


def check_query_size(size: tuple[int, int] | None, camera: pycolmap.Camera, where: str) -> None:
    """Check that features are of images of the size of the camera, where hloc itself localizes.

    Raises:
        InputError: they are not; hloc would not scale them.
    """
    wanted = (camera.width, camera.height)
    if size is None or size == wanted:
        return
    if not same_shape(size, wanted):
        raise InputError(f"{where}: {_sizes(size, wanted)}")
    raise InputError(
        f"{where}: features of an image of {size[0]} x {size[1]}, but the query list's camera has "
        f"{wanted[0]} x {wanted[1]}; hloc scales neither, give intrinsics of the features' size"
    )
