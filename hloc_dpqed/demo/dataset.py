"""The demo's two sources of photos, written as the files that an hloc user has."""

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from tqdm import tqdm

from ..errors import InputError
from ..io.atomic import write_text
from ..io.features import ImageFeatures
from ..io.lists import write_poses
from ..localization.vlad import retrieve
from ..mapping.colmap import quiet_colmap
from ..mapping.extraction import Extraction, copy_images, extract, read_all
from ..mapping.matching import match_pairs
from ..mapping.pairs import choose_pairs
from ..mapping.photos import PHOTOS, shrink_photo
from ..mapping.reconstruction import structure_from_motion, triangulate, unit_scale
from ..threads import get_num_threads
from .render import Renderer
from .scene import courtyard
from .views import database_poses, pinhole, query_poses, random_light

MAX_IMAGE_SIZE = 1024  # pixels, the longer side of the user's own photos
NUM_RETRIEVED = 5


@dataclass(frozen=True)
class Dataset:
    """Files of a mapped scene, in hloc's formats.

    Attributes:
        images: folder of the photos.
        sfm: folder of the COLMAP model of the database images.
        features: local features of the database images.
        query_features: local features of the queries.
        queries: hloc's query list with intrinsics.
        pairs: the database images retrieved for each query.
        poses: true (or pseudo-true) poses of the queries.
        unit: of the translation, for people.
    """

    images: Path
    sfm: Path
    features: Path
    query_features: Path
    queries: Path
    pairs: Path
    poses: Path
    unit: str

    @staticmethod
    def in_folder(folder: Path, unit: str) -> "Dataset":
        return Dataset(
            folder / "images",
            folder / "sfm",
            folder / "features.h5",
            folder / "features-query.h5",
            folder / "queries.txt",
            folder / "pairs-query.txt",
            folder / "poses_gt.txt",
            unit,
        )

    @property
    def map_bytes(self) -> int:
        """Bytes of the uncompressed map: the COLMAP model and the database's features."""
        return sum(f.stat().st_size for f in self.sfm.iterdir()) + self.features.stat().st_size


def render_dataset(
    output: Path,
    num_database: int,
    num_queries: int,
    image_size: tuple[int, int] = (640, 480),
    texels: float = 90.0,
    seed: int = 0,
    progress: bool = True,
) -> Dataset:
    """Render the courtyard and map it with the known poses of the database views.

    Args:
        output: folder for the dataset's files.
        num_database, num_queries: how many views.
        image_size: (width, height) in pixels.
        texels: resolution of the scene's textures, texels per metre.
        seed: the same arguments render the same images.
    """
    dataset = Dataset.in_folder(output, "m")
    dataset.images.mkdir(parents=True, exist_ok=True)
    if progress:
        tqdm.write("Building the scene", file=sys.stderr)
    renderer = Renderer(courtyard(seed, texels), seed)
    camera, query_camera = pinhole(*image_size, 0.82), pinhole(*image_size, 0.9)
    database = database_poses(num_database, seed)
    queries = query_poses(num_queries, database, camera, renderer, query_camera, seed)
    views = [(f"db_{i:03d}.jpg", camera, pose) for i, pose in enumerate(database)]
    views += [(f"query_{i:03d}.jpg", query_camera, pose) for i, pose in enumerate(queries)]

    def render(row: int) -> None:
        name, cam, pose = views[row]
        rng = np.random.default_rng([seed, 5, row])
        image = renderer.render(cam, pose, random_light(rng), rng).image
        if not pycolmap.Bitmap.from_array(image).write(str(dataset.images / name)):
            raise InputError(f"{dataset.images / name}: cannot be written")

    with ThreadPoolExecutor(get_num_threads()) as pool:
        done = pool.map(render, range(len(views)))
        list(tqdm(done, "Rendering views", len(views), disable=not progress))

    names = [v[0] for v in views]
    map_posed_photos(
        dataset,
        [(names[:num_database], camera)],
        [(names[num_database:], query_camera)],
        {name: pose for name, _, pose in views},
        NUM_RETRIEVED,
        seed,
        progress,
    )
    return dataset


def map_posed_photos(
    dataset: Dataset,
    database: Sequence[tuple[list[str], pycolmap.Camera]],
    queries: Sequence[tuple[list[str], pycolmap.Camera]],
    poses: dict[str, np.ndarray],
    num_retrieved: int,
    seed: int = 0,
    progress: bool = True,
) -> None:
    """Write the files of ``dataset`` from its photos: SIFT, a map with known poses, lists.

    Args:
        dataset: names the files; the photos are there, the folder of the others is.
        database, queries: names of the photos and their camera.
        poses: names to (3, 4) float64 [R | t], camera from world. Those of the queries are written
            to ``dataset.poses`` and not used.
        num_retrieved: database photos a query in ``dataset.pairs``.
        seed: of COLMAP and of the retrieval's words.
        progress: show progress bars.
    """
    names = [name for listed, _ in database for name in listed]
    camera_of = {name: camera for listed, camera in queries for name in listed}
    extract(Extraction(), dataset.images, names, dataset.features, progress=progress)
    extract(
        Extraction(), dataset.images, list(camera_of), dataset.query_features, progress=progress
    )
    of_database = read_all(dataset.features, names, False)
    with quiet_colmap(), _work_folder(dataset.sfm.parent) as work:
        pairs = choose_pairs(_descriptors(of_database), seed)
        matches = match_pairs(of_database, pairs, progress)
        if progress:
            tqdm.write("Triangulating", file=sys.stderr)
        triangulate(work, dataset.images, database, poses, of_database, matches, dataset.sfm, seed)
    _write_lists(
        dataset,
        of_database,
        read_all(dataset.query_features, list(camera_of), False),
        camera_of,
        {name: poses[name] for name in camera_of},
        num_retrieved,
        seed,
    )


def _descriptors(features: dict[str, ImageFeatures]) -> dict[str, np.ndarray]:
    return {name: f.descriptors for name, f in features.items()}


def photos_dataset(
    output: Path,
    photos: Path,
    query_every: int = 5,
    seed: int = 0,
    progress: bool = True,
    num_retrieved: int = NUM_RETRIEVED,
) -> Dataset:
    """Map the user's own photos; every ``query_every``-th becomes a query.

    Structure from motion over all photos gives every pose: the queries' are the pseudo ground
    truth. The map itself is triangulated again from the database photos alone, with their poses
    and cameras. Distances are scaled so that the median distance of photos that follow one another
    is 1.

    Raises:
        InputError: too few photos, or they do not make a model.
    """
    dataset = Dataset.in_folder(output, "units")
    sizes, focals = _copy_photos(photos, dataset.images, progress)
    by_camera: dict[tuple, list[str]] = {}
    for name in sorted(sizes):
        by_camera.setdefault((sizes[name], focals[name]), []).append(name)
    groups = [(names, _guess_camera(*key)) for key, names in by_camera.items()]
    with quiet_colmap(), _work_folder(output) as work:
        extract(Extraction(), dataset.images, list(sizes), work / "all.h5", progress=progress)
        features = read_all(work / "all.h5", list(sizes), False)
        matches = match_pairs(features, choose_pairs(_descriptors(features), seed), progress)
        model = structure_from_motion(
            work, dataset.images, groups, features, matches, seed, progress
        )
        placed = sorted((im for im in model.images.values() if im.has_pose), key=lambda im: im.name)
        if len(placed) < 6:
            raise InputError(
                f"{photos}: only {len(placed)} photos fit together, expected 6 or more"
            )
        model.transform(pycolmap.Sim3d(unit_scale(model), pycolmap.Rotation3d(), np.zeros(3)))
        poses = {im.name: im.cam_from_world().matrix() for im in placed}
        cameras = {im.name: model.cameras[im.camera_id] for im in placed}
        queries = [im.name for im in placed[query_every // 2 :: query_every]]
        database = [name for name in poses if name not in set(queries)]
        kept: dict[int, list[str]] = {}
        for image in placed:
            if image.name in database:
                kept.setdefault(image.camera_id, []).append(image.name)
        if progress:
            tqdm.write("Triangulating", file=sys.stderr)
        triangulate(
            work,
            dataset.images,
            [(names, model.cameras[i]) for i, names in sorted(kept.items())],
            poses,
            features,
            matches,
            dataset.sfm,
            seed,
        )
        copy_images(work / "all.h5", database, dataset.features)
        copy_images(work / "all.h5", queries, dataset.query_features)
    _write_lists(
        dataset,
        {name: features[name] for name in database},
        {name: features[name] for name in queries},
        {name: cameras[name] for name in queries},
        {name: poses[name] for name in queries},
        num_retrieved,
        seed,
    )
    return dataset


@contextmanager
def _work_folder(output: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=".work-", dir=output))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copy_photos(
    photos: Path, output: Path, progress: bool
) -> tuple[dict[str, tuple[int, int]], dict[str, float | None]]:
    """Copy photos, shrunk where they are larger than ``MAX_IMAGE_SIZE``.

    Returns:
        The size (width, height) of each copy, and its focal length in pixels where the photo
        tells it (pycolmap 4 and later reads that).
    """
    if not photos.is_dir():
        raise InputError(f"{photos}: no such folder, expected photos")
    files = sorted(f for f in photos.iterdir() if f.suffix.lower() in PHOTOS)
    if len(files) < 6:
        raise InputError(f"{photos}: holds {len(files)} photos, expected 6 or more")
    output.mkdir(parents=True, exist_ok=True)
    sizes: dict[str, tuple[int, int]] = {}
    focals: dict[str, float | None] = {}
    for file in tqdm(files, "Reading photos", disable=not progress):
        bitmap = pycolmap.Bitmap.read(str(file), True)
        if bitmap is None:
            raise InputError(f"{file}: not a readable image")
        pixels = bitmap.to_array()
        height, width = pixels.shape[:2]
        shrink = min(1.0, MAX_IMAGE_SIZE / max(height, width))
        name = file.stem.replace(" ", "_") + ".jpg"
        if name in sizes:
            raise InputError(f"{file}: another photo of that name was read already")
        if shrink < 1:
            pixels = shrink_photo(pixels, round(height * shrink), round(width * shrink))
            bitmap_out = pycolmap.Bitmap.from_array(pixels)
        if shrink == 1 and file.suffix.lower() in (".jpg", ".jpeg"):
            shutil.copyfile(file, output / name)
        elif not (bitmap_out if shrink < 1 else bitmap).write(str(output / name)):
            raise InputError(f"{output / name}: cannot be written")
        focal = bitmap.exif_focal_length() if hasattr(bitmap, "exif_focal_length") else None
        sizes[name] = (pixels.shape[1], pixels.shape[0])
        focals[name] = round(focal * shrink, 1) if focal else None
    return sizes, focals


def _guess_camera(size: tuple[int, int], focal: float | None) -> pycolmap.Camera | None:
    if focal is None:
        return None
    width, height = size
    params = [focal, width / 2, height / 2, 0.0]
    return pycolmap.Camera(model="SIMPLE_RADIAL", width=width, height=height, params=params)


def _write_lists(
    dataset: Dataset,
    database: dict[str, ImageFeatures],
    queries: dict[str, ImageFeatures],
    cameras: dict[str, pycolmap.Camera],
    poses: dict[str, np.ndarray],
    num_retrieved: int,
    seed: int,
) -> None:
    """Write the query list, the pairs and, last, the true poses."""
    pairs = retrieve(_descriptors(queries), _descriptors(database), num_retrieved, seed)
    write_text(dataset.pairs, "".join(f"{query} {name}\n" for query, name in pairs))
    query_names = sorted(queries)
    lines = []
    for name in query_names:
        camera = cameras[name]
        params = " ".join(repr(float(p)) for p in camera.params)
        lines.append(f"{name} {camera.model.name} {camera.width} {camera.height} {params}\n")
    write_text(dataset.queries, "".join(lines))
    write_poses(dataset.poses, {name: poses[name] for name in query_names})
