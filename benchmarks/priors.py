"""True and false priors: what they save, and how many poses they make wrong.

    python benchmarks/priors.py [--scenes castle-P30 south-building] [--fractions 1 0.03]

Every listed query is localized without a prior, with true ones (its own position, moved by half
the radius in a random direction; its own pose, turned by 5 degrees) and with false ones: the
position on the other side of the middle of the cameras, and positions and whole poses of up to
four images each that stand further away than 0.7 of the scene's size. The radius is 0.3 of that
size, which is the median distance of the cameras from their middle. ``used``: poses found among the
images of the prior. ``wrong``: used ones further than 0.1 of the size from the truth. ``told``:
priors that are said to be false. ``changed``: poses that are neither used nor the ones without a
prior. Milliseconds of one processor.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pycolmap
from common import SCENES, PosedQuery, Scene, load_scene, print_table
from false_poses import map_of
from rigs import as_query

from hloc_dpqed.evaluation.pose_errors import pose_error
from hloc_dpqed.localization.localizer import Localization, Localizer
from hloc_dpqed.localization.priors import Prior
from hloc_dpqed.maps.compressed import CompressedMap
from hloc_dpqed.scene.projection import camera_centre, camera_centres
from hloc_dpqed.threads import set_num_threads

RADIUS, FAR, WRONG = 0.3, 0.7, 0.1  # of the scene's size
PLACES = 4


def turned(pose: np.ndarray, degrees: float) -> np.ndarray:
    """The pose of the same place, turned about the camera's own down axis."""
    axis = pycolmap.Rotation3d(np.radians(degrees) * np.array([0.0, 1.0, 0.0]))
    return axis.matrix() @ pose


def true_priors(query: PosedQuery, size: float, rng: np.random.Generator) -> Iterator[Prior]:
    pose, radius = query.cam_from_world, RADIUS * size
    away = rng.standard_normal(3)
    away *= radius / 2 / np.linalg.norm(away)
    yield Prior(position=camera_centre(pose) + away, radius=radius)
    yield Prior(cam_from_world=turned(pose, 5), radius=radius)


def false_priors(
    query: PosedQuery, compressed: CompressedMap, size: float, rng: np.random.Generator
) -> Iterator[Prior]:
    centre, radius = camera_centre(query.cam_from_world), RADIUS * size
    centres = camera_centres(compressed.cam_from_world)
    yield Prior(position=2 * centres.mean(0) - centre, radius=radius)
    far = np.flatnonzero(np.linalg.norm(centres - centre, axis=1) > FAR * size)
    for image in rng.permutation(far)[:PLACES]:
        yield Prior(position=centres[image], radius=radius)
    for image in rng.permutation(far)[:PLACES]:
        yield Prior(cam_from_world=compressed.cam_from_world[image], radius=radius)


def distance(found: Localization, query: PosedQuery) -> float:
    """Map units from the truth, infinite without a pose."""
    if found.cam_from_world is None:
        return np.inf
    return pose_error(found.cam_from_world, query.cam_from_world)[0]


def rows_of(scene: Scene, fraction: float, everywhere: bool, folder: Path) -> list[list[str]]:
    compressed = map_of(scene, "drqed", fraction, folder)
    localizer = Localizer(compressed)
    centres = camera_centres(compressed.cam_from_world)
    size = float(np.median(np.linalg.norm(centres - centres.mean(0), axis=1)))
    rng = np.random.default_rng(0)
    names = ("none", "true", "false")
    count = dict.fromkeys(names, 0)
    milliseconds = dict.fromkeys(names, 0.0)
    off: dict[str, list[float]] = {name: [] for name in names}
    told = {name: dict.fromkeys(("used", "wrong", "told", "changed"), 0) for name in names}
    for posed in scene.queries:
        query = as_query(posed, compressed)
        if everywhere:
            query = type(query)(query.name, query.camera, query.features, None)
        localizer.localize(query)  # decodes the map
        begin = time.process_time()
        plain = localizer.localize(query)
        milliseconds["none"] += 1000 * (time.process_time() - begin)
        count["none"] += 1
        off["none"].append(distance(plain, posed))
        priors = {
            "true": list(true_priors(posed, size, rng)),
            "false": list(false_priors(posed, compressed, size, rng)),
        }
        for name, prior in [(kind, prior) for kind in priors for prior in priors[kind]]:
            begin = time.process_time()
            found = localizer.localize_with_prior(query, prior)
            milliseconds[name] += 1000 * (time.process_time() - begin)
            pose, own = found.outcome.cam_from_world, told[name]
            count[name] += 1
            off[name].append(distance(found.outcome, posed))
            own["used"] += found.used
            own["told"] += found.agrees is False
            if found.used and pose is not None:
                own["wrong"] += off[name][-1] > WRONG * size
            else:
                own["changed"] += not np.array_equal(pose, plain.cam_from_world)
    where = "whole map" if everywhere else "retrieved"
    return [
        [
            *(scene.name, f"{fraction:.0%}", where, name, str(count[name])),
            *("" if name == "none" else str(value) for value in told[name].values()),
            f"{milliseconds[name] / count[name]:.0f}",
            f"{np.median(off[name]):.4f}",
        ]
        for name in names
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--scenes", nargs="+", choices=list(SCENES), default=["castle-P30", "south-building"]
    )
    parser.add_argument("--fractions", nargs="+", type=float, default=(1, 0.03))
    parser.add_argument("--folder", type=Path, default=Path("outputs/false_poses"))
    args = parser.parse_args()
    set_num_threads(1)
    rows = []
    for name in args.scenes:
        scene = load_scene(name)
        for fraction in args.fractions:
            for everywhere in (False, True):
                rows += rows_of(scene, fraction, everywhere, args.folder)
    header = ["map", "points", "searched", "priors", "", "used", "wrong", "told", "changed", "ms"]
    header += ["median error"]
    print_table(header, rows)


if __name__ == "__main__":
    main()
