"""4Seasons: hloc's two scripts in one, localizing with a compressed map."""

import argparse
import sys
from pathlib import Path

import numpy as np

from hloc_dpqed.io.lists import write_poses

from ..common import (
    add_compression_arguments,
    add_pairs_arguments,
    choose_conf,
    compress_map,
    evaluation_row,
    format_table,
    localize_queries,
    make_parser,
    require_files,
    require_hloc,
    results_label,
    run_script,
    triangulate,
)

RELOCALIZATION = {
    "training": "RelocalizationFilesTrain/relocalizationFile_recording_2020-03-24_17-36-22.txt",
    "validation": "RelocalizationFilesVal/relocalizationFile_recording_2020-03-03_12-03-23.txt",
    "test0": "RelocalizationFilesTest/relocalizationFile_recording_2020-03-24_17-45-31_*.txt",
    "test1": "RelocalizationFilesTest/relocalizationFile_recording_2020-04-23_19-37-00_*.txt",
}
LAYOUT = [
    "reference/undistorted_images/cam0",
    "reference/undistorted_images/cam1",
    "reference/Calibration/undistorted_calib_0.txt",
    "reference/Calibration/undistorted_calib_1.txt",
    "reference/Calibration/undistorted_calib_stereo.txt",
    "reference/poses.txt",
    "{sequence}/undistorted_images/cam0",
    "{sequence}/Calibration/undistorted_calib_0.txt",
]
NUM_REF_PAIRS = 20
NUM_LOC_PAIRS = 10
THRESHOLDS = "0.1/180,0.2/180,0.5/180"  # the challenge looks at distances only


def images_of(folder: Path, timestamps: set[str]) -> list[str]:
    """The images of these timestamps; hloc's scripts delete all others from the disk instead."""
    paths = sorted(folder.glob("**/*.png"))
    return [p.relative_to(folder).as_posix() for p in paths if p.stem in timestamps]


def prepare_reference(args: argparse.Namespace) -> tuple[Path, Path]:
    """Map the reference sequence with hloc; the model and the features."""
    extract_features, match_features, pairs_from_poses, utils = require_hloc(
        "extract_features", "match_features", "pairs_from_poses", "pipelines.4Seasons.utils"
    )
    ref_dir, output_dir = args.dataset / "reference", args.outputs
    ref_images = ref_dir / "undistorted_images"
    ref_sfm_empty = output_dir / "sfm_reference_empty"
    ref_sfm = output_dir / f"sfm_superpoint+{args.sfm_matcher}"
    ref_pairs = output_dir / f"pairs-db-dist{args.num_covis}.txt"

    fconf = extract_features.confs["superpoint_max"]
    mconf = choose_conf(match_features.confs, args.sfm_matcher)

    posed = images_of(ref_images, utils.get_timestamps(ref_dir / "poses.txt", 0))
    utils.build_empty_colmap_model(ref_dir, ref_sfm_empty)
    pairs_from_poses.main(ref_sfm_empty, ref_pairs, args.num_covis)

    ffile = extract_features.main(fconf, ref_images, output_dir, image_list=posed)
    mfile = match_features.main(mconf, ref_pairs, fconf["output"], output_dir)
    triangulate(ref_sfm, ref_sfm_empty, ref_images, ref_pairs, ffile, mfile)
    return ref_sfm, ffile


def write_truth(reloc: Path, poses: Path, output: Path) -> None:
    """Poses of the queries: the reference poses, moved as the relocalization file tells."""
    (utils,) = require_hloc("pipelines.4Seasons.utils")
    reference = {ts: (rotation, centre) for ts, rotation, centre in utils.parse_poses(poses)}
    truth = {}
    for ref_ts, query_ts, rotation, translation in utils.parse_relocalization(reloc, True):
        ref_rotation, ref_centre = reference[ref_ts]
        from_world = rotation @ ref_rotation.T
        moved = translation - from_world @ ref_centre
        truth[f"{query_ts}.png"] = np.column_stack([from_world, moved])
    write_poses(output, truth)


def run(args: argparse.Namespace) -> None:
    """Map the reference where that was not done, compress, localize one sequence."""
    sequence = args.sequence
    reloc = args.dataset / "reference" / RELOCALIZATION[sequence]
    layout = [name.format(sequence=sequence) for name in LAYOUT]
    require_files(args.dataset, [*layout, f"reference/{RELOCALIZATION[sequence]}"])
    extract_features, utils = require_hloc("extract_features", "pipelines.4Seasons.utils")
    seq_dir, output_dir = args.dataset / sequence, args.outputs
    seq_images = seq_dir / "undistorted_images"

    output_dir.mkdir(exist_ok=True, parents=True)
    name = f"{sequence}_dpqed_{results_label(args)}"
    query_list = output_dir / f"{sequence}_queries_with_intrinsics.txt"
    ref_pairs = output_dir / f"pairs-db-dist{args.num_covis}.txt"
    loc_pairs = output_dir / f"pairs-query-{sequence}-dist{args.num_loc}.txt"
    results = output_dir / f"localization_{name}.txt"
    submission_dir = output_dir / f"submission_{results_label(args)}"
    poses = args.dataset / "reference/poses.txt"

    ref_sfm, features = prepare_reference(args)

    compressed = compress_map(args, ref_sfm, features, output_dir)

    timestamps = utils.get_timestamps(reloc, 1)
    utils.generate_query_lists(sorted(timestamps), seq_dir, query_list)
    utils.generate_localization_pairs(sequence, reloc, args.num_loc, ref_pairs, loc_pairs)

    fconf = extract_features.confs["superpoint_max"]
    listed = [f"cam0/{timestamp}.png" for timestamp in sorted(timestamps)]
    ffile = extract_features.main(fconf, seq_images, output_dir, image_list=listed)
    localize_queries(args, compressed, query_list, loc_pairs, ffile, results)

    submission_dir.mkdir(exist_ok=True)
    utils.prepare_submission(results, reloc, poses, submission_dir)

    if "test" not in sequence:
        utils.evaluate_submission(submission_dir, reloc)
        truth = output_dir / f"{sequence}_poses.txt"
        write_truth(reloc, poses, truth)
        print(
            format_table([evaluation_row(sequence, compressed, results, truth, None, THRESHOLDS)])
        )


def build_parser() -> argparse.ArgumentParser:
    """hloc's arguments, and those of the compression."""
    parser = make_parser("4Seasons", "datasets/4Seasons", "outputs/4Seasons")
    parser.add_argument(
        "--sequence", required=True, choices=RELOCALIZATION, help="sequence to be relocalized"
    )
    add_pairs_arguments(parser, num_covis=NUM_REF_PAIRS, num_loc=NUM_LOC_PAIRS)
    add_compression_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_script(run, build_parser().parse_args()))
