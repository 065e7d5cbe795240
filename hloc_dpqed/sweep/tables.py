"""Tables of a sweep: its CSV, means over seeds, and where the optimum lies."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..evaluation.measures import bootstrap
from .cells import Cell, affordable, measures_of

PUBLISHED_OPTIMUM = 4  # bytes a code


def cell_row(
    cell: Cell, outcome: dict[str, Any], num_points: int, limits: list[tuple[float, float]]
) -> dict[str, Any]:
    """A line of the table: the configuration, bytes, and means over the queries."""
    measured = measures_of(outcome)
    translation, rotation = measured.median_errors()
    return {
        "codec": cell.codec,
        "code_bytes": cell.code_bytes,
        "selector": cell.selector,
        "seed": cell.seed,
        "num_points": outcome["num_points"],
        "fraction": outcome["num_points"] / num_points,
        "total_bytes": outcome["total_bytes"],
        "descriptor_bytes": outcome["descriptor_bytes"],
        "codec_bytes": outcome["codec_bytes"],
        "distinct_codes": outcome["distinct_codes"],
        "correct": float(measured.correct.mean()),
        "correct_keypoints": float(measured.correct_keypoints.mean()),
        "matched": float(measured.matched.mean()),
        "precision": float(measured.precision.mean()),
        "localized": float(np.isfinite(measured.errors[..., 0]).mean()),
        "median_translation": translation,
        "median_rotation": rotation,
    } | {f"recall@{t:g}/{r:g}": measured.recall(t, r) for t, r in limits}


def csv_bytes(
    cells: Sequence[tuple[Cell, dict[str, Any]]],
    num_points: int,
    limits: list[tuple[float, float]],
) -> bytes:
    """The table as CSV, a line for each cell; an infinite error reads ``inf``."""
    text = io.StringIO(newline="")
    rows = [cell_row(cell, outcome, num_points, limits) for cell, outcome in cells]
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def mean_rows(
    cells: Sequence[tuple[Cell, dict[str, Any]]],
    num_points: int,
    limits: list[tuple[float, float]],
    code_budgets: Sequence[float] = (),
) -> list[dict[str, Any]]:
    """The table with the seeds of a configuration averaged, in the order of the cells.

    ``budgets`` of a row are those of ``code_budgets`` that pay for exactly its points.
    """
    means = []
    for group in _by_configuration(cells).values():
        rows = [cell_row(cell, outcome, num_points, limits) for cell, outcome in group]
        mean = dict(rows[0])
        for name in list(mean)[list(mean).index("num_points") :]:
            mean[name] = float(np.mean([row[name] for row in rows]))
        del mean["seed"]
        cell = group[0][0]
        mean["budgets"] = [
            budget
            for budget in code_budgets
            if cell.code_bytes
            and cell.num_points == affordable(budget, num_points, cell.code_bytes)
        ]
        means.append(mean)
    return means


def _by_configuration(
    cells: Sequence[tuple[Cell, dict[str, Any]]],
) -> dict[Cell, list[tuple[Cell, dict[str, Any]]]]:
    groups: dict[Cell, list[tuple[Cell, dict[str, Any]]]] = {}
    for cell, outcome in cells:
        groups.setdefault(replace(cell, seed=0), []).append((cell, outcome))
    return groups


def optimum_lines(
    cells: Sequence[tuple[Cell, dict[str, Any]]],
    num_points: int,
    code_budgets: Sequence[float],
) -> Iterator[str]:
    """For each budget, codec and selector: which code size has most correct matches.

    Beside it, the published optimum against the best of the others, with the 95 % interval of the
    difference: paired, over queries, the seeds of a configuration averaged.
    """
    groups = {
        cell: np.mean([outcome["correct"] for _, outcome in group], axis=0)
        for cell, group in _by_configuration(cells).items()
    }
    curves = dict.fromkeys((cell.codec, cell.selector) for cell in groups if cell.code_bytes)
    for budget in code_budgets:
        for codec, selector in curves:
            if selector == "all" and any(c == codec and s != "all" for c, s in curves):
                continue
            correct = {
                cell.code_bytes: of_query
                for cell, of_query in groups.items()
                if cell.codec == codec
                and cell.code_bytes
                and cell.selector in (selector, "all")
                and cell.num_points == affordable(budget, num_points, cell.code_bytes)
            }
            if not correct:
                continue
            listed = ", ".join(f"{size} B {correct[size].mean():.0f}" for size in sorted(correct))
            line = f"{budget:g} B of code a point, {codec}, {selector}: correct matches {listed}"
            others = [size for size in correct if size != PUBLISHED_OPTIMUM]
            if PUBLISHED_OPTIMUM in correct and others:
                best = max(others, key=lambda size: correct[size].mean())
                difference = correct[PUBLISHED_OPTIMUM] - correct[best]
                low, high = bootstrap(difference)
                line += (
                    f"; {PUBLISHED_OPTIMUM} B minus {best} B: {difference.mean():+.1f}, "
                    f"95 % {low:+.1f} .. {high:+.1f}"
                )
            yield line
