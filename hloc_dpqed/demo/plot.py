"""The demo's pictures, with matplotlib (the extra ``plot``)."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import visualization
from ..errors import InputError
from ..io.features import open_features
from ..io.lists import read_poses, read_queries
from ..io.model import load_reconstruction
from ..mapfile import read_map
from ..maps.compressed import CompressedMap
from ..visualization import DATABASE, ViewFromAbove, draw_camera, frame_axes, read_photo
from .dataset import Dataset

_TRUE, _ESTIMATED = "#118833", "#d62728"


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
        axes.imshow(read_photo(dataset.images / photo))
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
    above = ViewFromAbove.choose([*database, *truth.values()], xyz)

    far = above.project(xyz)
    low, high = above.frame(far, [*database, *truth.values()])
    size = 0.035 * (high - low).max()
    axes.scatter(*far.T, s=2.5, c=colours, linewidths=0, rasterized=True)
    for pose in database:
        draw_camera(axes, pose, above, size * 0.6, DATABASE, fill=True)
    for pose in truth.values():
        draw_camera(axes, pose, above, size * 1.5, _TRUE, fill=False)
    for pose in run.estimated.values():
        draw_camera(axes, pose, above, size, _ESTIMATED, fill=True)
    for label, colour in (
        (f"{len(database)} database cameras", DATABASE),
        (f"{len(truth)} queries, true", _TRUE),
        (f"{len(run.estimated)} queries, estimated", _ESTIMATED),
    ):
        axes.plot([], [], marker="^", linestyle="none", color=colour, label=label)
    frame_axes(axes, low, high)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncol=3, fontsize=8, frameon=False)
    axes.set_title(
        f"{run.compressed.num_points:,} points, {run.label}: the map from above", fontsize=10
    )


def draw_matches(axes: Any, dataset: Dataset, run: _Run, query: str, image: int) -> None:
    """A query beside a database photo, with the query's matches to points that the photo shows."""
    log = run.logs.get(query)
    left = read_photo(dataset.images / query)
    right = read_photo(dataset.images / run.compressed.image_names[image])
    if log is None:
        nothing = np.zeros((0, 2))
        visualization.draw_matches(axes, left, right, nothing, nothing, np.zeros(0, bool))
        axes.set_title(f"{run.label}: {query} was not matched", fontsize=9)
        return
    with open_features(dataset.query_features) as features:
        keypoints = features.read(query).keypoints
    keypoints = keypoints[np.array(log["keypoint_index"], np.int64)]
    points = np.array(log["point_index"], np.int64)
    inlier = np.zeros(len(points), bool)
    inlier[np.array(log["inliers"], np.int64)] = True
    ends, shown = visualization.points_in_image(run.compressed, image, points)
    drawn = visualization.draw_matches(
        axes, left, right, keypoints[shown], ends[shown], inlier[shown]
    )
    axes.set_title(
        f"{run.label}: {int(inlier.sum())} inliers of {len(points)} matches; "
        f"{drawn} of those with this photo drawn, outliers red",
        fontsize=9,
    )
