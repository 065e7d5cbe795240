"""RobotCar Seasons: hloc's pipeline, localizing with a compressed map."""

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
    require_hloc,
    results_label,
    retrieve_pairs,
    run_script,
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
    (upstream,) = require_hloc("pipelines.RobotCar.pipeline")
    # hloc takes all conditions; those that were not unzipped are left out here.
    images = dataset / "images"
    conditions = [name for name in upstream.CONDITIONS if (images / name).is_dir()]
    require_files(images, [] if conditions else upstream.CONDITIONS)

    outputs.mkdir(exist_ok=True, parents=True)
    query_list = str(outputs / "{condition}_queries_with_intrinsics.txt")
    sift_sfm = outputs / "sfm_sift"
    results = outputs / f"RobotCar_dpqed_netvlad{args.num_loc}_{results_label(args)}.txt"

    for condition in conditions:
        listed = query_list.format(condition=condition)
        upstream.generate_query_list(dataset, images / condition, listed)
    write_reference_model(
        dataset / "3D-models/all-merged/all.nvm",
        dataset / "3D-models/overcast-reference.db",
        sift_sfm,
    )
    reference_sfm, features = map_database(args, images, sift_sfm, outputs, as_half=True)
    loc_pairs = retrieve_pairs(args, [images], reference_sfm, outputs, query_prefix=conditions)
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
