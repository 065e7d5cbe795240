"""Peak memory of the commands that a phone or a robot runs, without torch and faiss and with them.

    python benchmarks/memory.py [--scene south-building] [--queries 16]

Linux. Megabytes (2^20 bytes) of resident memory at most, one thread, each command in a process of
its own. The map is drqed, 4 bytes, all points. "Without" are processes in which the two cannot be
found; that their results are the same to the byte is checked.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from common import SCENES, load_scene, print_table

from hloc_dpqed import compress

PROGRAM = """
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "faiss"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

if sys.argv[1] == "without":
    sys.meta_path.insert(0, Missing())
from hloc_dpqed.cli import main
if sys.argv[2:] and main(sys.argv[2:]):
    sys.exit(1)
if not sys.argv[2:]:
    import h5py, numpy, pycolmap, hloc_dpqed.localize.stage
# Not getrusage: what the parent had before exec counts there.
with open("/proc/self/status") as status:
    print(next(line for line in status if line.startswith("VmHWM")).split()[1])
"""


def peak(*argv: object) -> float:
    """MB of a process; ends the program where it fails."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, argv)], capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stderr)
    return int(done.stdout.splitlines()[-1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--scene", choices=SCENES, default="south-building")
    parser.add_argument("--queries", type=int, default=16, metavar="N")
    args = parser.parse_args()
    scene = load_scene(args.scene)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, queries = folder / "map.dpqed", folder / "queries.txt"
        compress.main(scene.sfm, scene.features, path, threads=1, progress=False)
        lines = (scene.folder / "queries.txt").read_text().splitlines(keepends=True)
        queries.write_text("".join(lines[: args.queries]))
        common = ["localize", "--map", path, "--queries", queries, "--features", scene.features]
        common += ["--threads", 1, "--overwrite"]
        commands = {
            "import": [],
            "info": ["info", path],
            "localize, listed pairs": [*common, "--retrieval", scene.pairs],
            "localize, --retrieval none": [*common, "--retrieval", "none"],
        }
        for label, argv in commands.items():
            figures, found = [], []
            for how in ("without", "with"):
                results = folder / f"{how}.txt"
                more = ["--results", results] if argv and argv[0] == "localize" else []
                figures.append(peak(how, *argv, *more))
                found.append(results.read_bytes() if more else b"")
            if found[0] != found[1]:
                sys.exit(f"{label}: the results differ")
            rows.append([label, *(f"{figure:.0f}" for figure in figures)])
    print_table(["command", "without torch and faiss", "with"], rows)


if __name__ == "__main__":
    main()
