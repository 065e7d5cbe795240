"""Seconds a query: ours against hloc's ``match_features`` and ``localize_sfm``, in one run.

    python benchmarks/latency.py [--scenes south-building castle-P30] [--repetitions 5]
    python benchmarks/latency.py --scenes castle-P30/aliked --matcher aliked+lightglue-fast \
        --repetitions 1 --cpu_time --threads 1

Both start from the same uncompressed feature file and pairs and end with a written result file:
NN-mutual, RANSAC threshold 4 px, hloc's other options. hloc works on its original files, and again
on our exported map; ours on the map file with the codec ``--codec``. Start-up (imports, reading
the model or map) is excluded on both sides. Needs hloc; rows with poselib's RANSAC where it is
installed. With a learned matcher hloc runs the same network on the same pairs, and the correct
matches of both are compared, queries paired.
"""

import argparse
import contextlib
import importlib.util
import io
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch
from common import (
    RANSAC_PX,
    SCENES,
    Scene,
    bootstrap,
    correct_pairs,
    load_scene,
    measure,
    print_table,
    spread,
)
from hloc_learned import lightglue_of_hloc

from hloc_dpqed import evaluate, export
from hloc_dpqed.compression.conf import CompressConf
from hloc_dpqed.compression.engine import Compressor
from hloc_dpqed.io.features import FeatureFile
from hloc_dpqed.io.lists import read_pairs, read_queries, write_poses
from hloc_dpqed.localization.localizer import Correspondences, Localizer, Query
from hloc_dpqed.mapfile import read_map, write_map
from hloc_dpqed.matching.nearest_neighbor import Matches
from hloc_dpqed.threads import set_num_threads

CLOCK = time.perf_counter


def cpu_seconds() -> float:
    """Of this process and of those that it waited for."""
    return time.process_time() + sum(os.times()[2:4])


def uncompressed_copy(features: Path, output: Path, names: list[str]) -> None:
    """Copy the features without gzip, as hloc itself writes them, so that neither side unpacks."""
    with h5py.File(features, "r") as source, h5py.File(output, "w", libver="latest") as target:
        for name in names:
            group = target.create_group(name)
            for key, value in source[name].items():
                group.create_dataset(key, data=value[()]).attrs.update(value.attrs)


def run_hloc(
    model,
    queries: Path,
    features: Path,
    reference: Path,
    pairs: Path,
    folder: Path,
    matcher: str = "NN-mutual",
) -> tuple[float, float]:
    """hloc's two stages; returns the seconds of matching and of localization."""
    from hloc import localize_sfm, match_features

    matches, results = folder / "matches.h5", folder / "hloc.txt"
    matches.unlink(missing_ok=True)
    with contextlib.redirect_stderr(io.StringIO()):
        start = CLOCK()
        match_features.main(
            match_features.confs[matcher],
            pairs,
            features,
            matches=matches,
            features_ref=reference,
            overwrite=True,
        )
        matched = CLOCK()
        localize_sfm.main(
            model, queries, pairs, features, matches, results, ransac_thresh=RANSAC_PX
        )
    return matched - start, CLOCK() - matched


def hloc_correct(scene: Scene, matches: Path) -> np.ndarray:
    """Correct matches of each query, of hloc's match file with the original features."""
    import pycolmap
    from hloc.utils.io import get_matches

    model = pycolmap.Reconstruction(str(scene.sfm))
    by_name = {image.name: image for image in model.images.values()}
    row_of = {point: row for row, point in enumerate(scene.reference.point_ids.tolist())}
    counts = []
    for query in scene.queries:
        pairs = [np.zeros((0, 2), np.int64)]
        for name in query.retrieved or ():
            found, _ = get_matches(matches, query.name, name)
            points = [by_name[name].points2D[int(j)] for j in found[:, 1]]
            kept = [
                (i, row_of[p.point3D_id])
                for i, p in zip(found[:, 0], points, strict=True)
                if p.has_point3D() and p.point3D_id in row_of
            ]
            pairs.append(np.array(kept, np.int64).reshape(-1, 2))
        together = np.concatenate(pairs)
        one = Matches(together, np.ones(len(together), np.float32))
        collected = Correspondences.collect([one], scene.reference.num_points)
        counts.append(int(correct_pairs(collected, query, scene.reference.xyz).sum()))
    return np.array(counts)


def stream(localizer: Localizer, queries: Path, features: Path, pairs: Path):
    """Queries as the localizer takes them, read as they are needed."""
    row_of = {name: row for row, name in enumerate(localizer.map.image_names)}
    retrieved = read_pairs(pairs)
    with FeatureFile(features) as file:
        for name, camera in read_queries(queries):
            yield Query(name, camera, file.read(name), [row_of[r] for r in retrieved[name]])


def run_ours(
    localizer: Localizer, queries: Path, features: Path, pairs: Path, results: Path
) -> float:
    """Seconds from the feature file to the result file."""
    start = CLOCK()
    outcomes = localizer.localize_many(stream(localizer, queries, features, pairs))
    poses = {o.name: o.cam_from_world for o in outcomes if o.cam_from_world is not None}
    write_poses(results, poses)
    return CLOCK() - start


def run_matching(localizer: Localizer, queries: Path, features: Path, pairs: Path) -> float:
    """Seconds from the feature file to the 2D-3D pairs of all queries."""
    start = CLOCK()
    for _ in localizer.correspond_many(stream(localizer, queries, features, pairs)):
        pass
    return CLOCK() - start


def run_single(
    localizer: Localizer, queries: Path, features: Path, pairs: Path
) -> tuple[list[float], list[float]]:
    """Seconds of each query alone, from the feature file: to 2D-3D pairs, and to the pose."""
    matching, whole = [], []
    start = CLOCK()
    for query in stream(localizer, queries, features, pairs):
        found = localizer.match(query.features, query.retrieved, query.camera)
        Correspondences.collect(found, localizer.map.num_points)
        matched = CLOCK()
        localizer.solve(query, found)
        solved = CLOCK()
        matching.append(matched - start)
        whole.append(solved - start)
        start = CLOCK()
    return matching, whole


def accuracy(results: Path, scene: Scene) -> str:
    """Median translation error and recall at 0.05/1."""
    figures = evaluate.main(results, scene.folder / "poses_gt.txt", "0.05/1")
    return f"{figures['median_translation']:.4f} / {figures['recall'][0]['fraction']:.2f}"


def repeat(work: Callable[[], object], times: int) -> list:
    return [work() for _ in range(times)]


def benchmark(name: str, args: argparse.Namespace, folder: Path) -> None:
    """Print one scene's tables."""
    scene = load_scene(name)
    names = [*scene.reference.image_names, *(q.name for q in scene.queries)]
    features = folder / "features.h5"
    map_path = folder / f"{args.codec}-{args.code_bytes}.dpqed"
    uncompressed_copy(scene.features, features, names)
    if not map_path.exists():
        conf = CompressConf(args.selector, args.codec, args.code_bytes)
        compressor = Compressor(scene.reference, scene.observations, conf)
        write_map(map_path, compressor.compress(scene.reference.num_points))
    exported = folder / f"export-{map_path.stem}"
    if not exported.exists():
        export.main(map_path, exported, progress=False)
    queries = scene.folder / "queries.txt"

    import pycolmap

    rows, seconds = [], {}
    learned = not args.matcher.startswith("NN-")
    network = args.matcher.removesuffix("-fast")
    of_hloc = None
    for label, sfm, reference in (
        ("hloc, original map", scene.sfm, features),
        ("hloc, exported map", exported / "sfm", exported / "features.h5"),
    )[: 1 if learned else 2]:
        model = pycolmap.Reconstruction(str(sfm))
        runs = repeat(
            lambda m=model, r=reference: run_hloc(
                m, queries, features, r, scene.pairs, folder, network
            ),
            args.repetitions,
        )
        if learned:
            of_hloc = hloc_correct(scene, folder / "matches.h5")
        seconds[label] = [a + b for a, b in runs]
        seconds[label + ", matching"] = [a for a, _ in runs]
        rows.append((label, seconds[label], accuracy(folder / "hloc.txt", scene)))

    loads, prepared = [], []
    for _ in range(args.repetitions):
        start = CLOCK()
        compressed = read_map(map_path)
        loads.append(CLOCK() - start)
        Localizer(compressed)
        prepared.append(CLOCK() - start - loads[-1])
    localizers = {
        "ours, RANSAC on all matches": {"best_first": False},
        "ours, RANSAC on all, poselib": {"best_first": False, "pose_estimator": "poselib"},
        "ours, RANSAC on the best, poselib": {"pose_estimator": "poselib"},
        "ours, RANSAC on the best": {},
    }
    if learned:
        localizers = {"ours, RANSAC on the best": {}}
    if importlib.util.find_spec("poselib") is None:
        localizers = {k: v for k, v in localizers.items() if "poselib" not in k}
    for label, options in localizers.items():
        localizer = Localizer(
            compressed,
            args.matcher,
            matcher_weights=args.matcher_weights,
            ransac_thresh=RANSAC_PX,
            **options,
        )
        results = folder / "ours.txt"
        runs = repeat(
            lambda loc=localizer, out=results: run_ours(loc, queries, features, scene.pairs, out),
            args.repetitions,
        )
        seconds[label] = runs
        rows.append((label, runs, accuracy(results, scene)))

    count = len(scene.queries)
    peer = seconds["hloc, original map"]
    print(
        f"\n### {name}, {args.codec} {args.code_bytes} B, {args.matcher}, {count} queries, "
        "median (range)\n"
    )
    print_table(
        ["", "ms a query", "hloc / this", "median error / recall at 0.05/1"],
        [
            [
                label,
                spread([t / count for t in times], 1000),
                spread([a / b for a, b in zip(peer, times, strict=True)], digits=2),
                measured,
            ]
            for label, times, measured in rows
        ],
    )
    if of_hloc is not None:
        own = measure(compressed, scene.queries, args.ransac_seeds, localizer=localizer)
        low, high = bootstrap(own.correct - of_hloc)
        print(
            f"\ncorrect matches a query: hloc {of_hloc.mean():.0f}, ours {own.correct.mean():.0f} "
            f"(change {low:+.0f} .. {high:+.0f}), our precision {own.precision.mean():.3f}"
        )
        hloc_seconds = [t / count for t in seconds["hloc, original map, matching"]]
        own_seconds = [t / count for t in seconds["ours, RANSAC on the best"]]
        print(
            f"hloc's match_features {spread(hloc_seconds, 1000)} ms a query; ours, with the pose, "
            f"{spread(own_seconds, 1000)} ms"
        )
        return
    singles = repeat(
        lambda: run_single(localizer, queries, features, scene.pairs), args.repetitions
    )
    matching = [
        t / count
        for t in repeat(
            lambda: run_matching(localizer, queries, features, scene.pairs), args.repetitions
        )
    ]
    alone = [sum(m) / count for m, _ in singles]
    whole = np.concatenate([w for _, w in singles])
    hloc_matching = [t / count for t in seconds["hloc, original map, matching"]]
    ratio = [a / b for a, b in zip(hloc_matching, matching, strict=True)]
    print(
        f"\nfrom the feature file to 2D-3D pairs: ours {spread(matching, 1000)} ms a query, hloc's "
        f"match_features {spread(hloc_matching, 1000)} ms, ratio {spread(ratio, digits=1)}\n"
        f"one query at a time: {spread(alone, 1000)} ms to the pairs; to the pose median "
        f"{1000 * np.median(whole):.1f} ms, 95th percentile "
        f"{1000 * np.percentile(whole, 95):.1f} ms\n"
        f"loading the map: {spread(loads, 1000)} ms, preparing: {spread(prepared, 1000)} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--scenes", nargs="+", choices=SCENES, default=["south-building", "castle-P30"]
    )
    parser.add_argument("--codec", default="drqed")
    parser.add_argument("--code_bytes", type=int, default=4)
    parser.add_argument("--selector", default="hybrid")
    parser.add_argument("--matcher", default="NN-mutual")
    parser.add_argument("--matcher_weights", type=Path, help="of a learned matcher, for both")
    parser.add_argument("--ransac_seeds", type=int, default=3)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--folder", type=Path, help="keeps the maps for the next run")
    parser.add_argument(
        "--cpu_time", action="store_true", help="for one thread on a machine with other work"
    )
    args = parser.parse_args()
    if args.cpu_time:
        global CLOCK
        CLOCK = cpu_seconds
    threads = set_num_threads(args.threads)
    logging.disable(logging.WARNING)
    print(
        f"{threads} threads, {'CPU' if args.cpu_time else 'wall'} time, torch {torch.__version__}"
    )
    for name in args.scenes:
        with contextlib.ExitStack() as stack:
            folder = args.folder
            if folder is None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            (folder / name).mkdir(parents=True, exist_ok=True)
            stack.enter_context(lightglue_of_hloc(args.matcher, args.matcher_weights))
            benchmark(name, args, folder / name)


if __name__ == "__main__":
    main()
