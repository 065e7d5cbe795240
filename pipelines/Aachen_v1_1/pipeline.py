"""Aachen Day-Night v1.1: hloc's pipeline, localizing with a compressed map."""

import argparse
import sys

from ..common import (
    add_compression_arguments,
    add_pairs_arguments,
    compress_map,
    localize_queries,
    make_parser,
    map_database,
    require_files,
    results_label,
    retrieve_pairs,
    run_script,
)

LAYOUT = [
    "images_upright/db",
    "images_upright/query",
    "3D-models/aachen_v_1_1/images.bin",
    "queries/*_time_queries_with_intrinsics.txt",
]


def run(args: argparse.Namespace) -> dict[str, object]:
    """Map with hloc, compress, localize; the figures of the localization."""
    dataset, outputs = args.dataset, args.outputs
    require_files(dataset, LAYOUT)
    images = dataset / "images_upright"
    sift_sfm = dataset / "3D-models/aachen_v_1_1"  # the poses of the database come from here
    results = outputs / f"Aachen-v1.1_dpqed_netvlad{args.num_loc}_{results_label(args)}.txt"

    reference_sfm, features = map_database(args, images, sift_sfm, outputs, "superpoint_max")
    loc_pairs = retrieve_pairs(args, [images], reference_sfm, outputs, query_prefix="query")
    compressed = compress_map(args, reference_sfm, features, outputs)

    queries = dataset / "queries/*_time_queries_with_intrinsics.txt"
    return localize_queries(args, compressed, queries, loc_pairs, features, results)


def build_parser() -> argparse.ArgumentParser:
    """hloc's arguments, and those of the compression."""
    parser = make_parser("Aachen Day-Night v1.1", "datasets/aachen_v1.1", "outputs/aachen_v1.1")
    add_pairs_arguments(parser, num_covis=20, num_loc=50)
    add_compression_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_script(run, build_parser().parse_args()))
