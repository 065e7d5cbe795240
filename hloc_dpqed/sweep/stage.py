"""Accuracy against bytes over codecs, code sizes and selectors: a table and plots."""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from .. import __version__
from ..choices import DEFAULT_THRESHOLDS, GRANULARITIES, LEAST_INLIERS
from ..compression.conf import CompressConf, Work
from ..compression.engine import Compressor
from ..errors import InputError
from ..evaluation.pose_errors import parse_thresholds
from ..evaluation.posed_queries import read_posed_queries
from ..io.atomic import check_output, write_bytes, write_text
from ..io.checkpoint import run_key
from ..io.features import descriptor_dimension, feature_kind
from ..io.model import read_observations, read_reference
from ..localization.pose import check_pose_estimator
from ..logger import logger
from ..mapfile import to_bytes
from ..options import (
    MAX_SEEDS,
    check_code_bytes,
    check_matcher,
    check_named_options,
    check_number,
    check_ransac_thresh,
)
from ..selection import SEE_CODEC, select_points
from ..threads import check_device, check_seed, set_num_threads, steady_products
from ..training.checkpoint import fit_folder
from .cells import Cell, _codec_of, _intrinsics, cell_path, choose, measure_file, plan, read_cell
from .plots import check_matplotlib, write_plots
from .tables import csv_bytes, mean_rows, optimum_lines

ARGUMENTS = "arguments.json"  # of the finished sweep in a folder


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

    kind = feature_kind(features)
    localizing = {
        "matcher": matcher,
        "matcher_weights": matcher_weights,
        "ransac_thresh": ransac_thresh,
        "pose_estimator": pose_estimator,
        "device": device,
    }
    bar = tqdm(total=len(cells), initial=len(outcomes), desc="Sweep", disable=not progress)
    with bar, fit_folder(output / "fits") as resume:
        base = CompressConf("all", granularity=granularity, codec_train="all")
        work = Work(device, resume=resume)
        made = make_maps(
            missing,
            lambda conf: Compressor(reference, observations, conf, work=work, features=kind),
            base,
            codec_options,
            selector_options,
            bar.set_postfix_str,
        )
        for cell, data in made:
            outcome = measure_file(data, posed, ransac_seeds, **localizing)
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


def make_maps(
    cells: Sequence[Cell],
    compressor_of: Callable[[CompressConf], Compressor],
    base: CompressConf,
    codec_options: dict[str, dict[str, Any]],
    selector_options: dict[str, dict[str, Any]],
    tell: Callable[[str], None],
) -> Iterator[tuple[Cell, bytes]]:
    """The map file of each cell; cells of one codec and seed, which follow one another, share it.

    Args:
        cells: in the order of ``plan``.
        compressor_of: of the uncompressed map, with a configuration.
        base: what the cells have in common; one codec serves all selections, fitted on every point.
        codec_options, selector_options: by name.
        tell: what is being done.
    """
    selected: dict[tuple[str, int, int], np.ndarray] = {}
    for (codec, size, seed), group in itertools.groupby(cells, key=_codec_of):
        tell(f"fitting {codec} {size} B")
        options = codec_options.get(codec, {})
        first = replace(base, codec=codec, code_bytes=size, seed=seed, codec_options=options)
        compressor = compressor_of(first)
        # What a selector chose with its eye on a codec is for that codec alone.
        selected = {key: rows for key, rows in selected.items() if key[0] not in SEE_CODEC}
        for cell in group:
            tell(f"{codec} {size} B {cell.selector} {cell.num_points} points")
            own = selector_options.get(cell.selector, {})
            wanted = (cell.selector, cell.num_points, cell.seed)
            if wanted not in selected:
                selected[wanted] = select_points(
                    compressor.problem, cell.selector, cell.num_points, seed=seed, **own
                )
            compressor.conf = replace(first, selector=cell.selector, selector_options=own)
            yield cell, to_bytes(compressor.with_points(selected[wanted]))


def _arguments_of(output: Path) -> Any:
    """The arguments that the table in a folder is of, or None where nothing tells."""
    try:
        kept = json.loads((output / ARGUMENTS).read_text(encoding="utf-8"))
        same = kept["table"] == hashlib.sha256((output / "sweep.csv").read_bytes()).hexdigest()
        return kept["arguments"] if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
