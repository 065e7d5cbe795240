"""Matchers on decoded codes beside the same matchers on float descriptors.

    python benchmarks/matchers.py --scenes south-building/xfeat \
        --matchers NN-mutual xfeat+lighterglue --matcher_weights LIGHTERGLUE.onnx
    python benchmarks/matchers.py --scenes south-building \
        --matchers NN-mutual superglue --matcher_weights superglue_outdoor.pth

A row is one descriptor store: float descriptors for each observation (what hloc matches), float
for each point, and codes. All points are kept. 'change' is the mean paired difference of the
correct matches from float per observation with the same matcher, with its 95 % interval over the
queries.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from common import RANSAC_PX, SCENES, bootstrap, load_scene, measure, print_table

from hloc_dpqed.codecs import fit_codec
from hloc_dpqed.compress import CompressConf, Compressor
from hloc_dpqed.localization import Localizer
from hloc_dpqed.mapfile import map_info, read_map, write_map
from hloc_dpqed.matching.nearest_neighbor import NN_CONFS
from hloc_dpqed.threads import set_num_threads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=["south-building/xfeat"])
    parser.add_argument("--matchers", nargs="+", default=["NN-mutual"])
    parser.add_argument("--matcher_weights", type=Path, help="of the learned matchers")
    parser.add_argument("--symmetric", action="store_true", help="also quantize the queries")
    parser.add_argument(
        "--codes", nargs="+", default=["pq:4", "pq:8"], help="CODEC:BYTES of each row"
    )
    parser.add_argument("--num_retrieved", type=int, default=20, help="images a query")
    parser.add_argument("--ransac_seeds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the codecs")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    set_num_threads(args.threads)
    stores = [("none", 0, "observation"), ("none", 0, "point")]
    stores += [(c.split(":")[0], int(c.split(":")[1]), "point") for c in args.codes]
    for name in args.scenes:
        scene = load_scene(name)
        for query in scene.queries:
            del query.retrieved[args.num_retrieved :]
        print(f"\n### {name}, {args.num_retrieved} images a query\n")
        rows = []
        baseline: dict[str, np.ndarray] = {}
        for codec, code_bytes, granularity in stores:
            fitted = fit_codec(codec, scene.observations, code_bytes, seed=args.seed)
            conf = CompressConf("all", codec, code_bytes, granularity, args.seed)
            compressor = Compressor(scene.reference, scene.observations, conf, codec=fitted)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "map.dpqed"
                write_map(path, compressor.compress(scene.reference.num_points))
                size = map_info(path)["descriptor_bytes"]
                compressed = read_map(path)
            label = "float" if codec == "none" else f"{codec} {code_bytes} B"
            ways = [False, True] if args.symmetric and codec != "none" else [False]
            for matcher, symmetric in [(m, s) for m in args.matchers for s in ways]:
                localizer = Localizer(
                    compressed,
                    matcher,
                    matcher_weights=None if matcher in NN_CONFS else args.matcher_weights,
                    symmetric=symmetric,
                    ransac_thresh=RANSAC_PX,
                )
                run = measure(compressed, scene.queries, args.ransac_seeds, localizer=localizer)
                base = baseline.setdefault(matcher, run.correct)
                low, high = bootstrap(run.correct - base)
                same = np.array_equal(run.correct, base)
                translation, rotation = run.median_errors()
                rows.append(
                    [
                        f"{label} per {granularity}" + (", symmetric" if symmetric else ""),
                        f"{size / 1000:.0f}",
                        matcher,
                        f"{run.correct.mean():.0f}",
                        ""
                        if same
                        else f"{(run.correct - base).mean():+.0f} ({low:+.0f} .. {high:+.0f})",
                        f"{run.precision.mean():.3f}",
                        f"{translation:.4f} / {rotation:.3f}",
                    ]
                )
                print(" ".join(rows[-1]), flush=True)
        print()
        print_table(
            ["descriptors", "kB", "matcher", "correct", "change", "precision", "median error"],
            rows,
        )


if __name__ == "__main__":
    main()
