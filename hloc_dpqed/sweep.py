"""Accuracy against bytes over codecs, code sizes and selectors: a table and plots."""

import csv
import hashlib
import io
import itertools
import json
import math
import tempfile
from collections.abc import Container, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from . import __version__
from .checkpoint import run_key
from .choices import GRANULARITIES, LEAST_INLIERS, PRESETS
from .codecs import CODECS, codec_class
from .compress import CompressConf, Compressor
from .errors import InputError
from .evaluate import DEFAULT_THRESHOLDS, parse_thresholds
from .io.atomic import check_output, write_bytes, write_text
from .io.features import descriptor_dimension, feature_kind
from .io.model import read_observations, read_reference
from .io.posed_queries import read_posed_queries
from .localization.localizer import Localizer
from .localization.pose import check_pose_estimator
from .logger import logger
from .mapfile import read_map, section_bytes, to_bytes
from .measures import Measures, PosedQuery, bootstrap, measure
from .options import (
    MAX_SEEDS,
    check_code_bytes,
    check_matcher,
    check_named_options,
    check_number,
    check_ransac_thresh,
)
from .selection import SEE_CODEC, SELECTORS, select_points
from .sweep_plots import check_matplotlib, write_plots
from .threads import check_device, check_seed, set_num_threads, steady_products
from .training.checkpoint import fit_folder

ARGUMENTS = "arguments.json"  # of the finished sweep in a folder
PUBLISHED_OPTIMUM = 4  # bytes a code


@dataclass(frozen=True)
class Cell:
    """One configuration that is measured.

    Attributes:
        codec, code_bytes, seed: of the codec; no code size for the codec 'none'.
        selector: 'all' where every point is kept, whatever selector was asked for.
        num_points: how many points are kept.
    """

    codec: str
    code_bytes: int
    seed: int
    selector: str
    num_points: int


@steady_products()
def main(
    reference_sfm: Path,
    features: Path,
    queries: Path,
    retrieval: Path | str,
    reference_poses: Path,
    output: Path,
    query_features: Path | None = None,
    preset: str | None = None,
    codecs: Sequence[str] | None = None,
    code_bytes: Sequence[int] | None = None,
    selectors: Sequence[str] | None = None,
    fractions: Sequence[float] | None = None,
    code_budgets: Sequence[float] | None = None,
    seeds: int = 3,
    ransac_seeds: int = 10,
    granularity: str = "point",
    matcher: str = "NN-mutual",
    ransac_thresh: float = 12,
    thresholds: str = DEFAULT_THRESHOLDS,
    codec_options: dict[str, dict[str, Any]] | None = None,
    selector_options: dict[str, dict[str, Any]] | None = None,
    plots: bool = True,
    threads: int | None = None,
    device: str = "cpu",
    progress: bool = True,
    matcher_weights: Path | None = None,
    pose_estimator: str = "pycolmap",
    overwrite: bool = False,
) -> Path:
    """Measure every combination, and write ``OUTPUT/sweep.csv`` and plots.

    Each combination is measured through a real map file and kept in ``OUTPUT/cells`` as it is
    finished; the same command continues after an interruption, and one with other arguments
    measures only what is missing.

    Args:
        reference_sfm, features: the uncompressed map, as for ``compress``.
        queries, retrieval: query list and pairs (or 'none'), as for ``localize``.
        reference_poses: poses of the queries, or a COLMAP model with them.
        output: folder.
        query_features: features of the queries; ``features`` by default.
        preset: a key of ``PRESETS``, which gives what is not given here.
        codecs, code_bytes, selectors: what to combine; pq and dpqed, 4 bytes, kcover by default.
        fractions: of the points to keep; 1, 1/2, 1/4 and 1/8 by default.
        code_budgets: instead of fractions, bytes for codes divided by the number of points of the
            uncompressed map: each code size keeps as many points as this budget pays for.
        seeds: of codecs and selectors, 0 and up.
        ransac_seeds: RANSAC runs for each query.
        granularity: a code for each 'point' or 'observation'.
        matcher, ransac_thresh, thresholds: as for ``localize`` and ``evaluate``.
        codec_options, selector_options: options for each codec and selector, by name.
        matcher_weights, pose_estimator: as for ``localize``.
        overwrite: replace the table of a finished sweep of other arguments; its cells stay, and
            those that are the same are not measured again.
        plots: write plots too (needs matplotlib).
        threads, device, progress: of the work.

    Returns:
        The path of the CSV file.

    Raises:
        InputError: an input is missing or wrong.
    """
    output = Path(output)
    table = output / "sweep.csv"
    chosen = choose(preset, codecs, code_bytes, selectors, fractions, code_budgets)
    limits = parse_thresholds(thresholds)
    check_number("--seeds", seeds, 1, MAX_SEEDS)
    check_number("--ransac_seeds", ransac_seeds, 1, MAX_SEEDS)
    if granularity not in GRANULARITIES:
        raise InputError(f"--granularity {granularity}: expected one of {', '.join(GRANULARITIES)}")
    check_ransac_thresh(ransac_thresh)
    check_pose_estimator(pose_estimator)
    check_matcher(matcher, matcher_weights)
    codec_options, selector_options = codec_options or {}, selector_options or {}
    check_named_options("--codec_options", codec_options, chosen["codecs"])
    check_named_options("--selector_options", selector_options, chosen["selectors"])
    check_seed(seeds)
    check_output(table)
    check_device(device)
    if plots:
        check_matplotlib()
    set_num_threads(threads)
    if Path(features).is_file():
        dim = descriptor_dimension(features)
        for codec, size in itertools.product(chosen["codecs"], chosen["code_bytes"]):
            check_code_bytes(codec, size, dim, codec_options.get(codec))
    reference = read_reference(reference_sfm)
    if reference.visibility.num_observations == 0:
        raise InputError(f"{reference_sfm}: no image of the model sees a 3D point")
    observations = read_observations(reference, features, progress)
    query_features = features if query_features is None else query_features
    posed = read_posed_queries(
        queries, query_features, retrieval, reference_poses, reference.image_names
    )
    known = set(reference.image_names)
    if not any(q.retrieved is None or known.intersection(q.retrieved) for q in posed):
        raise InputError(f"{retrieval}: no pair of a query with an image of {reference_sfm}")
    cells = plan(reference.num_points, observations.dim, range(seeds), **chosen)

    inputs = [*sorted(Path(reference_sfm).iterdir()), Path(features), Path(query_features)]
    conf = {
        "queries": [
            [q.name, *_intrinsics(q), q.retrieved, q.cam_from_world.tolist()] for q in posed
        ],
        "ransac_seeds": ransac_seeds,
        "granularity": granularity,
        "matcher": matcher,
        "ransac_thresh": ransac_thresh,
        "min_inliers": LEAST_INLIERS,
        "version": __version__,
    }
    # Only where they are not the default, so that cells measured before these arguments stay good.
    if pose_estimator != "pycolmap":
        conf["pose_estimator"] = pose_estimator
    if matcher_weights is not None:
        inputs.append(Path(matcher_weights))
    key = run_key([], [path for path in inputs if path.is_file()], conf)
    paths = {
        cell: cell_path(
            output, key, cell, codec_options.get(cell.codec), selector_options.get(cell.selector)
        )
        for cell in cells
    }
    arguments = {
        "cells": [path.name for path in paths.values()],
        "code_budgets": list(chosen["code_budgets"]),
        "thresholds": [list(limit) for limit in limits],
    }
    if table.exists() and not overwrite and _arguments_of(output) != arguments:
        raise InputError(
            f"{table}: is of a sweep with other arguments, pass --overwrite to replace it"
        )
    outcomes: dict[Cell, dict[str, Any]] = {}
    for cell, path in paths.items():
        found = read_cell(path)
        if found is not None:
            outcomes[cell] = found
    missing = [cell for cell in cells if cell not in outcomes]
    logger.info(f"{len(cells)} cells, {len(outcomes)} of them measured before")

    selected: dict[tuple[str, int, int], np.ndarray] = {}
    kind = feature_kind(features)
    bar = tqdm(total=len(cells), initial=len(outcomes), desc="Sweep", disable=not progress)
    with bar, fit_folder(output / "fits") as resume:
        for (codec, size, seed), group in itertools.groupby(missing, key=_codec_of):
            options = codec_options.get(codec, {})
            bar.set_postfix_str(f"fitting {codec} {size} B")
            # One codec for all selections: fitted on every point.
            first = CompressConf(
                "all", codec, size, granularity, seed, {}, options, codec_train="all"
            )
            compressor = Compressor(
                reference, observations, first, device=device, features=kind, resume=resume
            )
            # What a selector chose with its eye on a codec is for that codec alone.
            selected = {key: rows for key, rows in selected.items() if key[0] not in SEE_CODEC}
            for cell in group:
                bar.set_postfix_str(f"{codec} {size} B {cell.selector} {cell.num_points} points")
                own = selector_options.get(cell.selector, {})
                wanted = (cell.selector, cell.num_points, cell.seed)
                if wanted not in selected:
                    selected[wanted] = select_points(
                        compressor.problem, cell.selector, cell.num_points, seed=seed, **own
                    )
                compressor.conf = replace(first, selector=cell.selector, selector_options=own)
                data = to_bytes(compressor.with_points(selected[wanted]))
                outcome = measure_file(
                    data,
                    posed,
                    ransac_seeds,
                    matcher,
                    ransac_thresh,
                    device,
                    matcher_weights,
                    pose_estimator,
                )
                content = {"cell": asdict(cell), "outcome": outcome}
                write_text(paths[cell], json.dumps(content, allow_nan=False))
                outcomes[cell] = outcome
                bar.update()

    in_order = [(cell, outcomes[cell]) for cell in cells]
    data = csv_bytes(in_order, reference.num_points, limits)
    kept = {"arguments": arguments, "table": hashlib.sha256(data).hexdigest()}
    write_text(output / ARGUMENTS, json.dumps(kept))
    write_bytes(table, data)
    logger.info(f"Wrote {table}: {len(cells)} rows")
    if plots:
        budgets = chosen["code_budgets"]
        rows = mean_rows(in_order, reference.num_points, limits, budgets)
        for path in write_plots(output, rows, budgets, limits):
            logger.info(f"Wrote {path}")
    for line in optimum_lines(in_order, reference.num_points, chosen["code_budgets"]):
        logger.info(line)
    return table


def _arguments_of(output: Path) -> Any:
    """The arguments that the table in a folder is of, or None where nothing tells."""
    try:
        kept = json.loads((output / ARGUMENTS).read_text(encoding="utf-8"))
        same = kept["table"] == hashlib.sha256((output / "sweep.csv").read_bytes()).hexdigest()
        return kept["arguments"] if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def choose(
    preset: str | None,
    codecs: Sequence[str] | None,
    code_bytes: Sequence[int] | None,
    selectors: Sequence[str] | None,
    fractions: Sequence[float] | None,
    code_budgets: Sequence[float] | None,
) -> dict[str, tuple[Any, ...]]:
    """What to combine: as given, else the preset's, else the defaults.

    A preset's codecs and selectors that this version does not have are left out with a warning.

    Raises:
        InputError: an unknown name, a size below 1, a fraction or budget out of range, or both.
    """
    if preset is not None and preset not in PRESETS:
        raise InputError(f"--preset {preset}: unknown, expected one of {', '.join(PRESETS)}")
    base = PRESETS[preset] if preset is not None else {}
    if fractions is not None and code_budgets is not None:
        raise InputError("--fractions and --code_budgets exclude one another")

    def present(names: Sequence[str], registered: Container[str], what: str) -> tuple[str, ...]:
        absent = [name for name in names if name not in registered]
        if absent:
            logger.warning(f"--preset {preset}: no {what} {', '.join(absent)} here, left out")
        return tuple(name for name in names if name in registered)

    if codecs is None:
        codecs = present(base.get("codecs", ("pq", "dpqed")), CODECS, "codec")
    if selectors is None:
        selectors = present(base.get("selectors", ("kcover",)), SELECTORS, "selector")
    if code_bytes is None:
        code_bytes = base.get("code_bytes", (4,))
    if fractions is None and code_budgets is None:
        code_budgets = base.get("code_budgets")
        fractions = None if code_budgets else (1.0, 0.5, 0.25, 0.125)
    for name in codecs:
        codec_class(name)
    for name in selectors:
        if name not in SELECTORS:
            raise InputError(f"--selectors {name}: unknown, expected one of {', '.join(SELECTORS)}")
    for size in code_bytes:
        if size < 1:
            raise InputError(f"--code_bytes {size}: expected at least 1")
    for fraction in fractions or ():
        if not 0 < fraction <= 1:
            raise InputError(f"--fractions {fraction}: expected numbers above 0, at most 1")
    for budget in code_budgets or ():
        if not (math.isfinite(budget) and budget > 0):
            raise InputError(f"--code_budgets {budget}: expected positive numbers of bytes")
    if "all" in selectors and (set(fractions or ()) != {1.0}):
        raise InputError("--selectors all: keeps every point, so it goes with --fractions 1 only")
    chosen = {
        "codecs": codecs,
        "code_bytes": code_bytes,
        "selectors": selectors,
        "fractions": fractions or (),
        "code_budgets": code_budgets or (),
    }
    return {name: tuple(dict.fromkeys(values)) for name, values in chosen.items()}


def plan(
    num_points: int,
    dim: int,
    seeds: Sequence[int],
    codecs: Sequence[str],
    code_bytes: Sequence[int],
    selectors: Sequence[str],
    fractions: Sequence[float],
    code_budgets: Sequence[float],
) -> list[Cell]:
    """The cells of a map of ``num_points`` points: those of one codec follow one another."""
    cells = []
    for codec in codecs:
        for size in [0] if codec == "none" else code_bytes:
            counts = [max(1, math.floor(f * num_points)) for f in fractions]
            counts += [affordable(b, num_points, size or 2 * dim) for b in code_budgets]
            for seed, count, selector in itertools.product(seeds, counts, selectors):
                if count == num_points:  # then nothing is selected
                    selector = "all"
                if codec == "none" and selector == "all":  # nothing is random
                    seed = seeds[0]
                cells.append(Cell(codec, size, seed, selector, count))
    return list(dict.fromkeys(cells))


def affordable(budget: float, num_points: int, size: int) -> int:
    """Codes of ``size`` bytes that ``budget`` bytes for each of ``num_points`` points pay for."""
    return min(num_points, max(1, math.floor(budget * num_points / size)))


def _intrinsics(query: PosedQuery) -> list[Any]:
    camera = query.camera
    return [str(camera.model.name), camera.width, camera.height, camera.params.tolist()]


def _codec_of(cell: Cell) -> tuple[str, int, int]:
    return cell.codec, cell.code_bytes, cell.seed


def cell_path(
    output: Path,
    key: str,
    cell: Cell,
    codec_options: dict[str, Any] | None,
    selector_options: dict[str, Any] | None,
) -> Path:
    """Where the outcome of a cell is kept; the name holds a hash of all that it depends on."""
    conf = [key, asdict(cell), codec_options or {}, selector_options or {}]
    digest = hashlib.sha256(json.dumps(conf, sort_keys=True).encode()).hexdigest()[:16]
    name = f"{cell.codec}-{cell.code_bytes}_{cell.selector}-{cell.num_points}_{cell.seed}_{digest}"
    return Path(output) / "cells" / f"{name}.json"


def read_cell(path: Path) -> dict[str, Any] | None:
    """The outcome that ``path`` holds; None where there is none, or a damaged one."""
    try:
        outcome = json.loads(path.read_text(encoding="utf-8"))["outcome"]
        measures_of(outcome)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning(f"{path}: not readable ({error}), measured again")
        return None
    return outcome


def measure_file(
    data: bytes,
    queries: Sequence[PosedQuery],
    ransac_seeds: int,
    matcher: str,
    ransac_thresh: float,
    device: str = "cpu",
    matcher_weights: Path | None = None,
    pose_estimator: str = "pycolmap",
) -> dict[str, Any]:
    """Sizes and measures of a map file's bytes, JSON-able."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map.dpqed"
        path.write_bytes(data)
        sections = section_bytes(path)
        compressed = read_map(path)
    localizer = Localizer(
        compressed,
        matcher,
        ransac_thresh=ransac_thresh,
        device=device,
        matcher_weights=matcher_weights,
        pose_estimator=pose_estimator,
    )
    measured = measure(localizer, queries, ransac_seeds)
    errors = [
        [[value if math.isfinite(value) else None for value in pair] for pair in of_query]
        for of_query in measured.errors.tolist()
    ]
    return {
        "num_points": compressed.num_points,
        "total_bytes": len(data),
        "descriptor_bytes": sections["codes"],
        "codec_bytes": sections["codec"],
        "distinct_codes": len(np.unique(compressed.codes, axis=0)),
        "queries": [query.name for query in queries],
        "correct": measured.correct.tolist(),
        "correct_keypoints": measured.correct_keypoints.tolist(),
        "matched": measured.matched.tolist(),
        "errors": errors,
    }


def measures_of(outcome: dict[str, Any]) -> Measures:
    """The measures of a cell's outcome."""
    errors = np.array(outcome["errors"], float)  # null becomes nan
    if errors.ndim != 3 or errors.shape[2] != 2:
        raise ValueError("no errors")
    return Measures(
        np.array(outcome["correct"], int),
        np.array(outcome["correct_keypoints"], int),
        np.array(outcome["matched"], int),
        np.where(np.isnan(errors), np.inf, errors),
    )


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
