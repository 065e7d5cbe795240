"""7Scenes: hloc's pipeline, localizing with a compressed map."""

import argparse
import copy
import sys
from pathlib import Path

import numpy as np
import pycolmap

from hloc_dpqed.errors import InputError

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

SCENES = ["chess", "fire", "heads", "office", "pumpkin", "redkitchen", "stairs"]
GT = "7scenes_sfm_triangulated/{scene}/triangulated"
RETRIEVAL = "7scenes_densevlad_retrieval_top_10/{scene}_top10.txt"
DEPTH = "depth/7scenes_{scene}/train/depth"
LAYOUT = ["{scene}/seq-*", f"{GT}/images.bin", f"{GT}/list_test.txt", RETRIEVAL]
FEATURES = {
    "output": "feats-superpoint-n4096-r1024",
    "model": {"name": "superpoint", "nms_radius": 3, "max_keypoints": 4096},
    "preprocessing": {"globs": ["*.color.png"], "grayscale": True, "resize_max": 1024},
}
THRESHOLDS = "0.01/1,0.02/2,0.05/5"


def write_training_model(full: Path, output: Path, tests: set[str]) -> None:
    """The COLMAP model in ``full`` without the test images, in which no track refers to them."""
    (models,) = require_hloc("utils.read_write_model")
    cameras, images, points = models.read_model(full, ".bin")
    images = {number: image for number, image in images.items() if image.name not in tests}
    kept = {}
    for number, point in points.items():
        known = np.array([i in images for i in point.image_ids], bool)
        if known.any():
            kept[number] = point._replace(
                image_ids=point.image_ids[known], point2D_idxs=point.point2D_idxs[known]
            )
    output.mkdir(exist_ok=True)
    models.write_model(cameras, images, kept, output, ".bin")


def correct_with_depth(model: Path, depth_dir: Path, output: Path) -> None:
    """hloc's correction of the points of a model with depth maps.

    Raises:
        InputError: hloc's code does not run with this version of pycolmap.
    """
    (create_gt_sfm,) = require_hloc("pipelines.7Scenes.create_gt_sfm")
    try:
        create_gt_sfm.correct_sfm_with_gt_depth(model, depth_dir, output)
    except TypeError as error:
        if "img_from_cam" not in str(error):  # pycolmap 4 takes points in 3D only
            raise
        raise InputError(
            "--use_dense_depth: hloc's correction with depth maps needs pycolmap 3.13, found "
            f"{pycolmap.__version__}"
        ) from error


def run_scene(args: argparse.Namespace, scene: str, results: Path) -> None:
    """Map one scene with hloc, compress, localize."""
    (
        extract_features,
        match_features,
        pairs_from_covisibility,
        cambridge_utils,
    ) = require_hloc(
        "extract_features",
        "match_features",
        "pairs_from_covisibility",
        "pipelines.Cambridge.utils",
    )
    images, outputs = args.dataset / scene, args.outputs / scene
    gt_dir = args.dataset / GT.format(scene=scene)
    retrieval = args.dataset / RETRIEVAL.format(scene=scene)

    outputs.mkdir(exist_ok=True, parents=True)
    ref_sfm_sift = outputs / "sfm_sift"
    ref_sfm = outputs / f"sfm_superpoint+{args.sfm_matcher}"
    query_list = outputs / "query_list_with_intrinsics.txt"
    sfm_pairs = outputs / f"pairs-db-covis{args.num_covis}.txt"

    matcher_conf = copy.deepcopy(choose_conf(match_features.confs, args.sfm_matcher))
    if matcher_conf["model"]["name"] == "superglue":
        matcher_conf["model"]["sinkhorn_iterations"] = 5

    test_list = gt_dir / "list_test.txt"
    write_training_model(gt_dir, ref_sfm_sift, set(test_list.read_text().split()))
    cambridge_utils.create_query_list_with_intrinsics(gt_dir, query_list, test_list)

    features = extract_features.main(FEATURES, images, outputs, as_half=True)

    pairs_from_covisibility.main(ref_sfm_sift, sfm_pairs, num_matched=args.num_covis)
    sfm_matches = match_features.main(matcher_conf, sfm_pairs, FEATURES["output"], outputs)
    if not (args.use_dense_depth and ref_sfm.exists()):
        triangulate(ref_sfm, ref_sfm_sift, images, sfm_pairs, features, sfm_matches)
    if args.use_dense_depth:
        dense = outputs / f"{ref_sfm.name}+depth"
        depth_dir = args.dataset / DEPTH.format(scene=scene)
        correct_with_depth(ref_sfm, depth_dir, dense)
        ref_sfm = dense

    compressed = compress_map(args, ref_sfm, features, map_folder(args, scene))

    localize_queries(
        args, compressed, query_list, retrieval, features, results, prepend_camera_name=True
    )


def map_folder(args: argparse.Namespace, scene: str) -> Path:
    """Where the map and the results are: maps with dense depth do not replace those without."""
    return args.outputs / scene / ("dense" if args.use_dense_depth else "sparse")


def run(args: argparse.Namespace) -> list[dict[str, str]]:
    """Every scene asked for, then the table of median errors; its lines."""
    layout = [*LAYOUT, DEPTH] if args.use_dense_depth else LAYOUT
    for scene in args.scenes:
        require_files(args.dataset, [name.format(scene=scene) for name in layout])
    rows = []
    for scene in args.scenes:
        folder = map_folder(args, scene)
        folder.mkdir(exist_ok=True, parents=True)
        results = folder / f"results_{results_label(args)}.txt"
        if args.overwrite or not results.exists():
            run_scene(args, scene, results)
        gt_dir = args.dataset / GT.format(scene=scene)
        compressed = folder / f"map_{label(args)}.dpqed"
        tests = gt_dir / "list_test.txt"
        rows.append(evaluation_row(scene, compressed, results, gt_dir, tests, THRESHOLDS))
    print(format_table(rows))
    return rows


def build_parser() -> argparse.ArgumentParser:
    """hloc's arguments, and those of the compression."""
    parser = make_parser("7Scenes", "datasets/7scenes", "outputs/7scenes")
    parser.add_argument("--scenes", default=SCENES, choices=SCENES, nargs="+")
    parser.add_argument("--overwrite", action="store_true", help="localize again")
    parser.add_argument("--use_dense_depth", action="store_true", help="points from depth maps")
    add_pairs_arguments(parser, num_covis=30, num_loc=0)
    add_compression_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_script(run, build_parser().parse_args()))
