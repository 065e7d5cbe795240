"""The arguments of each command."""

import argparse
from pathlib import Path

from ..choices import (
    AUTO_CAMERA,
    BUDGET_SCOPES,
    CODE_TARGETS,
    CODEC_TRAIN,
    CODECS,
    DEFAULT_THRESHOLDS,
    DEMO_OUTPUT,
    EXPORT_FORMATS,
    EXTRACTORS,
    FALLBACKS,
    GRANULARITIES,
    LEAST_INLIERS,
    MATCHERS,
    OVERRIDE,
    POSE_ESTIMATORS,
    PRESETS,
    SECOND_CODES,
    SELECTORS,
    SHIPPED,
)


def _options(sub: argparse.ArgumentParser, kind: str, form: str, example: str) -> None:
    sub.add_argument(
        f"--{kind}_options", nargs="+", metavar=form, help=f"of the {kind}, such as {example}"
    )


def _matcher_name(sub: argparse.ArgumentParser, what: str = "") -> None:
    sub.add_argument(
        "--matcher",
        default="NN-mutual",
        help=f"{what}one of {', '.join(MATCHERS)}, or hloc:NAME for hloc's own model",
    )
    sub.add_argument("--matcher_weights", type=Path, metavar="PATH")


def _matcher(sub: argparse.ArgumentParser) -> None:
    _matcher_name(sub)
    sub.add_argument(
        "--pose_estimator", choices=POSE_ESTIMATORS, default="pycolmap", help="whose RANSAC it is"
    )


def add_compress(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--reference_sfm", type=Path, required=True, metavar="DIR")
    sub.add_argument("--features", type=Path, required=True, metavar="H5")
    sub.add_argument("--output", type=Path, required=True, metavar="MAP.dpqed")
    sub.add_argument("--budget", metavar="SIZE", help="such as 300KB or 1MB")
    sub.add_argument("--budget_scope", choices=BUDGET_SCOPES, default="total")
    sub.add_argument(
        "--target_recall",
        metavar="R@T/R",
        help="such as 0.95@0.25/2: the smallest map that keeps this recall on held-out images",
    )
    sub.add_argument("--num_points", type=int, metavar="N")
    sub.add_argument("--fraction", type=float, metavar="F", help="fraction of the points to keep")
    sub.add_argument("--selector", choices=SELECTORS, default="hybrid")
    sub.add_argument(
        "--codec",
        choices=(*CODECS, SHIPPED),
        help="drqed; with a budget, what the planner finds best; 'shipped' is fitted already",
    )
    sub.add_argument("--code_bytes", type=int, metavar="B", help="bytes of a code, 4 by default")
    sub.add_argument(
        "--codec_file",
        metavar="PATH",
        help="a codec of fit-codec, or the name of one that comes along, kept out of the map",
    )
    sub.add_argument("--codec_train", choices=CODEC_TRAIN, default="kept")
    sub.add_argument(
        "--code_targets",
        choices=CODE_TARGETS,
        help="what a point's code should decode to; sharpened with drqed, else the mean",
    )
    _options(sub, "codec", "KEY=VALUE", "steps=300")
    _options(sub, "selector", "KEY=VALUE", "min_per_image=20")
    _matcher_name(sub, "that the planner's trials match with, or that --tune is for: ")
    sub.add_argument(
        "--tune",
        action="store_true",
        help="train drqed's codebooks through the network of --matcher, a +lightglue one",
    )
    sub.add_argument("--granularity", choices=GRANULARITIES, default="point")
    sub.add_argument(
        "--codes_per_point",
        type=float,
        default=1.0,
        metavar="C",
        help="on average: more than one give points that look different a code for each look",
    )
    sub.add_argument("--global_features", type=Path, metavar="H5")
    sub.add_argument(
        "--calibrate",
        action="store_true",
        help="calibrate the confidence of poses on held-out images",
    )
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--threads", type=int, metavar="N")
    sub.add_argument("--device", default="cpu")
    sub.add_argument("--overwrite", action="store_true", help="replace an existing output")


def add_fit_codec(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--reference_sfm", type=Path, nargs="+", required=True, metavar="DIR")
    sub.add_argument(
        "--features", type=Path, nargs="+", required=True, metavar="H5", help="one, or one a model"
    )
    sub.add_argument("--output", type=Path, required=True, metavar="CODEC.safetensors")
    sub.add_argument("--codec", choices=CODECS, default="drqed")
    sub.add_argument("--code_bytes", type=int, default=4, metavar="B", help="bytes of a code")
    sub.add_argument("--code_targets", choices=CODE_TARGETS, help="as in compress")
    _options(sub, "codec", "KEY=VALUE", "codec_budget_bytes=90000")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--threads", type=int, metavar="N")
    sub.add_argument("--device", default="cpu")
    sub.add_argument("--overwrite", action="store_true", help="replace an existing output")


def _map_to_map(sub: argparse.ArgumentParser) -> None:
    """What every command takes that makes a map file of map files."""
    sub.add_argument("--output", type=Path, required=True, metavar="MAP.dpqed")
    sub.add_argument(
        "--codec_file", type=Path, metavar="PATH", help="of a map without a codec of its own"
    )
    sub.add_argument("--overwrite", action="store_true", help="replace an existing output")


def add_append(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("map", type=Path, metavar="MAP.dpqed")
    sub.add_argument("--reference_sfm", type=Path, required=True, metavar="DIR")
    sub.add_argument("--features", type=Path, required=True, metavar="H5")
    sub.add_argument("--global_features", type=Path, metavar="H5")
    sub.add_argument(
        "--second_codes",
        type=float,
        default=SECOND_CODES,
        metavar="SHARE",
        help="of the map's points, at most, that get a second code for the new images; "
        "default: %(default)s",
    )
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--threads", type=int, metavar="N")
    _map_to_map(sub)


def add_merge(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("map", type=Path, metavar="MAP.dpqed")
    sub.add_argument("other", type=Path, metavar="OTHER.dpqed")
    _map_to_map(sub)


def add_prune(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("map", type=Path, metavar="MAP.dpqed")
    sub.add_argument("--budget", metavar="SIZE", help="such as 300KB or 1MB")
    sub.add_argument("--num_points", type=int, metavar="N")
    sub.add_argument("--selector", choices=SELECTORS, default="hybrid")
    sub.add_argument(
        "--code_bytes", type=int, metavar="B", help="keep the first bytes of each code"
    )
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--threads", type=int, metavar="N")
    _map_to_map(sub)


def add_remove(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("map", type=Path, metavar="MAP.dpqed")
    sub.add_argument("--images", nargs="+", required=True, metavar="NAME")
    _map_to_map(sub)


def _extractor(sub: argparse.ArgumentParser, default: str, of_camera: str = "") -> None:
    choices = f"one of {', '.join(EXTRACTORS)}, or hloc:NAME of hloc's"
    sub.add_argument("--extractor", help=f"{choices}; default: {default}")
    sub.add_argument("--extractor_weights", type=Path, metavar="PATH", help="of a network")
    sub.add_argument(
        "--camera",
        metavar="'MODEL WIDTH HEIGHT PARAMS...'",
        help=f"intrinsics of all photos{of_camera}",
    )


def add_map(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--images", type=Path, required=True, metavar="DIR", help="the photos")
    sub.add_argument("--output", type=Path, required=True, metavar="DIR")
    sub.add_argument(
        "--poses",
        default="sfm",
        metavar="MODEL",
        help="a COLMAP model of the photos' poses and cameras; sfm, the default, finds them",
    )
    _extractor(sub, "sift")
    sub.add_argument("--max_keypoints", type=int, default=2048, metavar="N", help="of a photo")
    sub.add_argument(
        "--max_image_size", type=int, default=1600, metavar="PX", help="larger photos are shrunk"
    )
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--threads", type=int, metavar="N")
    sub.add_argument("--device", default="cpu")
    sub.add_argument("--overwrite", action="store_true", help="replace a map of other photos")


def add_localize(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--map", type=Path, required=True, metavar="MAP.dpqed")
    sub.add_argument("--queries", type=Path, metavar="TXT", help="needed without --images")
    sub.add_argument(
        "--features", type=Path, metavar="H5", help="needed without --images, else made"
    )
    sub.add_argument("--images", type=Path, metavar="DIR", help="photos to extract from")
    _extractor(
        sub,
        "what the map says",
        f"; '{AUTO_CAMERA}' guesses by EXIF or the image's size, and refines with the pose",
    )
    sub.add_argument("--results", type=Path, required=True, metavar="TXT")
    sub.add_argument(
        "--codec_file", type=Path, metavar="PATH", help="of a map without a codec of its own"
    )
    sub.add_argument("--retrieval", metavar="PAIRS", help="hloc's pairs file, 'vlad' or 'none'")
    sub.add_argument(
        "--global_features", type=Path, metavar="H5", help="global descriptors of the queries"
    )
    sub.add_argument("--num_retrieved", type=int, default=20, metavar="K")
    _matcher(sub)
    sub.add_argument(
        "--symmetric", action="store_true", help="quantize the queries' descriptors too"
    )
    sub.add_argument(
        OVERRIDE,
        action="store_true",
        help="only warn where the features are of another extractor than the map's",
    )
    sub.add_argument("--ransac_thresh", type=float, default=12.0, metavar="PX")
    sub.add_argument("--covisibility_clustering", action="store_true")
    sub.add_argument(
        "--ransac_all_matches", action="store_true", help="RANSAC on all matches, as in hloc"
    )
    sub.add_argument(
        "--min_inliers",
        type=int,
        default=LEAST_INLIERS,
        metavar="N",
        help="of a pose, and more where chance gives some; 0 takes every pose, as hloc does",
    )
    sub.add_argument(
        "--estimate_focal",
        action="store_true",
        help="focal lengths are not known: estimate them with the poses",
    )
    sub.add_argument(
        "--min_confidence",
        metavar="P@T/R",
        help="such as 0.9@0.25/2: leave out poses that are less probably this right",
    )
    sub.add_argument(
        "--rigs",
        type=Path,
        metavar="FILE",
        help="images taken at once: COLMAP's rig JSON, a model with rigs or LaMAR's rigs.txt",
    )
    sub.add_argument(
        "--rig_scale", type=float, default=1.0, metavar="S", help="map units in a unit of the rigs"
    )
    sub.add_argument(
        "--track",
        action="store_true",
        help="the queries are a sequence: look for each where the last one was",
    )
    sub.add_argument(
        "--priors",
        type=Path,
        metavar="TXT",
        help="what is known before: lines `name x y z [radius]`, `name qw qx qy qz tx ty tz` or "
        "`name gravity x y z`",
    )
    sub.add_argument(
        "--prior_radius", type=float, metavar="R", help="map units that positions may be off"
    )
    sub.add_argument(
        "--prior_angle",
        type=float,
        metavar="DEG",
        help="degrees that whole poses (10 by default) or gravity (5) may be off",
    )
    sub.add_argument(
        "--map_gravity",
        nargs=3,
        type=float,
        metavar=("X", "Y", "Z"),
        help="down in the map, for priors of gravity",
    )
    sub.add_argument("--results_jsonl", type=Path, metavar="JSONL", help="JSON of each query")
    sub.add_argument(
        "--results_sfm", type=Path, metavar="DIR", help="COLMAP model of the map and the queries"
    )
    sub.add_argument("--results_rigs", type=Path, metavar="TXT", help="rig-from-world poses")
    naming = sub.add_mutually_exclusive_group()
    naming.add_argument("--prepend_camera_name", action="store_true")
    naming.add_argument("--full_names", action="store_true")
    sub.add_argument("--fallback", choices=FALLBACKS, default="none")
    sub.add_argument("--logs", type=Path, metavar="JSON")
    sub.add_argument("--threads", type=int, metavar="N")
    sub.add_argument("--device", default="cpu")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--json", action="store_true")
    sub.add_argument("--overwrite", action="store_true", help="replace an existing output")


def add_evaluate(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--results", type=Path, required=True, metavar="TXT")
    sub.add_argument("--reference", type=Path, required=True, metavar="POSES_OR_SFM")
    sub.add_argument("--thresholds", default=DEFAULT_THRESHOLDS)
    sub.add_argument("--queries", type=Path, metavar="TXT", help="evaluate these images only")
    sub.add_argument("--json", action="store_true")


def add_info(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("map", type=Path, metavar="MAP.dpqed")
    sub.add_argument(
        "--codec_file", type=Path, metavar="PATH", help="of a map without a codec of its own"
    )
    sub.add_argument("--json", action="store_true")


def add_export(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("map", type=Path, metavar="MAP.dpqed")
    sub.add_argument("--output", type=Path, required=True, metavar="DIR")
    sub.add_argument(
        "--codec_file", type=Path, metavar="PATH", help="of a map without a codec of its own"
    )
    sub.add_argument("--format", choices=EXPORT_FORMATS, default="hloc")
    sub.add_argument("--overwrite", action="store_true", help="replace an existing output")


def add_sweep(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--reference_sfm", type=Path, required=True, metavar="DIR")
    sub.add_argument("--features", type=Path, required=True, metavar="H5")
    sub.add_argument("--queries", type=Path, required=True, metavar="TXT")
    sub.add_argument("--query_features", type=Path, metavar="H5", help="default: --features")
    sub.add_argument("--retrieval", required=True, metavar="PAIRS", help="pairs file, or 'none'")
    sub.add_argument("--reference_poses", type=Path, required=True, metavar="POSES_OR_SFM")
    sub.add_argument("--output", type=Path, required=True, metavar="DIR")
    sub.add_argument("--preset", choices=PRESETS, help="what is not given below is the preset's")
    sub.add_argument("--codecs", nargs="+", choices=CODECS)
    sub.add_argument("--code_bytes", nargs="+", type=int, metavar="B")
    sub.add_argument("--selectors", nargs="+", choices=SELECTORS)
    sub.add_argument("--fractions", nargs="+", type=float, metavar="F", help="of points to keep")
    sub.add_argument(
        "--code_budgets",
        nargs="+",
        type=float,
        metavar="B",
        help="instead of fractions: bytes for codes, for each point of the uncompressed map",
    )
    _options(sub, "codec", "NAME.KEY=VALUE", "drqed.steps=300")
    _options(sub, "selector", "NAME.KEY=VALUE", "ilp.coverage=0.9")
    sub.add_argument("--seeds", type=int, default=3, metavar="N")
    sub.add_argument("--ransac_seeds", type=int, default=10, metavar="N")
    sub.add_argument("--granularity", choices=GRANULARITIES, default="point")
    _matcher(sub)
    sub.add_argument("--ransac_thresh", type=float, default=12.0, metavar="PX")
    sub.add_argument("--thresholds", default=DEFAULT_THRESHOLDS)
    sub.add_argument("--no_plots", dest="plots", action="store_false")
    sub.add_argument("--threads", type=int, metavar="N")
    sub.add_argument("--device", default="cpu")
    sub.add_argument("--overwrite", action="store_true", help="replace an existing output")


def add_demo(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--output", type=Path, default=Path(DEMO_OUTPUT), metavar="DIR", help="%(default)s"
    )
    sub.add_argument(
        "--images", type=Path, metavar="DIR", help="your own photos instead of rendered ones"
    )
    sub.add_argument("--num_database", type=int, default=48, metavar="N", help="rendered views")
    sub.add_argument("--num_queries", type=int, default=12, metavar="N", help="unseen views")
    sub.add_argument(
        "--query_every", type=int, default=5, metavar="N", help="of your photos, which are queries"
    )
    sub.add_argument("--code_bytes", type=int, default=4, metavar="B")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--threads", type=int, metavar="N")


def add_report(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("maps", type=Path, nargs="+", metavar="MAP.dpqed")
    sub.add_argument("--queries", type=Path, required=True, metavar="TXT")
    sub.add_argument("--features", type=Path, required=True, metavar="H5", help="of the queries")
    sub.add_argument("--retrieval", required=True, metavar="PAIRS", help="pairs file, or 'none'")
    sub.add_argument("--reference_sfm", type=Path, metavar="DIR", help="the uncompressed map")
    sub.add_argument("--reference_features", type=Path, metavar="H5", help="of its images")
    sub.add_argument("--reference_poses", type=Path, metavar="POSES_OR_SFM", help="of the queries")
    sub.add_argument("--images", type=Path, metavar="DIR", help="database and query images")
    sub.add_argument("--output", type=Path, required=True, metavar="HTML")
    _matcher(sub)
    sub.add_argument("--ransac_thresh", type=float, default=12.0, metavar="PX")
    sub.add_argument("--ransac_seeds", type=int, default=10, metavar="N")
    sub.add_argument("--thresholds", default=DEFAULT_THRESHOLDS)
    sub.add_argument("--threads", type=int, metavar="N")
    sub.add_argument(
        "--codec_file", type=Path, metavar="PATH", help="of maps without a codec of their own"
    )
    sub.add_argument(
        OVERRIDE,
        action="store_true",
        help="only warn where the features are of another extractor than a map's",
    )
    sub.add_argument("--device", default="cpu")
    sub.add_argument("--seed", type=int, default=0, help="of the first RANSAC run")
    sub.add_argument("--overwrite", action="store_true", help="replace an existing output")
