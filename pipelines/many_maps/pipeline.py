"""Compress and localize many maps in parallel on Ray, one task each: sub-maps of a city, a fleet.

    python -m pipelines.many_maps.pipeline --maps maps.json --outputs outputs/maps [--address auto]

``maps.json`` maps a name to the folders and files of one map, paths relative to it:

    {"north": {"reference_sfm": "north/sfm", "features": "north/features.h5",
               "queries": "north/queries.txt", "retrieval": "north/pairs.txt"}}

``queries`` may be left out (compression alone), and so may ``query_features`` where the queries'
features are in ``features``; ``retrieval`` is a pairs file or 'none'. A map whose outputs exist is
not done again, and localization continues where it was interrupted; a map that fails is told at
the end and leaves the others alone. Without ``--address`` Ray runs on this machine only.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from hloc_dpqed import compress, localize
from hloc_dpqed.errors import InputError

KEYS = {"reference_sfm", "features", "queries", "query_features", "retrieval"}


def read_maps(path: Path) -> dict[str, dict[str, str]]:
    """The maps of a JSON file, with whole paths.

    Raises:
        InputError: the file is missing or not of the form above.
    """
    try:
        maps = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(maps, dict) or not maps:
        raise InputError(f"{path}: expected an object with an entry for each map")
    found = {}
    for name, entry in maps.items():
        if not isinstance(entry, dict) or not {"reference_sfm", "features"} <= set(entry) <= KEYS:
            raise InputError(
                f"{path}: map {name!r}: expected reference_sfm and features, and of the others "
                f"only {', '.join(sorted(KEYS))}"
            )
        if "queries" in entry and "retrieval" not in entry:
            raise InputError(f"{path}: map {name!r}: queries need retrieval, a file or 'none'")
        if not name or Path(name).name != name:
            raise InputError(f"{path}: {name!r} cannot be the name of an output folder")
        found[name] = {
            key: value
            if key == "retrieval" and value == "none"
            else str((path.parent / value).resolve())
            for key, value in entry.items()
        }
    return found


def process_map(
    entry: dict[str, str], output: str, options: dict[str, Any], threads: int = 1
) -> dict[str, Any]:
    """Compress one map and localize its queries into the folder ``output``; what was done.

    Outputs are written whole or not at all, so those that exist are kept.
    """
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    map_file, results = folder / "map.dpqed", folder / "results.txt"
    done: dict[str, Any] = {"compressed": False, "localized": False}
    if not map_file.exists():
        compress.main(
            Path(entry["reference_sfm"]),
            Path(entry["features"]),
            map_file,
            threads=threads,
            progress=False,
            **options,
        )
        done["compressed"] = True
    if "queries" in entry and not results.exists():
        done["figures"] = localize.main(
            map_file,
            Path(entry["queries"]),
            Path(entry.get("query_features", entry["features"])),
            results,
            retrieval=entry["retrieval"],
            threads=threads,
            progress=False,
            overwrite=True,
        )
        done["localized"] = True
    return done


def main(
    maps: Path,
    outputs: Path,
    options: dict[str, Any] | None = None,
    threads: int = 1,
    address: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Process all maps, as many at a time as there are cores for ``threads`` each.

    Args:
        maps: the JSON file.
        outputs: a folder for each map is made here.
        options: of ``compress.main``.
        threads: of each task.
        address: of a Ray cluster, whose machines see the same files; None starts Ray here.

    Returns:
        For each map what ``process_map`` returned, or ``{"error": line}``.

    Raises:
        InputError: Ray is not installed, or ``maps`` is wrong.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError(f"this pipeline needs ray: pip install '.[ray]' ({error})") from error
    entries = read_maps(maps)
    ray.init(address=address, log_to_driver=False, include_dashboard=False)
    try:
        task = ray.remote(num_cpus=threads)(process_map)
        pending = {
            name: task.remote(entry, str(outputs.resolve() / name), options or {}, threads)
            for name, entry in entries.items()
        }
        found: dict[str, dict[str, Any]] = {}
        for name, reference in pending.items():
            try:
                found[name] = ray.get(reference)
            except Exception as error:  # Ray's, around whatever the task raised
                cause = getattr(error, "cause", None) or error
                found[name] = {"error": str(cause).splitlines()[0]}
        return found
    finally:
        ray.shutdown()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--maps", type=Path, required=True)
    parser.add_argument("--outputs", type=Path, required=True)
    parser.add_argument("--budget", help="of each map's file, such as 300KB")
    parser.add_argument("--codec")
    parser.add_argument("--code_bytes", type=int)
    parser.add_argument("--threads", type=int, default=1, help="of each map, default: %(default)s")
    parser.add_argument("--address", help="of a Ray cluster, default: this machine alone")
    args = parser.parse_args()
    chosen = {key: getattr(args, key) for key in ("budget", "codec", "code_bytes")}
    try:
        outcome = main(
            args.maps,
            args.outputs,
            {key: value for key, value in chosen.items() if value is not None},
            args.threads,
            args.address,
        )
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    for name, done in outcome.items():
        print(f"{name}: {json.dumps(done)}")
    sys.exit(1 if any("error" in done for done in outcome.values()) else 0)
