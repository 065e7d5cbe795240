"""Poses of queries whose intrinsics are not known, beside those with known ones.

    python benchmarks/intrinsics.py [--scenes south-building castle-P30] [--fraction 0.03]

The listed queries of a map of 3 % of the points, over seeds of RANSAC, threshold 12 pixels.
``known``: the list's cameras. ``auto``: COLMAP's guess from the size of the image alone, focal
length and distortion estimated with the pose. ``told``: the same, from a focal length that is 5 %
too long, as EXIF may have it. ``believed``: the guess, not estimated. Each with both estimators of
poses.
"""

import argparse
from pathlib import Path

import numpy as np
import pycolmap
from common import SCENES, load_scene, print_table
from false_poses import map_of
from rigs import THRESHOLDS

from hloc_dpqed.choices import POSE_ESTIMATORS
from hloc_dpqed.evaluation.measures import PosedQuery
from hloc_dpqed.evaluation.pose_errors import pose_error
from hloc_dpqed.localization.intrinsics import guess_camera
from hloc_dpqed.localization.localizer import Localizer, Query
from hloc_dpqed.maps.compressed import CompressedMap

TOLD = 1.05  # times the true focal length


def cameras(true: pycolmap.Camera) -> dict[str, tuple[pycolmap.Camera, bool]]:
    """What is given of a camera, by name, and whether its focal length is estimated."""
    guess = guess_camera(true.width, true.height)
    told = guess_camera(true.width, true.height)
    told.params = [TOLD * true.mean_focal_length(), *guess.params[1:]]
    told.has_prior_focal_length = True
    return {
        "known": (true, False),
        "auto": (guess, True),
        "told": (told, True),
        "believed": (guess, False),
    }


def row_of(
    compressed: CompressedMap,
    queries: list[PosedQuery],
    name: str,
    estimator: str,
    seeds: int,
    thresholds: list[tuple[float, float]],
) -> list[str]:
    rows = {image: row for row, image in enumerate(compressed.image_names)}
    errors, focals = [], []
    for seed in range(seeds):
        for query in queries:
            camera, free = cameras(query.camera)[name]
            localizer = Localizer(
                compressed,
                pose_estimator=estimator,
                estimate_focal=free,
                estimate_lens=free,
                seed=seed,
            )
            assert query.features is not None and query.retrieved is not None
            retrieved = [rows[image] for image in query.retrieved if image in rows]
            found = localizer.localize(Query(query.name, camera, query.features, retrieved))
            if found.cam_from_world is None:
                errors.append((np.inf, np.inf))
                continue
            errors.append(pose_error(found.cam_from_world, query.cam_from_world))
            if found.camera is not None:
                focals.append(found.camera.mean_focal_length() / query.camera.mean_focal_length())
    off = np.array(errors)
    middle = np.median(off, axis=0)
    recall = [f"{((off[:, 0] < t) & (off[:, 1] < r)).mean():.3f}" for t, r in thresholds]
    spread = ""
    if focals:
        spread = " to ".join(f"{q:.3f}" for q in np.quantile(focals, [0.05, 0.95]))
    localized = f"{np.isfinite(off[:, 0]).sum()} of {len(off)}"
    return [localized, f"{middle[0]:.4f}, {middle[1]:.3f}", *recall, spread]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    names = [name for name in SCENES if name in THRESHOLDS]
    parser.add_argument(
        "--scenes", nargs="+", choices=names, default=["south-building", "castle-P30"]
    )
    parser.add_argument("--fraction", type=float, default=0.03, help="of the points")
    parser.add_argument("--seeds", type=int, default=5, help="of RANSAC")
    parser.add_argument("--folder", type=Path, default=Path("outputs/false_poses"))
    args = parser.parse_args()
    rows = []
    for scene_name in args.scenes:
        scene = load_scene(scene_name)
        compressed = map_of(scene, "drqed", args.fraction, args.folder)
        for estimator in POSE_ESTIMATORS:
            for name in ("known", "auto", "told", "believed"):
                how = (name, estimator, args.seeds, [*THRESHOLDS[scene_name], (0.25, 2)])
                rows.append([scene_name, estimator, name, *row_of(compressed, scene.queries, *how)])
                print(*rows[-1], flush=True)
    header = ["map", "estimator", "cameras", "localized", "median error"]
    header += ["recall, fine", "coarse", "0.25 / 2", "focal length, times the true"]
    print_table(header, rows)


if __name__ == "__main__":
    main()
