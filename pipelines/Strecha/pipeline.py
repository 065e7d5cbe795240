"""Strecha's fountain-P11 and castle-P30: from the files of a mapped scene to a table of errors."""

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

# Scenes, and their pairs files: the database images retrieved for each query.
SCENES = {"fountain-P11": "pairs-query-vlad7.txt", "castle-P30": "pairs-query-vlad10.txt"}
LAYOUT = ["sfm/images.bin", "feats-superpoint.h5", "queries.txt", "poses_gt.txt"]
THRESHOLDS = "0.02/0.1,0.05/0.5,0.25/2"


def run_scene(args: argparse.Namespace, scene: str) -> dict[str, str]:
    """Compress, localize and evaluate one scene; the line of the table."""
    dataset = args.dataset / scene
    require_files(dataset, [*LAYOUT, SCENES[scene]])
    outputs = args.outputs / scene
    outputs.mkdir(exist_ok=True, parents=True)
    features = dataset / "feats-superpoint.h5"
    results = outputs / f"results_{results_label(args)}.txt"

    compressed = compress_map(args, dataset / "sfm", features, outputs)

    localize_queries(
        args,
        compressed,
        dataset / "queries.txt",
        dataset / SCENES[scene],
        features,
        results,
        ransac_thresh=args.ransac_thresh,
        fallback="none",
    )
    truth = dataset / "poses_gt.txt"
    return evaluation_row(scene, compressed, results, truth, None, THRESHOLDS)


def run(args: argparse.Namespace) -> None:
    """Every scene asked for, then the table."""
    print(format_table([run_scene(args, scene) for scene in args.scenes]))


def build_parser() -> argparse.ArgumentParser:
    """The arguments."""
    dataset = os.environ.get("HLOC_DPQED_DATA", "datasets/strecha")
    parser = make_parser("Strecha's scenes", Path(dataset), "outputs/strecha")
    parser.add_argument("--scenes", default=list(SCENES), choices=SCENES, nargs="+")
    parser.add_argument("--ransac_thresh", type=float, default=4.0, help="default: %(default)s")
    add_compression_arguments(parser, matcher="NN-mutual", mapping=False)
    return parser


if __name__ == "__main__":
    sys.exit(run_script(run, build_parser().parse_args()))
