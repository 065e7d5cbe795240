"""Runs a command in processes that are killed at random moments; a script for the tests.

``python killing.py JSON``: the libraries are loaded once, and each trial is a fork of this
process, which has started no thread of theirs. Prints a JSON object.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

# The stages are imported here, not by each fork: the kills then meet the work.
from hloc_dpqed import cli, compress, export, fit_codec, localize, sweep  # noqa: F401


def run(argv: list[str], kill_after: float | None = None) -> tuple[int, float]:
    """Run the command in a fork; its wait status and how long it took."""
    start = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        os.dup2(devnull, 2)
        os._exit(cli.main(argv))
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return status, time.perf_counter() - start


def content(path: Path) -> object:
    """What is at a path: a file's bytes, a folder's files by name, or None."""
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.is_file())
        return {str(p.relative_to(path)): p.read_bytes() for p in inside}
    return path.read_bytes() if path.exists() else None


def clear(job: dict) -> None:
    """Remove the output, and what else the next trial shall not find; put the old output there."""
    for path in map(Path, [job["output"], *job.get("clear", [])]):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    if job["old"] is not None:
        Path(job["output"]).write_text(job["old"])


def main(job: dict) -> dict:
    """Kill ``argv`` ``trials`` times at random moments of its run, looking at ``output`` each time.

    Args:
        job: ``argv``, ``output``, ``old`` (text of the old output, or None), ``trials``, ``seed``;
            ``part``: where unfinished work is kept, ``OUTPUT.part`` by default; ``clear``: paths
            that are removed with the output after each run that finished.

    Returns:
        what the output was each time: 'old', 'new' or 'neither', and how often an earlier run's
        work was continued (``part`` held something when the next run began).
    """
    rng = random.Random(job["seed"])
    output, part = Path(job["output"]), Path(job.get("part", job["output"] + ".part"))
    status, duration = run(job["argv"])
    assert status == 0
    new = content(output)
    clear(job)
    old = content(output)
    seen, continued = [], 0
    for _ in range(job["trials"]):
        continued += bool(content(part))
        run(job["argv"], rng.uniform(0, duration))
        now = content(output)
        seen.append("new" if now == new else "old" if now == old else "neither")
        if now == new:
            clear(job)
    continued += bool(content(part))
    status, _ = run(job["argv"])
    return {
        "seen": seen,
        "continued": continued,
        "last_status": status,
        "last_is_new": content(output) == new,
        "part_is_left": part.exists(),
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
