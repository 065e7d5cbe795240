"""hloc's stages from a shell, reading map files."""

import argparse
import sys
from pathlib import Path

from ..errors import InputError
from ..maps.same_features import OVERRIDE
from ..matching.hloc_models import hloc_module
from .patches import installed


def _parser() -> argparse.ArgumentParser:
    """hloc's own arguments of each stage, and ``--features_ref``."""
    parser = argparse.ArgumentParser(
        prog="python -m hloc_dpqed.hloc_bridge", description="hloc's stages, reading map files"
    )
    commands = parser.add_subparsers(dest="stage", required=True)
    sub = commands.add_parser("match_features")
    sub.add_argument("--pairs", type=Path, required=True)
    sub.add_argument("--export_dir", type=Path)
    sub.add_argument("--features", default="feats-superpoint-n4096-r1024")
    sub.add_argument("--features_ref", type=Path)
    sub.add_argument("--matches", type=Path)
    sub.add_argument("--conf", default="superglue")
    sub.add_argument(OVERRIDE, action="store_true")
    sub = commands.add_parser("localize_sfm")
    for name in ("reference_sfm", "queries", "features", "matches", "retrieval", "results"):
        sub.add_argument(f"--{name}", type=Path, required=True)
    sub.add_argument("--ransac_thresh", type=float, default=12.0)
    sub.add_argument("--covisibility_clustering", action="store_true")
    sub.add_argument("--prepend_camera_name", action="store_true")
    sub = commands.add_parser("pairs_from_retrieval")
    sub.add_argument("--descriptors", type=Path, required=True)
    sub.add_argument("--output", type=Path, required=True)
    sub.add_argument("--num_matched", type=int, required=True)
    for side in ("query", "db"):
        sub.add_argument(f"--{side}_prefix", nargs="+")
        sub.add_argument(f"--{side}_list", type=Path)
    sub.add_argument("--db_model", type=Path)
    sub.add_argument("--db_descriptors", type=Path)
    sub = commands.add_parser("pairs_from_covisibility")
    sub.add_argument("--model", type=Path, required=True)
    sub.add_argument("--output", type=Path, required=True)
    sub.add_argument("--num_matched", type=int, required=True)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a stage of hloc on map files: 0, or 2 and one line on a user's mistake."""
    args = vars(_parser().parse_args(argv))
    stage = args.pop("stage")
    try:
        with installed(args.pop("allow_other_extractor", False)):
            module = hloc_module(stage)
            if stage == "match_features":
                name = args.pop("conf")
                if name not in module.confs:
                    raise InputError(f"--conf {name}: expected one of {', '.join(module.confs)}")
                args["conf"] = module.confs[name]
                # hloc takes a name of features or a path, told apart by their type.
                if Path(args["features"]).is_file():
                    args["features"] = Path(args["features"])
            module.main(**args)
    except InputError as error:
        print(f"hloc_bridge {stage}: error: {error}", file=sys.stderr)
        return 2
    return 0
