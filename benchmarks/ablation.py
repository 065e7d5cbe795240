"""Ablations of the trained codecs, on held-out database images.

    python benchmarks/ablation.py [--tables losses decoder ...] [--scenes castle-P30 ...]

Each table changes one choice of a codec and keeps the others. One code a point, all points kept,
mutual nearest neighbours. The first tables have the shape of the paper's: losses, decoder,
assignment and number of codebooks of D-PQED; the last are of drqed. Measures, pseudo-queries and
the cells' files are those of codecs.py in this folder.
"""

import importlib.util
from pathlib import Path

import numpy as np
from common import print_table

from hloc_dpqed.threads import set_num_threads

# The standard library has a module `codecs` too, which is always imported already.
_spec = importlib.util.spec_from_file_location(
    "codecs_benchmark", Path(__file__).with_name("codecs.py")
)
assert _spec is not None and _spec.loader is not None
codecs_benchmark = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(codecs_benchmark)

TABLES = {
    "losses": [
        f"dpqed:4:losses={v}"
        for v in (
            "reconstruction",
            "triplet_original",
            "triplet_dequantized",
            "both",
            "contrastive",
        )
    ],
    "decoder": [f"dpqed:4:decoder={v}" for v in ("none", "linear", "mlp")],
    "assignment": [f"dpqed:4:assignment={v}" for v in ("straight_through", "soft", "rotation")],
    "codebooks": [f"dpqed:{m}" for m in (1, 2, 4, 8, 16, 32)],
    "bits": ["dpqed:4", "dpqed:4:bits=4", "dpqed:2:bits=4"],
    "margin": [f"dpqed:4:margin={v}" for v in (0.2, 0.5, 1.0)],
    "targets": [
        f"{spec}:code_targets={v}"
        for spec in ("none:0", "pq:4", "drqed:2", "drqed:4", "drqed:8")
        for v in ("mean", "sharpened")
    ],
    "drqed-bits": [
        f"drqed:4:bits={v}" for v in ("[8,8,8,8]", "[9,9,9,5]", "[10,10,10,2]", "[11,11,10]")
    ],
    "drqed-bits-2": [f"drqed:2:bits={v}" for v in ("[8,8]", "[10,6]", "[11,5]", "[12,4]")],
    "drqed-training": [
        "drqed:4:steps=1:learning_rate=0.0",
        *(f"drqed:4:steps={v}" for v in (300, 900, 1800)),
        "drqed:4:learning_rate=3e-3",
    ],
    "drqed-loss": [
        "drqed:4",
        "drqed:4:both_ways=False",
        *(f"drqed:4:temperature={v}" for v in (0.02, 0.05, 0.1)),
    ],
    "drqed-negatives": [f"drqed:4:neighbours={v}" for v in (0.0, 0.5, 1.0)],
    "drqed-reencode": [
        f"drqed:{size}{option}" for size in (2, 4) for option in ("", ":reencode=True")
    ],
}


def main() -> None:
    parser = codecs_benchmark.arguments(__doc__.splitlines()[0], "pseudo")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument(
        "--extra", default="", help="more options of every codec, such as steps=500:batch=512"
    )
    args = parser.parse_args()
    set_num_threads(args.threads)
    for table in args.tables:
        print(f"\n### {table} ({args.queries} queries)\n")
        specs = [":".join(filter(None, (spec, args.extra))) for spec in TABLES[table]]
        columns: dict[str, list[str]] = {spec: [] for spec in specs}
        for scene in args.scenes:
            cells = codecs_benchmark.cells_of(args, scene, ["none:0", *specs])
            reference = np.mean(cells["none:0"][0]["correct"])
            for spec in specs:
                correct = np.mean([cell["correct"] for cell in cells[spec]])
                columns[spec].append(f"{correct:.0f} ({100 * correct / reference:.0f} %)")
        rows = [[spec, *values] for spec, values in columns.items()]
        print_table(["codec", *(f"{s}: correct (of float)" for s in args.scenes)], rows)


if __name__ == "__main__":
    main()
