"""Point coordinates: a grid, an order along it, and the gaps of that order (source: ours)."""

import math
from dataclasses import dataclass

import numpy as np
import pycolmap

from ..entropy.rans import Coder, DamagedStream, Player, Recorder, code_integers
from ..errors import InputError
from ..maps.compressed import CompressedMap
from ..scene.projection import camera_centres, too_far
from .frame import Frame, first_camera_quat

AXIS_BITS = 21  # three axes fill 63 bits of a Morton number
HALF = 1 << (AXIS_BITS - 1)
XYZ_PIXELS = 0.25  # default error bound, in pixels at the distance of the nearest camera


@dataclass(frozen=True)
class Grid:
    """A grid that is uniform in its core and coarser, octave by octave, outside.

    Attributes:
        frame: whose origin and axes are those of the grid.
        xyz_error: greatest error along each of its axes, in map units, of a point within
            ``2**core`` steps of the origin; a step is twice this. Farther out the step doubles with
            the distance, so the error is at most ``xyz_error * max(1, 2 * distance / core size)``.
        core: binary logarithm of the core's half size in steps.
    """

    frame: Frame
    xyz_error: float
    core: int

    def cells(self, xyz: np.ndarray) -> np.ndarray:
        """(P, 3) coordinates to (P, 3) int64 cells.

        Raises:
            InputError: a point lies outside of what the grid can number.
        """
        offset = self.frame.points(xyz) / (2 * self.xyz_error)
        size = np.abs(offset)
        if not np.isfinite(size).all() or size.max(initial=0) > 2.0**60:
            raise InputError("a point lies too far away to be stored")
        octave = np.maximum(np.frexp(size)[1] - 1 - self.core, -1)
        half = 1 << (self.core - 1)
        outer = (octave + 1) * half + np.rint(np.ldexp(size, -(octave + 1))).astype(np.int64)
        inner = np.rint(size).astype(np.int64)
        cells = np.where(octave < 0, inner, outer)
        if cells.max(initial=0) >= HALF:
            raise InputError("a point lies too far away to be stored")
        return np.where(offset < 0, -cells, cells)

    def coordinates(self, cells: np.ndarray) -> np.ndarray:
        """(P, 3) cells to (P, 3) float64 coordinates."""
        half = 1 << (self.core - 1)
        size = np.abs(cells)
        beyond = np.maximum(size - 2 * half, 0)
        octave = beyond >> (self.core - 1)
        # The bound keeps a damaged file from shifting by more than int64 has.
        far = half + (beyond & (half - 1)) << np.minimum(octave + 1, 62 - self.core)
        steps = np.where(size < 2 * half, size, far)
        return self.frame.points_in_map(np.where(cells < 0, -steps, steps) * (2 * self.xyz_error))


def morton(cells: np.ndarray) -> np.ndarray:
    """(P, 3) cells to (P,) int64: their bits interleaved, the first axis highest."""
    shifted = np.asarray(cells, np.int64) + HALF
    result = np.zeros(len(shifted), np.int64)
    for axis in range(3):
        x = shifted[:, axis].copy()
        for shift, mask in _SPREAD:
            x = (x | x << shift) & mask
        result |= x << (2 - axis)
    return result


def cells_of_morton(numbers: np.ndarray) -> np.ndarray:
    """(P,) int64 to (P, 3) int64 cells."""
    columns = []
    for axis in range(3):
        x = numbers >> (2 - axis) & _SPREAD[-1][1]
        for (shift, _), mask in zip(_SPREAD[::-1], _COMPACT, strict=True):
            x = (x | x >> shift) & mask
        columns.append(x - HALF)
    return np.stack(columns, 1) if len(numbers) else np.zeros((0, 3), np.int64)


# Each step moves half of each group of bits away, leaving gaps of two bits in the end.
_SPREAD = [
    (32, 0x001F00000000FFFF),
    (16, 0x001F0000FF0000FF),
    (8, 0x100F00F00F00F00F),
    (4, 0x10C30C30C30C30C3),
    (2, 0x1249249249249249),
]
_COMPACT = [m for _, m in _SPREAD[-2::-1]] + [0x1FFFFF]


def choose_grid(
    compressed: CompressedMap, xyz_error: float | None = None, xyz_pixels: float = XYZ_PIXELS
) -> Grid:
    """A grid for the map's points.

    By default the error is ``xyz_pixels`` pixels at the distance of the nearest observing camera
    for all but the nearest tenth of the points. The core reaches so far beyond the cameras that
    the coarser steps outside of it stay about as small in pixels.

    Args:
        compressed: the map.
        xyz_error: error bound in map units, instead of one in pixels.
        xyz_pixels: error bound in pixels.

    Raises:
        InputError: the bound is not a positive number, or too small for the map's size.
    """
    xyz = compressed.xyz
    if xyz_error is not None and not (np.isfinite(xyz_error) and xyz_error > 0):
        raise InputError(f"xyz_error {xyz_error}: expected a positive number of map units")
    if not (np.isfinite(xyz_pixels) and xyz_pixels > 0):
        raise InputError(f"xyz_pixels {xyz_pixels}: expected a positive number of pixels")
    if not np.isfinite(xyz).all():
        raise InputError("a point has coordinates that are not finite")
    quat = first_camera_quat(compressed.cam_from_world)
    if len(xyz) == 0:
        return Grid(Frame(np.zeros(3), quat), xyz_error or 1.0, 16)
    centres = camera_centres(compressed.cam_from_world)
    focal = np.array([pixels_per_radian(camera) for camera in compressed.cameras])
    visibility = compressed.visibility
    image = visibility.image_of_observation()
    depth = np.linalg.norm(xyz[visibility.indices] - centres[image], axis=1)
    nearest = np.full(len(xyz), np.inf)
    np.minimum.at(nearest, visibility.indices, depth)
    pixel = np.full(len(xyz), np.inf)
    np.minimum.at(pixel, visibility.indices, depth / focal[compressed.camera_index[image]])
    seen = np.isfinite(pixel) & (pixel > 0)
    # No camera to be exact for: a part of the points' extent.
    inside = centres[~too_far(centres, xyz, centres)] if seen.any() else xyz
    axes = Frame(inside.mean(0), quat)  # near the scene: digits are few far from the origin
    local = axes.points(inside)
    low, high = local.min(0), local.max(0)
    if not seen.any():
        reach = max(float((high - low).max()), 1e-6)
        error = xyz_error or round_nine(reach * 1e-4)
    else:
        reach = 2 * float(np.median(nearest[seen])) + float((high - low).max()) / 2
        error = xyz_error or round_nine(xyz_pixels * float(np.percentile(pixel[seen], 10)))
    frame = Frame(round_origin(axes.points_in_map((low + high)[None] / 2)[0], error), quat)
    core = max(4, int(np.ceil(np.log2(2 * reach / (2 * error)))))
    # Grids with a small core number points farther out; at AXIS_BITS - 3 they reach 2**26 steps.
    if xyz_error is not None and core > AXIS_BITS - 2:
        least = 2 * reach / 2 ** (AXIS_BITS - 1)
        raise InputError(
            f"xyz_error {xyz_error:g}: too small for a map of this size, expected at least "
            f"{least:.2g}"
        )
    furthest = float(np.abs(frame.points(xyz)).max()) / (2 * error)
    core = min(core, AXIS_BITS - 2)
    while core > 4 and _reach(core) <= furthest:
        core -= 1
    return Grid(frame, error, core)


def round_origin(middle: np.ndarray, error: float) -> np.ndarray:
    """(3,) coordinates to as few digits as no cell feels, wherever the map's own origin is."""
    for digits in range(6, 17):
        rounded = np.array([float(f"{v:.{digits}g}") for v in middle])
        if np.abs(rounded - middle).max() <= error * 1e-4:
            return rounded
    return middle


def _reach(core: int) -> float:
    """Steps from the origin that a grid with this core can number."""
    octaves = ((HALF - (1 << core)) >> (core - 1)) - 1
    return 2.0 ** min(core + octaves, 60)


def pixels_per_radian(camera: pycolmap.Camera) -> float:
    """Focal length in pixels, or what stands for it in a camera that has none."""
    return camera.mean_focal_length() or camera.width / (2 * math.pi)


def round_nine(value: float) -> float:
    """``value`` to nine significant digits: few bytes, and the same grid in any unit."""
    return float(f"{value:.9g}")


def canonical_order(
    compressed: CompressedMap, xyz_error: float | None = None, xyz_pixels: float = XYZ_PIXELS
) -> np.ndarray:
    """The order of rows in which the file needs no permutation: (P,) int64, new row to old.

    Points follow a space-filling curve, so that neighbours in the file are neighbours in space.
    Pass the same ``xyz_error`` and ``xyz_pixels`` to the writer.
    """
    grid = choose_grid(compressed, xyz_error, xyz_pixels)
    return np.argsort(morton(grid.cells(compressed.xyz)), kind="stable")


def encode_points(numbers: np.ndarray) -> bytes:
    """(P,) increasing Morton numbers to a stream of gaps."""
    recorder = Recorder(symbol_contexts=1)
    _code_points(recorder, len(numbers), numbers)
    return recorder.finish()


def decode_points(data: bytes, count: int) -> np.ndarray:
    """The (P,) Morton numbers of a stream."""
    player = Player(data, symbol_contexts=1)
    numbers = _code_points(player, count)
    player.finish()
    if (np.diff(numbers, prepend=0) < 0).any():
        raise DamagedStream("a point is out of the grid")
    return numbers


def _code_points(coder: Coder, count: int, numbers: np.ndarray | None = None) -> np.ndarray:
    gaps = None if numbers is None else np.diff(numbers, prepend=0)
    gaps = code_integers(coder, np.zeros(count, np.int64), gaps)
    return np.cumsum(gaps)
