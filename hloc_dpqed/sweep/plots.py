"""Plots of a sweep. Needs matplotlib (the extra ``plot``)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..io.atomic import atomic_path

MARKERS = "osD^vP*X"
LINES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))


def check_matplotlib() -> None:
    """Check that plots can be made, before long work begins.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise InputError(
            "plots need matplotlib: pip install 'hloc_dpqed[plot]', or pass --no_plots"
        ) from error


def write_plots(
    output: Path,
    rows: Sequence[dict[str, Any]],
    code_budgets: Sequence[float],
    limits: Sequence[tuple[float, float]],
) -> list[Path]:
    """Write the plots of a sweep's table as PNG files.

    Args:
        output: folder.
        rows: as ``sweep.mean_rows`` gives them.
        code_budgets: where the sweep was at fixed budgets for codes, a panel for each.
        limits: thresholds of the recalls in ``rows``.

    Returns:
        The files: ``accuracy.png``, and ``code_budgets.png`` where there are budgets.

    Raises:
        InputError: matplotlib is not installed, or a file cannot be written.
    """
    check_matplotlib()
    paths = [Path(output) / "accuracy.png"]
    _save(_accuracy(rows, limits), paths[0])
    if code_budgets and any(row["code_bytes"] for row in rows):
        paths.append(Path(output) / "code_budgets.png")
        _save(_budgets(rows, code_budgets, limits), paths[1])
    return paths


def _save(figure: Any, path: Path) -> None:
    with atomic_path(path) as temporary:
        # No date and no version: the same table gives the same bytes.
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})


def curves(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Rows of each (codec, selector); a row that keeps all points belongs to every selector."""
    selectors = dict.fromkeys(row["selector"] for row in rows if row["selector"] != "all")
    codecs = dict.fromkeys(row["codec"] for row in rows)
    found = {
        (codec, selector): [
            row for row in rows if row["codec"] == codec and row["selector"] in (selector, "all")
        ]
        for codec in codecs
        for selector in selectors or ["all"]
    }
    return {key: own for key, own in found.items() if own}


def _style(codecs: list[str], selectors: list[str], codec: str, selector: str) -> dict[str, Any]:
    hue = codecs.index(codec) if len(codecs) > 1 else selectors.index(selector)
    return {
        "color": f"C{hue % 10}",
        "linestyle": LINES[selectors.index(selector) % len(LINES)],
        "marker": MARKERS[selectors.index(selector) % len(MARKERS)],
        "markersize": 4,
        "linewidth": 1.2,
    }


def _accuracy(rows: Sequence[dict[str, Any]], limits: Sequence[tuple[float, float]]) -> Any:
    """Correct matches, median error and recall, against the whole file and the codes alone."""
    from matplotlib.figure import Figure

    recall = "recall@{:g}/{:g}".format(*limits[0])
    measures = (
        ("correct", "correct matches a query"),
        ("median_translation", "median translation error (map units)"),
        (recall, "recall at {:g} / {:g}".format(*limits[0])),
    )
    sizes = (("total_bytes", "whole file (KB)"), ("descriptor_bytes", "codes alone (KB)"))
    figure = Figure(figsize=(14, 8.5), layout="constrained")
    axes = figure.subplots(2, 3, squeeze=False)
    lines = curves(rows)
    codecs = list(dict.fromkeys(codec for codec, _ in lines))
    selectors = list(dict.fromkeys(selector for _, selector in lines))
    handles: dict[str, Any] = {}
    for row_axes, (size, size_label) in zip(axes, sizes, strict=True):
        for axis, (name, label) in zip(row_axes, measures, strict=True):
            for (codec, selector), own in lines.items():
                # A line joins the numbers of points at one code size, or the code sizes at one
                # number of points where there is but one.
                by_size: dict[int, list[dict[str, Any]]] = {}
                for row in own:
                    by_size.setdefault(row["code_bytes"], []).append(row)
                single = all(len(group) == 1 for group in by_size.values())
                for group in [own] if single else by_size.values():
                    points = sorted(group, key=lambda row: row[size])
                    x = [row[size] / 1000 for row in points]
                    y = [row[name] if np.isfinite(row[name]) else np.nan for row in points]
                    style = _style(codecs, selectors, codec, selector)
                    (line,) = axis.plot(x, y, **style)
                    handles.setdefault(f"{codec}, {selector}", line)
                    labelled = selector == selectors[0] and not single
                    if group[0]["code_bytes"] and labelled:
                        text = f" {group[0]['code_bytes']} B"
                        axis.annotate(text, (x[-1], y[-1]), fontsize=8, color=style["color"])
            _scale(axis.xaxis, [row[size] / 1000 for row in rows])
            if name == "median_translation":
                _scale(axis.yaxis, [row[name] for row in rows])
            axis.set_xlabel(size_label)
            axis.set_ylabel(label)
            axis.grid(alpha=0.3)
    _legend(figure, handles)
    return figure


def _scale(axis: Any, values: list[float]) -> None:
    """A logarithmic axis with plain numbers where the values span a factor of four."""
    from matplotlib.ticker import LogLocator, NullLocator

    positive = [value for value in values if np.isfinite(value) and value > 0]
    if positive and max(positive) > 4 * min(positive):
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())


def _budgets(
    rows: Sequence[dict[str, Any]],
    code_budgets: Sequence[float],
    limits: Sequence[tuple[float, float]],
) -> Any:
    """At each budget for codes, short codes for many points against long codes for few."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    recall = "recall@{:g}/{:g}".format(*limits[0])
    coded = [row for row in rows if row["code_bytes"]]
    lines = curves(coded)
    codecs = list(dict.fromkeys(codec for codec, _ in lines))
    selectors = list(dict.fromkeys(selector for _, selector in lines))
    figure = Figure(figsize=(4.6 * len(code_budgets), 8), layout="constrained")
    axes = figure.subplots(2, len(code_budgets), squeeze=False, sharey="row", sharex=True)
    handles: dict[str, Any] = {}
    for column, budget in enumerate(code_budgets):
        for (codec, selector), own in lines.items():
            points = sorted(
                (row for row in own if budget in row["budgets"]),
                key=lambda row: row["code_bytes"],
            )
            for axis, name in zip(axes[:, column], ("correct", recall), strict=True):
                x = [row["code_bytes"] for row in points]
                y = [row[name] for row in points]
                (line,) = axis.plot(x, y, **_style(codecs, selectors, codec, selector))
                handles.setdefault(f"{codec}, {selector}", line)
        axes[0, column].set_title(f"{budget:g} B of code a point of the uncompressed map")
        axes[1, column].set_xlabel("bytes a code")
    axes[0, 0].set_ylabel("correct matches a query")
    axes[1, 0].set_ylabel("recall at {:g} / {:g}".format(*limits[0]))
    sizes = sorted({row["code_bytes"] for row in coded})
    for axis in axes.ravel():
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_locator(FixedLocator(sizes))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(alpha=0.3)
    _legend(figure, handles)
    return figure


def _legend(figure: Any, handles: dict[str, Any]) -> None:
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=min(6, len(handles)),
        fontsize=8,
        frameon=False,
    )
