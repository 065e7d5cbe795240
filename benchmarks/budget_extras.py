"""Maps of a fleet that share a codec file, and maps that store global descriptors.

    python benchmarks/budget_extras.py [--scenes ...] [--threads 1]

Beside the table of ``budgets.py``, at its file sizes and with its measures: maps of 4-byte drqed
codes whose codec is a file of its own (``fit-codec``), fitted on all three maps or on the two
others alone; and maps that store the database images' global descriptors within their budget and
retrieve with them instead of with the listed pairs. Each map and measurement is kept in
``--output``; a second run does only what is missing.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from budgets import SHOWN, TARGETS, measures_of, outcome
from common import Scene, load_scene, measure, print_table

from hloc_dpqed import compress, fit_codec
from hloc_dpqed.errors import InputError
from hloc_dpqed.io.atomic import write_text
from hloc_dpqed.localization.retrieval import retrieve
from hloc_dpqed.mapfile import read_map, section_bytes
from hloc_dpqed.threads import set_num_threads

FLEET = ("fountain-P11", "castle-P30", "south-building")


def shared_codec(names: Sequence[str], output: Path) -> Path:
    """The codec file fitted on the maps ``names``."""
    path = output / f"codec_{'_'.join(names)}.safetensors"
    if not path.is_file():
        scenes = [load_scene(name) for name in names]
        fit_codec.main(
            [scene.sfm for scene in scenes],
            [scene.features for scene in scenes],
            path,
            threads=1,
            progress=False,
        )
    return path


def measured(scene: Scene, path: Path, codec_file: Path | None, ransac_seeds: int) -> dict:
    """The map's bytes and what the listed queries find in it, retrieved as it can."""
    compressed = read_map(path, codec_file)
    queries = scene.queries
    if compressed.global_descriptors is not None:
        names = [query.name for query in queries]
        count = len(queries[0].retrieved or [])
        features = scene.folder / "global-feats-vlad.h5"
        rows = retrieve(compressed, names, None, features, count) or {}
        queries = [
            replace(q, retrieved=[compressed.image_names[i] for i in rows[q.name]]) for q in queries
        ]
    sections = section_bytes(path)
    return {
        "total_bytes": path.stat().st_size,
        "num_points": compressed.num_points,
        "codec": sections.get("codec", 0),
        "global": sum(size for name, size in sections.items() if name.startswith("global")),
        "codec_file": codec_file.stat().st_size if codec_file else 0,
        **outcome(measure(compressed, queries, ransac_seeds)),
    }


def cell(
    scene: Scene, budget: int, name: str, codec_file: Path | None, output: Path, ransac_seeds: int
) -> dict:
    """One map at one size: made, measured and kept."""
    path = output / f"{scene.name}_{budget}_{name}.json"
    if not path.is_file():
        made = path.with_suffix(".dpqed")
        compress.main(
            scene.sfm,
            scene.features,
            made,
            budget=budget,
            codec_file=codec_file,
            global_features=None if codec_file else scene.folder / "global-feats-vlad.h5",
            overwrite=True,
            threads=1,
            progress=False,
        )
        write_text(path, json.dumps(measured(scene, made, codec_file, ransac_seeds)))
    return json.loads(path.read_text())


def row(label: str, found: dict) -> list[str]:
    run = measures_of(found)
    translation, rotation = run.median_errors()
    return [
        label,
        f"{found['total_bytes'] / 1000:.1f}",
        f"{found['num_points']}",
        f"{found['codec'] / 1000:.1f}",
        f"{found['codec_file'] / 1000:.0f}" if found["codec_file"] else "",
        f"{found['global'] / 1000:.1f}",
        f"{run.correct.mean():.0f}",
        f"{translation:.4f} / {rotation:.3f}",
        " / ".join(f"{run.recall(*limit):.2f}" for limit in SHOWN),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", nargs="+", choices=FLEET, default=list(FLEET))
    parser.add_argument("--ransac_seeds", type=int, default=10)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path, default=Path("outputs/budget_extras"))
    args = parser.parse_args()
    set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    header = ["map", "file KB", "points", "codec KB", "codec file KB", "global KB", "correct"]
    header += ["median error (units / deg)", "recall " + " ".join(f"{t:g}/{r:g}" for t, r in SHOWN)]
    for name in args.scenes:
        scene = load_scene(name)
        others = [other for other in FLEET if other != name]
        codecs = {
            "codec of all three maps": ("fleet", shared_codec(FLEET, args.output)),
            "codec of the two others": ("others", shared_codec(others, args.output)),
            "global descriptors stored": ("global", None),
        }
        rows = []
        for budget in TARGETS[name]:
            for label, (short, file) in codecs.items():
                try:
                    found = cell(scene, budget, short, file, args.output, args.ransac_seeds)
                except InputError as error:  # global descriptors may take more than the budget
                    print(error)
                    continue
                rows.append(row(f"{budget / 1000:g} KB, {label}", found))
        print(f"\n### {name}\n")
        print_table(header, rows)


if __name__ == "__main__":
    main()
