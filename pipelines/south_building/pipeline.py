"""COLMAP's South Building: from images, or a mapped scene, to a table of errors."""

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

# Folder, in the scene, of the model and the features; the queries and pairs are the same.
FEATURES = {
    "superpoint": ("sfm", "feats-superpoint.h5"),
    "xfeat": ("xfeat/sfm", "xfeat/feats-xfeat.h5"),
}
NUM_LOC = 20  # database images retrieved for each query
QUERY_EVERY = 8  # by structure from motion over the images alone
THRESHOLDS = "0.01/0.1,0.05/0.5,0.25/2"


def scene_files(args: argparse.Namespace) -> Dataset:
    """The map, features and lists to start from: the scene's own, or made of its images."""
    if args.images is not None:
        return dataset_from_images(args, args.dataset, args.outputs, QUERY_EVERY, NUM_LOC)
    sfm, features = (args.dataset / name for name in FEATURES[args.features])
    pairs = args.dataset / f"pairs-query-vlad{NUM_LOC}.txt"
    names = [f"{sfm.relative_to(args.dataset)}/images.bin", FEATURES[args.features][1]]
    require_files(args.dataset, [*names, "queries.txt", pairs.name, "poses_gt.txt"])
    files = replace(Dataset.in_folder(args.dataset, "units"), sfm=sfm, pairs=pairs)
    return replace(files, features=features, query_features=features)


def run(args: argparse.Namespace) -> None:
    """Map if asked to, compress, localize, evaluate, print the table."""
    files = scene_files(args)
    outputs = args.outputs / args.features if args.images is None else files.sfm.parent
    name = f"south-building, {outputs.name}"
    print(format_table([run_scene(args, files, outputs, name, THRESHOLDS, metric=False)]))


def build_parser() -> argparse.ArgumentParser:
    """The arguments."""
    data = os.environ.get("HLOC_DPQED_DATA", "datasets")
    parser = make_parser("South Building", Path(data) / "south-building", "outputs/south_building")
    parser.add_argument("--features", default="superpoint", choices=FEATURES)
    parser.add_argument("--ransac_thresh", type=float, default=4.0, help="default: %(default)s")
    add_image_arguments(parser)
    add_compression_arguments(parser, matcher="NN-mutual", mapping=False)
    return parser


if __name__ == "__main__":
    sys.exit(run_script(run, build_parser().parse_args()))
