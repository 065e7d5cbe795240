"""Cambridge Landmarks: hloc's pipeline, localizing with a compressed map."""

import argparse
import sys
from pathlib import Path

from ..common import (
    add_compression_arguments,
    add_pairs_arguments,
    choose_conf,
    compress_map,
    evaluation_row,
    format_table,
    label,
    localize_queries,
    make_parser,
    require_files,
    require_hloc,
    results_label,
    run_script,
    triangulate,
)

SCENES = ["KingsCollege", "OldHospital", "ShopFacade", "StMarysChurch", "GreatCourt"]
MODELS = "CambridgeLandmarks_Colmap_Retriangulated_1024px"
LAYOUT = [
    "{scene}/seq*",
    MODELS + "/{scene}/model_train/images.bin",
    MODELS + "/{scene}/empty_all/images.txt",
    MODELS + "/{scene}/list_query.txt",
]
FEATURES = {
    "output": "feats-superpoint-n4096-r1024",
    "model": {"name": "superpoint", "nms_radius": 3, "max_keypoints": 4096},
    "preprocessing": {"grayscale": True, "resize_max": 1024},
}
THRESHOLDS = "0.05/5,0.25/2,0.5/5"


def run_scene(args: argparse.Namespace, scene: str, results: Path) -> None:
    """Map one scene with hloc, compress, localize."""
    (
        extract_features,
        match_features,
        pairs_from_covisibility,
        pairs_from_retrieval,
        utils,
    ) = require_hloc(
        "extract_features",
        "match_features",
        "pairs_from_covisibility",
        "pairs_from_retrieval",
        "pipelines.Cambridge.utils",
    )
    images, outputs = args.dataset / scene, args.outputs / scene
    gt_dir = args.dataset / MODELS / scene
    ref_sfm_sift = gt_dir / "model_train"
    test_list = gt_dir / "list_query.txt"

    outputs.mkdir(exist_ok=True, parents=True)
    ref_sfm = outputs / f"sfm_superpoint+{args.sfm_matcher}"
    ref_sfm_scaled = outputs / "sfm_sift_scaled"
    query_list = outputs / "query_list_with_intrinsics.txt"
    sfm_pairs = outputs / f"pairs-db-covis{args.num_covis}.txt"
    loc_pairs = outputs / f"pairs-query-netvlad{args.num_loc}.txt"

    matcher_conf = choose_conf(match_features.confs, args.sfm_matcher)
    retrieval_conf = extract_features.confs["netvlad"]

    # The models are those of small images; the features are of the full ones.
    utils.create_query_list_with_intrinsics(
        gt_dir / "empty_all", query_list, test_list, ext=".txt", image_dir=images
    )
    query_seqs = {name.split("/")[0] for name in test_list.read_text().split()}

    global_descriptors = extract_features.main(retrieval_conf, images, outputs)
    pairs_from_retrieval.main(
        global_descriptors,
        loc_pairs,
        args.num_loc,
        db_model=ref_sfm_sift,
        query_prefix=query_seqs,
    )

    features = extract_features.main(FEATURES, images, outputs, as_half=True)
    pairs_from_covisibility.main(ref_sfm_sift, sfm_pairs, num_matched=args.num_covis)
    sfm_matches = match_features.main(matcher_conf, sfm_pairs, FEATURES["output"], outputs)

    utils.scale_sfm_images(ref_sfm_sift, ref_sfm_scaled, images)
    triangulate(ref_sfm, ref_sfm_scaled, images, sfm_pairs, features, sfm_matches)

    compressed = compress_map(args, ref_sfm, features, outputs)

    localize_queries(
        args, compressed, query_list, loc_pairs, features, results, prepend_camera_name=True
    )


def run(args: argparse.Namespace) -> list[dict[str, str]]:
    """Every scene asked for, then the table of median errors; its lines."""
    for scene in args.scenes:
        require_files(args.dataset, [name.format(scene=scene) for name in LAYOUT])
    rows = []
    for scene in args.scenes:
        outputs = args.outputs / scene
        results = outputs / f"results_{results_label(args)}.txt"
        if args.overwrite or not results.exists():
            run_scene(args, scene, results)
        gt_dir = args.dataset / MODELS / scene
        rows.append(
            evaluation_row(
                scene,
                outputs / f"map_{label(args)}.dpqed",
                results,
                gt_dir / "empty_all",
                gt_dir / "list_query.txt",
                THRESHOLDS,
            )
        )
    print(format_table(rows))
    return rows


def build_parser() -> argparse.ArgumentParser:
    """hloc's arguments, and those of the compression."""
    parser = make_parser("Cambridge Landmarks", "datasets/cambridge", "outputs/cambridge")
    parser.add_argument("--scenes", default=SCENES, choices=SCENES, nargs="+")
    parser.add_argument("--overwrite", action="store_true", help="localize again")
    add_pairs_arguments(parser, num_covis=20, num_loc=10)
    add_compression_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_script(run, build_parser().parse_args()))
