"""Rigs made of query images whose relative poses are known, beside the same images alone.

    python benchmarks/rigs.py [--scenes south-building castle-P30]

Each map keeps a share of the points (``drqed``, 4 bytes). Every 2 and every 3 consecutive queries
are a rig: their relative poses are those of the ground truth. ``alone`` counts each image as often
as rigs hold it. Errors are of the images; recall is over images and RANSAC seeds; the interval is
of the mean difference of the log translation error from the same image alone, a rig's images
together, resampling rigs. ``foreign`` are rigs of another place's queries: how many poses of rigs
are believed.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import SCENES, PosedQuery, Scene, bootstrap, load_scene, print_table
from false_poses import map_of

from hloc_dpqed.evaluation.pose_errors import pose_error
from hloc_dpqed.localization.localizer import Localization, Localizer, Query, RigQuery
from hloc_dpqed.localization.pose import query_seed
from hloc_dpqed.localization.rigs import solve_rig
from hloc_dpqed.maps.compressed import CompressedMap
from hloc_dpqed.scene.rigid import compose, inverse

THRESHOLDS = {
    "south-building": ((0.01, 0.1), (0.05, 0.5)),
    "castle-P30": ((0.02, 0.1), (0.05, 0.5)),
    "fountain-P11": ((0.02, 0.1), (0.05, 0.5)),
}
FLOOR = 1e-6  # of an error whose logarithm is taken


def as_query(query: PosedQuery, compressed: CompressedMap) -> Query:
    """Foreign queries are matched with 20 spread images."""
    row_of = {name: row for row, name in enumerate(compressed.image_names)}
    rows = [row_of[name] for name in query.retrieved or () if name in row_of]
    if not rows:
        spread = np.linspace(0, compressed.num_images - 1, min(20, compressed.num_images))
        rows = np.unique(spread.astype(int)).tolist()
    return Query(query.name, query.camera, query.features, rows)


def rig_of(queries: Sequence[PosedQuery], compressed: CompressedMap) -> RigQuery:
    first = inverse(queries[0].cam_from_world)
    poses = np.array([compose(q.cam_from_world, first) for q in queries])
    return RigQuery(queries[0].name, [as_query(q, compressed) for q in queries], poses)


def outcomes(
    compressed: CompressedMap,
    queries: Sequence[PosedQuery],
    size: int,
    seeds: int,
    estimator: str,
    alone: dict[tuple[int, str], Localization],
):
    """For each rig and seed: its images, them alone, and the rig's outcome."""
    matches = {}
    localizers = [Localizer(compressed, seed=s, pose_estimator=estimator) for s in range(seeds)]
    for k in range(len(queries) - size + 1):
        group = queries[k : k + size]
        rig = rig_of(group, compressed)
        for seed, localizer in enumerate(localizers):
            for query in rig.queries:
                if query.name not in matches:
                    matches[query.name] = localizer.match(query.features, query.retrieved or [])
                if (seed, query.name) not in alone:
                    alone[seed, query.name] = localizer.solve(query, matches[query.name])
            own = [alone[seed, query.name] for query in rig.queries]
            how = (localizer.options, localizer.min_inliers, query_seed(seed, rig.name), estimator)
            yield group, own, solve_rig(rig, own, compressed.xyz, True, *how)


def errors_of(group: Sequence[PosedQuery], found: Sequence[Localization]) -> np.ndarray:
    """(n, 2) translation and rotation, infinite without a pose."""
    return np.array(
        [
            (np.inf, np.inf)
            if one.cam_from_world is None
            else pose_error(one.cam_from_world, query.cam_from_world)
            for query, one in zip(group, found, strict=True)
        ]
    )


def rows_of(
    scene: Scene, foreign: Scene, fraction: float, seeds: int, estimator: str, folder: Path
) -> list[list[str]]:
    compressed = map_of(scene, "drqed", fraction, folder)
    alone: dict[tuple[int, str], Localization] = {}
    rows = []
    for size in (2, 3):
        told = list(outcomes(compressed, scene.queries, size, seeds, estimator, alone))
        single = np.array([errors_of(group, own) for group, own, _ in told])
        rig = np.array([errors_of(group, outcome.cameras) for group, _, outcome in told])
        logs = np.log(np.maximum(rig[..., 0], FLOOR)) - np.log(np.maximum(single[..., 0], FLOOR))
        both = np.isfinite(logs)
        of_rigs = np.where(both, logs, 0).mean(1).reshape(-1, seeds).mean(1)
        low, high = bootstrap(of_rigs)
        for name, errors in (("alone", single), (f"{size} images", rig)):
            cells = [scene.name, f"{fraction:.0%}", name]
            for translation, rotation in THRESHOLDS[scene.name]:
                good = (errors[..., 0] < translation) & (errors[..., 1] < rotation)
                cells.append(f"{good.mean():.3f}")
            cells += [f"{np.median(errors[..., 0]):.4f}", f"{np.median(errors[..., 1]):.4f}"]
            cells += [f"{np.isfinite(errors[..., 0]).mean():.3f}"]
            rows.append([*cells, "", ""])
        disagreeing = sum(outcome.disagrees for *_, outcome in told)
        rows[-1][-2] = f"{np.exp(low):.2f} to {np.exp(high):.2f}"
        false = [o for *_, o in outcomes(compressed, foreign.queries, size, 1, estimator, {})]
        believed = sum(outcome.rig_from_world is not None for outcome in false)
        rows[-1][-1] = f"{believed} of {len(false)}"
        print(f"{scene.name} {fraction:.0%} {size}: {disagreeing} of {len(told)} rigs disagree")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    names = [name for name in SCENES if name in THRESHOLDS]
    parser.add_argument(
        "--scenes", nargs="+", choices=names, default=["south-building", "castle-P30"]
    )
    parser.add_argument("--fractions", nargs="+", type=float, default=(0.03, 0.01))
    parser.add_argument("--seeds", type=int, default=10, help="of RANSAC")
    parser.add_argument("--pose_estimator", default="pycolmap")
    parser.add_argument("--folder", type=Path, default=Path("outputs/false_poses"))
    args = parser.parse_args()
    rows = []
    for name in args.scenes:
        other = "castle-P30" if name == "south-building" else "south-building"
        scene, foreign = load_scene(name), load_scene(other)
        for fraction in args.fractions:
            rows += rows_of(scene, foreign, fraction, args.seeds, args.pose_estimator, args.folder)
    header = ["map", "points", "queries", "recall, fine", "recall, coarse", "translation"]
    header += ["rotation", "localized", "error, times that alone", "foreign"]
    print_table(header, rows)


if __name__ == "__main__":
    main()
