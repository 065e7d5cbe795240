"""The commands and versions that a report ends with."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..compression.provenance import library_versions
from .html import escape, table
from .outcomes import MapOutcome


def command_section(
    maps: Sequence[Path], outcomes: Sequence[MapOutcome], arguments: dict[str, Any]
) -> str:
    """The commands that make the maps, these figures and this report; and all versions."""
    by_label = [o for o in outcomes if o.info is not None]
    lines = []
    for path, outcome in zip(maps, by_label, strict=True):
        lines += map_commands(path, outcome, arguments)
    lines.append(command_line("report", [str(path) for path in maps], arguments))
    versions = {
        o.label: o.compressed.metadata.get("versions", {})
        for o in by_label
        if isinstance(o.compressed.metadata.get("versions", {}), dict)
    } | {"this report": present_versions()}
    names = list(dict.fromkeys(name for own in versions.values() for name in own))
    rows = [[name, *(str(own.get(name, "")) for own in versions.values())] for name in names]
    conf = [[o.label, repr(o.compressed.metadata.get("conf"))] for o in by_label]
    return (
        "<p>A map keeps its configuration, not the paths of its inputs; CAPITALS stand for paths "
        "that are not known here.</p><pre>"
        + escape("\n".join(lines))
        + "</pre>"
        + table(["package", *versions], rows)
        + table(["map", "configuration"], conf)
    )


def map_commands(path: Path, outcome: MapOutcome, arguments: dict[str, Any]) -> list[str]:
    """How to make the map, localize with it and evaluate, as far as it is known."""
    conf = outcome.compressed.metadata.get("conf")
    lines = [f"# {outcome.label}"]
    if isinstance(conf, dict):
        known = {
            "reference_sfm": arguments["reference_sfm"] or "SFM",
            "features": arguments["reference_features"] or "FEATURES",
            "output": path,
        }
        asked = conf.get("asked")
        asked = dict(asked) if isinstance(asked, dict) else {}
        planned = asked.pop("planned", False)
        names = ["selector", "granularity", "seed"] + ["codec", "code_bytes"] * (not planned)
        known |= {name: conf[name] for name in names if name in conf}
        if asked:
            known |= asked
        elif conf.get("selector") != "all":
            known["num_points"] = outcome.compressed.num_points
        lines.append(command_line("compress", [], known))
        if conf.get("selector_options") or (conf.get("codec_options") and not planned):
            lines.append(
                "# in Python, with the codec_options and selector_options of the configuration"
            )
    else:
        lines.append("# the file does not say how it was made")
    results = f"{outcome.label}.txt"
    localize = {name: arguments[name] for name in ("queries", "features", "retrieval")}
    localize = {"map": path, **localize, "results": results}
    localize |= {name: arguments[name] for name in ("matcher", "ransac_thresh")}
    lines.append(command_line("localize", ["--full_names"], localize))
    evaluate = {
        "results": results,
        "reference": arguments["reference_poses"] or "POSES",
        "thresholds": arguments["thresholds"],
    }
    return [*lines, command_line("evaluate", [], evaluate), ""]


def command_line(command: str, words: Sequence[str], options: dict[str, Any]) -> str:
    """A command as it is typed in a shell."""
    given = [
        word
        for name, value in options.items()
        if value is not None
        for word in (f"--{name}", f"{value:g}" if isinstance(value, float) else str(value))
    ]
    return shlex.join(["hloc-dpqed", command, *words, *given])


def present_versions() -> dict[str, str]:
    """Versions of what made the report."""
    import plotly

    return {**library_versions(), "plotly": plotly.__version__}
