"""Cells of a sweep: what is combined, where each outcome is kept, how one is measured."""

import hashlib
import itertools
import json
import math
import tempfile
from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..choices import PRESETS
from ..codecs import CODECS, codec_class
from ..errors import InputError
from ..evaluation.measures import Measures, PosedQuery, measure
from ..localization.localizer import Localizer
from ..logger import logger
from ..mapfile import read_map, section_bytes
from ..selection import SELECTORS


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
    data: bytes, queries: Sequence[PosedQuery], ransac_seeds: int, **localizing: Any
) -> dict[str, Any]:
    """Sizes and measures of a map file's bytes, JSON-able.

    Args:
        data: of the file.
        queries: to localize.
        ransac_seeds: RANSAC runs for each query.
        localizing: options of ``Localizer``.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map.dpqed"
        path.write_bytes(data)
        sections = section_bytes(path)
        compressed = read_map(path)
    measured = measure(Localizer(compressed, **localizing), queries, ransac_seeds)
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
