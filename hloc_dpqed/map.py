"""Photos to a map: features, matches, and a COLMAP model, without hloc."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from . import __version__
from .errors import InputError
from .io.atomic import atomic_directory, check_output, write_text
from .io.checkpoint import Checkpoint, run_key
from .io.features import FeatureFile
from .io.model import load_reconstruction
from .logger import logger
from .mapping.colmap import quiet_colmap
from .mapping.extraction import MAX_KEYPOINTS, Extraction, check_extraction, extract, read_all
from .mapping.matching import match_pairs, ratio_of
from .mapping.pairs import choose_pairs
from .mapping.photos import (
    check_size,
    exif_camera,
    file_hash,
    list_photos,
    parse_camera,
    photo_groups,
)
from .mapping.reconstruction import structure_from_motion, triangulate, unit_scale
from .options import check_number
from .threads import check_device, check_seed, set_num_threads, steady_products

FEATURES, MODEL, MADE = "features.h5", "sfm", "map.json"
LEAST_PHOTOS = 3
MOST_KEYPOINTS, LARGEST_IMAGE = 1_000_000, 100_000
Groups = list[tuple[list[str], pycolmap.Camera | None]]


@steady_products()
def main(
    images: Path,
    output: Path,
    poses: Path | str = "sfm",
    extractor: str = "sift",
    extractor_weights: Path | None = None,
    max_keypoints: int = MAX_KEYPOINTS,
    max_image_size: int = Extraction.max_image_size,
    camera: str | None = None,
    seed: int = 0,
    threads: int | None = None,
    device: str = "cpu",
    overwrite: bool = False,
    progress: bool = True,
) -> Path:
    """Write ``OUTPUT/features.h5`` and ``OUTPUT/sfm``, what ``compress`` takes.

    Features that ``OUTPUT`` has of the same photos and options are used again, and an interrupted
    run continues: with the photos that are left, and the pairs of photos that are left to match.

    Args:
        images: folder of the photos, with its subfolders.
        output: folder for the map.
        poses: 'sfm' for structure from motion over all photos, in units of the median distance of
            photos that follow one another by name; or a COLMAP model with poses and cameras: of its
            images, found by name below ``images``, new points are triangulated in its frame.
        extractor: one of ``choices.EXTRACTORS``, or ``hloc:NAME`` of hloc's configurations.
        extractor_weights: of a network.
        max_keypoints, max_image_size: see ``mapping.extraction.Extraction``.
        camera: MODEL WIDTH HEIGHT PARAMS... of all photos, to begin structure from motion with.
            Without, photos of one size and focal length in EXIF share a camera, and where nothing
            tells the focal length it is guessed and refined.
        seed: of structure from motion and of the choice of pairs.
        threads, device, progress: of the work.
        overwrite: replace a map of other photos or options.

    Returns:
        ``OUTPUT/sfm``.

    Raises:
        InputError: an input is missing or wrong, there is another map, or the photos do not make
            one.
    """
    output = Path(output)
    extraction = Extraction(extractor, max_keypoints, max_image_size)
    check_number("--max_keypoints", max_keypoints, 1, MOST_KEYPOINTS)
    check_number("--max_image_size", max_image_size, 16, LARGEST_IMAGE)
    check_seed(seed)
    check_extraction(extraction, extractor_weights)
    known_camera = None if camera is None else parse_camera(camera)
    if known_camera is not None and str(poses) != "sfm":
        raise InputError("--camera: the cameras are those of --poses")
    check_output(output / FEATURES)
    check_device(device)
    set_num_threads(threads)
    placed = None
    if str(poses) == "sfm":
        names = list_photos(images)
        if len(names) < LEAST_PHOTOS:
            raise InputError(
                f"{images}: holds {len(names)} photos, expected {LEAST_PHOTOS} or more"
            )
    else:
        placed = _posed(Path(poses), images)
        names = sorted(placed)
    conf = {
        "images": {name: file_hash(Path(images) / name) for name in names},
        "extraction": extraction.to_json(),
        "weights": None if extractor_weights is None else file_hash(extractor_weights),
        "poses": "sfm"
        if placed is None
        else {name: [p.tolist(), str(c.todict())] for name, (p, c) in sorted(placed.items())},
        "camera": camera,
        "seed": seed,
        "versions": [__version__, pycolmap.__version__],
    }
    key = run_key([], [], conf)
    if _made(output, key, overwrite):
        logger.info(f"{output}: made before of the same photos and options, used again")
        return output / MODEL
    if overwrite and (output / FEATURES).is_file():
        with FeatureFile(output / FEATURES) as file:
            if file.extraction() != extraction.to_json():
                (output / FEATURES).unlink()
    output.mkdir(parents=True, exist_ok=True)
    extract(extraction, images, names, output / FEATURES, extractor_weights, device, progress)
    features = read_all(output / FEATURES, names, progress)
    pairs = choose_pairs({name: f.descriptors for name, f in features.items()}, seed)
    with _matching(output, key, pairs) as (known, found, done):
        matches = match_pairs(
            features, pairs, progress, ratio_of(extraction.name), known=known, found=found
        )
        with (
            quiet_colmap(),
            tempfile.TemporaryDirectory(prefix=".work-", dir=output) as work,
            atomic_directory(output / MODEL, MODEL_FILES) as folder,
        ):
            (output / MADE).unlink(missing_ok=True)
            if placed is None:
                groups = photo_groups(images, names, known_camera)
                model = structure_from_motion(
                    Path(work), images, groups, features, matches, seed, progress
                )
                scale = unit_scale(model)
                model.transform(pycolmap.Sim3d(scale, pycolmap.Rotation3d(), np.zeros(3)))
                model.write(str(folder))
            else:
                by_camera: dict[str, tuple[list[str], pycolmap.Camera]] = {}
                for name, (_, own) in sorted(placed.items()):
                    by_camera.setdefault(str(own.todict()), ([], own))[0].append(name)
                model = triangulate(
                    Path(work),
                    images,
                    list(by_camera.values()),
                    {name: pose for name, (pose, _) in placed.items()},
                    features,
                    matches,
                    folder,
                    seed,
                )
            if model.num_points3D() == 0:
                raise InputError(f"{images}: no point is seen by two photos")
        write_text(output / MADE, json.dumps({"key": key}))
        done.finish()
    left = len(names) - model.num_reg_images()
    told = f"; {left} photos did not fit in" if left else ""
    logger.info(
        f"Wrote {output / MODEL}: {model.num_reg_images()} photos, {model.num_points3D():,} "
        f"points{told}"
    )
    return output / MODEL


MODEL_FILES = {
    f"{name}{ending}"
    for name in ("cameras", "images", "points3D", "rigs", "frames")
    for ending in (".bin", ".txt")
}


def _posed(poses: Path, images: Path) -> dict[str, tuple[np.ndarray, pycolmap.Camera]]:
    """Pose, (3, 4) camera from world, and camera of each image of a model that is in the folder.

    Raises:
        InputError: none is, or one has another size than its camera.
    """
    model = load_reconstruction(poses)
    registered = [image for image in model.images.values() if image.has_pose]
    there = [image for image in registered if (Path(images) / image.name).is_file()]
    if len(there) < 2:
        first = registered[0].name if registered else "none"
        raise InputError(
            f"{images}: holds {len(there)} of the {len(registered)} images of {poses}, such as "
            f"{first!r}; expected 2 or more"
        )
    if len(there) < len(registered):
        missing = next(image.name for image in registered if image not in there)
        logger.warning(
            f"{images}: {len(registered) - len(there)} of {len(registered)} images of {poses} are "
            f"not there, the first is {missing!r}; they are left out"
        )
    found = {}
    for image in there:
        camera = model.cameras[image.camera_id]
        path = Path(images) / image.name
        check_size(path, exif_camera(path)[0], camera, f"its camera in {poses}")
        found[image.name] = (np.array(image.cam_from_world().matrix()), camera)
    return found


def _made(output: Path, key: str, overwrite: bool) -> bool:
    """Whether ``output`` has this map.

    Raises:
        InputError: it has another one, and ``overwrite`` is not given.
    """
    try:
        found = json.loads((output / MADE).read_text(encoding="utf-8"))["key"]
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    exists = (output / MODEL).is_dir() and any((output / MODEL).iterdir())
    if exists and found == key:
        return True
    if exists and not overwrite:
        raise InputError(
            f"{output}: holds a map of other photos or options, pass --overwrite to replace it"
        )
    return False


@contextmanager
def _matching(output: Path, key: str, pairs: list[tuple[str, str]]) -> Iterator[Any]:
    """Matches that an interrupted run left, a function that keeps more, and their file."""
    listed = set(pairs)
    with Checkpoint(output / "matches.part", run_key([], [], {"key": key, "pairs": pairs})) as done:
        known = {}
        for record in done.records():
            if (pair := (record["pair"][0], record["pair"][1])) in listed:
                known[pair] = np.array(record["rows"], np.int64).reshape(-1, 2)

        def found(pair: tuple[str, str], rows: np.ndarray) -> None:
            done.add({"pair": list(pair), "rows": rows.tolist()})

        yield known, found, done
