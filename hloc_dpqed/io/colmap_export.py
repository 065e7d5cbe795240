"""Features of a model's images into a COLMAP database, for COLMAP's own matchers."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pycolmap

from ..errors import InputError

_PREFIX = "COLMAP's "


def check_exportable(extractor: str | None, dim: int, where: str) -> str:
    """Name of COLMAP's type of a map's descriptors.

    Args:
        extractor: that the map records, such as ``COLMAP's SIFT``; None where it tells none.
        dim: of the descriptors.
        where: the map file, for the message.

    Raises:
        InputError: COLMAP has no such type, or this pycolmap has not.
    """
    told = extractor or ""
    if "sift" in told.lower().replace("_", " ").replace("-", " ").split() and dim == 128:
        return "SIFT"
    name = told.removeprefix(_PREFIX)
    types = getattr(pycolmap, "FeatureExtractorType", None)  # since 4.0
    known = {} if types is None else types.__members__
    if told.startswith(_PREFIX) and name in known and name != "SIFT":
        return name
    raise InputError(
        f"{where}: made from descriptors of {extractor or 'an extractor that it does not tell'} "
        f"({dim} dimensions), which COLMAP's matchers (pycolmap {pycolmap.__version__}) do not "
        "know; expected SIFT or another of COLMAP's extractors"
    )


def sift_bytes(descriptors: np.ndarray) -> np.ndarray:
    """(N, 128) RootSIFT of length 1 to (N, 128) uint8, as COLMAP stores it: 512 times, rounded.

    What a codec has made negative is 0, and rows are made unit vectors again before.
    """
    positive = np.maximum(np.asarray(descriptors, np.float32), 0)
    norms = np.linalg.norm(positive, axis=1, keepdims=True)
    return np.clip(np.round(512 * positive / np.maximum(norms, 1e-12)), 0, 255).astype(np.uint8)


def write_database(
    path: Path,
    model: pycolmap.Reconstruction,
    features: Iterable[tuple[int, np.ndarray, np.ndarray]],
    kind: str,
) -> None:
    """Write a database of the cameras, rigs, frames and images of a model, under the same ids.

    Args:
        path: a new file.
        model: where each image is alone in its frame.
        features: id of each image, (N, 2) float32 keypoints in COLMAP's convention and (N, D)
            float32 descriptors; rows of its ``points2D``.
        kind: from ``check_exportable``.
    """
    with pycolmap.Database.open(str(path)) as database:
        for camera in model.cameras.values():
            database.write_camera(camera, use_camera_id=True)
        for rig in model.rigs.values():
            database.write_rig(rig, use_rig_id=True)
        for image in model.images.values():
            # A new one: the model's is bound to its frame, which is written after it.
            plain = pycolmap.Image(
                name=image.name, camera_id=image.camera_id, image_id=image.image_id
            )
            database.write_image(plain, use_image_id=True)
        for frame in model.frames.values():
            database.write_frame(frame, use_frame_id=True)
        for image_id, keypoints, descriptors in features:
            database.write_keypoints(image_id, np.ascontiguousarray(keypoints, np.float32))
            database.write_descriptors(image_id, _typed(descriptors, kind))


def _typed(descriptors: np.ndarray, kind: str):
    """Descriptors as this pycolmap's database takes them."""
    types = getattr(pycolmap, "FeatureExtractorType", None)
    if types is None:
        return sift_bytes(descriptors)
    if kind == "SIFT":
        return pycolmap.FeatureDescriptors(types.SIFT, sift_bytes(descriptors))
    rows = np.ascontiguousarray(descriptors, np.float32)
    made = pycolmap.FeatureDescriptorsFloat(type=getattr(types, kind), data=rows)
    return pycolmap.FeatureDescriptors.from_float(made)
