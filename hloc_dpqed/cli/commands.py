"""What each command does with its parsed arguments: call the stage's ``main``, print."""

import json
from typing import Any


def map(args: dict[str, Any]) -> None:
    from .. import map as stage

    args["extractor"] = args["extractor"] or "sift"
    stage.main(**args)


def compress(args: dict[str, Any]) -> None:
    from .. import compress as stage
    from ..options import parse_options

    for name in ("codec_options", "selector_options"):
        args[name] = parse_options(args[name], f"--{name}")
    stage.main(**args)


def fit_codec(args: dict[str, Any]) -> None:
    from .. import fit_codec as stage
    from ..options import parse_options

    args["codec_options"] = parse_options(args["codec_options"], "--codec_options")
    stage.main(**args)


def append(args: dict[str, Any]) -> None:
    from .. import append as stage

    stage.main(**args)


def merge(args: dict[str, Any]) -> None:
    from .. import merge as stage

    stage.main(**args)


def prune(args: dict[str, Any]) -> None:
    from .. import prune as stage

    stage.main(**args)


def remove(args: dict[str, Any]) -> None:
    from .. import remove as stage

    stage.main(**args)


def localize(args: dict[str, Any]) -> None:
    from .. import localize as stage

    as_json = args.pop("json")
    figures = stage.main(**args)
    if as_json:
        print(json.dumps(figures))
    else:
        notes = {
            "num_rejected": "poses rejected for too few inliers",
            "num_doubtful": "poses left out as doubtful",
            "num_tracked": "tracked",
            "num_priors_false": "priors false",
        }
        told = ", ".join(f"{figures[k]} {text}" for k, text in notes.items() if figures.get(k))
        print(
            f"localized {figures['num_localized']} of {figures['num_queries']} queries"
            f"{f' ({told})' if told else ''}, "
            f"{figures['mean_matches']:.0f} matches and {figures['mean_inliers']:.0f} inliers a "
            f"query, {figures['seconds_per_query'] * 1000:.0f} ms a query"
        )


def evaluate(args: dict[str, Any]) -> None:
    from .. import evaluate as stage
    from ..evaluation.pose_errors import format_length

    as_json = args.pop("json")
    figures = stage.main(**args)
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


def info(args: dict[str, Any]) -> None:
    from .. import info as stage

    as_json = args.pop("json")
    figures = stage.main(**args)
    print(json.dumps(figures) if as_json else stage.format_info(figures))


def export(args: dict[str, Any]) -> None:
    from .. import export as stage

    stage.main(**args)


def sweep(args: dict[str, Any]) -> None:
    from .. import sweep as stage
    from ..options import parse_named_options

    for name in ("codec_options", "selector_options"):
        args[name] = parse_named_options(args[name], f"--{name}")
    stage.main(**args)


def demo(args: dict[str, Any]) -> None:
    from .. import demo as stage

    stage.main(**args)


def report(args: dict[str, Any]) -> None:
    from .. import report as stage

    stage.main(**args)
