"""Photos to a map with COLMAP: SIFT, matches, triangulation, structure from motion.

Each of COLMAP's steps gets a COLMAP database of its own, so that what is known of the queries
cannot reach the map.
"""

import itertools
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import pycolmap
import torch
from tqdm import tqdm

from ..errors import InputError
from ..scene.reference import normalise_rows
from ..threads import get_num_threads

MAX_KEYPOINTS = 2048
_RATIO = 0.85  # Lowe's ratio test between photos of the database
_EPIPOLAR = 3.0  # pixels off the epipolar line, where the poses are known


@dataclass(frozen=True)
class Features:
    """SIFT features of one photo.

    Attributes:
        keypoints: (N, 2) float32 pixels in COLMAP's convention.
        scales: (N,) float32 pixels.
        descriptors: (N, 128) float32 RootSIFT, L2-normalised.
        image_size: (width, height).
    """

    keypoints: np.ndarray
    scales: np.ndarray
    descriptors: np.ndarray
    image_size: tuple[int, int]


@contextmanager
def quiet_colmap() -> Iterator[None]:
    """Only COLMAP's errors reach standard error."""
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = pycolmap.logging.Level.ERROR.value
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = level


def create_database(
    path: Path, images: Path, groups: Sequence[tuple[list[str], pycolmap.Camera | None]]
) -> None:
    """Start a COLMAP database with groups of photos; each group shares a camera.

    Args:
        path: of the database, replaced if it exists.
        images: folder of the photos.
        groups: names of the photos, and their camera; None guesses a SIMPLE_RADIAL camera.
    """
    path.unlink(missing_ok=True)
    with _open(path):
        pass  # opening creates it
    for names, camera in groups:
        options = pycolmap.ImageReaderOptions()
        if camera is None:
            options.camera_model = "SIMPLE_RADIAL"
        else:
            options.camera_model = camera.model.name
            options.camera_params = ",".join(repr(float(p)) for p in camera.params)
        pycolmap.import_images(
            str(path), str(images), pycolmap.CameraMode.SINGLE, sorted(names), options
        )


def extract_sift(
    database: Path, images: Path, names: list[str], progress: bool = True
) -> dict[str, Features]:
    """RootSIFT features of the photos of a COLMAP database, about ``MAX_KEYPOINTS`` a photo.

    They are written to the database, and read from there: 8 bits a component, as COLMAP stores it.
    """
    options = pycolmap.FeatureExtractionOptions()
    options.use_gpu = False
    options.num_threads = get_num_threads()
    options.sift.max_num_features = MAX_KEYPOINTS
    options.sift.first_octave = 0
    options.sift.peak_threshold = 0.004
    features: dict[str, Features] = {}
    names = sorted(names)
    with tqdm(total=len(names), desc="Extracting SIFT", disable=not progress) as bar:
        for start in range(0, len(names), 8):
            part = names[start : start + 8]
            pycolmap.extract_features(
                str(database),
                str(images),
                part,
                extraction_options=options,
                device=pycolmap.Device.cpu,
            )
            bar.update(len(part))
    with _open(database) as db:
        images_by_name = {image.name: image for image in db.read_all_images()}
        for name in names:
            image = images_by_name[name]
            rows = np.array(db.read_keypoints(image.image_id), np.float32).reshape(-1, 6)
            stored = db.read_descriptors(image.image_id)
            codes = np.array(getattr(stored, "data", stored)).reshape(len(rows), -1)
            scales = np.sqrt(np.abs(rows[:, 2] * rows[:, 5] - rows[:, 3] * rows[:, 4]))
            camera = db.read_camera(image.camera_id)
            features[name] = Features(
                rows[:, :2],
                scales,
                normalise_rows(codes.astype(np.float32)),
                (camera.width, camera.height),
            )
    return features


@contextmanager
def _open(path: Path) -> Iterator[pycolmap.Database]:
    database = pycolmap.Database.open(str(path))
    try:
        yield database
    finally:
        database.close()


@dataclass(frozen=True)
class VladVocabulary:
    """Visual words for global descriptors.

    Source: Jégou et al., "Aggregating local descriptors into a compact image representation",
    CVPR 2010, with each word's residuals normalised (Arandjelović and Zisserman, CVPR 2013).

    Attributes:
        words: (W, D) float32.
    """

    words: np.ndarray

    @staticmethod
    def fit(
        descriptors: Sequence[np.ndarray], num_words: int = 32, seed: int = 0
    ) -> "VladVocabulary":
        """k-means over the (N, D) float32 descriptors of the given photos."""
        x = np.concatenate(descriptors)
        if len(x) > 40_000:
            rows = np.random.default_rng([seed, 7]).choice(len(x), 40_000, replace=False)
            x = x[np.sort(rows)]
        if len(x) < num_words:
            raise InputError(f"only {len(x)} features in all photos; they show too little")
        kmeans = faiss.Kmeans(x.shape[1], num_words, niter=15, seed=seed + 1, verbose=False)
        kmeans.cp.min_points_per_centroid = 1
        kmeans.train(x)
        return VladVocabulary(kmeans.centroids.copy())

    def describe(self, descriptors: Sequence[np.ndarray]) -> np.ndarray:
        """(photos, W D) float32, L2-normalised; a photo without features has a zero row."""
        out = np.zeros((len(descriptors), *self.words.shape), np.float32)
        half = (self.words**2).sum(1) / 2
        for row, x in enumerate(descriptors):
            if len(x) == 0:
                continue
            word = (x @ self.words.T - half).argmax(1)
            np.add.at(out[row], word, x - self.words[word])
        norms = np.linalg.norm(out, axis=2, keepdims=True)
        return normalise_rows((out / np.maximum(norms, 1e-12)).reshape(len(descriptors), -1))


def most_similar(queries: np.ndarray, database: np.ndarray, count: int) -> np.ndarray:
    """Rows of the ``count`` most similar database descriptors, best first: (Q, count) int64."""
    return np.argsort(-(queries @ database.T), axis=1, kind="stable")[:, :count]


def retrieve(
    queries: dict[str, np.ndarray], database: dict[str, np.ndarray], count: int, seed: int = 0
) -> list[tuple[str, str]]:
    """Database photos for each query, best first, by VLAD with words of the database alone.

    Args:
        queries, database: names to (N, D) float32 descriptors.
        count: database photos a query.
    """
    names, query_names = sorted(database), sorted(queries)
    listed = [database[name] for name in names]
    vocabulary = VladVocabulary.fit(listed, seed=seed)  # never sees a query
    described = vocabulary.describe([queries[name] for name in query_names])
    rows = most_similar(described, vocabulary.describe(listed), count)
    return [(q, names[i]) for q, row in zip(query_names, rows, strict=True) for i in row]


def choose_pairs(descriptors: dict[str, np.ndarray], seed: int = 0) -> list[tuple[str, str]]:
    """Pairs of photos to match: all of a few, else those that look alike and neighbours by name."""
    names = sorted(descriptors)
    if len(names) <= 30:
        return list(itertools.combinations(names, 2))
    listed = [descriptors[name] for name in names]
    described = VladVocabulary.fit(listed, seed=seed).describe(listed)
    pairs = {(i, j) for i in range(len(names)) for j in range(i + 1, min(i + 4, len(names)))}
    for i, similar in enumerate(most_similar(described, described, 16)):
        pairs |= {(min(i, j), max(i, j)) for j in similar.tolist() if j != i}
    return [(names[i], names[j]) for i, j in sorted(pairs)]


def match_features(first: Features, second: Features) -> np.ndarray:
    """Mutual nearest neighbours that pass the ratio test: (n, 2) int64 rows of both."""
    if min(len(first.descriptors), len(second.descriptors)) < 2:
        return np.zeros((0, 2), np.int64)
    similarity = torch.from_numpy(first.descriptors) @ torch.from_numpy(second.descriptors).T
    best, forward = similarity.max(1)
    backward = similarity.argmax(0)
    rows = torch.arange(len(forward))
    similarity[rows, forward] = -1
    distance, next_distance = 2 - 2 * best, 2 - 2 * similarity.max(1).values
    good = (backward[forward] == rows) & (distance < _RATIO**2 * next_distance)
    return torch.stack([rows[good], forward[good]], 1).numpy()


def match_pairs(
    features: dict[str, Features], pairs: list[tuple[str, str]], progress: bool = True
) -> dict[tuple[str, str], np.ndarray]:
    """``match_features`` of every pair."""
    bar = tqdm(pairs, desc="Matching photos", disable=not progress)
    return {(a, b): match_features(features[a], features[b]) for a, b in bar}


def epipolar_inliers(
    first: np.ndarray,
    second: np.ndarray,
    cameras: tuple[pycolmap.Camera, pycolmap.Camera],
    poses: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """Which matches lie within ``_EPIPOLAR`` pixels of each other's epipolar lines.

    Args:
        first, second: (n, 2) COLMAP pixels.
        cameras, poses: of the two photos; poses are (3, 4) [R | t], camera from world.

    Returns:
        (n,) bool.
    """
    rotation = poses[1][:, :3] @ poses[0][:, :3].T
    t = poses[1][:, 3] - rotation @ poses[0][:, 3]
    cross = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]])
    essential = cross @ rotation
    rays = []
    for pixels, camera in zip((first, second), cameras, strict=True):
        xy = np.asarray(camera.cam_from_img(np.ascontiguousarray(pixels, np.float64)))
        rays.append(np.column_stack([xy, np.ones(len(xy))]))
    lines = rays[0] @ essential.T, rays[1] @ essential
    residual = np.abs((rays[1] * lines[0]).sum(1))
    good = np.ones(len(first), bool)
    for line, camera in zip(lines, (cameras[1], cameras[0]), strict=True):
        pixels = residual / np.maximum(np.hypot(line[:, 0], line[:, 1]), 1e-12)
        good &= pixels * camera.mean_focal_length() < _EPIPOLAR
    return good


def triangulate(
    work: Path,
    images: Path,
    groups: Sequence[tuple[list[str], pycolmap.Camera]],
    poses: dict[str, np.ndarray],
    features: dict[str, Features],
    matches: dict[tuple[str, str], np.ndarray],
    output: Path,
    seed: int = 0,
) -> pycolmap.Reconstruction:
    """A COLMAP model of photos whose poses and cameras are known.

    Only the photos in ``groups`` enter; matches with others are left out.

    Args:
        work: folder for temporary files.
        images: folder of the photos.
        groups: names and their camera.
        poses: names to (3, 4) float64 [R | t], camera from world.
        features, matches: of the photos.
        output: folder for the model; ``points2D`` are the features' keypoints in their order.
        seed: of COLMAP.
    """
    database = work / "triangulation.db"
    create_database(database, images, groups)
    camera_of = {name: camera for names, camera in groups for name in names}
    with _open(database) as db:
        ids = {image.name: image.image_id for image in db.read_all_images()}
        for name in sorted(camera_of):
            db.write_keypoints(ids[name], features[name].keypoints)
        for (a, b), rows in matches.items():
            if a not in camera_of or b not in camera_of or len(rows) == 0:
                continue
            good = epipolar_inliers(
                features[a].keypoints[rows[:, 0]],
                features[b].keypoints[rows[:, 1]],
                (camera_of[a], camera_of[b]),
                (poses[a], poses[b]),
            )
            if good.sum() < 15:
                continue
            geometry = pycolmap.TwoViewGeometry()
            geometry.config = pycolmap.TwoViewGeometryConfiguration.CALIBRATED
            geometry.inlier_matches = rows[good].astype(np.uint32)
            db.write_matches(ids[a], ids[b], geometry.inlier_matches)
            db.write_two_view_geometry(ids[a], ids[b], geometry)
        model = _posed_model(db, poses)
    output.mkdir(parents=True, exist_ok=True)
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = get_num_threads()
    if hasattr(options, "random_seed"):
        options.random_seed = seed
    model = pycolmap.triangulate_points(
        model, str(database), str(images), str(output), options=options
    )
    model.write(str(output))
    return model


def _posed_model(
    database: pycolmap.Database, poses: dict[str, np.ndarray]
) -> pycolmap.Reconstruction:
    """The photos of a COLMAP database as a model without points, at the given poses."""
    model = pycolmap.Reconstruction()
    for camera in database.read_all_cameras():
        model.add_camera(camera)
    for rig in database.read_all_rigs():
        model.add_rig(rig)
    images = {image.image_id: image for image in database.read_all_images()}
    for frame in database.read_all_frames():
        # A frame of one photo; pycolmap 3.13 does not tell the photo its frame.
        (data,) = frame.data_ids
        image = images[data.id]
        image.frame_id = frame.frame_id
        frame.rig_from_world = pycolmap.Rigid3d(poses[image.name])
        model.add_frame(frame)
        model.add_image(image)
        model.register_frame(frame.frame_id)
    return model


def structure_from_motion(
    database: Path,
    images: Path,
    matches: dict[tuple[str, str], np.ndarray],
    work: Path,
    seed: int = 0,
    progress: bool = True,
) -> pycolmap.Reconstruction:
    """Incremental structure from motion over all photos of a COLMAP database with features.

    Raises:
        InputError: the photos do not make a model.
    """
    with _open(database) as db:
        ids = {image.name: image.image_id for image in db.read_all_images()}
        for (a, b), rows in matches.items():
            db.write_matches(ids[a], ids[b], rows.astype(np.uint32))
    pairs = work / "pairs.txt"
    pairs.write_text("".join(f"{a} {b}\n" for a, b in matches), encoding="utf-8")
    verification = pycolmap.TwoViewGeometryOptions()
    if hasattr(verification.ransac, "random_seed"):
        verification.ransac.random_seed = seed
    if progress:
        tqdm.write("Verifying matches", file=sys.stderr)
    pycolmap.verify_matches(str(database), str(pairs), verification)
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = get_num_threads()
    if hasattr(options, "random_seed"):
        options.random_seed = seed
    with tqdm(total=len(ids), desc="Structure from motion", disable=not progress) as bar:
        models = pycolmap.incremental_mapping(
            str(database),
            str(images),
            str(work / "models"),
            options,
            next_image_callback=lambda: bar.update(),
        )
    if not models:
        raise InputError("structure from motion failed: the photos overlap too little")
    return max(models.values(), key=lambda model: (model.num_reg_images(), model.num_points3D()))
