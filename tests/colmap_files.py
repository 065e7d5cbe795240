"""COLMAP databases for tests, written by pycolmap, 3.13 or 4."""

from pathlib import Path

import h5py
import numpy as np
import pycolmap

TYPED = hasattr(pycolmap, "FeatureDescriptors")  # since 4.0


def typed(descriptors: np.ndarray, kind: str = "SIFT"):
    """Descriptors as this pycolmap's database takes them; float32 ones have a type other than
    SIFT."""
    if not TYPED:
        return descriptors
    number = getattr(pycolmap.FeatureExtractorType, kind)
    if descriptors.dtype == np.uint8:
        return pycolmap.FeatureDescriptors(number, descriptors)
    made = pycolmap.FeatureDescriptorsFloat(type=number, data=descriptors)
    return pycolmap.FeatureDescriptors.from_float(made)


def write_database(path: Path, images: dict, kind: str = "SIFT") -> Path:
    """A database with ``images``: names to keypoints (COLMAP's pixels), descriptors and camera."""
    path.unlink(missing_ok=True)
    with pycolmap.Database.open(str(path)) as database:
        for name, (keypoints, descriptors, camera) in images.items():
            camera_id = database.write_camera(camera)
            image = database.write_image(pycolmap.Image(name=name, camera_id=camera_id))
            if keypoints is not None:
                database.write_keypoints(image, keypoints.astype(np.float32))
            if descriptors is not None:
                database.write_descriptors(image, typed(descriptors, kind))
    return path


def sift_of(features: Path) -> dict[str, tuple[np.ndarray, np.ndarray, tuple[int, int]]]:
    """A synthetic scene's features as SIFT has them: keypoints in COLMAP's pixels, 128 bytes that
    stand for RootSIFT of length 512, and the image's size."""
    found = {}
    with h5py.File(features) as file:

        def visit(name, item):
            if isinstance(item, h5py.Group) and "keypoints" in item:
                unit = np.abs(item["descriptors"][:].T.astype(np.float32))
                codes = np.minimum(np.round(512 * unit), 255).astype(np.uint8)
                size = tuple(int(n) for n in item["image_size"])
                found[name] = (item["keypoints"][:] + np.float32(0.5), codes, size)

        file.visititems(visit)
    return found


def scene_database(scene, path: Path) -> Path:
    """The database of ``sift_of`` a synthetic scene; affine keypoints, ids in no order of names."""
    images = {}
    for name, (keypoints, codes, (width, height)) in sorted(sift_of(scene.features).items())[::-1]:
        six = np.column_stack([keypoints, np.tile([2, 0, 0, 2], (len(keypoints), 1))])
        params = [width, width / 2, height / 2]
        camera = pycolmap.Camera(model="SIMPLE_PINHOLE", width=width, height=height, params=params)
        images[name] = (six, codes, camera)
    return write_database(path, images)


def scene_features(scene, path: Path, unit: bool = False) -> Path:
    """The same features as ``scene_database`` in hloc's layout, of length 512 or 1."""
    with h5py.File(path, "w", libver="latest") as file:
        for name, (keypoints, codes, size) in sift_of(scene.features).items():
            group = file.create_group(name)
            group["keypoints"] = keypoints - np.float32(0.5)
            if unit:
                codes = codes.astype(np.float32)
                codes /= np.linalg.norm(codes, axis=1, keepdims=True)
            group["descriptors"] = np.ascontiguousarray(codes.T)
            group["image_size"] = np.array(size)
    return path
