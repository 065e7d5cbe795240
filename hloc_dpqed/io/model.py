"""COLMAP models to arrays, and back."""

import itertools
from pathlib import Path

import numpy as np
import pycolmap
from tqdm import tqdm

from ..errors import InputError
from ..logger import logger
from ..scene.projection import FURTHEST, camera_centres, too_far
from ..scene.reference import Observations, ReferenceMap
from ..scene.visibility import Visibility
from .features import open_features
from .model_files import check_binary_model, missing_track_element, unknown_camera_model
from .same_image import in_model

# Where COLMAP and its users put models inside of a folder.
NESTED = ("0", "sparse/0", "sparse", "sfm", "model", "colmap/sparse/0")


def load_reconstruction(path: Path) -> pycolmap.Reconstruction:
    """Read a COLMAP model (binary or text).

    Raises:
        InputError: the folder holds no readable model.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path}: no such folder, expected a COLMAP model")
    ending = _model_ending(path)
    if ending is None:
        line = f"{path}: expected cameras, images and points3D as .bin or .txt"
        inside = next((n for n in NESTED if _model_ending(path / n) is not None), None)
        if inside is not None:
            line += f"; there is a model in {path / inside}, pass that folder"
        raise InputError(line)
    if ending == ".bin":
        check_binary_model(path)
    try:
        return pycolmap.Reconstruction(str(path))
    except Exception as error:  # pycolmap raises several C++ exception types for damaged files
        reason = (
            unknown_camera_model(path, ending)
            or missing_track_element(path, ending)
            or _brief(error)
        )
        raise InputError(f"{path}: not a readable COLMAP model ({reason})") from error


def _model_ending(path: Path) -> str | None:
    """``.bin`` or ``.txt``, of the model's files that the folder holds; None without a model."""
    for ending in (".bin", ".txt"):
        if all((path / (name + ending)).is_file() for name in ("cameras", "images", "points3D")):
            return ending
    return None


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def reference_from_reconstruction(
    reconstruction: pycolmap.Reconstruction, source: str = "the model"
) -> ReferenceMap:
    """Arrays of a reconstruction's registered images and of its points.

    Several observations of a point in one image collapse to the one of lowest keypoint index.
    Points more than ``FURTHEST`` times the scene's size away are left out; the log says how many.

    Raises:
        InputError: no registered image, two images of one name, a name that is not UTF-8, an image
            that sees a point which the model lacks, or a pose or point that is not finite.
    """
    images = [im for im in reconstruction.images.values() if im.has_pose]
    if not images:
        raise InputError(f"{source}: no registered image")
    try:
        images.sort(key=lambda im: im.name)
    except UnicodeDecodeError as cause:
        raise InputError(f"{source}: an image name is not UTF-8 ({cause})") from cause
    names = [im.name for im in images]
    for first, second in itertools.pairwise(names):
        if first == second:
            raise InputError(f"{source}: image {first!r} is registered twice")
    points = reconstruction.points3D
    point_ids = _ids(sorted(points.keys()))
    xyz = np.array([points[i].xyz for i in point_ids], np.float64).reshape(-1, 3)
    error = np.array([points[i].error for i in point_ids], np.float32)
    if not np.isfinite(xyz).all():
        bad = int(point_ids[~np.isfinite(xyz).all(1)][0])
        raise InputError(f"{source}: point {bad} has coordinates that are not finite")
    poses = np.array([_unit_pose(im.cam_from_world()) for im in images], np.float64)
    if not np.isfinite(poses).all():
        bad_image = names[int(np.flatnonzero(~np.isfinite(poses).all((1, 2)))[0])]
        raise InputError(f"{source}: the pose of image {bad_image!r} is not finite")
    camera_ids = sorted({im.camera_id for im in images})
    camera_row = {camera_id: row for row, camera_id in enumerate(camera_ids)}

    indptr = np.zeros(len(images) + 1, np.int64)
    rows_all, keypoints_all, positions_all = [], [], []
    for i, image in enumerate(images):
        keypoints, ids, places = observed_points(image)
        unknown = ids[~np.isin(ids, point_ids)]
        if len(unknown):
            raise InputError(
                f"{source}: image {names[i]!r} sees point {unknown[0]}, which the model lacks"
            )
        rows = np.searchsorted(point_ids, ids)
        # np.unique keeps the first of equal rows, and keypoints come in increasing order.
        rows, first = np.unique(rows, return_index=True)
        rows_all.append(rows.astype(np.int32))
        keypoints_all.append(keypoints[first].astype(np.int32))
        positions_all.append(places[first])
        indptr[i + 1] = indptr[i] + len(rows)
    visibility = Visibility(indptr, np.concatenate(rows_all), len(point_ids))
    keypoint_index, positions = np.concatenate(keypoints_all), np.concatenate(positions_all)
    near = ~too_far(xyz, xyz, camera_centres(poses))
    if not near.all():
        logger.warning(
            f"{source}: {np.count_nonzero(~near)} of {len(xyz)} points lie more than "
            f"{FURTHEST:g} times the scene's size away and are left out, the first is point "
            f"{point_ids[~near][0]}"
        )
        visibility, kept = visibility.keep_points(np.flatnonzero(near))
        keypoint_index, positions = keypoint_index[kept], positions[kept]
        point_ids, xyz, error = point_ids[near], xyz[near], error[near]
    return ReferenceMap(
        image_names=names,
        image_ids=np.array([im.image_id for im in images], np.int64),
        cameras=[reconstruction.cameras[i] for i in camera_ids],
        camera_index=np.array([camera_row[im.camera_id] for im in images], np.int32),
        cam_from_world=poses,
        point_ids=point_ids,
        xyz=xyz,
        reprojection_error=error,
        visibility=visibility,
        keypoint_index=keypoint_index,
        num_keypoints=np.array([im.num_points2D() for im in images], np.int64),
        keypoint_positions=positions,
    )


def _unit_pose(pose: pycolmap.Rigid3d) -> np.ndarray:
    """(3, 4) [R | t]; COLMAP keeps the length of a quaternion that a text file rounds."""
    norm = float(np.linalg.norm(pose.rotation.quat))
    if 1e-12 < abs(norm - 1) < 1e-3:  # farther off it is no rotation, and refused as such
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(pose.rotation.quat / norm), pose.translation)
    return pose.matrix()


def observed_points(image: pycolmap.Image) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keypoint rows with a 3D point, (n,) int64, the ids of those points, (n,), and the places of
    the keypoints, (n, 2) float32 pixels in COLMAP's convention."""
    keypoints = np.asarray(image.get_observation_point2D_idxs(), np.int64)
    points2D = image.points2D
    observed = [points2D[i] for i in keypoints]
    positions = np.array([point.xy for point in observed], np.float32).reshape(-1, 2)
    return keypoints, _ids([point.point3D_id for point in observed]), positions


def _ids(ids: list[int]) -> np.ndarray:
    """int64, or uint64 where an id needs it."""
    return np.array(ids, np.uint64 if max(ids, default=0) > np.iinfo(np.int64).max else np.int64)


def read_reference(path: Path) -> ReferenceMap:
    """Read the COLMAP model in folder ``path`` as arrays."""
    return reference_from_reconstruction(load_reconstruction(path), str(path))


def read_observations(
    reference: ReferenceMap, features: Path, progress: bool = False
) -> Observations:
    """Descriptors, scores and keypoints of the map's observations, streamed image by image.

    Raises:
        InputError: an image is missing, has another number of keypoints than in the model or has
            them in other places, or has descriptors of another dimension than the images before it.
    """
    visibility = reference.visibility
    count = visibility.num_observations
    descriptors: np.ndarray | None = None
    scores = np.ones(count, np.float32)
    keypoints = np.zeros((count, 2), np.float32)
    with open_features(features) as file:
        names = tqdm(reference.image_names, desc="Reading features", disable=not progress)
        for i, name in enumerate(names):
            rows = slice(visibility.indptr[i], visibility.indptr[i + 1])
            index = reference.keypoint_index[rows]
            if len(index) == 0:
                continue  # such as a query that the model still holds
            image = file.read(name)
            expected = reference.num_keypoints
            if expected is not None and expected[i] != len(image.keypoints):
                reason = "they are out of step"
                if len(index) > 0.9 * expected[i]:  # some are of one point, and count once
                    reason = (
                        "the model lists only triangulated points, expected one that lists every "
                        "keypoint of the feature file, in its order, as hloc writes it"
                    )
                raise InputError(
                    f"{features}: image {name!r} has {len(image.keypoints)} keypoints, but "
                    f"{expected[i]} in the model; {reason}"
                )
            if len(image.keypoints) == 0:
                continue  # some extractors write no dimension then
            if descriptors is None:
                descriptors = np.zeros((count, image.descriptors.shape[1]), np.float16)
            if image.descriptors.shape[1] != descriptors.shape[1]:
                raise InputError(
                    f"{features}: image {name!r} has descriptors of "
                    f"{image.descriptors.shape[1]} dimensions, expected {descriptors.shape[1]}"
                )
            image = in_model(reference, i, image, f"{features}: image {name!r}")
            descriptors[rows] = image.descriptors[index]
            scores[rows] = image.scores[index]
            keypoints[rows] = image.keypoints[index]
    if descriptors is None:
        raise InputError(f"{features}: no image of the model has a keypoint")
    return Observations(
        descriptors,
        scores,
        keypoints,
        visibility.indices,
        visibility.image_of_observation(),
        reference.num_points,
    )
