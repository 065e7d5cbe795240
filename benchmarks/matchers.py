"""Matchers on decoded codes beside the same matchers on float descriptors.

    python benchmarks/matchers.py --scenes south-building/xfeat \
        --matchers NN-mutual xfeat+lighterglue --matcher_weights LIGHTERGLUE.onnx
    python benchmarks/matchers.py --scenes south-building \
        --matchers NN-mutual superglue --matcher_weights superglue_outdoor.pth
    python benchmarks/matchers.py --scenes castle-P30/aliked \
        --matchers NN-mutual aliked+lightglue aliked+lightglue-fast
    python benchmarks/matchers.py --scenes castle-P30/aliked --matchers aliked+lightglue \
        --codes drqed:1:tune drqed:2:used_bits=12:tune

A row is one descriptor store: float descriptors for each observation (what hloc matches), float
for each point, and codes, written as in benchmarks/codecs.py; with ``tune`` they are tuned for the
scene's LightGlue. All points are kept. 'change' is the mean paired difference of the
correct matches from float per observation with the same matcher, with its 95 % interval over the
queries. 'seconds' are the processor's to match a query. Each cell is written to ``--output`` as it
is measured, and a second run measures only what is missing there.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    RANSAC_PX,
    SCENES,
    Scene,
    bootstrap,
    load_scene,
    measure,
    parse_spec,
    print_table,
)
from results import THRESHOLDS, measures_of

from hloc_dpqed.compression.conf import CompressConf
from hloc_dpqed.compression.engine import Compressor
from hloc_dpqed.io.atomic import write_text
from hloc_dpqed.localization import Localizer
from hloc_dpqed.mapfile import map_info, read_map, write_map
from hloc_dpqed.matching.nearest_neighbor import NN_CONFS
from hloc_dpqed.threads import set_num_threads

TUNE = ":tune"  # ends the name of a code that is tuned for the scene's LightGlue
Store = tuple[str, str]  # CODEC:BYTES[:option=value ...][:tune], granularity


def configuration(scene: Scene, store: Store, seed: int) -> CompressConf:
    """How the map of a store is compressed: all points are kept."""
    spec, granularity = store
    tune = spec.endswith(TUNE)
    codec, code_bytes, options = parse_spec(spec.removesuffix(TUNE))
    return CompressConf(
        "all",
        codec,
        code_bytes,
        granularity,
        seed,
        code_targets=options.pop("code_targets", None),
        codec_options=options,
        tuned_for=f"{scene.name.split('/')[1]}+lightglue" if tune else None,
    )


def label_of(store: Store) -> str:
    codec, code_bytes, *options = store[0].split(":")
    if codec == "none":
        return f"float per {store[1]}"
    more = f" ({', '.join(options)})" if options else ""
    return f"{codec} {code_bytes} B{more} per {store[1]}"


def run_cells(
    scene: Scene, store: Store, ways: dict[Path, tuple[str, bool]], args: argparse.Namespace
) -> None:
    """Fit and write the store's map once, then measure each (matcher, symmetric) into its file."""
    conf = configuration(scene, store, args.seed)
    compressor = Compressor(scene.reference, scene.observations, conf)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map.dpqed"
        write_map(path, compressor.compress(scene.reference.num_points))
        info = map_info(path)
        compressed = read_map(path)
    for file, (matcher, symmetric) in ways.items():
        localizer = Localizer(
            compressed,
            matcher,
            matcher_weights=None if matcher in NN_CONFS else args.matcher_weights,
            symmetric=symmetric,
            ransac_thresh=RANSAC_PX,
        )
        seconds = time_matching(localizer)
        run = measure(compressed, scene.queries, args.ransac_seeds, localizer=localizer)
        cell = {
            "seconds": sum(seconds) / len(scene.queries),
            "total_bytes": info["total_bytes"],
            "descriptor_bytes": info["descriptor_bytes"],
            "correct": run.correct.tolist(),
            "correct_keypoints": run.correct_keypoints.tolist(),
            "matched": run.matched.tolist(),
            "errors": run.errors.tolist(),
        }
        write_text(file, json.dumps(cell))


def time_matching(localizer: Localizer) -> list[float]:
    """A list that gets the processor's seconds of each query that is matched from now on."""
    seconds: list[float] = []
    match = localizer.match

    def timed(*args: Any) -> Any:
        began = time.process_time()
        found = match(*args)
        seconds.append(time.process_time() - began)
        return found

    localizer.match = timed  # type: ignore[method-assign]
    return seconds


def table_row(label: str, matcher: str, cell: dict, scene: str, base: np.ndarray) -> list[str]:
    """One line; ``base`` are the correct matches that it is compared with."""
    run = measures_of(cell)
    change = run.correct - base
    low, high = bootstrap(change)
    translation, rotation = run.median_errors()
    return [
        label,
        f"{cell['total_bytes'] / 1000:.0f}",
        f"{cell['descriptor_bytes'] / 1000:.0f}",
        matcher,
        f"{run.correct.mean():.0f}",
        f"{change.mean():+.0f} ({low:+.0f} .. {high:+.0f})" if change.any() else "",
        f"{run.precision.mean():.3f}",
        f"{cell['seconds']:.2f}" if "seconds" in cell else "",
        f"{translation:.4f} / {rotation:.3f}",
        " / ".join(f"{run.recall(*limit):.2f}" for limit in THRESHOLDS[scene.split("/")[0]]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=["south-building/xfeat"])
    parser.add_argument("--matchers", nargs="+", default=["NN-mutual"])
    parser.add_argument("--matcher_weights", type=Path, help="of the learned matchers")
    parser.add_argument("--symmetric", action="store_true", help="also quantize the queries")
    parser.add_argument(
        "--codes",
        nargs="+",
        default=["pq:4", "pq:8", "dpqed:4", "dpqed:8", "drqed:4", "drqed:8"],
        help="CODEC:BYTES[:option=value ...][:tune] of each row",
    )
    parser.add_argument("--num_retrieved", type=int, default=20, help="images a query")
    parser.add_argument("--ransac_seeds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the codecs")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path, default=Path("outputs/matchers"))
    args = parser.parse_args()
    set_num_threads(args.threads)
    stores: list[Store] = [("none:0", "observation"), ("none:0", "point")]
    stores += [(code, "point") for code in args.codes]
    for name in args.scenes:
        scene = None
        rows = []
        baseline: dict[str, np.ndarray] = {}
        for store in stores:
            quantized = not store[0].startswith("none")
            symmetries = [False, True] if args.symmetric and quantized else [False]
            ways = {}
            for matcher, symmetric in [(m, s) for m in args.matchers for s in symmetries]:
                spec = store[0].split(":")
                words = [
                    *spec[:2],
                    store[1],
                    *spec[2:],
                    args.seed,
                    args.num_retrieved,
                    args.ransac_seeds,
                    matcher,
                ]
                words = [name.replace("/", "-"), *words, *(["symmetric"] if symmetric else [])]
                ways[args.output / f"{'_'.join(map(str, words))}.json"] = (matcher, symmetric)
            missing = {file: way for file, way in ways.items() if not file.is_file()}
            if missing:
                if scene is None:
                    scene = load_scene(name)
                    for query in scene.queries:
                        del query.retrieved[args.num_retrieved :]
                run_cells(scene, store, missing, args)
            for file, (matcher, symmetric) in ways.items():
                cell = json.loads(file.read_text())
                base = baseline.setdefault(matcher, np.array(cell["correct"]))
                full = label_of(store) + (", symmetric" if symmetric else "")
                rows.append(table_row(full, matcher, cell, name, base))
        limits = " ".join(f"{t:g}/{r:g}" for t, r in THRESHOLDS[name.split("/")[0]])
        print(f"\n### {name}, {args.num_retrieved} images a query\n")
        print_table(
            [
                "descriptors",
                "file KB",
                "codes KB",
                "matcher",
                "correct",
                "change",
                "precision",
                "seconds",
                "median error",
                f"recall {limits}",
            ],
            rows,
        )


if __name__ == "__main__":
    main()
