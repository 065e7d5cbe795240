"""The reader in C++: milliseconds to load a map, million codes decoded a second; Python beside it.

    python benchmarks/reader.py [--maps MAP.dpqed ...] [--repetitions 7]

CPU time of one thread, median and range; decoded to floats (of a whole map, and in blocks that stay
in the cache) and to int8. Without ``--maps``, south-building is compressed with
drqed (4 bytes), sign and none first. The reader is compiled with ``-O3`` and, in a second row, with
``-march=native`` too.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import SCENES, load_scene, print_table, spread

from hloc_dpqed import compress
from hloc_dpqed.mapfile import read_map
from hloc_dpqed.threads import set_num_threads

READER = Path(__file__).resolve().parents[1] / "readers" / "cpp"
CODECS = (("drqed", 4), ("sign", None), ("none", None))


def build(folder: Path, *flags: str) -> Path:
    """``tests/speed.cpp`` of the reader, compiled."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        sys.exit("no C++ compiler (g++ or clang++) is installed")
    program = folder / "-".join(["speed", *flags])
    common = ["-std=c++17", "-O3", "-ffp-contract=off", f"-I{READER / 'include'}"]
    source = READER / "tests" / "speed.cpp"
    subprocess.run([compiler, *common, *flags, source, "-o", program], check=True)
    return program


def python_figures(path: Path, repetitions: int) -> list[list[float]]:
    """As the lines of ``speed.cpp``, without the table's time and the small blocks."""
    lines = []
    for _ in range(repetitions):
        start = time.process_time()
        compressed = read_map(path)
        load = time.process_time() - start
        compressed.codec.decode(compressed.codes)
        start = time.process_time()
        compressed.codec.decode(compressed.codes)
        seconds = time.process_time() - start
        lines.append([1e3 * load, len(compressed.codes) / seconds / 1e6])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--maps", type=Path, nargs="*", default=[])
    parser.add_argument("--repetitions", type=int, default=7)
    args = parser.parse_args()
    set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        maps = list(args.maps)
        if not maps:
            scene = load_scene("south-building")
            for codec, code_bytes in CODECS:
                maps.append(folder / f"{Path(SCENES[scene.name][0]).name}-{codec}.dpqed")
                sizes = {} if code_bytes is None else {"code_bytes": code_bytes}
                compress.main(scene.sfm, scene.features, maps[-1], codec=codec, threads=1, **sizes)
        programs = {"-O3": build(folder), "-O3 -march=native": build(folder, "-march=native")}
        for path in maps:
            for flags, program in programs.items():
                argv = [program, path, str(args.repetitions)]
                out = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
                lines = [map(float, line.split()) for line in out.splitlines()]
                columns = [*zip(*lines, strict=True)]
                rows.append([path.name, f"C++ {flags}", *(spread([*c], 1, 2) for c in columns)])
            load, decode = zip(*python_figures(path, args.repetitions), strict=True)
            told = [spread([*load], 1, 2), "", spread([*decode], 1, 2), "", ""]
            rows.append([path.name, "Python", *told])
    header = ["map", "reader", "load, ms", "table, ms", "decode, million/s", "in blocks of 64"]
    print_table([*header, "to int8"], rows)


if __name__ == "__main__":
    main()
