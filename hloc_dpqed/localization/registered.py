"""Localized queries as images of the map's COLMAP model."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pycolmap

from ..maps.compressed import CompressedMap
from ..maps.reconstruction import to_reconstruction
from ..scene.rigid import compose, inverse


@dataclass(frozen=True)
class Registered:
    """A localized query with what it saw.

    Attributes:
        name: of the query.
        camera: its intrinsics.
        cam_from_world: (3, 4) float64.
        keypoints: (n, 2) pixels in COLMAP's convention, all of the query's.
        keypoint_index, point_index: (k,) int64, inliers: keypoints and rows of the map's points.
    """

    name: str
    camera: pycolmap.Camera
    cam_from_world: np.ndarray
    keypoints: np.ndarray
    keypoint_index: np.ndarray
    point_index: np.ndarray


def one_to_one(query: Registered, xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inliers of which no two share a keypoint or a point: those that reproject best.

    Returns:
        Keypoints and points, (m,) int64 each, by keypoint.
    """
    keypoints, points = query.keypoint_index, query.point_index
    if len(keypoints) == 0:
        return keypoints, points
    pose = query.cam_from_world
    projected = np.asarray(query.camera.img_from_cam(xyz[points] @ pose[:, :3].T + pose[:, 3]))
    off = np.linalg.norm(projected - query.keypoints[keypoints], axis=1)
    order = np.argsort(off, kind="stable")
    for column in (keypoints, points):
        _, first = np.unique(column[order], return_index=True)
        order = order[np.sort(first)]
    order = order[np.argsort(keypoints[order], kind="stable")]
    return keypoints[order], points[order]


def registered_model(
    compressed: CompressedMap, frames: Iterable[tuple[list[Registered], np.ndarray | None]]
) -> pycolmap.Reconstruction:
    """The map as ``maps.reconstruction.to_reconstruction`` has it, and the queries.

    ``points2D[i]`` of a query is its keypoint ``i``; inliers observe their points, each keypoint
    and each point once in an image. Ids of the queries' images, cameras, rigs and frames follow
    those of the map. Images of a rig are one frame; the first is the reference sensor.

    Args:
        compressed: the map.
        frames: images that were taken at once, and their (n, 3, 4) poses on the rig; None for an
            image alone.
    """
    model = to_reconstruction(compressed)
    rigs: dict[bytes, int] = {}
    image_id = compressed.num_images
    camera_id = len(compressed.cameras)
    frame_id = image_id
    for images, cams_from_rig in frames:
        poses = np.eye(4)[None, :3] if cams_from_rig is None else cams_from_rig
        poses = np.array([compose(pose, inverse(poses[0])) for pose in poses])
        key = _rig_key([query.camera for query in images], poses)
        if key not in rigs:
            # A rig's cameras are its own, although others may have the same intrinsics: a frame has
            # one image of each.
            rigs[key] = camera_id + 1  # the id of its first camera, and of the rig
            _add_rig(model, camera_id + 1, [query.camera for query in images], poses)
            camera_id += len(images)
        rig_id = rigs[key]
        frame_id += 1
        frame = pycolmap.Frame()
        frame.frame_id, frame.rig_id = frame_id, rig_id
        added = []
        for k, query in enumerate(images):
            image_id += 1
            image = pycolmap.Image(
                name=query.name,
                keypoints=query.keypoints.astype(np.float64),
                camera_id=rig_id + k,
                image_id=image_id,
            )
            image.frame_id = frame_id
            frame.add_data_id(image.data_id)
            added.append(image)
        frame.rig_from_world = pycolmap.Rigid3d(images[0].cam_from_world)
        model.add_frame(frame)
        for image in added:
            model.add_image(image)
        model.register_frame(frame_id)
        for image, query in zip(added, images, strict=True):
            keypoints, points = one_to_one(query, compressed.xyz)
            for keypoint, point in zip(keypoints.tolist(), points.tolist(), strict=True):
                element = pycolmap.TrackElement(image.image_id, keypoint)
                model.add_observation(point + 1, element)
    return model


def _rig_key(cameras: list[pycolmap.Camera], poses: np.ndarray) -> bytes:
    told = [
        f"{camera.model.name} {camera.width} {camera.height} {camera.params.tolist()}"
        for camera in cameras
    ]
    return "\n".join(told).encode() + poses.tobytes()


def _add_rig(
    model: pycolmap.Reconstruction,
    first_id: int,
    cameras: list[pycolmap.Camera],
    poses: np.ndarray,
) -> None:
    rig = pycolmap.Rig(rig_id=first_id)
    for k, known in enumerate(cameras):
        camera = pycolmap.Camera(
            model=known.model.name,
            width=known.width,
            height=known.height,
            params=known.params,
            camera_id=first_id + k,
        )
        model.add_camera(camera)
        if k == 0:
            rig.add_ref_sensor(camera.sensor_id)
        else:
            rig.add_sensor(camera.sensor_id, pycolmap.Rigid3d(poses[k]))
    model.add_rig(rig)
