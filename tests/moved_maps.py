"""A compressed map in another frame: the earth-centred one of a georeferenced model."""

from dataclasses import replace

import numpy as np
import pycolmap

from hloc_dpqed.maps.compressed import CompressedMap
from hloc_dpqed.scene.rigid import compose, inverse

# A place on the earth in metres from its centre, and how a scene stands there.
ECEF = np.array([4_278_990.7, 635_620.1, 4_672_060.3])
TURN = pycolmap.Rotation3d(np.array([0.3, -0.5, 0.4, 0.7]) / np.sqrt(0.99)).matrix()


def moved_pose(cam_from_world: np.ndarray, unit: float = 1.0) -> np.ndarray:
    """The pose of a camera in the world that ``moved_map`` makes."""
    scaled = np.concatenate([cam_from_world[:, :3], unit * cam_from_world[:, 3:]], 1)
    return compose(scaled, inverse(np.concatenate([TURN, ECEF[:, None]], 1)))


def moved_map(compressed: CompressedMap, unit: float = 1.0) -> CompressedMap:
    """The map scaled by ``unit``, turned and moved to ``ECEF``."""
    return replace(
        compressed,
        xyz=unit * compressed.xyz @ TURN.T + ECEF,
        cam_from_world=np.array([moved_pose(pose, unit) for pose in compressed.cam_from_world]),
    )
