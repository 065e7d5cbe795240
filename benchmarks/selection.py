"""Selectors compared: what localizes best with few points.

    python benchmarks/selection.py --queries listed    the final table, the scenes' own queries
    python benchmarks/selection.py --queries pseudo    held-out database images, to choose defaults
    python benchmarks/selection.py --scale             time and memory on the synthetic city

Budgets are shares of the points ('0.03') or what greedy K-cover needs to leave K points in every
database image ('k50'). Mutual nearest neighbours, RANSAC threshold 4 px; one descriptor a point
(``--codec none``) or its code of 4 bytes (``--codec pq``). Selectors that draw run with three
seeds. Every cell is written to ``--output`` as it is measured; a second run does only what is
missing there. Differences are paired over queries, with bootstrap 95 % intervals.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from common import SCENES, Measures, PosedQuery, bootstrap, load_scene, measure, print_table

from hloc_dpqed.codecs import Codec, fit_codec, sharpens
from hloc_dpqed.io.atomic import write_text
from hloc_dpqed.io.features import FeatureFile, read_global_descriptors
from hloc_dpqed.logger import configure_logging
from hloc_dpqed.maps.compressed import CompressedMap
from hloc_dpqed.planning.holdout import hold_out
from hloc_dpqed.scene.reference import Observations, ReferenceMap, mean_scores
from hloc_dpqed.scene.spatial import spread_folds
from hloc_dpqed.selection import select_points
from hloc_dpqed.selection.base import SelectionProblem
from hloc_dpqed.selection.kcover import cover_size
from hloc_dpqed.threads import set_num_threads
from hloc_dpqed.training.sharpen import with_sharpened_targets

METHODS = ["random", "track_length", "kcover", "probcover", "ilp", "qp", "triplet", "hybrid"]
DRAWS = {"random", "triplet"}
BUDGETS = ["0.3", "0.1", "0.03", "k20", "k50", "k100", "k200"]
FOLDS = {"fountain-P11": 7, "castle-P30": 5, "south-building": 4, "south-building/xfeat": 4}
FINE = {"fountain-P11": 0.02, "castle-P30": 0.02}  # metres at 0.1 degrees; else 0.01
COARSE = (0.25, 2.0)  # units and degrees of the recall that tells whether a map still works
FAILED = 10.0  # units; a larger error or no pose counts as this one in the logarithm
STATISTICS = ("correct", "keypoints", "precision", "log_error")


class Part:
    """A map to choose points of, and the queries to try them on."""

    def __init__(self, reference: ReferenceMap, observations: Observations, queries, codec: str):
        self.reference, self.observations = reference, observations
        self.queries: list[PosedQuery] = queries
        if sharpens(codec):
            observations = with_sharpened_targets(observations)
        self.codec: Codec = fit_codec(codec, observations, 4)
        self.codes = self.codec.encode_points(observations)
        self.problem = SelectionProblem.from_reference(reference, observations, lambda: self.codec)
        self.scores = mean_scores(observations)

    def budget(self, name: str) -> int:
        if name.startswith("k"):
            return max(1, cover_size(self.problem, int(name[1:])))
        return max(1, int(float(name) * self.reference.num_points))

    def compressed(self, rows: np.ndarray) -> CompressedMap:
        reference = self.reference
        visibility, _ = reference.visibility.keep_points(rows)
        return CompressedMap(
            reference.image_names,
            reference.cameras,
            reference.camera_index,
            reference.cam_from_world,
            reference.xyz[rows],
            visibility,
            "point",
            self.codec,
            self.codes[rows],
            self.scores[rows],
        )


def parts_of(scene_name: str, queries: str, codec: str) -> list[Part]:
    """The whole map with its listed queries, or one part for each fold of pseudo-queries."""
    scene = load_scene(scene_name)
    if queries == "listed":
        return [Part(scene.reference, scene.observations, scene.queries, codec)]
    descriptors = read_global_descriptors(
        scene.folder / "global-feats-vlad.h5", scene.reference.image_names
    )
    folds = spread_folds(scene.reference.cam_from_world, FOLDS[scene_name])
    parts = []
    with FeatureFile(scene.features) as file:
        for fold in range(FOLDS[scene_name]):
            split = hold_out(
                scene.reference,
                scene.observations,
                np.flatnonzero(folds == fold),
                read_features=file.read,
                global_descriptors=descriptors,
                num_retrieved=len(scene.queries[0].retrieved),
            )
            asked = [
                PosedQuery(q.name, q.camera, q.features, q.retrieved, q.cam_from_world)
                for q in split.queries
            ]
            parts.append(Part(split.reference, split.observations, asked, codec))
    return parts


def run_cell(parts: list[Part], method: str, budget: str, options: dict, ransac: int) -> dict:
    """Measure a method at a budget on all parts; arrays have an entry for each seed and query."""
    seeds = 3 if method in DRAWS else 1
    values: dict[str, list] = {name: [] for name in (*STATISTICS, "errors")}
    points, seconds = 0, 0.0
    for seed in range(seeds):
        runs: list[Measures] = []
        points = 0
        for part in parts:
            start = time.process_time()
            rows = select_points(part.problem, method, part.budget(budget), seed=seed, **options)
            seconds += time.process_time() - start
            points += len(rows)
            runs.append(measure(part.compressed(rows), part.queries, ransac))
        errors = np.concatenate([run.errors for run in runs])
        log_error = np.log(np.clip(errors[..., 0], 1e-5, FAILED)).mean(1)
        values["correct"].append(np.concatenate([run.correct for run in runs]).tolist())
        values["keypoints"].append(np.concatenate([r.correct_keypoints for r in runs]).tolist())
        values["precision"].append(np.concatenate([run.precision for run in runs]).tolist())
        values["log_error"].append(log_error.tolist())
        values["errors"].append(errors.tolist())
    return {**values, "points": points, "cpu_seconds": seconds / seeds}


def mean_over_seeds(cell: dict, statistic: str) -> np.ndarray:
    """(Q,) of a cell."""
    return np.mean(cell[statistic], axis=0)


def recalled(cell: dict) -> np.ndarray:
    """(Q,) share of a query's runs within ``COARSE``."""
    errors = np.array(cell["errors"])
    return ((errors[..., 0] < COARSE[0]) & (errors[..., 1] < COARSE[1])).mean((0, 2))


def recall(cell: dict, translation: float, rotation: float) -> float:
    errors = np.array(cell["errors"])
    return float(np.mean((errors[..., 0] < translation) & (errors[..., 1] < rotation)))


def gains(ours: dict, theirs: dict, statistic: str) -> np.ndarray:
    """(Q,) by how much ours is better for each query, as a share of the other's mean.

    The logarithm of the error is compared as it is: 0.05 is 5 % of the error.
    """
    a, b = mean_over_seeds(ours, statistic), mean_over_seeds(theirs, statistic)
    if statistic == "log_error":
        return b - a
    return (a - b) / max(b.mean(), 1e-12)


def verdict(gain: np.ndarray) -> str:
    """'+' better, '=' no worse by over 5 %, '-' worse, '?' too few queries to tell."""
    low, high = bootstrap(gain)
    if low > 0:
        return "+"
    if low >= -0.05:
        return "="
    return "-" if high < 0 else "?"


def tied(ours: dict, others: list[dict]) -> bool:
    """Whether no method differs from ours in any statistic."""
    intervals = [bootstrap(gains(ours, cell, s)) for cell in others for s in STATISTICS]
    return all(low <= 0 <= high for low, high in intervals)


def print_cells(scene: str, cells: dict[str, dict], methods: list[str], budgets: list[str]) -> None:
    """A table for each budget; the intervals are hybrid minus the method."""
    fine = FINE.get(scene, 0.01)
    for budget in budgets:
        own = {m: cells[f"{m}/{budget}"] for m in methods if f"{m}/{budget}" in cells}
        if not own:
            continue
        ours = own.get("hybrid")
        points = next(iter(own.values()))["points"]
        others = [cell for cell in own.values() if cell is not ours]
        mark = ", all tied" if ours is not None and others and tied(ours, others) else ""
        queries = len(mean_over_seeds(next(iter(own.values())), "correct"))
        print(f"\n{scene}, budget {budget}: {points} points, {queries} queries{mark}\n")
        rows = []
        for method, cell in own.items():
            row = [method]
            for statistic, digits in (("correct", 1), ("precision", 3), ("log_error", 2)):
                row.append(f"{mean_over_seeds(cell, statistic).mean():.{digits}f}")
                if ours is None or cell is ours:
                    row.append("")
                    continue
                low, high = bootstrap(
                    mean_over_seeds(ours, statistic) - mean_over_seeds(cell, statistic)
                )
                row.append(f"{low:+.{digits}f} .. {high:+.{digits}f}")
            row += [f"{recall(cell, fine, 0.1):.2f}", f"{recall(cell, 0.25, 2):.2f}"]
            rows.append([*row, f"{cell['cpu_seconds']:.1f}"])
        print_table(
            [
                "method",
                "correct",
                "hybrid minus it",
                "precision",
                "hybrid minus it",
                "log error",
                "hybrid minus it",
                f"recall {fine}/0.1",
                "recall 0.25/2",
                "CPU s",
            ],
            rows,
        )


def print_pooled(results: dict[str, dict], methods: list[str], budgets: list[str]) -> None:
    """Hybrid against each method, all scenes' queries together: by how much it is better."""
    print("\nAll scenes pooled: by how much hybrid is better, mean and 95 % interval\n")
    rows = []
    for budget in budgets:
        for method in methods:
            pairs = [
                (cells[f"hybrid/{budget}"], cells[f"{method}/{budget}"])
                for cells in results.values()
                if f"hybrid/{budget}" in cells and f"{method}/{budget}" in cells
            ]
            if method == "hybrid" or not pairs:
                continue
            row = [budget, method]
            for statistic in STATISTICS:
                gain = np.concatenate([gains(*pair, statistic) for pair in pairs])
                low, high = bootstrap(gain)
                row.append(f"{verdict(gain)} {gain.mean():+.3f} ({low:+.3f} .. {high:+.3f})")
            rows.append(row)
    print_table(["budget", "method", *STATISTICS], rows)


def print_verdicts(results: dict[str, dict], methods: list[str], budgets: list[str]) -> None:
    """For each cell and method the verdicts of the four statistics, in their order."""
    print(f"\nHybrid against each method: {', '.join(STATISTICS)}\n")
    rows = []
    others = [method for method in methods if method != "hybrid"]
    for scene, cells in results.items():
        for budget in budgets:
            ours = cells.get(f"hybrid/{budget}")
            if ours is None:
                continue
            found = [cells.get(f"{method}/{budget}") for method in others]
            mark = " (all tied)" if tied(ours, [cell for cell in found if cell]) else ""
            row = [scene, budget + mark]
            for cell in found:
                letters = [verdict(gains(ours, cell, s)) for s in STATISTICS] if cell else []
                row.append("".join(letters))
            rows.append(row)
    print_table(["scene", "budget", *others], rows)


def print_recalls(results: dict[str, dict], methods: list[str], budgets: list[str]) -> None:
    """Recall at ``COARSE`` of each method, and hybrid's verdict against the best of the others."""
    limits = f"{COARSE[0]:g}/{COARSE[1]:g}"
    print(f"\nRecall at {limits}; hybrid minus the best other, 95 % interval over queries\n")
    rows = []
    others = [method for method in methods if method != "hybrid"]
    for scene, cells in results.items():
        for budget in budgets:
            if f"hybrid/{budget}" not in cells:
                continue
            shares = {
                m: recalled(cells[f"{m}/{budget}"]) for m in methods if f"{m}/{budget}" in cells
            }
            figures = [
                f"{shares[m].mean():.2f}" if m in shares else "" for m in [*others, "hybrid"]
            ]
            rest = {m: share for m, share in shares.items() if m != "hybrid"}
            mark, interval = "", ""
            if rest:
                best = max(rest, key=lambda m: rest[m].mean())
                gain = shares["hybrid"] - rest[best]
                low, high = bootstrap(gain)
                interval = f"{best}: {gain.mean():+.3f} ({low:+.3f} .. {high:+.3f})"
                mark = "saturated" if min(s.mean() for s in shares.values()) == 1 else verdict(gain)
            rows.append([scene, budget, *figures, interval, mark])
    print_table(["scene", "budget", *others, "hybrid", "hybrid minus the best other", ""], rows)


def run_scale(method: str, scale: float, options: dict) -> None:
    """Select 10 % of a synthetic city's points; prints time, peak memory and what was logged."""
    from synthetic_city import scaled_city

    configure_logging()  # ilp logs its gap to the LP bound
    reference, observations = scaled_city(scale)
    problem = SelectionProblem.from_reference(reference, observations)
    start, cpu = time.perf_counter(), time.process_time()
    select_points(problem, method, reference.num_points // 10, **options)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    count = reference.visibility.num_observations
    print(json.dumps({"observations": count, "wall": wall, "cpu": cpu, "gigabytes": peak}))


def print_scale(methods: list[str], scales: list[float], options: dict, output: Path) -> None:
    """Each run in its own process; the fit is CPU time = c (n log n)^p, and memory = c n^p."""
    stored = json.loads(output.read_text()) if output.is_file() else {}
    rows = []
    for method in methods:
        runs = []
        for scale in scales:
            key = f"{method} {scale} {json.dumps(options)}"
            if key not in stored:
                command = [sys.executable, __file__, "--scale_one", method, str(scale)]
                command += ["--options", json.dumps(options)]
                answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                stored[key] = json.loads(answer.stdout.splitlines()[-1])
                output.parent.mkdir(parents=True, exist_ok=True)
                write_text(output, json.dumps(stored))
                print(f"{key} {stored[key]}", file=sys.stderr, flush=True)
            runs.append(stored[key])
        n = np.array([run["observations"] for run in runs], float)
        cpu = np.array([run["cpu"] for run in runs])
        memory = np.array([run["gigabytes"] for run in runs])
        powers = ["", ""]
        if len(runs) > 1:
            powers = [
                f"{np.polyfit(np.log(n * np.log(n)), np.log(cpu), 1)[0]:.2f}",
                f"{np.polyfit(np.log(n), np.log(memory), 1)[0]:.2f}",
            ]
        for run in runs:
            figures = [f"{run['cpu']:.1f}", f"{run['wall']:.1f}", f"{run['gigabytes']:.2f}"]
            rows.append([method, run["observations"], *figures, *powers])
    print_table(
        ["method", "observations", "CPU s", "wall s", "GB", "power of n log n", "power of n (GB)"],
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--queries", choices=("listed", "pseudo"), default="listed")
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--budgets", nargs="+", default=BUDGETS)
    parser.add_argument("--codec", default="none", help="none, or a codec at 4 bytes")
    parser.add_argument("--ransac_seeds", type=int, default=10)
    parser.add_argument("--options", type=json.loads, default={}, help="JSON, of the selector")
    parser.add_argument("--output", type=Path, default=Path("outputs/selection.json"))
    parser.add_argument("--scale", action="store_true")
    parser.add_argument("--scale_output", type=Path, default=Path("outputs/selection_scale.json"))
    parser.add_argument("--scales", nargs="+", type=float, default=[0.037, 0.12, 0.37, 1.11])
    parser.add_argument("--scale_one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    set_num_threads(1)
    if args.scale_one:
        run_scale(args.scale_one[0], float(args.scale_one[1]), args.options)
        return
    if args.scale:
        print_scale(args.methods, args.scales, args.options, args.scale_output)
        return
    stored = json.loads(args.output.read_text()) if args.output.is_file() else {}
    results: dict[str, dict] = {}
    suffix = f" {json.dumps(args.options)}" if args.options else ""
    for scene in args.scenes:
        key = f"{scene} {args.queries} {args.codec} {args.ransac_seeds}{suffix}"
        cells = stored.setdefault(key, {})
        wanted = [(m, b) for b in args.budgets for m in args.methods]
        missing = [(m, b) for m, b in wanted if f"{m}/{b}" not in cells]
        parts = parts_of(scene, args.queries, args.codec) if missing else []
        for method, budget in missing:
            cells[f"{method}/{budget}"] = run_cell(
                parts, method, budget, args.options, args.ransac_seeds
            )
            args.output.parent.mkdir(parents=True, exist_ok=True)
            write_text(args.output, json.dumps(stored))
            print(f"{key} {method} {budget}", file=sys.stderr, flush=True)
        results[scene] = cells
        print_cells(scene, cells, args.methods, args.budgets)
    if "hybrid" in args.methods and len(args.methods) > 1:
        print_pooled(results, args.methods, args.budgets)
        print_verdicts(results, args.methods, args.budgets)
        print_recalls(results, args.methods, args.budgets)


if __name__ == "__main__":
    main()
