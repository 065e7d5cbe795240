"""Images in spatial order, and folds of them that are spread over the scene."""

import numpy as np

from ..errors import InputError
from .projection import camera_centres


def spread_folds(cam_from_world: np.ndarray, num_folds: int, seed: int = 0) -> np.ndarray:
    """Divide images into folds, each of which is spread over the whole scene.

    Images are put in the order of a k-d tree over their centres, so that neighbours in the order
    are neighbours in space; of each ``num_folds`` consecutive ones every fold gets one.

    Args:
        cam_from_world: (I, 3, 4) float64 poses.
        num_folds: 2 to I.
        seed: of the draw within each group of neighbours.

    Returns:
        (I,) int64, the fold of each image; sizes differ by at most one.

    Raises:
        InputError: ``num_folds`` is not in 2 .. I.
    """
    count = len(cam_from_world)
    if not 2 <= num_folds <= count:
        raise InputError(f"{num_folds} folds: expected 2 to {count}, the number of images")
    order = image_order(cam_from_world)
    rng = np.random.default_rng(seed)
    folds = np.empty(count, np.int64)
    for start in range(0, count, num_folds):
        part = order[start : start + num_folds]
        folds[part] = rng.permutation(num_folds)[: len(part)]
    return folds


def image_order(cam_from_world: np.ndarray) -> np.ndarray:
    """The spatial order of cameras given as (I, 3, 4) poses: (I,) int64.

    Along the axes of the first camera, so that a turned map has the same order.
    """
    return spatial_order(camera_centres(cam_from_world) @ cam_from_world[:1, :, :3].sum(0).T)


def spatial_order(xyz: np.ndarray) -> np.ndarray:
    """Order of (n, 3) points along the leaves of a k-d tree: (n,) int64.

    Cells are halved at the median of their widest axis; ties are broken by the lower row.
    """
    ordered: list[np.ndarray] = []
    stack = [np.arange(len(xyz))]
    while stack:
        rows = stack.pop()
        if len(rows) <= 1:
            ordered.append(rows)
            continue
        axis = int(np.ptp(xyz[rows], axis=0).argmax())
        rows = rows[np.lexsort((rows, xyz[rows, axis]))]
        half = len(rows) // 2
        stack += [rows[half:], rows[:half]]
    return np.concatenate(ordered)
