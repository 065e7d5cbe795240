"""Several codes a point: how far from a code for each point to one for each observation they go.

    python benchmarks/appearances.py [--scenes fountain-P11 ...] [--stores none: drqed:4 shipped:6]

All points, mutual nearest neighbours. ``way`` is the share of the correct matches that float
descriptors for each observation have more than float means of each point. Bytes are of whole files.
"""

import argparse

import numpy as np
from common import SCENES, Scene, bootstrap, load_scene, measure, print_table, shipped_with

from hloc_dpqed.choices import SHIPPED
from hloc_dpqed.compression.conf import CompressConf
from hloc_dpqed.compression.engine import Compressor
from hloc_dpqed.evaluation.measures import Measures
from hloc_dpqed.threads import set_num_threads


def measured(scene: Scene, conf: CompressConf, seeds: int) -> tuple[Measures, int, float]:
    """Measures, bytes of the file, and codes of a point."""
    codec = codec_hash = None
    if conf.shared:
        known = shipped_with(scene.features)
        codec, codec_hash = known.codec.head(conf.code_bytes), known.digest
    compressor = Compressor(
        scene.reference, scene.observations, conf, codec=codec, codec_hash=codec_hash
    )
    compressed = compressor.compress(scene.reference.num_points)
    size = len(compressor.to_bytes(compressed))
    return (
        measure(compressed, scene.queries, seeds),
        size,
        len(compressed.codes) / len(np.unique(compressed.place_of_point)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--scenes",
        nargs="+",
        choices=SCENES,
        default=["fountain-P11", "castle-P30", "south-building"],
    )
    parser.add_argument("--stores", nargs="+", default=["none:", "drqed:4"])
    parser.add_argument("--codes_per_point", nargs="+", type=float, default=[1.0, 1.4, 2.0])
    parser.add_argument("--ransac_seeds", type=int, default=3)
    args = parser.parse_args()
    set_num_threads(1)
    rows = []
    for name in args.scenes:
        scene = load_scene(name)
        stores = [
            ("float, mean", CompressConf("all", "none", 0, code_targets="mean")),
            ("float, observations", CompressConf("all", "none", 0, granularity="observation")),
        ]
        for store in args.stores:
            codec, size = store.split(":")
            for codes in args.codes_per_point:
                conf = CompressConf(
                    "all",
                    "nested" if codec == SHIPPED else codec,
                    int(size or 0),
                    code_targets="sharpened",
                    codes_per_point=codes,
                    shared=codec == SHIPPED,
                )
                stores.append((f"{store}, {codes:g} a point".replace("none:", "float"), conf))
        found = []
        for label, conf in stores:
            found.append(measured(scene, conf, args.ransac_seeds))
            (point, _, _), (every, _, _) = found[0], found[min(1, len(found) - 1)]
            own, size, codes = found[-1]
            gap = (every.correct - point.correct).mean()
            way = (own.correct - point.correct).mean() / gap if gap else 0.0
            low, high = bootstrap(own.correct - point.correct)
            error = own.median_errors()
            rows.append(
                [
                    name,
                    label,
                    f"{codes:.2f}",
                    f"{size:,}",
                    f"{own.correct.mean():.1f}",
                    f"{low:+.1f} to {high:+.1f}",
                    f"{way:.2f}",
                    f"{own.precision.mean():.3f}",
                    f"{error[0]:.4f} / {error[1]:.3f}",
                ]
            )
            print(*rows[-1], flush=True)
    header = ["scene", "codes", "a point", "bytes", "correct", "to mean", "way"]
    print_table([*header, "precision", "error"], rows)


if __name__ == "__main__":
    main()
