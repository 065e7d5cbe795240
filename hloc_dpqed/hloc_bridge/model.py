"""A map as hloc's ``read_model`` gives a COLMAP model."""

import numpy as np
import pycolmap

from ..maps.compressed import CompressedMap
from ..maps.image_rows import image_rows
from ..matching.hloc_models import hloc_module


def model_of_map(compressed: CompressedMap) -> tuple[dict, dict, dict]:
    """The map as hloc's ``read_model`` gives a COLMAP model: cameras, images, points3D by id."""
    rw = hloc_module("utils.read_write_model")
    cameras = {
        i + 1: rw.Camera(i + 1, c.model.name, c.width, c.height, np.array(c.params))
        for i, c in enumerate(compressed.cameras)
    }
    images = {}
    image_ids: list[list[int]] = [[] for _ in range(compressed.num_points)]
    indices: list[list[int]] = [[] for _ in range(compressed.num_points)]
    for i, name in enumerate(compressed.image_names):
        rows = image_rows(compressed, i)
        pose = pycolmap.Rigid3d(compressed.cam_from_world[i])
        images[i + 1] = rw.Image(
            id=i + 1,
            qvec=pose.rotation.quat[[3, 0, 1, 2]],
            tvec=pose.translation,
            camera_id=int(compressed.camera_index[i]) + 1,
            name=name,
            xys=rows.keypoints.astype(np.float64) + 0.5,
            point3D_ids=rows.points.astype(np.int64) + 1,
        )
        for j, point in enumerate(rows.points.tolist()):
            image_ids[point].append(i + 1)
            indices[point].append(j)
    points = {
        p + 1: rw.Point3D(
            id=p + 1,
            xyz=compressed.xyz[p],
            rgb=np.zeros(3, np.uint8),
            error=np.array(-1.0),
            image_ids=np.array(image_ids[p], np.int64),
            point2D_idxs=np.array(indices[p], np.int64),
        )
        for p in range(compressed.num_points)
    }
    return cameras, images, points
