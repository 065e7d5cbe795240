"""Features and matches of photos to a COLMAP model: triangulation, structure from motion.

Each of the two gets a COLMAP database of its own, so that what is known of the queries cannot reach
the map.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pycolmap
from tqdm import tqdm

from ..errors import InputError
from ..io.features import ImageFeatures
from ..threads import get_num_threads, workers
from .colmap import create_database, open_database
from .matching import epipolar_inliers

LEAST_MATCHES = 15  # of a pair of photos


def triangulate(
    work: Path,
    images: Path,
    groups: Sequence[tuple[list[str], pycolmap.Camera]],
    poses: dict[str, np.ndarray],
    features: dict[str, ImageFeatures],
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
    places = {name: colmap_keypoints(features[name]) for name in camera_of}
    with open_database(database) as db:
        ids = {image.name: image.image_id for image in db.read_all_images()}
        for name in sorted(camera_of):
            db.write_keypoints(ids[name], places[name])
        for (a, b), rows in matches.items():
            if a not in camera_of or b not in camera_of or len(rows) == 0:
                continue
            good = epipolar_inliers(
                places[a][rows[:, 0]],
                places[b][rows[:, 1]],
                (camera_of[a], camera_of[b]),
                (poses[a], poses[b]),
            )
            if good.sum() < LEAST_MATCHES:
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


def colmap_keypoints(features: ImageFeatures) -> np.ndarray:
    """(N, 2) float32 keypoints in COLMAP's convention."""
    return features.keypoints + np.float32(0.5)


def structure_from_motion(
    work: Path,
    images: Path,
    groups: Sequence[tuple[list[str], pycolmap.Camera | None]],
    features: dict[str, ImageFeatures],
    matches: dict[tuple[str, str], np.ndarray],
    seed: int = 0,
    progress: bool = True,
) -> pycolmap.Reconstruction:
    """Incremental structure from motion over all photos.

    Args:
        work: folder for temporary files.
        images: folder of the photos.
        groups: names, and their camera to begin with; see ``create_database``.
        features, matches: of the photos.
        seed: of COLMAP.
        progress: show progress bars.

    Returns:
        The largest model; ``points2D`` are the features' keypoints in their order.

    Raises:
        InputError: the photos do not make a model.
    """
    database = work / "sfm.db"
    create_database(database, images, groups)
    with open_database(database) as db:
        stored = {image.name: image for image in db.read_all_images()}
        cameras = {name: db.read_camera(image.camera_id) for name, image in stored.items()}
        places = {name: colmap_keypoints(features[name]) for name in sorted(stored)}
        for name, keypoints in places.items():
            db.write_keypoints(stored[name].image_id, keypoints)

        def verify(pair: tuple[str, str]) -> pycolmap.TwoViewGeometry:
            options = pycolmap.TwoViewGeometryOptions()
            if hasattr(options.ransac, "random_seed"):
                options.ransac.random_seed = seed
            a, b = pair
            return pycolmap.estimate_two_view_geometry(
                cameras[a],
                places[a].astype(np.float64),
                cameras[b],
                places[b].astype(np.float64),
                matches[pair].astype(np.uint32),
                options,
            )

        pairs = [pair for pair, rows in matches.items() if len(rows) >= LEAST_MATCHES]
        with workers(get_num_threads()) as pool:
            verified = pool.map(verify, pairs)
            bar = tqdm(verified, "Verifying matches", len(pairs), disable=not progress)
            for (a, b), geometry in zip(pairs, bar, strict=True):
                ids = stored[a].image_id, stored[b].image_id
                db.write_matches(*ids, matches[a, b].astype(np.uint32))
                db.write_two_view_geometry(*ids, geometry)
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = get_num_threads()
    if hasattr(options, "random_seed"):
        options.random_seed = seed
    with tqdm(total=len(stored), desc="Structure from motion", disable=not progress) as bar:
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


def unit_scale(model: pycolmap.Reconstruction) -> float:
    """What makes the median distance of photos that follow one another by name 1."""
    placed = sorted((im for im in model.images.values() if im.has_pose), key=lambda im: im.name)
    centres = np.array([im.projection_center() for im in placed])
    distances = np.linalg.norm(np.diff(centres, axis=0), axis=1)
    return 1 / max(float(np.median(distances)), 1e-12)
