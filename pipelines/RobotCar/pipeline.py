"""RobotCar Seasons: hloc's pipeline, localizing with a compressed map."""

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
from .colmap_from_nvm import write_reference_model

LAYOUT = [
    "images/overcast-reference",
    "intrinsics/left_intrinsics.txt",
    "intrinsics/right_intrinsics.txt",
    "intrinsics/rear_intrinsics.txt",
    "3D-models/all-merged/all.nvm",
    "3D-models/overcast-reference.db",
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
        upstream,
    ) = require_hloc(
        "extract_features",
        "match_features",
        "pairs_from_covisibility",
        "pairs_from_retrieval",
        "pipelines.RobotCar.pipeline",
    )
    # hloc takes all conditions; those that were not unzipped are left out here.
    images = dataset / "images"
    conditions = [name for name in upstream.CONDITIONS if (images / name).is_dir()]
    require_files(images, [] if conditions else upstream.CONDITIONS)

    outputs.mkdir(exist_ok=True, parents=True)
    query_list = str(outputs / "{condition}_queries_with_intrinsics.txt")
    sift_sfm = outputs / "sfm_sift"
    reference_sfm = outputs / f"sfm_superpoint+{args.sfm_matcher}"
    sfm_pairs = outputs / f"pairs-db-covis{args.num_covis}.txt"
    loc_pairs = outputs / f"pairs-query-netvlad{args.num_loc}.txt"
    results = outputs / f"RobotCar_dpqed_netvlad{args.num_loc}_{results_label(args)}.txt"

    retrieval_conf = extract_features.confs["netvlad"]
    feature_conf = extract_features.confs["superpoint_aachen"]
    matcher_conf = choose_conf(match_features.confs, args.sfm_matcher)

    for condition in conditions:
        listed = query_list.format(condition=condition)
        upstream.generate_query_list(dataset, images / condition, listed)

    features = extract_features.main(feature_conf, images, outputs, as_half=True)

    write_reference_model(
        dataset / "3D-models/all-merged/all.nvm",
        dataset / "3D-models/overcast-reference.db",
        sift_sfm,
    )
    pairs_from_covisibility.main(sift_sfm, sfm_pairs, num_matched=args.num_covis)
    sfm_matches = match_features.main(matcher_conf, sfm_pairs, feature_conf["output"], outputs)

    triangulate(reference_sfm, sift_sfm, images, sfm_pairs, features, sfm_matches)

    global_descriptors = extract_features.main(retrieval_conf, images, outputs)
    pairs_from_retrieval.main(
        global_descriptors,
        loc_pairs,
        args.num_loc,
        query_prefix=conditions,
        db_model=reference_sfm,
    )

    compressed = compress_map(args, reference_sfm, features, outputs)

    queries = outputs / "*_queries_with_intrinsics.txt"
    return localize_queries(
        args, compressed, queries, loc_pairs, features, results, prepend_camera_name=True
    )


def build_parser() -> argparse.ArgumentParser:
    """hloc's arguments, and those of the compression."""
    parser = make_parser("RobotCar Seasons", "datasets/robotcar", "outputs/robotcar")
    add_pairs_arguments(parser, num_covis=20, num_loc=20)
    add_compression_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_script(run, build_parser().parse_args()))
