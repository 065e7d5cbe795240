"""Inliers of poses that cannot be true: queries of another place against each map.

    python benchmarks/false_poses.py [--scenes fountain-P11 castle-P30 south-building]

Each map (all points, 3 % and 1 % of them; drqed and pq with 4 bytes) is asked for the poses of its
own queries and of another place's images (fountain-P11 and castle-P30 are one place), at RANSAC
thresholds of 4 and 12 pixels, with the listed pairs (``pairs``, and ``few`` with a quarter of the
query's keypoints), with 20 spread images and with all of them for queries of another place, and
with the whole map (``none``). A pose of its own query is true within a tenth of the scene's extent
and 5 degrees. The table tells what ``localize`` makes of them with its default ``--min_inliers``.
"""

import argparse
import dataclasses
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import SCENES, Scene, load_scene, print_table

from hloc_dpqed.choices import LEAST_INLIERS
from hloc_dpqed.compression.conf import CompressConf
from hloc_dpqed.compression.engine import Compressor
from hloc_dpqed.evaluation.measures import PosedQuery, match_query, pose_of
from hloc_dpqed.evaluation.pose_errors import pose_error
from hloc_dpqed.io.features import FeatureFile
from hloc_dpqed.localization.belief import least_inliers
from hloc_dpqed.localization.localizer import Correspondences, Localizer
from hloc_dpqed.mapfile import read_map, write_map
from hloc_dpqed.maps.compressed import CompressedMap
from hloc_dpqed.planning.pseudo_queries import scene_extent
from hloc_dpqed.threads import set_num_threads

SAME_PLACE = {"fountain-P11", "castle-P30"}
FRACTIONS, CODECS, THRESHOLDS = (1.0, 0.03, 0.01), ("drqed", "pq"), (4.0, 12.0)
FEW = 4  # of so many keypoints one is kept, for true poses that are hard to find
UNKNOWN = np.full((3, 4), np.nan)


@dataclass(frozen=True)
class Pose:
    """A pose of RANSAC, or none with 0 inliers; ``true`` is None for a query of another place."""

    fraction: float
    threshold: float
    retrieval: str
    true: bool | None
    matches: int
    inliers: int
    least: int


def foreign_queries(scene: Scene, database: int) -> list[PosedQuery]:
    """The listed queries and ``database`` of the map's images, as queries of another place."""
    reference = scene.reference
    rows = np.linspace(0, reference.num_images - 1, min(database, reference.num_images))
    images = []
    with FeatureFile(scene.features) as file:
        for i in np.unique(rows.astype(int)):
            name, camera = reference.image_names[i], reference.cameras[reference.camera_index[i]]
            images.append(PosedQuery(name, camera, file.read(name), None, UNKNOWN))
    return [dataclasses.replace(q, cam_from_world=UNKNOWN) for q in scene.queries] + images


def with_few(query: PosedQuery) -> PosedQuery:
    """The query with one of ``FEW`` of its keypoints."""
    f = query.features
    rows = np.random.default_rng(0).permutation(len(f.keypoints))[: len(f.keypoints) // FEW]
    few = dataclasses.replace(
        f, keypoints=f.keypoints[rows], descriptors=f.descriptors[rows], scores=f.scores[rows]
    )
    return dataclasses.replace(query, features=few)


def map_of(scene: Scene, codec: str, fraction: float, folder: Path) -> CompressedMap:
    """From the folder where it was kept before."""
    path = folder / f"{scene.name}-{codec}-{fraction}.dpqed"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        conf = CompressConf(codec=codec, selector="all" if fraction == 1 else "hybrid")
        compressor = Compressor(scene.reference, scene.observations, conf)
        count = max(1, int(fraction * scene.reference.num_points))
        write_map(path, compressor.compress(count))
    return read_map(path)


def poses_of(scene: Scene, compressed: CompressedMap, others: list[PosedQuery], seeds: int):
    """(threshold, retrieval, true, matches, inliers, least) of each query and RANSAC seed."""
    extent = scene_extent(scene.reference.cam_from_world)
    every = list(scene.reference.image_names)
    spread = [every[i] for i in np.unique(np.linspace(0, len(every) - 1, 20).astype(int))]
    asked = [(q, "pairs", q.retrieved) for q in scene.queries]
    asked += [(with_few(q), "few", q.retrieved) for q in scene.queries]
    asked += [(q, "none", None) for q in [*scene.queries, *others]]
    asked += [(q, "20", spread) for q in others]
    asked += [(q, "all", every) for q in others if len(every) > len(spread)]
    localizers = {t: Localizer(compressed, ransac_thresh=t, min_inliers=0) for t in THRESHOLDS}
    for threshold, (asking, retrieval, images) in itertools.product(THRESHOLDS, asked):
        localizer = localizers[threshold]
        query = dataclasses.replace(asking, retrieved=images)
        found = Correspondences.collect(match_query(localizer, query)[1], compressed.num_points)
        least = least_inliers(len(found), query.camera, localizer.options, LEAST_INLIERS)
        foreign = bool(np.isnan(query.cam_from_world).any())
        for seed in range(seeds):
            answer = pose_of(found, query, localizer, seed)
            true: bool | None = None if foreign else False
            if answer is not None and not foreign:
                pose = answer["cam_from_world"].matrix()
                translation, rotation = pose_error(pose, query.cam_from_world)
                true = translation < 0.1 * extent and rotation < 5
            inliers = 0 if answer is None else int(answer["num_inliers"])
            yield threshold, retrieval, true, len(found), inliers, least


def line(poses: list[Pose]) -> list[str]:
    """Counts of poses of another place, and of true and wrong ones of the map's own queries."""
    foreign = [p for p in poses if p.true is None]
    true, wrong = ([p for p in poses if p.true is which] for which in (True, False))
    cells = ["", "", "", ""]
    if foreign:
        most = max(p.inliers for p in foreign)
        accepted = sum(p.inliers >= p.least for p in foreign)
        cells = [str(len(foreign)), str(max(p.matches for p in foreign)), str(most), str(accepted)]
    if not true and not wrong:
        return [*cells, "", "", "", ""]
    least = str(min(p.inliers for p in true)) if true else ""
    rejected = sum(p.inliers < p.least for p in true)
    accepted = sum(p.inliers >= p.least for p in wrong)
    return [*cells, str(len(true)), least, str(rejected), f"{accepted} of {len(wrong)}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    names = [name for name in SCENES if "/" not in name]  # those of one extractor
    parser.add_argument("--scenes", nargs="+", choices=names, default=names)
    parser.add_argument("--fractions", nargs="+", type=float, default=FRACTIONS)
    parser.add_argument("--seeds", type=int, default=1, help="of RANSAC")
    parser.add_argument("--database", type=int, default=24, help="more queries of another place")
    parser.add_argument("--folder", type=Path, default=Path("outputs/false_poses"))
    args = parser.parse_args()
    set_num_threads(1)
    scenes = {name: load_scene(name) for name in names}
    poses: list[Pose] = []
    for name, fraction, codec in itertools.product(args.scenes, args.fractions, CODECS):
        same = SAME_PLACE if name in SAME_PLACE else {name}
        others = [
            query
            for other in names
            if other not in same
            for query in foreign_queries(scenes[other], args.database)
        ]
        compressed = map_of(scenes[name], codec, fraction, args.folder)
        found = poses_of(scenes[name], compressed, others, args.seeds)
        poses += [Pose(fraction, *values) for values in found]
    header = ["points", "px", "images", "false", "most matches", "most inliers", "accepted"]
    header += ["true", "least inliers", "rejected", "wrong, accepted"]
    groups = sorted({(-p.fraction, p.threshold, p.retrieval) for p in poses})
    rows = []
    for fraction, threshold, retrieval in groups:
        own = [
            p
            for p in poses
            if (-p.fraction, p.threshold, p.retrieval) == (fraction, threshold, retrieval)
        ]
        rows.append([f"{-fraction:.0%}", f"{threshold:g}", retrieval, *line(own)])
    rows.append(["all", "", "", *line(poses)])
    print_table(header, rows)


if __name__ == "__main__":
    main()
