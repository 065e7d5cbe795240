"""Camera poses on a grid as fine as the images' projections need (source: ours)."""

from dataclasses import dataclass

import numpy as np

from ..entropy.rans import Coder, DamagedStream, Player, Recorder, code_integers
from ..errors import InputError
from ..maps.compressed import CompressedMap
from ..scene.projection import camera_centres
from .frame import quaternions, rotation_matrices
from .points import Grid, pixels_per_radian

POSE_PIXELS = 0.05  # how far the poses' rounding may move a projection
MAX_HALVINGS = 16


@dataclass(frozen=True)
class PoseGrid:
    """Steps of the stored numbers.

    Attributes:
        rotation_step: of the components of unit quaternions.
        centre_step: of camera centres in the file's frame, in map units.
    """

    rotation_step: float
    centre_step: float


def check_poses(poses: np.ndarray) -> None:
    """Refuse (I, 3, 4) poses that are not a rotation and a translation.

    Raises:
        InputError: one is not.
    """
    rotations = poses[:, :, :3]
    finite = bool(np.isfinite(poses).all())
    if finite:
        product = np.einsum("nij,nkj->nik", rotations, rotations)
        deviation = np.abs(product - np.eye(3)).max(initial=0)
        finite = deviation <= 1e-5 and bool((np.linalg.det(rotations) > 0).all())
    if not finite:
        raise InputError("an image's pose is not a rotation and a translation")


def quantize_poses(poses: np.ndarray, grid: PoseGrid) -> tuple[np.ndarray, np.ndarray]:
    """(I, 3, 4) poses to the largest quaternion component (I,) and (I, 6) int64 numbers."""
    q = quaternions(poses[:, :, :3])
    largest = np.abs(q).argmax(1)
    others = q[np.arange(4) != largest[:, None]].reshape(-1, 3)
    centres = camera_centres(poses)
    numbers = np.concatenate([others / grid.rotation_step, centres / grid.centre_step], 1)
    if not np.isfinite(numbers).all() or np.abs(numbers).max(initial=0) > 2.0**52:
        raise InputError("an image's pose is not finite or too far away to be stored")
    return largest, np.rint(numbers).astype(np.int64)


def restore_cameras(
    largest: np.ndarray, numbers: np.ndarray, grid: PoseGrid
) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of ``quantize_poses``: (I, 3, 3) rotations and (I, 3) centres, float64."""
    others = numbers[:, :3] * grid.rotation_step
    squares = others[:, 0] ** 2 + others[:, 1] ** 2 + others[:, 2] ** 2
    if (squares >= 1).any():
        raise DamagedStream("a pose is not a rotation")
    q = np.empty((len(numbers), 4))
    slots = np.arange(4) != largest[:, None]
    q[slots] = others.ravel()
    q[~slots] = np.sqrt(1 - squares)
    return rotation_matrices(q), numbers[:, 3:] * grid.centre_step


def restore_poses(largest: np.ndarray, numbers: np.ndarray, grid: PoseGrid) -> np.ndarray:
    """``restore_cameras`` as (I, 3, 4) float64 poses in the frame."""
    rotations, centres = restore_cameras(largest, numbers, grid)
    translations = -np.einsum("nij,nj->ni", rotations, centres)
    return np.concatenate([rotations, translations[:, :, None]], 2)


def encode_poses(compressed: CompressedMap, points: Grid) -> tuple[bytes, PoseGrid, float]:
    """A stream of the poses, their grid, and how far in pixels it moves a projection.

    The grid is refined until no point moves by more than ``POSE_PIXELS`` in an image that sees
    it. Points behind a camera or projected to no finite pixel are left out.

    Args:
        compressed: the map.
        points: its points' grid, in whose frame poses are stored.

    Raises:
        InputError: an image is too far away to be stored.
    """
    xyz = points.frame.points(compressed.xyz)
    poses = points.frame.poses(compressed.cam_from_world)
    focal = max((pixels_per_radian(camera) for camera in compressed.cameras), default=1.0)
    visibility = compressed.visibility
    image = visibility.image_of_observation()
    depth = (poses[image, 2, :3] * xyz[visibility.indices]).sum(1) + poses[image, 2, 3]
    depth = depth[depth > 0]
    unit = 2 * points.xyz_error
    near = float(np.percentile(depth, 5)) / unit if len(depth) else 1.0
    step = 2.0 ** np.floor(np.log2(POSE_PIXELS / max(focal, 1.0)))
    # Of points' steps, whatever the map's unit.
    grid = PoseGrid(step, unit * step * 2.0 ** np.floor(np.log2(near)))
    before = _projections(compressed, xyz, poses)
    for _ in range(MAX_HALVINGS):
        largest, numbers = quantize_poses(poses, grid)
        moved = _projections(compressed, xyz, restore_poses(largest, numbers, grid)) - before
        shift = float(np.nanmax(np.hypot(moved[:, 0], moved[:, 1]), initial=0))
        if shift <= POSE_PIXELS:
            break
        grid = PoseGrid(grid.rotation_step / 2, grid.centre_step / 2)
    recorder = Recorder(symbol_contexts=3)
    _code(recorder, len(poses), largest, numbers)
    return recorder.finish(), grid, shift


def _projections(compressed: CompressedMap, xyz: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """(N, 2) projections of all observations, NaN behind the camera or where not finite."""
    result = np.full((compressed.visibility.num_observations, 2), np.nan)
    for i in range(len(poses)):
        rows = compressed.visibility[i]
        if len(rows) == 0:
            continue
        local = xyz[rows] @ poses[i, :, :3].T + poses[i, :, 3]
        camera = compressed.cameras[compressed.camera_index[i]]
        xy = np.array(camera.img_from_cam(local), np.float64)
        xy[(local[:, 2] <= 0) | ~np.isfinite(xy).all(1)] = np.nan
        result[compressed.visibility.indptr[i] : compressed.visibility.indptr[i + 1]] = xy
    return result


def decode_cameras_in_frame(
    data: bytes, count: int, grid: PoseGrid
) -> tuple[np.ndarray, np.ndarray]:
    """The cameras' rotations (I, 3, 3) and centres (I, 3) of a stream."""
    player = Player(data, symbol_contexts=3)
    largest, numbers = _code(player, count)
    player.finish()
    return restore_cameras(largest, numbers, grid)


def _code(
    coder: Coder,
    count: int,
    largest: np.ndarray | None = None,
    numbers: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Code differences from the image before; a quaternion only from one of the same kind."""
    largest = coder.symbols(np.zeros(count, np.int64), largest)
    if largest.max(initial=0) > 3:
        raise DamagedStream("a pose is not a rotation")
    fresh = np.ones(count, bool)
    fresh[1:] = largest[1:] != largest[:-1]
    values = None
    if numbers is not None:
        steps = np.diff(numbers, axis=0, prepend=np.zeros((1, 6), np.int64))
        steps[fresh, :3] = numbers[fresh, :3]
        values = (np.abs(steps) * 2 - (steps < 0)).ravel()  # 0, -1, 1, -2 ... as 0, 1, 2, 3 ...
    context = np.tile([1, 1, 1, 2, 2, 2], count)
    folded = code_integers(coder, context, values).reshape(-1, 6)
    steps = np.where(folded & 1, ~(folded >> 1), folded >> 1)
    totals = np.cumsum(steps, 0)
    if count:
        # A fresh quaternion starts the sum again.
        first = np.maximum.accumulate(np.where(fresh, np.arange(count), 0))
        totals[:, :3] -= (totals - steps)[first, :3]
    return largest, totals
