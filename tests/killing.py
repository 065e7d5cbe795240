"""Runs a command in processes that are killed at random moments; a script for the tests.

``python killing.py JSON``: the libraries are loaded once, and each trial is a fork of this
process, which has started no thread of theirs. Prints a JSON object.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

# The stages are imported here, not by each fork: the kills then meet the work.
from hloc_dpqed import cli, compress, localize  # noqa: F401


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


def main(job: dict) -> dict:
    """Kill ``argv`` ``trials`` times at random moments of its run, looking at ``output`` each time.

    Returns:
        what the output was each time: 'old', 'new' or 'neither', and how often an earlier run's
        work was continued (``part`` held records when the next run began).
    """
    rng = random.Random(job["seed"])
    output, part = Path(job["output"]), Path(job["output"] + ".part")
    status, duration = run(job["argv"])
    assert status == 0
    new = output.read_bytes()
    seen, continued = [], 0
    for _ in range(job["trials"]):
        if job["old"] is not None:
            output.write_text(job["old"])
        continued += part.exists()
        run(job["argv"], rng.uniform(0, duration))
        data = output.read_bytes() if output.exists() else b""
        old = (job["old"] or "").encode()
        seen.append("new" if data == new else "old" if data == old else "neither")
    output.unlink(missing_ok=True)
    continued += part.exists()
    status, _ = run(job["argv"])
    return {
        "seen": seen,
        "continued": continued,
        "last_status": status,
        "last_is_new": output.read_bytes() == new,
        "part_is_left": part.exists(),
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
