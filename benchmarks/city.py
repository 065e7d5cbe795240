"""A city-sized map on a small machine: time and peak memory of each stage, beside recall.

    python benchmarks/city.py --scale 0.05 --folder outputs/city
    python benchmarks/city.py --plot docs/images/scale.svg --folder outputs/city

Writes the synthetic city of ``city_files.py`` at ``--scale`` times Aachen's size (685,000 points,
4,328 images, 2.7 million observations, 256 dimensions) as hloc's files, compresses it with
250,000 x ``--scale`` points of 4 bytes (1 MB of codes at scale 1), and localizes queries of 2,048
keypoints with 50 retrieved images (15 of them wrong) and against the whole map. Each stage is a
process of its own whose peak memory is that of the whole process. Stages that are in
``FOLDER/SCALE/stages.json`` are not run again; ``--plot`` fits a power to each stage over the
scales that were measured. Needs the shared scenes, for the descriptors.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from city_files import TrackSampler, real_tracks, statistics, write_city
from common import load_scene, print_table
from synthetic_city import scaled_city

from hloc_dpqed import evaluate

KEPT_POINTS = 250_000  # at scale 1: 1 MB of codes of 4 bytes
THRESHOLDS = "0.25/2,0.5/5,5/10"
SCENES = ("fountain-P11", "castle-P30", "south-building")
COMMAND = [sys.executable, "-m", "hloc_dpqed.cli"]


def measured(command: list[str]) -> dict[str, Any]:
    """Run a command: its wall and CPU seconds, peak memory in GB, and the JSON that it prints."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"failed: {' '.join(command)}")
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "gigabytes": usage.ru_maxrss * 1024 / 1e9,
        "json": json.loads(text) if text.startswith("{") else None,
    }


def make(folder: Path, scale: float, num_queries: int) -> None:
    """Write the city's files."""
    real = real_tracks([load_scene(name).observations for name in SCENES])
    print_table(["cosine similarity", "10 %", "median", "90 %"], statistics(real))
    reference, observations = scaled_city(scale)
    sampler = TrackSampler(real, reference.num_points)
    write_city(folder, reference, observations, sampler, num_queries)


def stages(folder: Path, scale: float, threads: int) -> dict[str, list[str]]:
    """The commands that are measured, by name of the stage."""
    queries = ["--queries", f"{folder}/queries.txt", "--features", f"{folder}/features.h5"]
    localize = [*COMMAND, "localize", "--map", f"{folder}/map.dpqed", *queries, "--json"]
    localize += ["--threads", str(threads)]
    compress = [*COMMAND, "compress", "--reference_sfm", f"{folder}/sfm"]
    compress += ["--features", f"{folder}/features.h5", "--output", f"{folder}/map.dpqed"]
    compress += ["--num_points", str(round(KEPT_POINTS * scale)), "--code_bytes", "4"]
    compress += ["--threads", str(threads), "--overwrite"]
    return {
        "compress": compress,
        "localize, 50 images": [
            *localize, "--retrieval", f"{folder}/pairs.txt", "--results", f"{folder}/pairs-out.txt"
        ],
        "localize, whole map": [
            *localize, "--retrieval", "none", "--results", f"{folder}/direct-out.txt"
        ],
    }  # fmt: skip


def run(args: argparse.Namespace) -> None:
    folder = args.folder / f"{args.scale:g}"
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / "stages.json"
    done: dict[str, Any] = json.loads(state.read_text()) if state.is_file() else {}
    if "make" not in done:
        # In a process of its own: a child's peak memory counts what its parent held at the fork.
        command = [sys.executable, __file__, "--make", "--scale", str(args.scale)]
        command += ["--folder", str(args.folder), "--num_queries", str(args.num_queries)]
        start = time.perf_counter()
        subprocess.run(command, check=True)
        done["make"] = {"seconds": time.perf_counter() - start, "num_queries": args.num_queries}
        state.write_text(json.dumps(done))
    for name, command in stages(folder, args.scale, args.threads).items():
        if name not in done or name in (args.again or []):
            done[name] = measured(command)
            state.write_text(json.dumps(done))
    rows = []
    for name in stages(folder, args.scale, args.threads):
        stage, figures = done[name], done[name]["json"]
        row = [name, f"{stage['seconds']:.0f}", f"{stage['cpu_seconds']:.0f}"]
        row.append(f"{stage['gigabytes']:.2f}")
        if figures:
            output = "pairs-out.txt" if "images" in name else "direct-out.txt"
            found = evaluate.main(folder / output, folder / "poses_gt.txt", THRESHOLDS)
            row += [f"{figures['seconds_load']:.2f}", f"{1 / figures['seconds_per_query']:.1f}"]
            row.append(" / ".join(f"{100 * r['fraction']:.0f}" for r in found["recall"]))
        rows.append(row + [""] * (7 - len(row)))
    size = (folder / "map.dpqed").stat().st_size
    print(
        f"\n### scale {args.scale:g}, {args.threads} threads, {done['make']['num_queries']} queries"
        f", map file {size / 1e6:.2f} MB\n"
    )
    print_table(
        ["stage", "wall s", "CPU s", "peak GB", "load s", "queries/s", f"recall % {THRESHOLDS}"],
        rows,
    )


def curves(folder: Path) -> dict[str, list[tuple[float, float, float]]]:
    """(scale, CPU seconds, GB) of each stage that was measured; seconds a query of localization."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for path in sorted(folder.glob("*/stages.json"), key=lambda p: float(p.parent.name)):
        scale = float(path.parent.name)
        for name, stage in json.loads(path.read_text()).items():
            if name == "make":
                continue
            seconds = stage["cpu_seconds"]
            if stage["json"]:
                seconds = stage["json"]["seconds_per_query"]
                load = stage["json"]["seconds_load"]
                if "images" in name:
                    found.setdefault("load", []).append((scale, load, stage["gigabytes"]))
            found.setdefault(name, []).append((scale, seconds, stage["gigabytes"]))
    return found


def plot(folder: Path, output: Path) -> None:
    """Draw the curves, print their powers and what ten times the largest scale would take."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "0"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5))
    rows = []
    for name, points in curves(folder).items():
        scale, seconds, gigabytes = np.array(points).T
        unit = "ms/query" if name.startswith("localize") else "s"
        factor = 1000 if unit != "s" else 1
        axes[0].loglog(scale, factor * seconds, "o-", label=f"{name} ({unit})")
        axes[1].loglog(scale, gigabytes, "o-", label=name)
        if len(scale) > 1:
            power, offset = np.polyfit(np.log(scale), np.log(seconds), 1)
            # Memory has a constant part, the libraries: a line, not a power.
            slope, base = np.polyfit(scale, gigabytes, 1)
            ten = 10 * scale[-1]
            rows.append([
                name, f"{factor * seconds[-1]:.3g} {unit}", f"{power:.2f}",
                f"{base:.2f} + {slope:.2f} x scale",
                f"{factor * np.exp(offset) * ten**power:.3g} {unit}", f"{base + slope * ten:.1f}",
            ])  # fmt: skip
    for axis, label in zip(axes, ("time", "peak memory, GB"), strict=True):
        axis.set_xlabel("scale (1 is Aachen's size)")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    figure.tight_layout()
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, metadata={"Date": None})
    print_table(["stage", "at the largest", "power", "GB", "at 10 x", "GB at 10 x"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--scale", type=float, default=0.05, help="1 is the size of Aachen")
    parser.add_argument("--folder", type=Path, default=Path("outputs/city"))
    parser.add_argument("--num_queries", type=int, default=100)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--again", nargs="+", metavar="STAGE", help="measure these stages anew")
    parser.add_argument("--plot", type=Path, metavar="SVG", help="of the scales measured before")
    parser.add_argument("--make", action="store_true", help="only write the city's files")
    args = parser.parse_args()
    if args.make:
        make(args.folder / f"{args.scale:g}", args.scale, args.num_queries)
    elif args.plot:
        plot(args.folder, args.plot)
    else:
        run(args)


if __name__ == "__main__":
    main()
