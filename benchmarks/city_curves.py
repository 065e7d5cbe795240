"""Cost of each stage against the kept points, the retrieved images and the queries, each alone.

    python benchmarks/city.py --scale 0.2 --folder outputs/city --num_queries 100
    python benchmarks/city_curves.py --scale 0.2 --folder outputs/city --plot docs/images/curves.svg

Takes the files that ``city.py`` wrote and varies one number at a time; each cell is a process of
its own with one thread, whose CPU seconds and peak memory are kept in ``FOLDER/SCALE/curves`` and
not measured again. Of CPU seconds a line ``base + slope x number`` is fitted (the base is start-up:
imports, the map, decoding), and a power to what is above the base.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from city import COMMAND, KEPT_POINTS, measured
from common import print_table

Curves = dict[str, list[tuple[int, dict[str, Any]]]]
AGAINST = ("points", "images", "queries")
POINT_SHARES = (1 / 16, 1 / 4, 1)  # of the largest number
QUERY_SHARES = (0.1, 0.3, 1)
NUM_QUERIES = 40  # where something else is varied


def first_lines(source: Path, output: Path, names: set[str], per_name: int) -> None:
    """Copy the first ``per_name`` lines of each of the names."""
    kept, seen = [], dict.fromkeys(names, 0)
    for line in source.read_text().splitlines():
        name = line.split()[0]
        if name in names and seen[name] < per_name:
            seen[name] += 1
            kept.append(line)
    output.write_text("\n".join(kept) + "\n")


def localize(
    folder: Path, city: Path, map_path: Path, queries: int, images: int | None
) -> dict[str, Any]:
    """``localize`` of the first queries with as many retrieved images, or the whole map."""
    lines = (city / "queries.txt").read_text().splitlines()[:queries]
    (folder / "queries.txt").write_text("\n".join(lines) + "\n")
    retrieval = "none"
    if images is not None:
        names = {line.split()[0] for line in lines}
        first_lines(city / "pairs.txt", folder / "pairs.txt", names, images)
        retrieval = f"{folder}/pairs.txt"
    return measured([
        *COMMAND, "localize", "--map", str(map_path), "--queries", f"{folder}/queries.txt",
        "--features", f"{city}/features.h5", "--retrieval", retrieval, "--results",
        f"{folder}/out.txt", "--threads", "1", "--json",
    ])  # fmt: skip


def compress(city: Path, map_path: Path, points: int) -> dict[str, Any]:
    return measured([
        *COMMAND, "compress", "--reference_sfm", f"{city}/sfm", "--features",
        f"{city}/features.h5", "--output", str(map_path), "--num_points", str(points),
        "--code_bytes", "4", "--threads", "1", "--overwrite",
    ])  # fmt: skip


def run(city: Path, scale: float, against: list[str]) -> Curves:
    """All curves: (number, figures of the process) of each stage."""
    folder = city / "curves"
    folder.mkdir(exist_ok=True)
    state = folder / "cells.json"
    done: dict[str, Any] = json.loads(state.read_text()) if state.is_file() else {}
    found: Curves = {}

    def cell(curve: str, number: int, work) -> None:
        key = f"{curve}: {number}"
        if key not in done:
            done[key] = work()
            state.write_text(json.dumps(done))
        found.setdefault(curve, []).append((number, done[key]))

    largest = round(KEPT_POINTS * scale)
    whole = folder / f"{largest}.dpqed"
    for share in POINT_SHARES if "points" in against else ():
        points = round(largest * share)
        path = folder / f"{points}.dpqed"
        cell("compress, points", points, lambda p=path, n=points: compress(city, p, n))
        for label, images in (("50 images", 50), ("whole map", None)):
            cell(
                f"localize with {label}, points",
                points,
                lambda p=path, k=images: localize(folder, city, p, NUM_QUERIES, k),
            )
    if not whole.exists():
        compress(city, whole, largest)
    for images in (6, 12, 25, 50) if "images" in against else ():
        cell(
            "localize, retrieved images",
            images,
            lambda k=images: localize(folder, city, whole, NUM_QUERIES, k),
        )
    total = len((city / "queries.txt").read_text().splitlines())
    for label, kept in (("50 images", 50), ("whole map", None)) if "queries" in against else ():
        for share in QUERY_SHARES:
            count = round(total * share)
            cell(
                f"localize with {label}, queries",
                count,
                lambda n=count, k=kept: localize(folder, city, whole, n, k),
            )
    return found


def fit(numbers: np.ndarray, values: np.ndarray) -> tuple[float, float, float]:
    """Base and slope of a line, its relative errors least; and the power of what is above."""
    design = np.stack([np.ones(len(numbers)), numbers], 1) / values[:, None]
    base, slope = np.linalg.lstsq(design, np.ones(len(numbers)), rcond=None)[0]
    above = np.maximum(values - max(base, 0), 1e-9)
    return base, slope, np.polyfit(np.log(numbers), np.log(above), 1)[0]


def plot(found: Curves, output: Path) -> None:
    """Draw CPU seconds and peak memory of each curve."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "0"
    import matplotlib.pyplot as plt

    kinds = list(dict.fromkeys(name.rsplit(", ", 1)[1] for name in found))
    size = (4 * len(kinds), 6)
    figure, axes = plt.subplots(2, len(kinds), figsize=size, sharex="col", squeeze=False)
    for name, cells in found.items():
        stage, kind = name.rsplit(", ", 1)
        column = kinds.index(kind)
        numbers = [number for number, _ in cells]
        for row, key in enumerate(("cpu_seconds", "gigabytes")):
            axes[row, column].loglog(numbers, [c[key] for _, c in cells], "o-", label=stage)
    for column, kind in enumerate(kinds):
        axes[1, column].set_xlabel(kind)
        axes[0, column].legend(fontsize=7)
        for row in (0, 1):
            axes[row, column].grid(alpha=0.3)
    axes[0, 0].set_ylabel("CPU seconds of the process")
    axes[1, 0].set_ylabel("peak memory, GB")
    figure.tight_layout()
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--scale", type=float, default=0.2)
    parser.add_argument("--folder", type=Path, default=Path("outputs/city"))
    parser.add_argument("--plot", type=Path, metavar="SVG")
    parser.add_argument("--against", nargs="+", choices=AGAINST, default=list(AGAINST))
    args = parser.parse_args()
    found = run(args.folder / f"{args.scale:g}", args.scale, args.against)
    rows = []
    for name, cells in found.items():
        numbers = np.array([number for number, _ in cells], float)
        seconds = np.array([c["cpu_seconds"] for _, c in cells])
        memory = [c["gigabytes"] for _, c in cells]
        base, slope, power = fit(numbers, seconds)
        row = [name, f"{numbers[0]:.0f} to {numbers[-1]:.0f}"]
        row += [f"{seconds[0]:.1f} to {seconds[-1]:.1f}", f"{base:.1f} + {slope:.3g} x number"]
        rows.append([*row, f"{power:.2f}", f"{memory[0]:.2f} to {memory[-1]:.2f}"])
    print_table(["stage, against", "from, to", "CPU s", "line", "power above base", "GB"], rows)
    if args.plot:
        plot(found, args.plot)


if __name__ == "__main__":
    main()
