"""Aachen Day-Night v1.1: hloc's pipeline, localizing with a compressed map."""

import argparse
import sys

from ..common import (
    add_compression_arguments,
    add_pairs_arguments,
    choose_conf,
    compress_map,
    localize_queries,
    make_parser,
    require_files,
    require_hloc,
    results_label,
    run_script,
    triangulate,
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
    (
        extract_features,
        match_features,
        pairs_from_covisibility,
        pairs_from_retrieval,
    ) = require_hloc(
        "extract_features",
        "match_features",
        "pairs_from_covisibility",
        "pairs_from_retrieval",
    )
    images = dataset / "images_upright"
    sift_sfm = dataset / "3D-models/aachen_v_1_1"  # the poses of the database come from here
    reference_sfm = outputs / f"sfm_superpoint+{args.sfm_matcher}"
    sfm_pairs = outputs / f"pairs-db-covis{args.num_covis}.txt"
    loc_pairs = outputs / f"pairs-query-netvlad{args.num_loc}.txt"
    results = outputs / f"Aachen-v1.1_dpqed_netvlad{args.num_loc}_{results_label(args)}.txt"

    retrieval_conf = extract_features.confs["netvlad"]
    feature_conf = extract_features.confs["superpoint_max"]
    matcher_conf = choose_conf(match_features.confs, args.sfm_matcher)

    features = extract_features.main(feature_conf, images, outputs)

    pairs_from_covisibility.main(sift_sfm, sfm_pairs, num_matched=args.num_covis)
    sfm_matches = match_features.main(matcher_conf, sfm_pairs, feature_conf["output"], outputs)

    triangulate(reference_sfm, sift_sfm, images, sfm_pairs, features, sfm_matches)

    global_descriptors = extract_features.main(retrieval_conf, images, outputs)
    pairs_from_retrieval.main(
        global_descriptors, loc_pairs, args.num_loc, query_prefix="query", db_model=reference_sfm
    )

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
