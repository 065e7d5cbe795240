"""The best map at a file size: ours and the peers, planned alike, on the real scenes.

    python benchmarks/budgets.py [--scenes ...] [--budgets ...] [--families ours shipped sign ...]

Every family is planned for each size by the same search on held-out database images, then
compressed from the whole map, for each seed, and measured on the listed queries through the real
file: mutual nearest neighbours, the listed pairs, RANSAC threshold 4 px, 10 RANSAC seeds. Ours
selects points with hybrid, the peers with greedy k-cover; codecs are fitted on the points that are
kept. ``shipped`` is the codec that comes with the package, whose code size alone is planned: the
planner takes the better of it and ours. Peers choose code size, indices of 4 or 8 bits and
codebooks of float16, int8 or 4 bits. Each plan, map and measurement is kept in ``--output``; a
second run does only what is missing. Where another codec comes along since, ``--output`` must
be a new folder.
"""

import argparse
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from common import (
    SCENES,
    Measures,
    Scene,
    bootstrap,
    load_scene,
    measure,
    print_table,
    shipped_with,
)
from scipy.stats import spearmanr

from hloc_dpqed.choices import SHIPPED
from hloc_dpqed.compression.conf import CompressConf
from hloc_dpqed.compression.engine import Compressor
from hloc_dpqed.errors import InputError
from hloc_dpqed.io.atomic import write_bytes, write_text
from hloc_dpqed.io.features import FeatureFile, read_global_descriptors
from hloc_dpqed.mapfile import read_map, section_bytes
from hloc_dpqed.planning.plans import (
    FRUGAL_LEVELS,
    FRUGAL_PIXELS,
    Plan,
    adjacent,
    candidate_plans,
    neighbour_plans,
    shared_plans,
)
from hloc_dpqed.planning.trials import TRIAL_STEPS, Outcome, Trials
from hloc_dpqed.report.outcomes import uncompressed_map
from hloc_dpqed.threads import set_num_threads

# Sizes of the file, and the recall wanted there: (map units, degrees, recall).
TARGETS: dict[str, dict[int, list[tuple[float, float, float]]]] = {
    "fountain-P11": {40_000: [(0.05, 1, 1.0)]},
    "castle-P30": {
        150_000: [(0.05, 1, np.nan), (0.1, 1, np.nan), (0.25, 2, np.nan)],  # as uncompressed
        30_000: [(0.25, 2, 1.0)],
    },
    "south-building": {
        250_000: [(0.05, 1, 1.0)],
        60_000: [(0.25, 2, 1.0)],
        25_000: [(0.25, 2, 0.9)],
    },
    "south-building/xfeat": {250_000: [], 60_000: [], 25_000: []},
}
SHOWN = ((0.01, 0.1), (0.05, 1), (0.1, 1), (0.25, 2))
PEERS = ("sign", "pca", "pq", "rq", "lsq")
ENTRIES = ("float16", "int8", "int4")
PEER_SIZES = (2, 4, 8, 16)


def start_plans(family: str, scene: Scene, budget: int) -> list[Plan]:
    """Where the search of a family begins; precision and scores are those of ours."""
    dim = scene.observations.dim
    ours = candidate_plans(dim, scene.reference.num_points, budget, "total")
    if family == "ours":
        return ours
    if family == SHIPPED:
        return shared_plans(
            shipped_with(scene.features).codec, scene.reference.num_points, budget, "total"
        )
    like = replace(ours[0], codec_part=0.0, options={})  # codes of the mean
    if family == "sign":
        return [replace(like, codec="sign", code_bytes=dim // 8)]
    if family == "pca":
        return [replace(like, codec="pca", code_bytes=16, options={"bits": 4})]
    options = {"bits": 4, "entries": "int4"}
    plans = [replace(like, codec=family, code_bytes=4, options=options)]
    if 4 * 256 * dim // 2 < 0.6 * budget or (family == "pq" and 256 * dim // 2 < 0.6 * budget):
        plans.append(replace(plans[0], options={"bits": 8, "entries": "int4"}))
    return plans


def neighbour_peers(plan: Plan) -> list[Plan]:
    """One step in the code size, in the bits of an index or in the entries."""
    if plan.codec == "sign":  # nothing to choose but the precision
        return neighbour_plans(plan)
    near = [
        replace(plan, code_bytes=size) for size in reversed(adjacent(PEER_SIZES, plan.code_bytes))
    ]
    options = [{"entries": e} for e in adjacent(ENTRIES, plan.options.get("entries"))]
    options.append({"bits": 12 - plan.options["bits"]})
    return near + [replace(plan, options={**plan.options, **option}) for option in options]


def base_conf(family: str, seed: int) -> CompressConf:
    selector = "hybrid" if family in ("ours", SHIPPED) else "kcover"
    return CompressConf(selector=selector, seed=seed, shared=family == SHIPPED)


class KeptTrials(Trials):
    """Trials whose outcomes are kept in ``folder``."""

    folder: Path
    name: str

    def run(self, plan: Plan, budget: int, scope: str) -> Outcome:
        text = json.dumps([asdict(plan), self.conf.selector, budget], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        path = self.folder / "trials" / f"{self.name}_{budget}_{plan.codec}_{digest}.json"
        if not path.is_file():
            try:
                made = super().run(plan, budget, scope)
                kept = {**asdict(made), "errors": made.errors.tolist()}
            except InputError as error:
                kept = {"refused": str(error)}
            write_text(path, json.dumps(kept))
        kept = json.loads(path.read_text())
        if "refused" in kept:
            raise InputError(kept["refused"])
        return Outcome(**{**kept, "plan": plan, "errors": np.array(kept["errors"])})


class Bench:
    """One scene: loaded only if something is missing."""

    def __init__(self, name: str, output: Path, most: int, ransac_seeds: int):
        self.name, self.output, self.most, self.ransac_seeds = name, output, most, ransac_seeds
        self._scene: Scene | None = None
        self._trials: dict[str, Trials] = {}

    @property
    def scene(self) -> Scene:
        self._scene = self._scene or load_scene(self.name)
        return self._scene

    def path(self, *parts: object) -> Path:
        name = "_".join(str(part) for part in (self.name.replace("/", "-"), *parts))
        return self.output / f"{name}.json"

    def trials(self, family: str) -> Trials:
        conf = base_conf(family, 0)
        if family not in self._trials:
            scene = self.scene
            described = read_global_descriptors(
                scene.folder / "global-feats-vlad.h5", scene.reference.image_names
            )
            with FeatureFile(scene.features) as file:
                trials = KeptTrials(
                    scene.reference,
                    scene.observations,
                    conf,
                    file.read,
                    global_descriptors=described,
                    shared=shipped_with(scene.features) if conf.shared else None,
                )
            trials.folder, trials.name = self.output, self.name.replace("/", "-")
            self._trials[family] = trials
        return self._trials[family]

    def plan(self, family: str, budget: int) -> dict | None:
        """The best plan and its score on held-out images; None where nothing fits."""
        path = self.path(budget, family, "plan")
        if not path.is_file():
            scene = self.scene
            start = start_plans(family, scene, budget)
            near = neighbour_plans if family in ("ours", SHIPPED) else neighbour_peers
            try:
                outcomes = self.trials(family).search(start, near, budget, "total", self.most)
                found = [{**asdict(o), "errors": o.errors.tolist()} for o in outcomes]
            except InputError:
                found = []
            write_text(path, json.dumps(found))
        found = json.loads(path.read_text())
        return found[0] if found else None

    def cell(self, family: str, budget: int, plan: Plan, seed: int, name: str = "") -> dict:
        """The whole map within the budget, measured on the listed queries."""
        path = self.path(budget, name or family, seed)
        if not path.is_file():
            scene = self.scene
            conf = plan.conf(base_conf(family, seed), budget)
            given: dict = {}
            if conf.shared:
                shared = shipped_with(scene.features)
                codec = shared.codec.head(conf.code_bytes)
                given = {"codec": codec, "codec_hash": shared.digest}
            compressor = Compressor(scene.reference, scene.observations, conf, **given)
            data = compressor.fit_budget(budget, "total")[1]
            write_bytes(path.with_suffix(".dpqed"), data)
            write_text(path, json.dumps(self.measured(path.with_suffix(".dpqed"))))
        return json.loads(path.read_text())

    def uncompressed(self) -> dict:
        path = self.path("uncompressed")
        if not path.is_file():
            compressed = uncompressed_map(self.scene.reference, self.scene.features, False)
            found = outcome(measure(compressed, self.scene.queries, self.ransac_seeds))
            write_text(path, json.dumps(found))
        return json.loads(path.read_text())

    def measured(self, path: Path) -> dict:
        compressed = read_map(path)
        measures = measure(compressed, self.scene.queries, self.ransac_seeds)
        return {
            "total_bytes": path.stat().st_size,
            "num_points": compressed.num_points,
            "sections": section_bytes(path),
            **outcome(measures),
        }


def outcome(measures: Measures) -> dict:
    return {
        "correct": measures.correct.tolist(),
        "correct_keypoints": measures.correct_keypoints.tolist(),
        "matched": measures.matched.tolist(),
        "errors": measures.errors.tolist(),
    }


def measures_of(cell: dict) -> Measures:
    return Measures(
        np.array(cell["correct"]),
        np.array(cell["correct_keypoints"]),
        np.array(cell["matched"]),
        np.array(cell["errors"]),
    )


def table_row(label: str, score: str, cells: list[dict], best: np.ndarray) -> list[str]:
    """One line: means over seeds; the interval compares correct matches with ``best``."""
    runs = [measures_of(cell) for cell in cells]
    correct = np.mean([run.correct for run in runs], axis=0)
    translation, rotation = np.mean([run.median_errors() for run in runs], axis=0)
    low, high = bootstrap(correct - best)
    size = np.mean([cell["total_bytes"] for cell in cells]) if "total_bytes" in cells[0] else 0
    codec = np.mean([c["sections"].get("codec", 0) for c in cells]) if size else 0
    points = np.mean([cell["num_points"] for cell in cells]) if size else 0
    return [
        label,
        f"{size / 1000:.1f}" if size else "",
        f"{points:.0f}" if size else "",
        f"{codec / 1000:.1f}" if size else "",
        score,
        f"{correct.mean():.0f}",
        f"{low:+.0f} .. {high:+.0f}" if np.any(correct != best) else "",
        f"{np.mean([run.precision.mean() for run in runs]):.2f}",
        f"{translation:.4f} / {rotation:.3f}",
        " / ".join(f"{np.mean([run.recall(*t) for run in runs]):.2f}" for t in SHOWN),
    ]


def plan_of(found: dict) -> Plan:
    return Plan(**found["plan"])


def given_plan(text: str) -> Plan:
    """``codec:code_bytes[:option=value ...]``, written as coarsely as planned maps are."""
    codec, size, *rest = text.split(":")
    options = {key: json.loads(value) if value[0].isdigit() else value
               for key, _, value in (part.partition("=") for part in rest)}  # fmt: skip
    part = float(options.pop("codec_part", 0.0))
    return Plan(codec, int(size), options, part, FRUGAL_PIXELS, FRUGAL_LEVELS)


def rows_of_plans(
    bench: Bench, budget: int, plans: list[str], seeds: int
) -> Iterator[tuple[str, str, list[dict]]]:
    """As ``rows_of_budget``, for given plans instead of the best of each family."""
    for text in plans:
        plan = given_plan(text)
        family = {"drqed": "ours", SHIPPED: SHIPPED}.get(plan.codec, plan.codec)
        if family == SHIPPED:
            codec = shipped_with(bench.scene.features).codec.name
            plan = replace(plan, codec=codec, shared=True)
        name = text.replace(":", "-")
        try:
            cells = [bench.cell(family, budget, plan, seed, name) for seed in range(seeds)]
        except InputError:
            continue
        yield f"{f'{family}: ' if family in ('ours', SHIPPED) else ''}{plan}", "", cells


def rows_of_budget(
    bench: Bench, budget: int, families: list[str], seeds: int
) -> Iterator[tuple[str, str, list[dict]]]:
    """Family, score on held-out images, and the cells; ``best peer`` is the one of best score."""
    peers: list[tuple[float, str, list[dict]]] = []
    for family in families:
        found = bench.plan(family, budget)
        if found is None:
            continue
        plan = plan_of(found)
        cells = [bench.cell(family, budget, plan, seed) for seed in range(seeds)]
        label = f"{f'{family}: ' if family in ('ours', SHIPPED) else ''}{plan}"
        yield label, f"{found['score']:.2f}", cells
        if family in PEERS:
            peers.append((found["score"], label, cells))
    if peers:
        score, label, cells = min(peers, key=lambda peer: peer[0])
        yield f"best peer: {label}", f"{score:.2f}", cells


def print_scene(
    bench: Bench, budgets: list[int], families: list[str], plans: list[str], seeds: int
) -> None:
    print(f"\n### {bench.name}\n")
    whole = bench.uncompressed()
    limits = " ".join(f"{t:g}/{r:g}" for t, r in SHOWN)
    header = ["plan", "file KB", "points", "codec KB", "held-out score", "correct"]
    header += ["minus ours, 95 %", "precision", "median error (units / deg)", f"recall {limits}"]
    none = np.array(whole["correct"], float)
    rows = [table_row("uncompressed (hloc's per observation)", "", [whole], none)]
    verdicts = []
    for budget in budgets:
        ours = None
        rows_of = rows_of_plans if plans else rows_of_budget
        for label, score, cells in rows_of(bench, budget, plans or families, seeds):
            correct = np.mean([cell["correct"] for cell in cells], axis=0)
            ours = correct if ours is None else ours
            rows.append(table_row(f"{budget / 1000:g} KB, {label}", score, cells, ours))
            if label.startswith(("ours", SHIPPED)):
                verdicts += judge(bench.name, budget, cells, whole)
    print_table(header, rows)
    print("\n" + "\n".join(verdicts))


def judge(scene: str, budget: int, cells: list[dict], whole: dict) -> list[str]:
    """Whether ours meets the targets of a size."""
    lines = []
    for translation, rotation, wanted in TARGETS[scene].get(budget, []):
        if np.isnan(wanted):
            wanted = measures_of(whole).recall(translation, rotation)
        got = np.mean([measures_of(cell).recall(translation, rotation) for cell in cells])
        word = "met" if got >= wanted - 1e-9 else "missed"
        lines.append(
            f"- {budget / 1000:g} KB, recall at {translation:g}/{rotation:g}: {got:.3f}, wanted "
            f"{wanted:.3f}: {word}"
        )
    return lines


def print_ranking(bench: Bench, budgets: list[int], steps: int, most: int) -> None:
    """How well trials of ``TRIAL_STEPS`` rank our plans of drqed: as trials of ``steps`` do?"""
    print(f"\n### {bench.name}: plans as trials of {TRIAL_STEPS} and of {steps} steps score them\n")
    rows = []
    for budget in budgets:
        bench.plan("ours", budget)
        tried = json.loads(bench.path(budget, "ours", "plan").read_text())[:most]
        short, long = [], []
        for found in tried:
            plan = plan_of(found)
            if plan.codec != "drqed":
                continue
            longer = replace(plan, options={**plan.options, "steps": steps})
            short.append(found["score"])
            long.append(bench.trials("ours").run(longer, budget, "total").score)
            rows.append([f"{budget / 1000:g} KB, {plan}", f"{short[-1]:.3f}", f"{long[-1]:.3f}"])
        correlation = spearmanr(short, long).statistic
        lost = long[int(np.argmin(short))] - min(long)
        rows.append(
            [f"{budget / 1000:g} KB: rank correlation, loss", f"{correlation:.2f}", f"{lost:.3f}"]
        )
    print_table(["plan", f"score, {TRIAL_STEPS} steps", f"{steps} steps"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    scenes = [name for name in SCENES if name in TARGETS]
    parser.add_argument("--scenes", nargs="+", choices=scenes, default=scenes)
    parser.add_argument("--budgets", nargs="+", type=int, help="bytes; the targets' by default")
    parser.add_argument(
        "--families", nargs="+", choices=("ours", SHIPPED, *PEERS), default=["ours", *PEERS]
    )
    parser.add_argument(
        "--plans",
        nargs="+",
        default=[],
        metavar="CODEC:BYTES[:OPTION=VALUE...]",
        help="measure these instead of searching, such as drqed:2:codec_part=0.3",
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ransac_seeds", type=int, default=10)
    parser.add_argument("--most", type=int, default=10, help="plans tried for a size and family")
    parser.add_argument(
        "--rank_steps",
        type=int,
        help="only score our plans again with so many training steps, and compare the ranks",
    )
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path, default=Path("outputs/budgets"))
    args = parser.parse_args()
    set_num_threads(args.threads)
    for name in args.scenes:
        bench = Bench(name, args.output, args.most, args.ransac_seeds)
        budgets = args.budgets or list(TARGETS[name])
        if args.rank_steps:
            print_ranking(bench, budgets, args.rank_steps, args.most)
            continue
        print_scene(bench, budgets, args.families, args.plans, args.seeds)


if __name__ == "__main__":
    main()
