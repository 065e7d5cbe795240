"""What the benchmarks share: the real scenes, the measures, the intervals.

The measures are those of ``hloc_dpqed.evaluation.measures``.
"""

import ast
import os
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hloc_dpqed.codecs.shipped import shipped_codec, shipped_for
from hloc_dpqed.compression.source import SharedCodec
from hloc_dpqed.evaluation import measures
from hloc_dpqed.evaluation.measures import (
    CORRECT_PX,
    Measures,
    PosedQuery,
    bootstrap,
    correct_pairs,
)
from hloc_dpqed.evaluation.posed_queries import read_posed_queries
from hloc_dpqed.io.features import feature_kind
from hloc_dpqed.io.model import read_observations, read_reference
from hloc_dpqed.localization.localizer import Localizer
from hloc_dpqed.maps.compressed import CompressedMap
from hloc_dpqed.maps.same_features import extractor_name
from hloc_dpqed.scene.reference import Observations, ReferenceMap

__all__ = [
    "CORRECT_PX",
    "DATA",
    "RANSAC_PX",
    "SCENES",
    "Measures",
    "PosedQuery",
    "Scene",
    "bootstrap",
    "correct_pairs",
    "load_scene",
    "measure",
    "parse_spec",
    "print_table",
    "shipped_with",
    "spread",
]

RANSAC_PX = 4.0
DATA = Path(
    os.environ.get("HLOC_DPQED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)
# Made by benchmarks/learned_scenes.py.
LEARNED = Path(
    os.environ.get("HLOC_DPQED_LEARNED", Path(__file__).resolve().parents[2] / "learned-scenes")
)
# Folder, model, features and pairs of each scene.
SCENES = {
    "fountain-P11": ("fountain-P11", "sfm", "feats-superpoint.h5", "pairs-query-vlad7.txt"),
    "castle-P30": ("castle-P30", "sfm", "feats-superpoint.h5", "pairs-query-vlad10.txt"),
    "south-building": ("south-building", "sfm", "feats-superpoint.h5", "pairs-query-vlad20.txt"),
    "south-building/xfeat": (
        "south-building",
        "xfeat/sfm",
        "xfeat/feats-xfeat.h5",
        "pairs-query-vlad20.txt",
    ),
}
for _name, _folder in (("aliked", "aliked-n16"), ("disk", "disk")):
    for _scene in ("fountain-P11", "castle-P30", "south-building"):
        SCENES[f"{_scene}/{_name}"] = (
            _scene,
            str(LEARNED / _scene / _name / "sfm"),
            str(LEARNED / _scene / _name / f"feats-{_folder}.h5"),
            SCENES[_scene][3],
        )


@dataclass(frozen=True)
class Scene:
    """A real scene: the uncompressed map and its queries."""

    name: str
    folder: Path
    sfm: Path
    features: Path
    pairs: Path
    reference: ReferenceMap
    observations: Observations
    queries: list[PosedQuery]


def load_scene(name: str) -> Scene:
    """Read a scene; ends the program with a line where the data is absent."""
    folder, sfm, features, pairs = SCENES[name]
    root = DATA / folder
    if not root.is_dir():
        sys.exit(f"{root}: no such folder; set HLOC_DPQED_DATA to the folder of scenes")
    if not (root / sfm).is_dir():
        sys.exit(f"{root / sfm}: no such folder; make it with benchmarks/learned_scenes.py")
    reference = read_reference(root / sfm)
    observations = read_observations(reference, root / features)
    queries = read_posed_queries(
        root / "queries.txt", root / features, root / pairs, root / "poses_gt.txt"
    )
    return Scene(
        name,
        root,
        root / sfm,
        root / features,
        root / pairs,
        reference,
        observations,
        queries,
    )


def measure(
    compressed: CompressedMap,
    queries: list[PosedQuery],
    ransac_seeds: int = 10,
    matcher: str = "NN-mutual",
    localizer: Localizer | None = None,
) -> Measures:
    """``measures.measure`` with the matcher and threshold of the benchmarks."""
    localizer = localizer or Localizer(compressed, matcher, ransac_thresh=RANSAC_PX)
    return measures.measure(localizer, queries, ransac_seeds)


def shipped_with(features: Path) -> SharedCodec:
    """The codec that comes with the package for the extractor of a feature file."""
    name = shipped_for(extractor_name(feature_kind(features)), features)
    return SharedCodec.of(shipped_codec(name))


def parse_spec(spec: str) -> tuple[str, int, dict[str, Any]]:
    """``name:bytes:option=value`` to its parts; values are Python literals or plain words."""
    name, size, *options = spec.split(":")
    values: dict[str, Any] = {}
    for option in options:
        key, value = option.split("=")
        try:
            values[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            values[key] = value
    return name, int(size), values


def spread(values: list[float], scale: float = 1, digits: int = 1) -> str:
    """Median and range."""
    low, middle, high = (scale * f(values) for f in (min, statistics.median, max))
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def print_table(header: list[str], rows: list[list[str]]) -> None:
    """Print a Markdown table with aligned columns."""
    widths = [max(len(str(line[i])) for line in [header, *rows]) for i in range(len(header))]
    for k, line in enumerate([header, *rows]):
        cells = [str(cell).ljust(width) for cell, width in zip(line, widths, strict=True)]
        print("| " + " | ".join(cells) + " |")
        if k == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
