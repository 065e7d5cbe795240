"""Seconds and memory of commands that should answer at once, against their targets.

    python benchmarks/startup.py [--map MAP.dpqed] [--repeats 5]

Each run is a process of its own; the least seconds and the greatest resident memory of the repeats
are shown. With a map, ``info`` of it is measured too.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from hloc_dpqed.cli import build_parser


def measure(argv: list[str], repeats: int) -> tuple[float, float]:
    """Least seconds, greatest MB of resident memory."""
    seconds, memory = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "hloc_dpqed.cli", *argv], stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds.append(time.perf_counter() - start)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{' '.join(argv)}: exit code {process.returncode}")
        memory.append(usage.ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024))
    return min(seconds), max(memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--map", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    commands = build_parser()._subparsers._group_actions[0].choices
    rows = [(argv, 0.3, 40.0) for argv in (["--version"], ["--help"])]
    rows += [([name, "--help"], 0.3, 40.0) for name in commands]
    if args.map is not None:
        rows.append((["info", str(args.map)], 0.7, None))
    print("| command | seconds (target) | MB (target) | met |\n| --- | --- | --- | --- |")
    for argv, most_seconds, most_memory in rows:
        seconds, memory = measure(argv, args.repeats)
        met = seconds <= most_seconds and (most_memory is None or memory <= most_memory)
        shown = " ".join(argv if argv[0] != "info" else ["info", argv[-1].split("/")[-1]])
        target = "" if most_memory is None else f" ({most_memory:g})"
        told = "yes" if met else "NO"
        print(f"| {shown} | {seconds:.2f} ({most_seconds}) | {memory:.0f}{target} | {told} |")


if __name__ == "__main__":
    main()
