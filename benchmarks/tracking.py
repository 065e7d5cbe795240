"""A sequence localized frame by frame, with the last frame and without.

    python benchmarks/tracking.py [--every 2] [--fraction 1] [--jumps 4]

Every second image of south-building, in the order in which they were taken, is held out of the map
(``planning.holdout``) and is a frame; ``pq``, 8 bytes. ``alone`` localizes each with the 20
images retrieved by its global descriptor, or with the whole map; ``track`` is ``Localizer.track``
with the same to fall back on. One thread; milliseconds are the processor's, of matching and pose,
the median over rounds of the mean over frames, alone and tracked in turns. ``full`` counts frames
that were also localized as if alone. ``--jumps`` adds the same frames in random orders: a sequence
that goes on somewhere else at almost each frame, which may look like the last place. ``false``
counts poses further than ``FALSE`` units from the truth.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from common import DATA, load_scene, print_table

from hloc_dpqed.compression.conf import CompressConf
from hloc_dpqed.compression.engine import Compressor
from hloc_dpqed.evaluation.pose_errors import pose_error
from hloc_dpqed.io.features import open_features, read_global_descriptors
from hloc_dpqed.localization.localizer import Localization, Localizer, Query
from hloc_dpqed.planning.holdout import hold_out
from hloc_dpqed.threads import set_num_threads

NUM_RETRIEVED = 20
FALSE = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--every", type=int, default=2, help="image of so many is a frame")
    parser.add_argument("--fraction", type=float, default=1.0, help="of the points")
    parser.add_argument("--codec", default="pq")
    parser.add_argument("--code_bytes", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--matcher", default="NN-mutual")
    parser.add_argument("--jumps", type=int, default=0, help="random orders of the frames")
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
    truth = {query.name: query.cam_from_world for query in held.queries}
    rows = []
    for title, frames in (
        ("20 retrieved", retrieving),
        ("whole map", [replace(frame, retrieved=None) for frame in retrieving]),
    ):
        localizer = Localizer(compressed, args.matcher)
        localizer.localize(frames[0])  # decodes the map
        alone, tracked = [], []
        for _ in range(args.rounds):
            alone.append(timed(lambda of=frames, by=localizer: [by.localize(f) for f in of]))
            tracked.append(timed(lambda of=frames, by=localizer: list(by.track(of))))
        of_alone = np.median([milliseconds for milliseconds, _ in alone]) / len(frames)
        rows.append([title, "alone", *cells(alone, truth), "", ""])
        full = str(sum(not outcome.tracked for outcome in tracked[0][1]))
        ratio = of_alone / (np.median([ms for ms, _ in tracked]) / len(frames))
        rows.append([title, "track", *cells(tracked, truth), full, f"{ratio:.2f}"])
    jumped = []
    for seed in range(args.jumps):
        order = np.random.default_rng(seed).permutation(len(retrieving))
        jumped += [timed(lambda k=order: list(localizer.track([retrieving[i] for i in k])))]
    if jumped:
        full = sum(not outcome.tracked for _, found in jumped for outcome in found)
        rows.append(["20 retrieved", "jumps", *cells(jumped, truth, together=True), str(full), ""])
    header = ["frames searched", "", "localized", "false", "ms a frame (least)", "median error"]
    print_table([*header, "most", "full", "times fewer ms"], rows)


def timed(work: Callable[[], list[Localization]]) -> tuple[float, list[Localization]]:
    """Milliseconds of the processor, and what was done in them."""
    begin = time.process_time()
    found = work()
    return 1000 * (time.process_time() - begin), found


def cells(
    runs: Sequence[tuple[float, list[Localization]]],
    truth: Mapping[str, np.ndarray],
    together: bool = False,
) -> list[str]:
    """Counts, milliseconds and errors; of the last of equal runs, or over all of different ones."""
    found = [one for _, outcomes in (runs if together else runs[-1:]) for one in outcomes]
    errors = np.array(
        [
            (np.inf, np.inf)
            if one.cam_from_world is None
            else pose_error(one.cam_from_world, truth[one.name])
            for one in found
        ]
    )
    localized = np.isfinite(errors[:, 0])
    milliseconds = np.array([ms / len(outcomes) for ms, outcomes in runs])
    middle = np.median(errors, axis=0)
    return [
        f"{localized.sum()} of {len(found)}",
        str((errors[localized, 0] > FALSE).sum()),
        f"{np.median(milliseconds):.1f} ({milliseconds.min():.1f})",
        f"{middle[0]:.4f}, {middle[1]:.3f}",
        f"{errors[localized, 0].max():.3f}",
    ]


if __name__ == "__main__":
    main()
