"""The report's interactive figures. Needs plotly (the extra ``report``)."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pycolmap

from ..errors import InputError
from ..scene.projection import camera_centres

MAX_DRAWN = 40_000  # points of a kind
COLOURS = ("#4c4c4c", "#1f77b4", "#ff7f0e", "#9467bd", "#17becf", "#e377c2", "#8c564b", "#bcbd22")
Cameras = tuple[np.ndarray, Sequence[pycolmap.Camera], Sequence[str]]


def check_plotly() -> None:
    """Check that figures can be made, before long work begins.

    Raises:
        InputError: plotly is not installed.
    """
    try:
        import plotly.graph_objects  # noqa: F401
    except ImportError as error:
        raise InputError("the report needs plotly: pip install 'hloc_dpqed[report]'") from error


def plotly_script() -> str:
    """plotly.js, as it lies in plotly's wheel."""
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def figure_html(figure: Any, name: str) -> str:
    """The figure as a part of a page that holds ``plotly_script``; the same for the same figure.

    It is drawn when it comes into view: a 3D figure without a graphics card takes its time, and
    the rest of the page does not wait for it.
    """
    # No end tag can end the script early: JSON allows any character to be escaped.
    content = figure.to_json().replace("<", "\\u003c").replace(">", "\\u003e")
    height = int(figure.layout.height)
    return f"""<div id="figure-{name}" class="figure" style="height:{height}px"></div>
<script>
(() => {{
  const place = document.getElementById("figure-{name}");
  const figure = {content};
  const config = {{displaylogo: false, responsive: true, showSendToCloud: false}};
  new IntersectionObserver((entries, observer) => {{
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    Plotly.newPlot(place, figure.data, figure.layout, config);
  }}).observe(place);
}})();
</script>
"""


def _text(label: object) -> str:
    """A label as plotly shows it: plotly reads a subset of HTML."""
    return str(label).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def bytes_figure(sizes: dict[str, dict[str, int]]) -> Any:
    """A bar for each map, of the bytes of its sections."""
    import plotly.graph_objects as go

    names = list(dict.fromkeys(name for sections in sizes.values() for name in sections))
    labels = [_text(label) for label in sizes]
    figure = go.Figure()
    for name in names:
        values = [sections.get(name, 0) for sections in sizes.values()]
        figure.add_bar(y=labels, x=values, name=_text(name), orientation="h")
    figure.update_layout(
        barmode="stack",
        height=160 + 45 * len(labels),
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        xaxis={"title": "bytes", "automargin": True},
        yaxis={"autorange": "reversed", "automargin": True, "type": "category"},
        legend={"orientation": "h", "y": -0.35, "yanchor": "top", "traceorder": "normal"},
        template="plotly_white",
    )
    return figure


def error_figure(errors: dict[str, np.ndarray], bins: int = 24) -> Any:
    """Histograms of (n, 2) errors on logarithmic axes: map units, degrees.

    Runs without a pose are counted in the legend.
    """
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(1, 2, horizontal_spacing=0.08)
    titles = ("translation error (map units)", "rotation error (degrees)")
    for column, title in enumerate(titles):
        # In a synthetic scene errors may be zero: a millionth, or of a map in small units of its
        # greatest error, stands for less.
        known = {label: own[np.isfinite(own[:, column]), column] for label, own in errors.items()}
        greatest = max((own.max(initial=0) for own in known.values()), default=0.0)
        least = 1e-6 * min(1.0, greatest) if greatest > 0 else 1e-6
        logs = {label: np.log10(np.maximum(own, least)) for label, own in known.items()}
        values = np.concatenate(list(logs.values()))
        low, high = (values.min(), values.max()) if len(values) else (-3.0, 0.0)
        edges = np.linspace(low, max(high, low + 0.1), bins + 1)
        ranges = [f"{10**a:.3g} to {10**b:.3g}" for a, b in itertools.pairwise(edges)]
        for k, (label, own) in enumerate(logs.items()):
            failed = len(errors[label]) - len(own)
            name = _text(label) + (f", {failed} without a pose" if failed else "")
            counts, _ = np.histogram(own, edges)
            figure.add_trace(
                go.Bar(
                    x=(edges[:-1] + edges[1:]) / 2,
                    y=counts,
                    name=name,
                    legendgroup=name,
                    showlegend=column == 0,
                    marker={"color": COLOURS[k % len(COLOURS)]},
                    customdata=ranges,
                    hovertemplate="%{customdata}: %{y}",
                ),
                1,
                column + 1,
            )
        ticks = _ticks(low, high)
        figure.update_xaxes(
            title=title,
            tickvals=ticks,
            ticktext=[f"{10**t:.2g}" for t in ticks],
            row=1,
            col=column + 1,
        )
    figure.update_yaxes(title="runs", row=1, col=1)
    figure.update_layout(
        barmode="group",
        bargap=0.05,
        height=380,
        margin={"l": 10, "r": 10, "t": 20, "b": 10},
        legend={"orientation": "h", "y": -0.25, "yanchor": "top"},
        template="plotly_white",
    )
    return figure


def _ticks(low: float, high: float) -> list[float]:
    """Logarithms of 1, 2 and 5 times powers of ten between the bounds."""
    powers = range(int(np.floor(low)), int(np.ceil(high)) + 1)
    ticks = [float(p + np.log10(m)) for p in powers for m in (1, 2, 5)]
    inside = [t for t in ticks if low - 0.1 <= t <= high + 0.1]
    return inside if len(inside) <= 8 else [t for t in inside if abs(t - round(t)) < 1e-9]


def scene_figure(
    kept: dict[str, np.ndarray],
    dropped: dict[str, np.ndarray],
    database: Cameras,
    queries: Cameras,
    estimated: dict[str, np.ndarray],
) -> tuple[Any, int]:
    """Points and cameras in 3D; the first map is shown, the legend shows the others.

    Args:
        kept, dropped: (n, 3) points of each map; ``dropped`` may be empty.
        database: (I, 3, 4) poses, cameras and names of the database images.
        queries: of the queries, with their reference poses.
        estimated: (Q, 3, 4) poses of the queries by each map, not a number where there is none.

    Returns:
        The figure, and how many of the first map's points it leaves out.
    """
    import plotly.graph_objects as go

    first = next(iter(kept))
    everything = np.concatenate([kept[first], dropped.get(first, np.zeros((0, 3)))])
    centres = camera_centres(database[0])
    low, high = _box(np.concatenate([everything, centres]) if len(everything) else centres)
    size = 0.03 * float(np.linalg.norm(high - low))
    # Browsers draw in float32, which has half a metre at the radius of the earth.
    origin = _origin(low, high)
    figure = go.Figure()
    hidden = 0

    def add_points(points: np.ndarray, name: str, visible: bool, marker: dict[str, Any]) -> int:
        inside = points[((points >= low) & (points <= high)).all(1)]
        if len(inside) > MAX_DRAWN:
            chosen = np.random.default_rng(0).choice(len(inside), MAX_DRAWN, replace=False)
            inside = inside[np.sort(chosen)]
        x, y, z = (inside - origin).astype(np.float32).T
        figure.add_scatter3d(
            x=x,
            y=y,
            z=z,
            mode="markers",
            marker=marker,
            name=f"{_text(name)} ({len(points):,})",
            hoverinfo="skip",
            visible=True if visible else "legendonly",
        )
        return len(points) - len(inside)

    def add_cameras(cameras: Cameras, name: str, visible: bool, colour: str, scale: float) -> None:
        known = [bool(np.isfinite(pose).all()) for pose in cameras[0]]
        lines = [
            _frustum(pose, camera, scale)
            for pose, camera, own in zip(cameras[0], cameras[1], known, strict=True)
            if own
        ]
        x, y, z = (np.concatenate([np.zeros((0, 3)), *lines]) - origin).astype(np.float32).T
        text = [_text(n) for n, own in zip(cameras[2], known, strict=True) if own for _ in range(9)]
        figure.add_scatter3d(
            x=x,
            y=y,
            z=z,
            mode="lines",
            line={"color": colour, "width": 2},
            name=f"{_text(name)} ({sum(known)})",
            text=text,
            hoverinfo="text",
            visible=True if visible else "legendonly",
        )

    for label, points in dropped.items():
        marker = {"size": 1.5, "color": "#b8b8b8", "opacity": 0.6}
        hidden += add_points(points, f"dropped, {label}", label == first, marker) * (label == first)
    for k, (label, points) in enumerate(kept.items()):
        marker = {"size": 2.2, "color": COLOURS[(k + 1) % len(COLOURS)]}
        hidden += add_points(points, f"kept, {label}", label == first, marker) * (label == first)
    add_cameras(database, "database cameras", True, "#808080", size)
    add_cameras(queries, "query cameras", True, "#2ca02c", size * 1.15)
    for label, poses in estimated.items():
        drawn = (poses, queries[1], queries[2])
        add_cameras(drawn, f"estimated, {label}", label == first, "#d62728", size)

    axis = {"showbackground": False, "showgrid": True, "zeroline": False}
    titles = ["" if v == 0 else f"{name} - {v:.10g}" for name, v in zip("xyz", origin, strict=True)]
    figure.update_layout(
        height=650,
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        scene={
            "aspectmode": "data",
            **{f"{name}axis": {**axis, "title": titles[k]} for k, name in enumerate("xyz")},
            "camera": _view(database[0]),
        },
        legend={"x": 0, "y": 1, "bgcolor": "rgba(255,255,255,0.7)", "itemsizing": "constant"},
        template="plotly_white",
    )
    return figure, hidden


def _box(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds that leave out what lies far outside: the middle 96 %, half as much again around."""
    low, high = np.percentile(points, [2, 98], axis=0)
    margin = (high - low) / 2 + 1e-9
    return low - margin, high + margin


def _origin(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(3,) what the drawing subtracts: zero unless the box is far from the origin for its size."""
    middle, size = (low + high) / 2, float((high - low).max())
    if size == 0 or np.abs(middle).max() < 100 * size:
        return np.zeros(3)
    step = 10.0 ** np.floor(np.log10(size))
    return np.rint(middle / step) * step


def _frustum(pose: np.ndarray, camera: pycolmap.Camera, size: float) -> np.ndarray:
    """A line through the corners of an image and its camera's centre: (9, 3) float64.

    The last row is not a number, which ends the line.
    """
    focal = float(camera.mean_focal_length())
    half = np.array([camera.width, camera.height]) / (2 * focal)
    a, b = half / max(float(np.linalg.norm(half)), 1e-9)
    depth = 1 / max(float(np.linalg.norm(half)), 1e-9)
    corners = np.array([[-a, -b, depth], [a, -b, depth], [a, b, depth], [-a, b, depth]])
    corners *= size / max(1.0, depth)
    centre = np.zeros(3)
    path = [corners[0], corners[1], corners[2], corners[3], corners[0], centre, corners[2]]
    in_camera = np.array([*path, centre])
    world = (in_camera - pose[:, 3]) @ pose[:, :3]
    return np.concatenate([world, np.full((1, 3), np.nan)])


def _view(poses: np.ndarray) -> dict[str, Any]:
    """Upright and from behind the cameras, as far as they agree on what that is."""
    up = -poses[:, 1, :3].mean(0)
    up = up / np.linalg.norm(up) if np.linalg.norm(up) > 1e-6 else np.array([0.0, -1.0, 0.0])
    forward = poses[:, 2, :3].mean(0)
    forward = forward - up * (up @ forward)
    if np.linalg.norm(forward) < 1e-6:
        forward = np.cross(up, np.eye(3)[int(np.abs(up).argmin())])
    forward = forward / np.linalg.norm(forward)
    eye = -1.3 * forward + 0.7 * up
    names = "xyz"
    return {
        "up": dict(zip(names, up.tolist(), strict=True)),
        "eye": dict(zip(names, eye.tolist(), strict=True)),
    }
