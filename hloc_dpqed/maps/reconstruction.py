"""A compressed map as a COLMAP model in memory."""

import numpy as np
import pycolmap

from .compressed import CompressedMap
from .image_rows import image_rows


def to_reconstruction(compressed: CompressedMap) -> pycolmap.Reconstruction:
    """The map as a model: cameras, registered images, points and tracks.

    ``points2D[i]`` of an image is row ``i`` of ``image_rows`` (projections, in COLMAP's
    convention), and the point of row ``r`` has id ``r + 1``. Image and camera ids are rows plus
    one. A point of several rows has the id of the first, which has the whole track. A point that no
    image shows, and another row, keeps its id with an empty track. Colours are black and errors
    unknown.
    """
    model = pycolmap.Reconstruction()
    for row, camera in enumerate(compressed.cameras):
        # Rigs and frames by hand: pycolmap 3.13 has no shortcut for trivial ones.
        camera = pycolmap.Camera(
            model=camera.model.name,
            width=camera.width,
            height=camera.height,
            params=camera.params,
            camera_id=row + 1,
        )
        model.add_camera(camera)
        rig = pycolmap.Rig(rig_id=row + 1)
        rig.add_ref_sensor(camera.sensor_id)
        model.add_rig(rig)

    rows = [image_rows(compressed, i) for i in range(compressed.num_images)]
    for i, name in enumerate(compressed.image_names):
        camera_id = int(compressed.camera_index[i]) + 1
        xy, visible = compressed.project(i)
        image = pycolmap.Image(
            name=name, keypoints=xy[visible], camera_id=camera_id, image_id=i + 1
        )
        frame = pycolmap.Frame()
        frame.frame_id = image.frame_id = i + 1
        frame.rig_id = camera_id
        frame.add_data_id(image.data_id)
        frame.rig_from_world = pycolmap.Rigid3d(compressed.cam_from_world[i])
        model.add_frame(frame)
        model.add_image(image)
        model.register_frame(frame.frame_id)

    for xyz, elements in zip(compressed.xyz, _track_elements(rows, compressed), strict=True):
        track = pycolmap.Track()
        for image_id, index in elements:
            track.add_element(int(image_id), int(index))
        model.add_point3D(xyz, track)
    return model


def _track_elements(rows, compressed: CompressedMap) -> list[np.ndarray]:
    """(image id, points2D row) of each point's observations: P arrays of shape (n, 2) int64."""
    counts = [len(r.points) for r in rows]
    points = np.concatenate([r.points for r in rows]) if rows else np.zeros(0, np.int64)
    points = compressed.place_of_point[points]
    image_ids = np.repeat(np.arange(1, len(rows) + 1), counts)
    indices = np.concatenate([np.arange(n) for n in counts]) if rows else np.zeros(0, np.int64)
    order = np.argsort(points, kind="stable")
    elements = np.stack([image_ids, indices], 1)[order]
    ends = np.cumsum(np.bincount(points, minlength=compressed.num_points))
    return np.split(elements, ends[:-1]) if len(ends) else []
