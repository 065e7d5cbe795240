"""The frame of a file's numbers, so that they do not depend on the map's own (source: ours).

A model may be turned, moved and scaled without becoming another one. Grids have axes, and points an
order along them: taken along the axes of the model they would round otherwise in every frame. They
are taken along those of the first image's camera, which turn with the model.
"""

from dataclasses import dataclass

import numpy as np

from ..scene.projection import camera_centres


@dataclass(frozen=True)
class Frame:
    """A point x of the map is R (x - ``origin``) in the frame, R the rotation of ``quat``.

    Attributes:
        origin: (3,) float64, map units.
        quat: (4,) float64 (w, x, y, z), of length 1 but for its rounding.
    """

    origin: np.ndarray
    quat: np.ndarray

    @property
    def rotation(self) -> np.ndarray:
        """(3, 3) float64."""
        w, x, y, z = self.quat.tolist()
        length = np.sqrt(w * w + x * x + y * y + z * z)
        return rotation_matrices(self.quat[None] / length)[0]

    def points(self, xyz: np.ndarray) -> np.ndarray:
        """(n, 3) points of the map, in the frame."""
        return (xyz - self.origin) @ self.rotation.T

    def points_in_map(self, local: np.ndarray) -> np.ndarray:
        """(n, 3) points of the frame, in the map; to the last bit as docs/format.md says."""
        r = self.rotation
        # No matrix product: how that rounds depends on the library.
        turned = local[:, 0:1] * r[0] + local[:, 1:2] * r[1] + local[:, 2:3] * r[2]
        return self.origin + turned

    def poses(self, cam_from_world: np.ndarray) -> np.ndarray:
        """(n, 3, 4) poses in the map to poses in the frame."""
        rotations = cam_from_world[:, :, :3] @ self.rotation.T
        return _poses(rotations, self.points(camera_centres(cam_from_world)))

    def poses_in_map(self, rotations: np.ndarray, centres: np.ndarray) -> np.ndarray:
        """Cameras of the frame, their rotations (n, 3, 3) and centres (n, 3), to (n, 3, 4) poses
        in the map; to the last bit as docs/format.md says."""
        q, r, x = rotations, self.rotation, self.points_in_map(centres)
        turned = q[:, :, 0:1] * r[0] + q[:, :, 1:2] * r[1] + q[:, :, 2:3] * r[2]
        moved = turned[:, :, 0] * x[:, 0:1] + turned[:, :, 1] * x[:, 1:2]
        moved = moved + turned[:, :, 2] * x[:, 2:3]
        return np.concatenate([turned, -moved[:, :, None]], 2)


def _poses(rotations: np.ndarray, centres: np.ndarray) -> np.ndarray:
    translations = -np.einsum("nij,nj->ni", rotations, centres)
    return np.concatenate([rotations, translations[:, :, None]], 2)


def first_camera_quat(cam_from_world: np.ndarray) -> np.ndarray:
    """The first image's rotation as a quaternion of nine decimals; (4,) float64."""
    if len(cam_from_world) == 0:
        return np.array([1.0, 0.0, 0.0, 0.0])
    return np.round(quaternions(cam_from_world[:1, :, :3])[0], 9)


def quaternions(rotations: np.ndarray) -> np.ndarray:
    """(I, 3, 3) rotations to (I, 4) unit quaternions (w, x, y, z) with largest component > 0."""
    r = rotations
    diagonal = np.stack([r[:, 0, 0], r[:, 1, 1], r[:, 2, 2]], 1)
    # Four times the square of each component; starting from the largest is stable.
    squares = 1 + np.stack(
        [diagonal @ s for s in ([1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1])], 1
    )
    largest = squares.argmax(1)
    products = np.empty((len(r), 4, 4))
    products[:, np.arange(4), np.arange(4)] = squares
    x, y, z = r[:, 2, 1] - r[:, 1, 2], r[:, 0, 2] - r[:, 2, 0], r[:, 1, 0] - r[:, 0, 1]
    for i, j, value in (
        (0, 1, x),
        (0, 2, y),
        (0, 3, z),
        (1, 2, r[:, 0, 1] + r[:, 1, 0]),
        (1, 3, r[:, 0, 2] + r[:, 2, 0]),
        (2, 3, r[:, 1, 2] + r[:, 2, 1]),
    ):
        products[:, i, j] = products[:, j, i] = value
    q = products[np.arange(len(r)), largest]
    return q / np.linalg.norm(q, axis=1, keepdims=True)


def rotation_matrices(q: np.ndarray) -> np.ndarray:
    """(I, 4) unit quaternions (w, x, y, z) to (I, 3, 3) rotations."""
    w, x, y, z = q.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, 1) for row in rows], 1)
