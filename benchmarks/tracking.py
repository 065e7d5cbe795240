"""A sequence localized frame by frame, with the last frame and without.

    python benchmarks/tracking.py [--every 2] [--fraction 1]

Every second image of south-building, in the order in which they were taken, is held out of the map
(``planning.holdout``) and is a frame; ``pq``, 8 bytes. ``alone`` localizes each with the 20
images retrieved by its global descriptor, or with the whole map; ``track`` is ``Localizer.track``
with the same to fall back on. One thread; milliseconds are the processor's, of matching and pose,
the median over rounds of the mean over frames, alone and tracked in turns. ``full`` counts frames
that were also localized as if alone.
"""

import argparse
import time
from dataclasses import replace

import numpy as np
from common import DATA, load_scene, print_table

from hloc_dpqed.compression.conf import CompressConf
from hloc_dpqed.compression.engine import Compressor
from hloc_dpqed.evaluation.pose_errors import pose_error
from hloc_dpqed.io.features import open_features, read_global_descriptors
from hloc_dpqed.localization.localizer import Localizer, Query
from hloc_dpqed.planning.holdout import hold_out
from hloc_dpqed.threads import set_num_threads

NUM_RETRIEVED = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--every", type=int, default=2, help="image of so many is a frame")
    parser.add_argument("--fraction", type=float, default=1.0, help="of the points")
    parser.add_argument("--codec", default="pq")
    parser.add_argument("--code_bytes", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--matcher", default="NN-mutual")
    args = parser.parse_args()
    set_num_threads(1)
    scene = load_scene("south-building")
    names = scene.reference.image_names
    globals_ = read_global_descriptors(DATA / "south-building/global-feats-vlad.h5", names)
    with open_features(scene.features) as file:
        held = hold_out(
            scene.reference,
            scene.observations,
            np.arange(1, len(names), args.every),
            read_features=file.read,
            global_descriptors=globals_,
            num_retrieved=NUM_RETRIEVED,
        )
    conf = CompressConf("all" if args.fraction == 1 else "hybrid", args.codec, args.code_bytes)
    compressor = Compressor(held.reference, held.observations, conf)
    compressed = compressor.compress(int(args.fraction * held.reference.num_points))
    row_of = {name: row for row, name in enumerate(compressed.image_names)}
    retrieving = []
    for query in held.queries:
        assert query.features is not None
        rows = [row_of[name] for name in query.retrieved]
        retrieving.append(Query(query.name, query.camera, query.features, rows))
    truth = [query.cam_from_world for query in held.queries]
    rows = []
    for title, frames in (
        ("20 retrieved", retrieving),
        ("whole map", [replace(frame, retrieved=None) for frame in retrieving]),
    ):
        localizer = Localizer(compressed, args.matcher)
        localizer.localize(frames[0])  # decodes the map
        full = 0
        plain = localizer.localize
        fallback = {id(frame) for frame in frames}

        def counted(query: Query, plain=plain, fallback=fallback):
            nonlocal full
            full += id(query) in fallback
            return plain(query)

        seconds = {"alone": [], "track": []}
        outcomes = {}
        for _ in range(args.rounds):
            begin = time.process_time()
            outcomes["alone"] = [plain(frame) for frame in frames]
            middle = time.process_time()
            localizer.localize = counted  # type: ignore[method-assign]
            full = 0
            outcomes["track"] = list(localizer.track(frames))
            localizer.localize = plain  # type: ignore[method-assign]
            seconds["alone"].append((middle - begin) / len(frames))
            seconds["track"].append((time.process_time() - middle) / len(frames))
        for name, found in outcomes.items():
            errors = np.array(
                [
                    (np.inf, np.inf)
                    if one.cam_from_world is None
                    else pose_error(one.cam_from_world, pose)
                    for one, pose in zip(found, truth, strict=True)
                ]
            )
            localized = np.isfinite(errors[:, 0])
            milliseconds = 1000 * np.array(seconds[name])
            middle_error = np.median(errors, axis=0)
            rows.append(
                [
                    title,
                    name,
                    f"{localized.sum()} of {len(frames)}",
                    f"{np.median(milliseconds):.1f} ({milliseconds.min():.1f})",
                    f"{middle_error[0]:.4f}, {middle_error[1]:.3f}",
                    f"{errors[localized, 0].max():.3f}",
                    str(full) if name == "track" else "",
                ]
            )
    header = ["frames searched", "", "localized", "ms a frame (least)", "median error", "most"]
    print_table([*header, "full"], rows)


if __name__ == "__main__":
    main()
