"""Strecha's fountain-P11 and castle-P30: from images, or a mapped scene, to a table of errors."""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

from hloc_dpqed.demo.dataset import Dataset

from ..common import (
    add_compression_arguments,
    format_table,
    make_parser,
    require_files,
    run_scene,
    run_script,
)
from ..from_images import add_image_arguments, dataset_from_images

# Scenes, and how many database images are retrieved for each query.
SCENES = {"fountain-P11": 7, "castle-P30": 10}
QUERY_EVERY = 3  # by structure from motion over the images alone
LAYOUT = ["sfm/images.bin", "feats-superpoint.h5", "queries.txt", "poses_gt.txt"]
THRESHOLDS = "0.02/0.1,0.05/0.5,0.25/2"


def scene_files(args: argparse.Namespace, scene: str, outputs: Path) -> Dataset:
    """The map, features and lists to start from: the scene's own, or made of its images."""
    folder, num_loc = args.dataset / scene, SCENES[scene]
    if args.images is not None:
        return dataset_from_images(args, folder, outputs, QUERY_EVERY, num_loc)
    pairs = folder / f"pairs-query-vlad{num_loc}.txt"
    require_files(folder, [*LAYOUT, pairs.name])
    features = folder / "feats-superpoint.h5"
    return replace(
        Dataset.in_folder(folder, "m"), features=features, query_features=features, pairs=pairs
    )


def run(args: argparse.Namespace) -> None:
    """Every scene asked for: map if asked to, compress, localize, evaluate; then the table."""
    rows = []
    for scene in args.scenes:
        outputs, metric, name = args.outputs / scene, True, scene
        files = scene_files(args, scene, outputs)
        if args.images is not None:
            outputs, metric = files.sfm.parent, args.poses == "known"
            name = f"{scene}, {outputs.name}"
        rows.append(run_scene(args, files, outputs, name, THRESHOLDS, metric))
    print(format_table(rows))


def build_parser() -> argparse.ArgumentParser:
    """The arguments."""
    dataset = os.environ.get("HLOC_DPQED_DATA", "datasets/strecha")
    parser = make_parser("Strecha's scenes", Path(dataset), "outputs/strecha")
    parser.add_argument("--scenes", default=list(SCENES), choices=SCENES, nargs="+")
    parser.add_argument("--ransac_thresh", type=float, default=4.0, help="default: %(default)s")
    add_image_arguments(parser)
    add_compression_arguments(parser, matcher="NN-mutual", mapping=False)
    return parser


if __name__ == "__main__":
    sys.exit(run_script(run, build_parser().parse_args()))
