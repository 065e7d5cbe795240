"""Pictures of a compressed map and of what it localizes, drawn on matplotlib's axes.

The counterpart of ``hloc.visualization`` for map files. Pixels are in hloc's convention (centres at
integers), which is matplotlib's for images too.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pycolmap

from .errors import InputError
from .io.features import ImageFeatures
from .maps.compressed import CompressedMap
from .scene.projection import camera_centre

if TYPE_CHECKING:
    from .localization import Localization

KEPT, DROPPED = "#1f6fd6", "#d62728"
INLIER, OUTLIER = "#30e060", "#ff5050"
DATABASE = "#4a7ebb"
_GAP = 12  # pixels between two photos


def read_photo(path: Path) -> np.ndarray:
    """The pixels of an image file: (H, W, 3) uint8.

    Raises:
        InputError: it is not a readable image.
    """
    bitmap = pycolmap.Bitmap.read(str(path), True)
    if bitmap is None:
        raise InputError(f"{path}: not a readable image")
    return bitmap.to_array()


def points_in_image(
    compressed: CompressedMap, image: int, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where a database image shows points of the map.

    Args:
        image: row of the database image.
        points: (n,) int64 rows of the map's points.

    Returns:
        (n, 2) float64 pixels, and (k,) int64 which of them the image shows by the map's tracks; the
        pixels of the others are not a number.
    """
    xy, visible = compressed.project(image)
    pixels = np.full((compressed.num_points, 2), np.nan)
    pixels[compressed.visibility[image][visible]] = xy[visible] - 0.5
    return pixels[points], np.flatnonzero(np.isfinite(pixels[points, 0]))


def draw_matches(
    axes: Any,
    left: np.ndarray,
    right: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    good: np.ndarray,
    max_lines: int = 120,
) -> int:
    """Two photos side by side with lines between them; the good ones green, the others red.

    Args:
        left, right: (H, W, 3) uint8.
        starts, ends: (n, 2) pixels of the left and of the right photo.
        good: (n,) bool.
        max_lines: a random part of this size is drawn where there are more.

    Returns:
        How many lines are drawn.
    """
    from matplotlib.collections import LineCollection

    height = max(left.shape[0], right.shape[0])
    canvas = np.full((height, left.shape[1] + _GAP + right.shape[1], 3), 255, np.uint8)
    canvas[: left.shape[0], : left.shape[1]] = left
    canvas[: right.shape[0], left.shape[1] + _GAP :] = right
    axes.imshow(canvas)
    axes.set_axis_off()
    lines = np.arange(len(starts))
    if len(lines) > max_lines:
        lines = np.random.default_rng(0).choice(lines, max_lines, replace=False)
    segments = np.stack([starts, ends + np.array([left.shape[1] + _GAP, 0])], 1)
    for which, colour, alpha in ((~good, OUTLIER, 0.45), (good, INLIER, 0.8)):
        chosen = segments[lines[which[lines]]]
        axes.add_collection(LineCollection(chosen, colors=colour, linewidths=0.7, alpha=alpha))
        axes.scatter(*chosen.reshape(-1, 2).T, s=4, c=colour, linewidths=0, alpha=alpha)
    return len(lines)


def draw_localization(
    axes: Any,
    compressed: CompressedMap,
    found: "Localization",
    features: ImageFeatures,
    query: Path,
    database: Path,
    image: str,
) -> None:
    """A query beside a database photo, with the matches that the photo shows; RANSAC's are green.

    Args:
        found: of the query, as ``CompressedMap.localize`` gives it.
        features: of the query.
        query, database: the two image files.
        image: name of the database image.
    """
    pairs = found.correspondences
    ends, shown = points_in_image(
        compressed, compressed.image_names.index(image), pairs.point_index
    )
    starts = features.keypoints[pairs.keypoint_index]
    draw_matches(
        axes,
        read_photo(query),
        read_photo(database),
        starts[shown],
        ends[shown],
        found.inliers[shown],
    )
    good = int(found.inliers[shown].sum())
    axes.set_title(f"{good} inliers of {len(shown)} matches with this photo", fontsize=9)


def draw_points_in_photo(axes: Any, photo: np.ndarray, xy: np.ndarray, kept: np.ndarray) -> None:
    """The points that a photo shows: kept ones blue, dropped ones red.

    Args:
        photo: (H, W, 3) uint8.
        xy: (n, 2) pixels.
        kept: (n,) bool.
    """
    axes.imshow(photo)
    axes.set_axis_off()
    axes.scatter(*xy[~kept].T, s=5, c=DROPPED, linewidths=0, alpha=0.7)
    axes.scatter(*xy[kept].T, s=9, c=KEPT, linewidths=0)
    axes.set_title(f"{int(kept.sum())} kept, {int((~kept).sum())} dropped", fontsize=9)


def draw_points_from_above(
    axes: Any, xyz: np.ndarray, kept: np.ndarray, poses: list[np.ndarray]
) -> None:
    """The map from high above: kept points blue, dropped ones red, and the database cameras.

    Args:
        xyz: (P, 3) points in map units.
        kept: (P,) bool.
        poses: (3, 4) [R | t] of the database images, camera from world.
    """
    above = ViewFromAbove.choose(poses, xyz)
    page = above.project(xyz)
    low, high = above.frame(page, poses)
    axes.scatter(*page[~kept].T, s=2, c=DROPPED, linewidths=0, alpha=0.5)
    axes.scatter(*page[kept].T, s=4, c=KEPT, linewidths=0)
    for pose in poses:
        draw_camera(axes, pose, above, 0.02 * float((high - low).max()), DATABASE, fill=True)
    frame_axes(axes, low, high)
    axes.set_title(f"{int(kept.sum()):,} of {len(xyz):,} points kept", fontsize=9)


def frame_axes(axes: Any, low: np.ndarray, high: np.ndarray) -> None:
    """A page from corner ``low`` to corner ``high``, with a margin, of one scale."""
    margin = 0.06 * (high - low).max()
    axes.set_xlim(low[0] - margin, high[0] + margin)
    axes.set_ylim(low[1] - margin, high[1] + margin)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])


@dataclass(frozen=True)
class ViewFromAbove:
    """A view from above.

    Attributes:
        origin: (3,) below the viewer, at the height of the lowest points.
        axes: (3, 3) rows right, up on the page, and up in the world.
        height: of the viewer above the origin.
    """

    origin: np.ndarray
    axes: np.ndarray
    height: float

    @staticmethod
    def choose(poses: list[np.ndarray], xyz: np.ndarray) -> "ViewFromAbove":
        # What the cameras, on average, call up.
        up = -np.mean([pose[1, :3] for pose in poses], axis=0)
        up /= np.linalg.norm(up)
        if up[2] > 0.95:  # the world's own axes
            axes = np.eye(3)
        else:
            centred = xyz - np.median(xyz, axis=0)
            near = np.linalg.norm(centred, axis=1)
            flat = (centred - np.outer(centred @ up, up))[near <= np.percentile(near, 90)]
            right = np.linalg.svd(flat, full_matrices=False)[2][0]
            right = right - (right @ up) * up
            right /= np.linalg.norm(right)
            axes = np.stack([right, np.cross(up, right), up])
        inside = xyz @ axes.T
        low, high = np.percentile(inside, [2, 98], axis=0)
        middle = (low + high) / 2
        origin = np.array([middle[0], middle[1], low[2]]) @ axes
        extent = float(max(high - low))
        return ViewFromAbove(origin, axes, float(high[2] - low[2]) + 0.8 * extent)

    def project(self, xyz: np.ndarray) -> np.ndarray:
        """(n, 3) world points to (n, 2) on the page, in map units at the origin's height."""
        local = (xyz - self.origin) @ self.axes.T
        depth = np.maximum(self.height - local[..., 2:], 0.1 * self.height)
        return local[..., :2] * self.height / depth

    def frame(self, page: np.ndarray, poses: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Two corners, (2,) each, around most points of the page and around all cameras."""
        low, high = np.percentile(page, [2, 98], axis=0)
        centres = self.project(np.array([camera_centre(pose) for pose in poses]))
        return np.minimum(low, centres.min(0)), np.maximum(high, centres.max(0))


def draw_camera(
    axes: Any, pose: np.ndarray, above: ViewFromAbove, size: float, colour: str, fill: bool
) -> None:
    """A camera as a triangle that opens towards what it sees."""
    centre = camera_centre(pose)
    forward, right = size * pose[2, :3], 0.5 * size * pose[0, :3]
    corners = above.project(np.stack([centre, centre + forward - right, centre + forward + right]))
    axes.fill(
        *corners.T,
        facecolor=colour if fill else "none",
        edgecolor=colour,
        alpha=0.75 if fill else 1.0,
        linewidth=0.5 if fill else 1.6,
        zorder=3 if fill else 4,
    )
