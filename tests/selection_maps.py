"""Small maps for the tests of the selectors."""

import numpy as np
import pycolmap

from hloc_dpqed.scene.reference import Observations
from hloc_dpqed.scene.visibility import Visibility
from hloc_dpqed.selection.base import SelectionProblem

CAMERA = pycolmap.Camera(model="PINHOLE", width=640, height=480, params=[500, 500, 320, 240])


def problem_of(seen_by, num_images: int, seed: int = 0, dim: int = 8) -> SelectionProblem:
    """A map in which point p is seen by the images ``seen_by[p]``.

    Cameras stand on a line and look at points in front of them; descriptors scatter around one
    of each point.
    """
    rng = np.random.default_rng(seed)
    rows = [[p for p, images in enumerate(seen_by) if i in images] for i in range(num_images)]
    visibility = Visibility.from_lists([np.array(r, np.int32) for r in rows], len(seen_by))
    xyz = np.c_[rng.uniform(-3, 3, (len(seen_by), 2)), rng.uniform(8, 20, len(seen_by))]
    poses = np.tile(np.eye(3, 4), (num_images, 1, 1))
    poses[:, 0, 3] = -np.linspace(-1, 1, num_images)
    image, point = visibility.image_of_observation(), visibility.indices
    in_camera = xyz[point] + poses[image][:, :, 3]
    pixels = in_camera[:, :2] / in_camera[:, 2:] * 500 + [320, 240]
    own = rng.normal(size=(len(seen_by), dim))
    descriptors = own[point] + 0.3 * rng.normal(size=(len(point), dim))
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True).clip(1e-9)
    observations = Observations(
        descriptors.astype(np.float16),
        rng.uniform(0.1, 1, len(point)).astype(np.float32),
        (pixels - 0.5).astype(np.float32),
        point,
        image,
        len(seen_by),
    )
    return SelectionProblem(
        visibility,
        xyz,
        rng.uniform(0.1, 2, len(seen_by)).astype(np.float32),
        [CAMERA],
        np.zeros(num_images, np.int32),
        poses,
        observations,
    )


def random_problem(seed: int = 0, num_images: int = 12, num_points: int = 200, dim: int = 8):
    """A random map with a few points that nobody sees, and its lists of images."""
    rng = np.random.default_rng(seed)
    lengths = np.minimum(
        rng.geometric(0.25, num_points) - (rng.random(num_points) < 0.05), num_images
    )
    seen_by = [set(rng.choice(num_images, n, replace=False).tolist()) for n in lengths]
    return problem_of(seen_by, num_images, seed, dim), seen_by
