"""The codec fitted on the kept points or on all (``--codec_train``), on held-out images.

    python benchmarks/codec_train.py [--scenes castle-P30 south-building] [--threads 1]

drqed with codes of 4 bytes and a codec of 16 KB, points selected by hybrid; correct matches and
whole-file bytes on one fold of held-out database images, one codec and RANSAC seed.
"""

import argparse

from ablation import codecs_benchmark
from common import load_scene, measure, print_table

from hloc_dpqed.codecs import CODECS
from hloc_dpqed.compression.conf import CODEC_TRAIN, CompressConf
from hloc_dpqed.compression.engine import Compressor
from hloc_dpqed.threads import set_num_threads

FRACTIONS = (0.03, 0.1, 0.3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", nargs="+", default=["castle-P30", "south-building"])
    parser.add_argument("--codec", choices=CODECS, default="drqed")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    set_num_threads(args.threads)
    options = {"codec_budget_bytes": 16_000} if args.codec == "drqed" else {}
    for name in args.scenes:
        reference, observations, queries = codecs_benchmark.problem(
            load_scene(name), "pseudo", args.fold
        )
        rows = []
        for train in CODEC_TRAIN:
            conf = CompressConf(
                codec=args.codec, code_bytes=4, codec_options=options, codec_train=train
            )
            compressor = Compressor(reference, observations, conf)
            for fraction in FRACTIONS:
                compressed = compressor.compress(int(fraction * reference.num_points))
                found = measure(compressed, queries, 1)
                size = len(compressor.to_bytes(compressed)) / 1000
                rows.append(
                    [
                        train,
                        f"{fraction:g}",
                        f"{compressed.num_points}",
                        f"{size:.1f}",
                        f"{found.correct.mean():.0f}",
                        f"{found.precision.mean():.3f}",
                    ]
                )
        print(f"\n### {name}, fold {args.fold}\n")
        print_table(["fitted on", "fraction", "points", "file KB", "correct", "precision"], rows)


if __name__ == "__main__":
    main()
