"""Maps that grow against maps made in one go: correct matches a query, all points kept.

    python benchmarks/growing.py

Of the database images, in the order of their names, the map lacks every fifth, which ``append``
then brings with the whole model (their points were triangulated without them before). ``merge``
joins the map of the first two thirds of the images to that of the last two thirds. ``prune`` keeps
half of the points of a finished map, against ``compress`` that selects as many with the features.
"""

import argparse
from pathlib import Path

import numpy as np
from common import DATA, SCENES, Scene, load_scene, measure, print_table, shipped_with

from hloc_dpqed.choices import SECOND_CODES
from hloc_dpqed.codecs.base import Codec
from hloc_dpqed.codecs.file import codec_hash
from hloc_dpqed.compression.conf import CompressConf
from hloc_dpqed.compression.engine import Compressor
from hloc_dpqed.compression.extend import extend_map
from hloc_dpqed.compression.smaller import smaller_map
from hloc_dpqed.io.features import FeatureFile
from hloc_dpqed.mapfile import canonical_map, to_bytes
from hloc_dpqed.maps.compressed import CompressedMap
from hloc_dpqed.maps.join import merge_maps
from hloc_dpqed.planning.holdout import hold_out
from hloc_dpqed.scene.reference import Observations, ReferenceMap
from hloc_dpqed.threads import set_num_threads


def map_without(scene: Scene, images: np.ndarray, codec: Codec) -> CompressedMap:
    """The compressed map of the scene without some images, triangulated without them."""
    with FeatureFile(scene.features) as file:
        split = hold_out(scene.reference, scene.observations, images, read_features=file.read)
    return compressed_with(split.reference, split.observations, codec)


def compressed_with(
    reference: ReferenceMap,
    observations: Observations,
    codec: Codec,
    num_points: int | None = None,
) -> CompressedMap:
    conf = CompressConf("hybrid" if num_points else "all", codec.name, codec.code_size)
    compressor = Compressor(
        reference, observations, conf, codec=codec, codec_hash=codec_hash(codec.whole())
    )
    return compressor.compress(num_points or reference.num_points)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES)[:3])
    parser.add_argument("--code_bytes", type=int, default=6)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    set_num_threads(args.threads)
    rows = []
    for name in args.scenes:
        scene = load_scene(name)
        folder, _, features, _ = SCENES[name]
        path = DATA / Path(folder) / features
        codec = shipped_with(path).codec.head(args.code_bytes)
        count = scene.reference.num_images
        order = np.arange(count)

        def row(how: str, compressed: CompressedMap, scene: Scene = scene, name: str = name):
            found = measure(compressed, scene.queries, 0)
            rows.append(
                [
                    name,
                    how,
                    f"{compressed.num_images}",
                    f"{compressed.num_places}",
                    f"{len(to_bytes(canonical_map(compressed))) / 1000:.1f}",
                    f"{found.correct.mean():.0f}",
                    f"{found.precision.mean():.3f}",
                ]
            )

        whole = compressed_with(scene.reference, scene.observations, codec)
        row("compress", whole)
        base = map_without(scene, order[2::5], codec)
        row("compress without a fifth of the images", base)
        for share in (0, SECOND_CODES):
            grown = extend_map(base, scene.reference, scene.observations, second_codes=share)
            row(f"... append, second codes of {share:.0%}", grown)
        third = count // 3
        parts = [map_without(scene, part, codec) for part in (order[-third:], order[:third])]
        row("compress two thirds", parts[0])
        row("... merge with the last two thirds", merge_maps(*parts))
        half = scene.reference.num_points // 2
        row("compress to half", compressed_with(scene.reference, scene.observations, codec, half))
        row("prune to half", smaller_map(whole, num_points=half)[0])
    print_table(["scene", "map", "images", "points", "file KB", "correct", "precision"], rows)


if __name__ == "__main__":
    main()
