"""Direct localization beside retrieval: correct matches, precision, errors and CPU time a query.

    python benchmarks/direct.py [--scenes south-building castle-P30]

The listed pairs, the images that the matches with the whole map vote for (``--retrieval none``),
and the matches with the whole map alone, which the votes are made of. One thread.
"""

import argparse
import dataclasses
import time
from pathlib import Path

from common import RANSAC_PX, SCENES, Scene, load_scene, print_table

from hloc_dpqed.compression.conf import CompressConf
from hloc_dpqed.compression.engine import Compressor
from hloc_dpqed.evaluation.measures import measure
from hloc_dpqed.localization.localizer import Localizer
from hloc_dpqed.mapfile import read_map, write_map
from hloc_dpqed.maps.compressed import CompressedMap
from hloc_dpqed.threads import set_num_threads


class WholeMap(Localizer):
    """PnP on the matches with the whole map, without a vote."""

    def match_direct(self, features):
        return [self.match_whole_map(features)]


def scene_map(scene: Scene, folder: Path | None) -> CompressedMap:
    """drqed with 4 bytes, all points; from the folder where ``latency.py`` keeps its maps."""
    path = None if folder is None else folder / scene.name / "drqed-4.dpqed"
    if path is not None and path.exists():
        return read_map(path)
    compressor = Compressor(scene.reference, scene.observations, CompressConf())
    compressed = compressor.compress(scene.reference.num_points)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_map(path, compressed)
    return compressed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--scenes", nargs="+", choices=SCENES, default=["south-building", "castle-P30"]
    )
    parser.add_argument("--ransac_seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keeps the maps for the next run")
    args = parser.parse_args()
    set_num_threads(1)
    rows = []
    for name in args.scenes:
        scene = load_scene(name)
        compressed = scene_map(scene, args.folder)
        whole = [dataclasses.replace(q, retrieved=None) for q in scene.queries]
        for label, kind, queries in (
            ("pairs", Localizer, scene.queries),
            ("votes", Localizer, whole),
            ("whole map", WholeMap, whole),
        ):
            localizer = kind(compressed, ransac_thresh=RANSAC_PX)
            measure(localizer, queries[:1], 1)  # decodes
            start = time.process_time()
            found = measure(localizer, queries, args.ransac_seeds)
            seconds = (time.process_time() - start) / len(queries)
            translation, rotation = found.median_errors()
            rows.append([
                name, label, f"{found.correct.mean():.0f}", f"{found.precision.mean():.2f}",
                f"{translation:.4f} / {rotation:.3f}", f"{found.recall(0.05, 1):.2f}",
                f"{1000 * seconds:.0f}",
            ])  # fmt: skip
    print_table(
        ["scene", "images from", "correct", "precision", "median error", "recall 0.05/1", "CPU ms"],
        rows,
    )
    print(f"CPU of matching once, and of PnP with {args.ransac_seeds} seeds")


if __name__ == "__main__":
    main()
