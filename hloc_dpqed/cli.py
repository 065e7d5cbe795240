"""The console script: parses arguments, calls the stage's ``main``, prints."""

import argparse
import contextlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from . import __version__
from .choices import (
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
    SELECTORS,
    SHIPPED,
)
from .errors import InputError

_Run = Callable[[dict[str, Any]], None]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, exit code 2."""
        self.exit(2, f"{self.prog}: error: {_one_line(message)} (see --help)\n")


def _map(args: dict[str, Any]) -> None:
    from . import map as stage

    args["extractor"] = args["extractor"] or "sift"
    stage.main(**args)


def _compress(args: dict[str, Any]) -> None:
    from . import compress
    from .options import parse_options

    for name in ("codec_options", "selector_options"):
        args[name] = parse_options(args[name], f"--{name}")
    compress.main(**args)


def _fit_codec(args: dict[str, Any]) -> None:
    from . import fit_codec
    from .options import parse_options

    args["codec_options"] = parse_options(args["codec_options"], "--codec_options")
    fit_codec.main(**args)


def _append(args: dict[str, Any]) -> None:
    from . import append

    append.main(**args)


def _merge(args: dict[str, Any]) -> None:
    from . import merge

    merge.main(**args)


def _prune(args: dict[str, Any]) -> None:
    from . import prune

    prune.main(**args)


def _remove(args: dict[str, Any]) -> None:
    from . import remove

    remove.main(**args)


def _localize(args: dict[str, Any]) -> None:
    from . import localize

    as_json = args.pop("json")
    figures = localize.main(**args)
    if as_json:
        print(json.dumps(figures))
    else:
        rejected = figures["num_rejected"]
        told = f" ({rejected} poses rejected for too few inliers)" if rejected else ""
        print(
            f"localized {figures['num_localized']} of {figures['num_queries']} queries{told}, "
            f"{figures['mean_matches']:.0f} matches and {figures['mean_inliers']:.0f} inliers a "
            f"query, {figures['seconds_per_query'] * 1000:.0f} ms a query"
        )


def _evaluate(args: dict[str, Any]) -> None:
    from . import evaluate
    from .evaluation.pose_errors import format_length

    as_json = args.pop("json")
    figures = evaluate.main(**args)
    if as_json:
        print(json.dumps(figures))
        return
    print(f"localized {figures['num_localized']} of {figures['num_queries']} queries")
    for name, unit in (("translation", "map units"), ("rotation", "degrees")):
        median = figures[f"median_{name}"]
        shown = "infinite" if median is None else f"{format_length(median)} {unit}"
        print(f"median {name} error: {shown}")
    for row in figures["recall"]:
        print(f"recall at {row['translation']:g} / {row['rotation']:g}: {row['fraction']:.3f}")


def _info(args: dict[str, Any]) -> None:
    from . import info

    as_json = args.pop("json")
    figures = info.main(**args)
    print(json.dumps(figures) if as_json else info.format_info(figures))


def _export(args: dict[str, Any]) -> None:
    from . import export

    export.main(**args)


def _sweep(args: dict[str, Any]) -> None:
    from . import sweep
    from .options import parse_named_options

    for name in ("codec_options", "selector_options"):
        args[name] = parse_named_options(args[name], f"--{name}")
    sweep.main(**args)


def _demo(args: dict[str, Any]) -> None:
    from . import demo

    demo.main(**args)


def _report(args: dict[str, Any]) -> None:
    from . import report

    report.main(**args)


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


def _add_compress(sub: argparse.ArgumentParser) -> None:
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
    _matcher_name(sub, "that the planner's trials match with: ")
    sub.add_argument("--granularity", choices=GRANULARITIES, default="point")
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


def _add_fit_codec(sub: argparse.ArgumentParser) -> None:
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


def _add_append(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("map", type=Path, metavar="MAP.dpqed")
    sub.add_argument("--reference_sfm", type=Path, required=True, metavar="DIR")
    sub.add_argument("--features", type=Path, required=True, metavar="H5")
    sub.add_argument("--global_features", type=Path, metavar="H5")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--threads", type=int, metavar="N")
    _map_to_map(sub)


def _add_merge(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("map", type=Path, metavar="MAP.dpqed")
    sub.add_argument("other", type=Path, metavar="OTHER.dpqed")
    _map_to_map(sub)


def _add_prune(sub: argparse.ArgumentParser) -> None:
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


def _add_remove(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("map", type=Path, metavar="MAP.dpqed")
    sub.add_argument("--images", nargs="+", required=True, metavar="NAME")
    _map_to_map(sub)


def _extractor(sub: argparse.ArgumentParser, default: str) -> None:
    choices = f"one of {', '.join(EXTRACTORS)}, or hloc:NAME of hloc's"
    sub.add_argument("--extractor", help=f"{choices}; default: {default}")
    sub.add_argument("--extractor_weights", type=Path, metavar="PATH", help="of a network")
    sub.add_argument(
        "--camera", metavar="'MODEL WIDTH HEIGHT PARAMS...'", help="intrinsics of all photos"
    )


def _add_map(sub: argparse.ArgumentParser) -> None:
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


def _add_localize(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--map", type=Path, required=True, metavar="MAP.dpqed")
    sub.add_argument("--queries", type=Path, metavar="TXT", help="needed without --images")
    sub.add_argument(
        "--features", type=Path, metavar="H5", help="needed without --images, else made"
    )
    sub.add_argument("--images", type=Path, metavar="DIR", help="photos to extract from")
    _extractor(sub, "what the map says")
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


def _add_evaluate(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--results", type=Path, required=True, metavar="TXT")
    sub.add_argument("--reference", type=Path, required=True, metavar="POSES_OR_SFM")
    sub.add_argument("--thresholds", default=DEFAULT_THRESHOLDS)
    sub.add_argument("--queries", type=Path, metavar="TXT", help="evaluate these images only")
    sub.add_argument("--json", action="store_true")


def _add_info(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("map", type=Path, metavar="MAP.dpqed")
    sub.add_argument(
        "--codec_file", type=Path, metavar="PATH", help="of a map without a codec of its own"
    )
    sub.add_argument("--json", action="store_true")


def _add_export(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("map", type=Path, metavar="MAP.dpqed")
    sub.add_argument("--output", type=Path, required=True, metavar="DIR")
    sub.add_argument(
        "--codec_file", type=Path, metavar="PATH", help="of a map without a codec of its own"
    )
    sub.add_argument("--format", choices=EXPORT_FORMATS, default="hloc")
    sub.add_argument("--overwrite", action="store_true", help="replace an existing output")


def _add_sweep(sub: argparse.ArgumentParser) -> None:
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


def _add_demo(sub: argparse.ArgumentParser) -> None:
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


def _add_report(sub: argparse.ArgumentParser) -> None:
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


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; imports nothing heavy, so that ``--help`` is instant."""
    common = _Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = _Parser(prog="hloc-dpqed", description="Small visual-localization maps for hloc")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)

    # Each command: its name, what runs it, its arguments, and what it is for.
    table: tuple[tuple[str, _Run, Callable[[argparse.ArgumentParser], None], str], ...] = (
        ("map", _map, _add_map, "photos to a COLMAP model and a feature file"),
        ("compress", _compress, _add_compress, "compress an hloc map to one small file"),
        (
            "fit-codec",
            _fit_codec,
            _add_fit_codec,
            "fit one codec on several maps, for them to share",
        ),
        ("append", _append, _add_append, "add what an extended model has to a map file"),
        ("merge", _merge, _add_merge, "join two map files of one frame and codec"),
        ("prune", _prune, _add_prune, "a smaller map file from a map file alone"),
        ("remove", _remove, _add_remove, "remove images from a map file"),
        ("localize", _localize, _add_localize, "localize queries with a map file"),
        ("evaluate", _evaluate, _add_evaluate, "pose errors and recall of a result file"),
        ("info", _info, _add_info, "what is in a map file, and what each part costs"),
        (
            "export",
            _export,
            _add_export,
            "write a map as a COLMAP model with features, for hloc or COLMAP",
        ),
        (
            "sweep",
            _sweep,
            _add_sweep,
            "accuracy against bytes over codecs, code sizes and selectors",
        ),
        ("demo", _demo, _add_demo, "map a rendered scene, compress it, localize in it"),
        (
            "report",
            _report,
            _add_report,
            "one HTML file: bytes, accuracy, points, cameras, matches",
        ),
    )
    for name, run, add_arguments, text in table:
        sub = commands.add_parser(name, help=text, description=text, parents=[common])
        sub.set_defaults(run=run)
        add_arguments(sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0 on success; 2, and one line on standard error, on a user's mistake; 1, and one line, on
        an error that is none; 130 when interrupted; 141, and no line, when whoever read the output
        has left (as in ``| head -1``), as other programs do.
    """
    from .logger import configure_logging

    parser = build_parser()
    args = vars(parser.parse_args(argv))
    configure_logging()
    debug, run, name = args.pop("debug"), args.pop("run"), args.pop("command")
    try:
        run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        return 141
    except KeyboardInterrupt:
        print(f"hloc-dpqed {name}: interrupted, no output was written", file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, InputError):
            print(f"hloc-dpqed {name}: error: {_one_line(str(error))}", file=sys.stderr)
            return 2
        if isinstance(error, ModuleNotFoundError):
            from .errors import told_missing

            if lacking := told_missing(error):
                print(f"hloc-dpqed {name}: error: {lacking}", file=sys.stderr)
                return 2
        if isinstance(error, OSError):
            _drop_output()
        told = _one_line(f"{type(error).__name__}: {error}")
        hint = "" if debug else " (pass --debug for the traceback)"
        print(f"hloc-dpqed {name}: unexpected error: {told}{hint}", file=sys.stderr)
        return 1
    return 0


def _drop_output() -> None:
    """What is left of standard output goes nowhere: Python would tell of it again at its end."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _one_line(message: str) -> str:
    """File names may hold line breaks; a message is still one line."""
    return " ".join(message.split("\n"))


if __name__ == "__main__":
    sys.exit(main())
