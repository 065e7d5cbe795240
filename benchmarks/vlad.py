"""Retrieval with nothing stored: VLAD of a map's own codes, beside listed pairs and the whole map.

    python benchmarks/vlad.py [--scenes castle-P30 south-building]

Correct matches a query; recall of covisible images, the share of those images that are among the K
that give most correct matches with the query (at least 15) which is retrieved; bytes in the map
file; and milliseconds a query of the retrieval alone, on one thread, with those of loading. The
listed pairs are VLAD over all keypoints of each image, with PCA to up to 512 dimensions.
"""

import argparse
import dataclasses
import time
from pathlib import Path

import numpy as np
from common import SCENES, load_scene, print_table
from direct import scene_map

from hloc_dpqed.evaluation.measures import PosedQuery, correct_pairs, match_query, measure
from hloc_dpqed.localization.localizer import Correspondences, Localizer
from hloc_dpqed.localization.vlad import MapVlad
from hloc_dpqed.threads import set_num_threads

COVISIBLE = 15  # correct matches with an image


def covisible_images(localizer: Localizer, query: PosedQuery, count: int) -> set[str]:
    """The ``count`` database images with most correct matches, of those that have enough."""
    names = localizer.map.image_names
    _, matches = match_query(localizer, dataclasses.replace(query, retrieved=list(names)))
    correct = []
    for part in matches:
        found = Correspondences.collect([part], localizer.map.num_points)
        correct.append(int(correct_pairs(found, query, localizer.map.xyz).sum()))
    best = np.argsort(-np.array(correct), kind="stable")[:count]
    return {names[i] for i in best if correct[i] >= COVISIBLE}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--scenes", nargs="+", choices=SCENES, default=["castle-P30", "south-building"]
    )
    parser.add_argument("--words", nargs="+", type=int, default=[8, 16, 32, 64])
    parser.add_argument("--folder", type=Path, help="keeps the maps for the next run")
    args = parser.parse_args()
    set_num_threads(1)
    for name in args.scenes:
        scene = load_scene(name)
        compressed = scene_map(scene, args.folder)
        localizer = Localizer(compressed)
        count = len(scene.queries[0].retrieved or [])
        covisible = [covisible_images(localizer, query, count) for query in scene.queries]
        rows: list[list[str]] = []

        def row(label, queries, stored, load="", each="", at=(localizer, covisible, rows)):
            localizer, truth, rows = at
            recall = "-"
            if queries[0].retrieved is not None:
                shares = [
                    len(wanted.intersection(q.retrieved)) / len(wanted)
                    for q, wanted in zip(queries, truth, strict=True)
                    if wanted
                ]
                recall = f"{np.mean(shares):.3f}"
            correct = measure(localizer, queries, 0).correct.mean()
            rows.append([label, f"{correct:.1f}", recall, stored, load, each])

        row("listed pairs", scene.queries, "(a file)")
        row("whole map", [dataclasses.replace(q, retrieved=None) for q in scene.queries], "0")
        for words in args.words:
            start = time.process_time()
            vlad = MapVlad(compressed, words)
            loaded = time.process_time()
            queries = [
                dataclasses.replace(
                    q,
                    retrieved=[
                        compressed.image_names[i]
                        for i in vlad.retrieve(q.features.descriptors, count)
                    ],
                )
                for q in scene.queries
            ]
            each = (time.process_time() - loaded) / len(queries)
            row(
                f"vlad, {words} words",
                queries,
                "0",
                f"{1000 * (loaded - start):.0f}",
                f"{1000 * each:.1f}",
            )
        print(f"\n{name}, {compressed.num_images} images, {count} retrieved")
        print_table(["retrieval", "correct", "recall", "bytes", "load ms", "ms a query"], rows)


if __name__ == "__main__":
    main()
