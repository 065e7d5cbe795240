"""Hard scenes: internet photos of one church, and harder photos of the real scenes' queries.

    python benchmarks/hard_scenes.py --extractors superpoint --scenes sacre-coeur castle-P30
    PYTHONPATH=WEIGHTS python benchmarks/hard_scenes.py --extractors aliked --scenes sacre-coeur

``OUTPUT/sacre-coeur/EXTRACTOR`` gets the features and matches of the ten photos, and
``fold-K/sfm`` a COLMAP model of the nine others of photo K, triangulated with the given poses in
units of the median distance between two cameras. ``OUTPUT/SCENE/EXTRACTOR/hard`` gets each
recipe's photos (``images/RECIPE/STEM.png``), their features, ``queries.txt``, ``poses_gt.txt`` and
``pairs.txt``: hloc's files. A hard photo retrieves what the photo that it was made from retrieves,
so that local features alone are judged. ``--database`` makes hard photos of database images too,
``--images`` of those named.

OUTPUT is ``HLOC_DPQED_HARD``, or ``hard-scenes`` beside the checkout; SuperPoint's weights are
``superpoint_v1_fp16.pth`` in ``HLOC_DPQED_WEIGHTS``, or in ``shared/weights`` beside it. What
exists is not made again, and an interrupted run goes on where it stopped.
"""

import argparse
import itertools
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import h5py
import numpy as np
import pycolmap
from common import DATA, SCENES
from hard_recipes import RECIPES, View, hardened, pinhole
from learned_scenes import Growing, read_matches, summary
from PIL import Image
from tqdm import tqdm

from hloc_dpqed.evaluation.posed_queries import read_posed_queries
from hloc_dpqed.io.atomic import atomic_directory, atomic_path, write_text
from hloc_dpqed.io.features import FeatureFile
from hloc_dpqed.io.lists import write_poses
from hloc_dpqed.io.model import read_reference
from hloc_dpqed.mapping.colmap import quiet_colmap
from hloc_dpqed.mapping.extraction import Extraction, extract
from hloc_dpqed.mapping.matching import LEARNED_RATIO, match_features
from hloc_dpqed.mapping.photos import list_photos, read_photo
from hloc_dpqed.mapping.reconstruction import triangulate
from hloc_dpqed.matching.learned import load_matcher
from hloc_dpqed.scene.projection import camera_centres
from hloc_dpqed.threads import set_num_threads

BESIDE = Path(__file__).resolve().parents[2]
HARD = Path(os.environ.get("HLOC_DPQED_HARD", BESIDE / "hard-scenes"))
WEIGHTS = Path(os.environ.get("HLOC_DPQED_WEIGHTS", BESIDE / "shared" / "weights"))
CHURCH = "sacre-coeur"
EXTRACTORS = ("superpoint", "aliked")
# Where each scene's map is, by extractor.
HARDENED = {
    "fountain-P11": {"superpoint": "fountain-P11", "aliked": "fountain-P11/aliked"},
    "castle-P30": {"superpoint": "castle-P30", "aliked": "castle-P30/aliked"},
    "south-building": {"superpoint": "south-building", "aliked": "south-building/aliked"},
}
KEYPOINTS = {"south-building": 1024}  # of an image at most; else 2,048, as in the scenes' files


@dataclass(frozen=True)
class Photo:
    """A photo whose camera and pose are known.

    Attributes:
        path: of the file.
        camera, cam_from_world: of the photo.
        retrieved: names of the database images retrieved for it, best first.
    """

    path: Path
    camera: pycolmap.Camera
    cam_from_world: np.ndarray
    retrieved: list[str]


def extraction(scene: str, extractor: str) -> Extraction:
    """As hloc's ``superpoint_aachen`` and ``aliked-n16``: the longer side 1,024 px at most."""
    return Extraction(extractor, KEYPOINTS.get(scene, 2048), 1024)


def weights_of(extractor: str) -> Path | None:
    return WEIGHTS / "superpoint_v1_fp16.pth" if extractor == "superpoint" else None


# --- the church ------------------------------------------------------------------------------


def read_church(root: Path) -> dict[str, Photo]:
    """The ten photos by name; the median distance between two of their cameras is 1.

    Raises:
        SystemExit: a calibration is missing, or is not that of its photo.
    """
    found: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    sizes = {}
    for path in sorted((root / "images").glob("*.jpg")):
        calibration = root / "ground_truth" / f"calibration_{path.stem}.h5"
        if not calibration.is_file():
            sys.exit(f"{calibration}: no such file, expected the calibration of {path.name}")
        with h5py.File(calibration, "r") as file:
            k, rotation, t = (file[key][()] for key in ("K", "R", "T"))
        with Image.open(path) as image:
            sizes[path.name] = image.size
        # Made for the photo's size: the principal point is the photo's middle.
        if np.abs(k[:2, 2] * 2 - sizes[path.name]).max() > 2:
            sys.exit(f"{calibration}: its principal point is not the middle of {path.name}")
        if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-6 or np.linalg.det(rotation) < 0:
            sys.exit(f"{calibration}: R is not a rotation")
        found[path.name] = k, rotation, t.ravel()
    if len(found) < 3:
        sys.exit(f"{root / 'images'}: holds {len(found)} photos, expected at least 3")
    poses = np.stack([np.column_stack([rotation, t]) for _, rotation, t in found.values()])
    poses[:, :, 3] /= median_distance(camera_centres(poses))
    photos = {}
    for (name, (k, _, _)), pose in zip(found.items(), poses, strict=True):
        camera = pinhole(*sizes[name], (k[0, 0], k[1, 1]), (k[0, 2], k[1, 2]))
        others = [other for other in found if other != name]
        photos[name] = Photo(root / "images" / name, camera, pose, others)
    return photos


def median_distance(centres: np.ndarray) -> float:
    """Between two of the (n, 3) positions."""
    pairs = itertools.combinations(centres, 2)
    return float(np.median([np.linalg.norm(a - b) for a, b in pairs]))


def build_church(root: Path, folder: Path, extractor: str) -> None:
    """Features and matches of all photos, and the model of each fold."""
    photos = read_church(root)
    names = list(photos)
    features_file = folder / "features.h5"
    conf = extraction(CHURCH, extractor)
    extract(conf, root / "images", names, features_file, weights_of(extractor))
    with FeatureFile(features_file) as file:
        features = {name: file.read(name) for name in names}
    pairs = list(itertools.combinations(names, 2))
    match_file = folder / "matches.h5"
    if not match_file.is_file():
        matcher = load_matcher("aliked+lightglue") if extractor == "aliked" else None
        growing = Growing(match_file)
        for a, b in tqdm(pairs, desc="Matching photos"):
            if f"{a}/{b}" in growing:
                continue
            if matcher is None:
                rows = match_features(features[a], features[b], LEARNED_RATIO)
            else:
                rows = matcher(features[a], features[b])
            matches0 = np.full(len(features[a].keypoints), -1, np.int16)
            matches0[rows[:, 0]] = rows[:, 1]
            growing.add(f"{a}/{b}", matches0=matches0)
        growing.complete()
    matches = read_matches(match_file, pairs)
    for fold, query in enumerate(names):
        output = folder / f"fold-{fold}" / "sfm"
        if output.is_dir():
            continue
        groups = [([name], photo.camera) for name, photo in photos.items() if name != query]
        poses = {name: photo.cam_from_world for name, photo in photos.items() if name != query}
        with (
            quiet_colmap(),
            tempfile.TemporaryDirectory() as work,
            atomic_directory(output) as sfm,
        ):
            model = triangulate(Path(work), root / "images", groups, poses, features, matches, sfm)
        print(f"{CHURCH}/{extractor}, fold {fold} without {query}: {summary(model)}", flush=True)


# --- harder photos ---------------------------------------------------------------------------


def scene_photos(scene: str, database: bool) -> dict[str, Photo]:
    """A scene's query photos by name, or those of its database, which retrieve nothing."""
    if scene == CHURCH:
        return read_church(DATA / scene)
    root = DATA / scene
    images = root / "images"
    if database:
        reference = read_reference(root / "sfm")
        return {
            name: Photo(
                images / name,
                reference.cameras[reference.camera_index[row]],
                reference.cam_from_world[row],
                [],
            )
            for row, name in enumerate(reference.image_names)
        }
    _, _, features, pairs = SCENES[scene]
    queries = read_posed_queries(
        root / "queries.txt", root / features, root / pairs, root / "poses_gt.txt"
    )
    return {
        q.name: Photo(images / q.name, q.camera, q.cam_from_world, q.retrieved or [])
        for q in queries
    }


def hard_name(recipe: str, name: str) -> str:
    return f"{recipe}/{PurePosixPath(name).stem}.png"


def query_line(name: str, camera: pycolmap.Camera) -> str:
    params = " ".join(repr(float(p)) for p in camera.params)
    return f"{name} {camera.model.name} {camera.width} {camera.height} {params}\n"


def harden(photos: dict[str, Photo], recipes: list[str], folder: Path, conf: Extraction) -> None:
    """Hard photos, their features and hloc's lists of them; see the module."""
    queries, pairs = "", ""
    poses: dict[str, np.ndarray] = {}
    for recipe in recipes:
        for name, photo in photos.items():
            view = View(read_photo(photo.path), photo.camera, photo.cam_from_world)
            hard = hardened(view, recipe, name)
            new = hard_name(recipe, name)
            if new in poses:
                sys.exit(f"{photo.path}: another photo has the same stem")
            with atomic_path(folder / "images" / new) as path:
                Image.fromarray(hard.pixels).save(path, "PNG")
            queries += query_line(new, hard.camera)
            pairs += "".join(f"{new} {other}\n" for other in photo.retrieved)
            poses[new] = hard.cam_from_world
    names = [name for name in list_photos(folder / "images") if name in poses]
    extract(conf, folder / "images", names, folder / "features.h5", weights_of(conf.name))
    write_text(folder / "queries.txt", queries)
    write_text(folder / "pairs.txt", pairs)
    write_poses(folder / "poses_gt.txt", poses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = [CHURCH, *HARDENED]
    parser.add_argument("--scenes", nargs="+", choices=known, default=known)
    parser.add_argument("--extractors", nargs="+", choices=EXTRACTORS, default=["superpoint"])
    parser.add_argument("--recipes", nargs="*", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--database", action="store_true", help="harden database images")
    parser.add_argument("--images", nargs="+", help="names, of those to harden")
    parser.add_argument("--output", type=Path, default=HARD)
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "1")))
    args = parser.parse_args()
    set_num_threads(args.threads)
    for extractor, scene in itertools.product(args.extractors, args.scenes):
        folder = args.output / scene / extractor
        if scene == CHURCH:
            build_church(DATA / scene, folder, extractor)
        if args.recipes:
            photos = scene_photos(scene, args.database)
            if args.images:
                photos = {name: photos[name] for name in args.images}
            kind = "hard-database" if args.database else "hard"
            harden(photos, args.recipes, folder / kind, extraction(scene, extractor))


if __name__ == "__main__":
    main()
