"""Images to the files that a pipeline starts from: features, a map, pairs, lists.

Without hloc: COLMAP's SIFT, matched and triangulated as the demo does it. With hloc: one of its
extractors, its nearest-neighbour (or another) matcher and its triangulation. Images are retrieved
by VLAD over the local features, since no global descriptor comes without weights.
"""

import argparse
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from hloc_dpqed import hloc_bridge
from hloc_dpqed.demo.dataset import Dataset, map_posed_photos, photos_dataset
from hloc_dpqed.errors import InputError
from hloc_dpqed.io.atomic import write_text
from hloc_dpqed.io.features import FeatureFile
from hloc_dpqed.io.lists import read_poses, read_queries, write_poses
from hloc_dpqed.io.model import load_reconstruction
from hloc_dpqed.localization.vlad import retrieve
from hloc_dpqed.logger import logger
from hloc_dpqed.mapping.colmap import quiet_colmap
from hloc_dpqed.mapping.extraction import MAX_KEYPOINTS
from hloc_dpqed.mapping.pairs import choose_pairs
from hloc_dpqed.threads import set_num_threads

from .common import choose_conf, require_files, require_hloc, triangulate

_SUPERPOINT = "hloc:superpoint_aachen"
_WEIGHTS = "--extractor_weights"


def add_image_arguments(parser: argparse.ArgumentParser) -> None:
    """How to start from images instead of features."""
    group = parser.add_argument_group("from images")
    group.add_argument(
        "--images",
        type=Path,
        nargs="?",
        const=Path("images"),
        metavar="FOLDER",
        help="start from the images in FOLDER of the scene ('images' where none is named) "
        "instead of its features",
    )
    group.add_argument(
        "--poses",
        choices=("known", "sfm"),
        default="known",
        help="map with the poses in the scene's files, or by structure from motion over the images "
        "alone, default: %(default)s",
    )
    group.add_argument(
        "--extractor",
        default="auto",
        help=f"sift (COLMAP's), hloc:NAME of hloc's extraction configurations, or auto: "
        f"{_SUPERPOINT} where hloc and the weights are, else sift; default: %(default)s",
    )
    group.add_argument(_WEIGHTS, type=Path, help="weights of hloc's SuperPoint")
    group.add_argument(
        "--sfm_matcher",
        default="NN-mutual",
        help="configuration of hloc that matches the database images where hloc extracts, "
        "default: %(default)s",
    )


def choose_extractor(name: str, weights: Path | None) -> str:
    """The extractor that ``auto`` stands for, or ``name``.

    Raises:
        InputError: neither ``auto`` nor ``sift`` nor ``hloc:NAME``; or weights for another.
    """
    if name == "auto":
        name = _SUPERPOINT if _superpoint_is_here(weights) else "sift"
        logger.info(f"--extractor auto: {name}")
    if name != "sift" and not name.startswith("hloc:"):
        raise InputError(f"--extractor {name}: expected auto, sift or hloc:NAME")
    if weights is not None and not name.startswith("hloc:superpoint"):
        raise InputError(f"{_WEIGHTS}: {name} takes no weights")
    return name


def _superpoint_is_here(weights: Path | None) -> bool:
    try:
        (module,) = require_hloc("extractors.superpoint")
    except InputError:
        return False
    code = Path(module.superpoint.__file__).parent
    return weights is not None or (code / "weights" / "superpoint_v1.pth").is_file()


def dataset_from_images(
    args: argparse.Namespace, scene: Path, outputs: Path, query_every: int, num_loc: int
) -> Dataset:
    """Extract, map, retrieve; files that are in ``outputs`` already are used again.

    With known poses ``scene`` holds, beside the images, ``sfm/`` (the database images' poses and
    cameras; its points are not used), ``queries.txt`` and ``poses_gt.txt``. By structure from
    motion every ``query_every``-th image is a query, and its pose in the model of all images is the
    pseudo ground truth; the map is triangulated again without it.

    Args:
        args: of ``add_image_arguments``.
        scene: folder of the scene.
        outputs: folder for all files, made where it is missing.
        query_every: see above.
        num_loc: database images retrieved for a query.

    Raises:
        InputError: a file or hloc is missing, or the images do not make a map.
    """
    extractor = choose_extractor(args.extractor, args.extractor_weights)
    if args.poses == "known":
        require_files(scene, ["sfm/images.bin", "queries.txt", "poses_gt.txt"])
    if not (scene / args.images).is_dir():
        raise InputError(f"{scene / args.images}: no such folder, expected the scene's images")
    set_num_threads(args.threads)
    if args.poses == "sfm":
        posed = Dataset.in_folder(outputs / _label(args, "sift"), "units")
        if not _is_made(posed):
            folder = posed.sfm.parent
            folder.mkdir(parents=True, exist_ok=True)
            photos_dataset(folder, scene / args.images, query_every, args.seed, True, num_loc)
        if extractor == "sift":
            return posed
    else:
        posed = replace(Dataset.in_folder(scene, "units"), images=scene / args.images)
    conf = None if extractor == "sift" else _extraction(extractor.removeprefix("hloc:"))
    made = Dataset.in_folder(outputs / _label(args, extractor), "units")
    made = replace(made, images=posed.images)
    if conf is not None:
        features = made.sfm.parent / f"{conf['output']}.h5"
        made = replace(made, features=features, query_features=features)
    if not _is_made(made):
        made.sfm.parent.mkdir(parents=True, exist_ok=True)
        if conf is None:
            _map_with_sift(posed, made, num_loc, args.seed)
        else:
            _map_with_hloc(args, conf, posed, made, num_loc)
    return made


def _label(args: argparse.Namespace, extractor: str) -> str:
    """How a map was made, for the name of its folder."""
    parts = [args.poses, extractor.replace(":", "-")]
    parts += [] if extractor == "sift" else [args.sfm_matcher]
    return "_".join([*parts, *([f"seed{args.seed}"] if args.seed else [])])


def _is_made(dataset: Dataset) -> bool:
    """Whether an earlier run has finished; the poses are what is written last."""
    if dataset.poses.is_file():
        logger.info(f"{dataset.sfm.parent}: made before, used again; delete it to make it anew")
        return True
    return False


def _map_with_sift(posed: Dataset, made: Dataset, num_loc: int, seed: int) -> None:
    """The demo's mapping with the poses and cameras of ``posed``."""
    model = load_reconstruction(posed.sfm)
    images = sorted(model.images.values(), key=lambda image: image.name)
    poses = {image.name: np.array(image.cam_from_world().matrix()) for image in images}
    by_camera: dict[int, list[str]] = {}
    for image in images:
        by_camera.setdefault(image.camera_id, []).append(image.name)
    database = [(names, model.cameras[i]) for i, names in sorted(by_camera.items())]
    listed: dict[str, tuple[list[str], pycolmap.Camera]] = {}
    for name, camera in read_queries(posed.queries):
        listed.setdefault(repr(camera.todict()), ([], camera))[0].append(name)
    poses |= read_poses(posed.poses)
    map_posed_photos(made, database, list(listed.values()), poses, num_loc, seed)


def _extraction(name: str) -> dict[str, Any]:
    """hloc's configuration ``name``, with ``MAX_KEYPOINTS`` where it has a number of keypoints.

    Raises:
        InputError: hloc is missing or has none of that name.
    """
    (extract_features,) = require_hloc("extract_features")
    if name not in extract_features.confs:
        known = ", ".join(extract_features.confs)
        raise InputError(f"--extractor hloc:{name}: unknown, expected hloc:NAME of {known}")
    conf = extract_features.confs[name]
    if "max_keypoints" not in conf["model"]:
        return conf
    output = re.sub(r"-n\d+", f"-n{MAX_KEYPOINTS}", conf["output"])
    return {**conf, "output": output, "model": {**conf["model"], "max_keypoints": MAX_KEYPOINTS}}


def _map_with_hloc(
    args: argparse.Namespace, conf: dict[str, Any], posed: Dataset, made: Dataset, num_loc: int
) -> None:
    """hloc's extraction, matching and triangulation."""
    extract_features, match_features = require_hloc("extract_features", "match_features")
    matcher = choose_conf(match_features.confs, args.sfm_matcher)
    names = sorted(image.name for image in load_reconstruction(posed.sfm).images.values())
    query_names = [name for name, _ in read_queries(posed.queries)]
    folder = made.sfm.parent
    try:
        with hloc_bridge.weights_of_user("superpoint", args.extractor_weights, _WEIGHTS):
            extract_features.main(
                conf,
                posed.images,
                as_half=False,
                image_list=names + query_names,
                feature_path=made.features,
            )
    except OSError as error:  # no such file, or no download
        raise InputError(
            f"--extractor: {conf['model']['name']} cannot be run ({error}); are its weights there? "
            f"{_WEIGHTS} takes those of SuperPoint"
        ) from error
    with FeatureFile(made.features) as file:
        descriptors = {name: file.read(name).descriptors for name in names + query_names}
    of_database = {name: descriptors[name] for name in names}
    pairs = folder / "pairs-db.txt"
    write_text(pairs, "".join(f"{a} {b}\n" for a, b in choose_pairs(of_database, args.seed)))
    matches = folder / f"{matcher['output']}_pairs-db.h5"
    match_features.main(matcher, pairs, made.features, matches=matches)
    with quiet_colmap():
        triangulate(made.sfm, posed.sfm, posed.images, pairs, made.features, matches)
    of_queries = {name: descriptors[name] for name in query_names}
    retrieved = retrieve(of_queries, of_database, num_loc, args.seed)
    write_text(made.pairs, "".join(f"{query} {name}\n" for query, name in retrieved))
    write_text(made.queries, posed.queries.read_text(encoding="utf-8"))
    write_poses(made.poses, read_poses(posed.poses))
