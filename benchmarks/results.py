"""The main table: codecs and code sizes on the real scenes, one code a point or an observation.

    python benchmarks/results.py [--scenes ...] [--codecs ...] [--code_bytes 2 4 8]

All points kept, mutual nearest neighbours, the listed pairs, RANSAC threshold 4 px, 10 RANSAC
seeds and 3 codec seeds. Each cell is written to ``--output`` as it is measured, and a second run
measures only what is missing there.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from common import SCENES, Measures, Scene, bootstrap, load_scene, measure, print_table

from hloc_dpqed.codecs import Codec
from hloc_dpqed.compression.conf import CompressConf
from hloc_dpqed.compression.engine import Compressor
from hloc_dpqed.io.atomic import write_text
from hloc_dpqed.mapfile import map_info, read_map, write_map
from hloc_dpqed.threads import set_num_threads

THRESHOLDS = {
    "fountain-P11": ((0.02, 0.1), (0.05, 1), (0.25, 2)),
    "castle-P30": ((0.02, 0.1), (0.05, 1), (0.25, 2)),
    "south-building": ((0.01, 0.1), (0.05, 1), (0.25, 2)),
    "south-building/xfeat": ((0.01, 0.1), (0.05, 1), (0.25, 2)),
}


def run_cells(scene: Scene, codec: str, code_bytes: int, seed: int, ransac_seeds: int) -> dict:
    """Fit and measure both granularities through a real map file."""
    cells = {}
    fits: dict[bool, tuple[Codec, float]] = {}  # codes of observations have no targets
    for granularity in ("point", "observation"):
        conf = CompressConf("all", codec, code_bytes, granularity, seed)
        compressor = Compressor(scene.reference, scene.observations, conf)
        rows = np.arange(scene.reference.num_points)
        if conf.sharpens not in fits:
            start = time.perf_counter()
            fits[conf.sharpens] = compressor.fit(rows), time.perf_counter() - start
        fitted, fit_seconds = fits[conf.sharpens]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "map.dpqed"
            write_map(path, compressor.with_points(rows, fitted))
            info = map_info(path)
            measures = measure(read_map(path), scene.queries, ransac_seeds)
        cells[granularity] = {
            "total_bytes": info["total_bytes"],
            "descriptor_bytes": info["descriptor_bytes"],
            "codec_bytes": info["codec_bytes"],
            "distinct_codes": info["distinct_codes"],
            "fit_seconds": fit_seconds,
            "correct": measures.correct.tolist(),
            "correct_keypoints": measures.correct_keypoints.tolist(),
            "matched": measures.matched.tolist(),
            "errors": measures.errors.tolist(),
        }
    return cells


def measures_of(cell: dict) -> Measures:
    return Measures(
        np.array(cell["correct"]),
        np.array(cell["correct_keypoints"]),
        np.array(cell["matched"]),
        np.array(cell["errors"]),
    )


def table_row(label: str, granularity: str, cells: list[dict], scene: str, peer: np.ndarray):
    """One line: means over codec seeds; the interval is over queries, paired with ``peer``."""
    runs = [measures_of(cell) for cell in cells]
    correct = np.mean([run.correct for run in runs], axis=0)
    translation, rotation = np.mean([run.median_errors() for run in runs], axis=0)
    low, high = bootstrap(correct - peer)
    return [
        label,
        granularity,
        f"{np.mean([c['total_bytes'] for c in cells]) / 1000:.0f}",
        f"{np.mean([c['descriptor_bytes'] for c in cells]) / 1000:.1f}",
        f"{np.mean([c['codec_bytes'] for c in cells]) / 1000:.0f}",
        f"{np.mean([c['distinct_codes'] for c in cells]):.0f}",
        f"{correct.mean():.0f}",
        f"{low:+.0f} .. {high:+.0f}" if np.any(correct != peer) else "",
        f"{np.mean([run.precision.mean() for run in runs]):.3f}",
        f"{translation:.4f} / {rotation:.3f}",
        " / ".join(
            f"{np.mean([run.recall(*limit) for run in runs]):.2f}" for limit in THRESHOLDS[scene]
        ),
    ]


def print_scene(scene: str, cells: dict, codecs: list[str], sizes: list[int]) -> None:
    """The scene's table; intervals compare with PQ of the same size and granularity."""
    limits = " ".join(f"{t:g}/{r:g}" for t, r in THRESHOLDS[scene])
    print(f"\n### {scene}\n")
    rows = []
    for granularity in ("observation", "point"):
        for codec in codecs:
            for size in [0] if codec == "none" else sizes:
                own = cells.get((scene, codec, size, granularity), [])
                peer = cells.get((scene, "pq", size, granularity), own)
                if not own:
                    continue
                reference = np.mean([cell["correct"] for cell in peer], axis=0)
                label = "none (float16)" if codec == "none" else f"{codec} {size} B"
                rows.append(table_row(label, granularity, own, scene, reference))
    print_table(
        [
            "codec",
            "one code a",
            "file KB",
            "codes KB",
            "codec KB",
            "distinct codes",
            "correct",
            "minus pq, 95 %",
            "precision",
            "median error (units / deg)",
            f"recall {limits}",
        ],
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    scenes = ["fountain-P11", "castle-P30", "south-building"]
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=scenes)
    parser.add_argument("--codecs", nargs="+", default=["none", "pq", "dpqed"])
    parser.add_argument("--code_bytes", nargs="+", type=int, default=[2, 4, 8])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ransac_seeds", type=int, default=10)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path, default=Path("outputs/results"))
    args = parser.parse_args()
    set_num_threads(args.threads)
    cells: dict = {}
    for name in args.scenes:
        scene = None
        for codec in args.codecs:
            for size in [0] if codec == "none" else args.code_bytes:
                for seed in range(1 if codec == "none" else args.seeds):
                    file = f"{name.replace('/', '-')}_{codec}_{size}_{seed}.json"
                    path = args.output / file
                    if not path.is_file():
                        scene = scene or load_scene(name)
                        found = run_cells(scene, codec, size, seed, args.ransac_seeds)
                        write_text(path, json.dumps(found))
                    for granularity, cell in json.loads(path.read_text()).items():
                        cells.setdefault((name, codec, size, granularity), []).append(cell)
        print_scene(name, cells, args.codecs, args.code_bytes)


if __name__ == "__main__":
    main()
