"""COLMAP's South Building: from the files of a mapped scene to a table of errors."""

import argparse
import os
import sys
from pathlib import Path

from ..common import (
    add_compression_arguments,
    compress_map,
    evaluation_row,
    format_table,
    localize_queries,
    make_parser,
    require_files,
    results_label,
    run_script,
)

# Folder, in the scene, of the model and the features; the queries and pairs are the same.
FEATURES = {
    "superpoint": ("sfm", "feats-superpoint.h5"),
    "xfeat": ("xfeat/sfm", "xfeat/feats-xfeat.h5"),
}
LAYOUT = ["queries.txt", "pairs-query-vlad20.txt", "poses_gt.txt"]
THRESHOLDS = "0.01/0.1,0.05/0.5,0.25/2"


def run(args: argparse.Namespace) -> None:
    """Compress, localize, evaluate, print the table."""
    dataset = args.dataset
    sfm, features = FEATURES[args.features]
    require_files(dataset, [f"{sfm}/images.bin", features, *LAYOUT])
    outputs = args.outputs / args.features
    outputs.mkdir(exist_ok=True, parents=True)
    results = outputs / f"results_{results_label(args)}.txt"

    compressed = compress_map(args, dataset / sfm, dataset / features, outputs)

    localize_queries(
        args,
        compressed,
        dataset / "queries.txt",
        dataset / "pairs-query-vlad20.txt",
        dataset / features,
        results,
        ransac_thresh=args.ransac_thresh,
        fallback="none",
    )
    truth = dataset / "poses_gt.txt"
    name = f"south-building, {args.features}"
    row = evaluation_row(name, compressed, results, truth, None, THRESHOLDS, metric=False)
    print(format_table([row]))


def build_parser() -> argparse.ArgumentParser:
    """The arguments."""
    data = os.environ.get("HLOC_DPQED_DATA", "datasets")
    parser = make_parser("South Building", Path(data) / "south-building", "outputs/south_building")
    parser.add_argument("--features", default="superpoint", choices=FEATURES)
    parser.add_argument("--ransac_thresh", type=float, default=4.0, help="default: %(default)s")
    add_compression_arguments(parser, matcher="NN-mutual", mapping=False)
    return parser


if __name__ == "__main__":
    sys.exit(run_script(run, build_parser().parse_args()))
