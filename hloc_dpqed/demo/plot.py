"""The demo's pictures, with matplotlib (the extra ``plot``)."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from ..compressed_map import CompressedMap
from ..errors import InputError
from ..io.features import FeatureFile
from ..io.lists import read_poses, read_queries
from ..io.model import load_reconstruction
from ..mapfile import read_map
from .dataset import Dataset
from .views import camera_centre

_TRUE, _ESTIMATED, _DATABASE = "#118833", "#d62728", "#4a7ebb"
_MAX_LINES = 120


def _new_figure(width: float, height: float) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("pictures need matplotlib: pip install 'hloc_dpqed[plot]'") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_pictures(output: Path, dataset: Dataset, variants: list[tuple[str, str]]) -> None:
    """Write ``map.jpg``, ``matches.jpg`` and ``overview.jpg``.

    Args:
        output: the demo's folder, with the maps and results of the variants.
        dataset: the scene.
        variants: (label, file name) of the table's rows, the last one is what the map shows.

    Raises:
        InputError: matplotlib is missing.
    """
    runs = [
        _Run.read(output, label, name)
        for label, name in variants
        if (output / "maps" / f"{name}.dpqed").is_file()
    ]
    view = _choose_view(runs, dataset)

    figure = _new_figure(9, 7.5)
    draw_map(figure.subplots(), dataset, runs[-1])
    figure.savefig(output / "map.jpg", dpi=110)

    figure = _new_figure(10, 3.9 * len(runs))
    for axes, run in zip(figure.subplots(len(runs), squeeze=False)[:, 0], runs, strict=True):
        draw_matches(axes, dataset, run, *view)
    figure.savefig(output / "matches.jpg", dpi=110)

    figure = _new_figure(13, 7.4)
    grid = figure.add_gridspec(2, 5, height_ratios=[1, 3.1])
    photos = _sample_photos(dataset, 5)
    queries = read_poses(dataset.poses)
    for column, photo in enumerate(photos):
        axes = figure.add_subplot(grid[0, column])
        axes.imshow(_read(dataset.images / photo))
        axes.set_axis_off()
        axes.set_title("query" if photo in queries else "database", fontsize=9)
    draw_map(figure.add_subplot(grid[1, :2]), dataset, runs[-1])
    pair = grid[1, 2:].subgridspec(2, 1)
    for row, run in enumerate(runs[-2:]):
        draw_matches(figure.add_subplot(pair[row]), dataset, run, *view)
    figure.savefig(output / "overview.jpg", dpi=90, pil_kwargs={"quality": 82})


@dataclass(frozen=True)
class _Run:
    """A compressed map with what it localized."""

    label: str
    compressed: CompressedMap
    estimated: dict[str, np.ndarray]
    logs: dict[str, Any]

    @staticmethod
    def read(output: Path, label: str, name: str) -> "_Run":
        results = output / "results" / f"{name}.txt"
        logs = json.loads(results.with_suffix(".json").read_text(encoding="utf-8"))
        return _Run(label, read_map(output / "maps" / f"{name}.dpqed"), read_poses(results), logs)

    def inlier_points(self, query: str) -> np.ndarray:
        """Point rows of the query's inliers."""
        log = self.logs.get(query, {"point_index": [], "inliers": []})
        return np.array(log["point_index"], np.int64)[np.array(log["inliers"], np.int64)]


def _read(path: Path) -> np.ndarray:
    bitmap = pycolmap.Bitmap.read(str(path), True)
    if bitmap is None:
        raise InputError(f"{path}: not a readable image")
    return bitmap.to_array()


def _sample_photos(dataset: Dataset, count: int) -> list[str]:
    """Names of a few photos, database and queries alternating."""
    queries = [name for name, _ in read_queries(dataset.queries)]
    model = load_reconstruction(dataset.sfm)
    database = sorted(im.name for im in model.images.values())
    few = (count + 1) // 2
    picked = [database[i] for i in np.linspace(0, len(database) - 1, few, dtype=int)]
    asked = [queries[i] for i in np.linspace(0, len(queries) - 1, count - few, dtype=int)]
    out = []
    for i in range(count):
        out.append(picked[i // 2] if i % 2 == 0 else asked[i // 2])
    return out


def _choose_view(runs: list[_Run], dataset: Dataset) -> tuple[str, int]:
    """A typical query (median of the last run's inliers) and the image that shares most with it."""
    run = runs[-1]
    names = [name for name, _ in read_queries(dataset.queries)]
    counts = [len(run.inlier_points(name)) for name in names]
    query = names[int(np.argsort(counts, kind="stable")[len(names) // 2])]
    points = run.inlier_points(query)
    shared = [
        len(np.intersect1d(run.compressed.visibility[i], points))
        for i in range(run.compressed.num_images)
    ]
    return query, int(np.argmax(shared))


def draw_map(axes: Any, dataset: Dataset, run: _Run) -> None:
    """The map from high above: points, database cameras, true and estimated query cameras.

    In perspective, so that walls open outwards like those of a box without a lid.
    """
    model = load_reconstruction(dataset.sfm)
    points = [p for p in model.points3D.values() if p.track.length() > 2]
    xyz = np.array([p.xyz for p in points])
    colours = np.array([p.color for p in points]) / 255
    database = [im.cam_from_world().matrix() for im in model.images.values()]
    truth = read_poses(dataset.poses)
    above = _Above.choose([*database, *truth.values()], xyz)

    far = above.project(xyz)
    low, high = np.percentile(far, [2, 98], axis=0)
    centres = above.project(np.array([camera_centre(p) for p in [*database, *truth.values()]]))
    low, high = np.minimum(low, centres.min(0)), np.maximum(high, centres.max(0))
    margin = 0.06 * (high - low).max()
    size = 0.035 * (high - low).max()
    axes.scatter(*far.T, s=2.5, c=colours, linewidths=0, rasterized=True)
    for pose in database:
        _draw_camera(axes, pose, above, size * 0.6, _DATABASE, fill=True)
    for pose in truth.values():
        _draw_camera(axes, pose, above, size * 1.5, _TRUE, fill=False)
    for pose in run.estimated.values():
        _draw_camera(axes, pose, above, size, _ESTIMATED, fill=True)
    for label, colour in (
        (f"{len(database)} database cameras", _DATABASE),
        (f"{len(truth)} queries, true", _TRUE),
        (f"{len(run.estimated)} queries, estimated", _ESTIMATED),
    ):
        axes.plot([], [], marker="^", linestyle="none", color=colour, label=label)
    axes.set_xlim(low[0] - margin, high[0] + margin)
    axes.set_ylim(low[1] - margin, high[1] + margin)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncol=3, fontsize=8, frameon=False)
    axes.set_title(
        f"{run.compressed.num_points:,} points, {run.label}: the map from above", fontsize=10
    )


@dataclass(frozen=True)
class _Above:
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
    def choose(poses: list[np.ndarray], xyz: np.ndarray) -> "_Above":
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
        return _Above(origin, axes, float(high[2] - low[2]) + 0.8 * extent)

    def project(self, xyz: np.ndarray) -> np.ndarray:
        """(n, 3) world points to (n, 2) on the page, in map units at the origin's height."""
        local = (xyz - self.origin) @ self.axes.T
        depth = np.maximum(self.height - local[..., 2:], 0.1 * self.height)
        return local[..., :2] * self.height / depth


def _draw_camera(
    axes: Any, pose: np.ndarray, above: _Above, size: float, colour: str, fill: bool
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


def draw_matches(axes: Any, dataset: Dataset, run: _Run, query: str, image: int) -> None:
    """A query beside a database photo, with the query's matches to points that the photo shows."""
    left = _read(dataset.images / query)
    right = _read(dataset.images / run.compressed.image_names[image])
    height = max(left.shape[0], right.shape[0])
    canvas = np.full((height, left.shape[1] + 12 + right.shape[1], 3), 255, np.uint8)
    canvas[: left.shape[0], : left.shape[1]] = left
    canvas[: right.shape[0], left.shape[1] + 12 :] = right
    axes.imshow(canvas)
    axes.set_axis_off()
    from matplotlib.collections import LineCollection

    log = run.logs.get(query)
    if log is None:
        axes.set_title(f"{run.label}: {query} was not matched", fontsize=9)
        return
    with FeatureFile(dataset.query_features) as features:
        keypoints = features.read(query).keypoints
    xy, visible = run.compressed.project(image)
    row_of = np.full(run.compressed.num_points, -1)
    row_of[run.compressed.visibility[image][visible]] = np.flatnonzero(visible)
    rows = row_of[np.array(log["point_index"], np.int64)]
    inlier = np.zeros(len(rows), bool)
    inlier[np.array(log["inliers"], np.int64)] = True
    shown = np.flatnonzero(rows >= 0)
    lines = shown
    if len(lines) > _MAX_LINES:
        lines = np.random.default_rng(0).choice(shown, _MAX_LINES, replace=False)
    ends = xy[rows[lines]] - 0.5 + np.array([left.shape[1] + 12, 0])
    starts = keypoints[np.array(log["keypoint_index"], np.int64)[lines]]
    good = inlier[lines]
    for which, colour, alpha in ((~good, "#ff5050", 0.45), (good, "#30e060", 0.8)):
        segments = list(np.stack([starts[which], ends[which]], 1))
        axes.add_collection(LineCollection(segments, colors=colour, linewidths=0.7, alpha=alpha))
        axes.scatter(*np.reshape(segments, (-1, 2)).T, s=4, c=colour, linewidths=0, alpha=alpha)
    axes.set_title(
        f"{run.label}: {int(inlier.sum())} inliers of {len(rows)} matches; "
        f"{len(lines)} of those with this photo drawn, outliers red",
        fontsize=9,
    )
