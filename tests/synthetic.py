"""A small synthetic scene on disk, in hloc's formats, and compressed maps of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pycolmap

from hloc_dpqed.codecs import fit_codec
from hloc_dpqed.io.features import read_global_descriptors
from hloc_dpqed.io.model import read_observations, read_reference
from hloc_dpqed.mapfile import write_map
from hloc_dpqed.maps.compressed import CompressedMap, GlobalDescriptors
from hloc_dpqed.scene.reference import Observations, mean_scores, normalise_rows

DB_NAMES = tuple(f"db/day/{i}.jpg" for i in range(4)) + tuple(f"db/night/{i}.jpg" for i in range(3))
QUERY_NAMES = ("query/day/q0.jpg", "query/night/q1.jpg", "query/q2.jpg")


@dataclass(frozen=True)
class Scene:
    """Paths of a scene's files."""

    folder: Path
    db_names: tuple[str, ...]
    query_names: tuple[str, ...]

    @property
    def sfm(self) -> Path:
        return self.folder / "sfm"

    @property
    def features(self) -> Path:
        return self.folder / "feats-synthetic.h5"

    @property
    def global_features(self) -> Path:
        return self.folder / "global-feats-synthetic.h5"

    @property
    def queries(self) -> Path:
        return self.folder / "queries.txt"

    @property
    def pairs(self) -> Path:
        return self.folder / "pairs-query.txt"

    @property
    def poses(self) -> Path:
        return self.folder / "poses_gt.txt"


def make_scene(
    folder: Path,
    *,
    db_names: Sequence[str] = DB_NAMES,
    query_names: Sequence[str] = QUERY_NAMES,
    num_points: int = 300,
    dim: int = 256,
    noise: float = 0.02,
    keypoint_noise: float = 0.0,
    extras: dict[str, np.ndarray] | None = None,
    seed: int = 0,
) -> Scene:
    """Write a scene by ``pycolmap.synthesize_dataset``: exact keypoints, noisy descriptors.

    Args:
        noise: standard deviation of each descriptor component around its point's descriptor.
        keypoint_noise: standard deviation of each keypoint coordinate in the feature file, in
            pixels.
        extras: more datasets for each image, repeated for each keypoint (``scales``, ``oris``).
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [*db_names, *query_names]
    pycolmap.set_random_seed(seed)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_frames_per_rig = 1, len(names)
    options.num_points3D, options.num_points2D_without_point3D = num_points, 20
    model = pycolmap.synthesize_dataset(options)
    rng = np.random.default_rng(seed)
    of_point = {i: _unit(rng, dim) for i in sorted(model.points3D)}
    images = [model.images[i] for i in sorted(model.images)]
    scene = Scene(folder, tuple(db_names), tuple(query_names))
    queries, poses = [], []
    with (
        h5py.File(scene.features, "w", libver="latest") as local,
        h5py.File(scene.global_features, "w", libver="latest") as global_,
    ):
        for image, name in zip(images, names, strict=True):
            image.name = name
            camera = model.cameras[image.camera_id]
            xy = np.array([p.xy for p in image.points2D])
            clean = [
                of_point[p.point3D_id] if p.has_point3D() else _unit(rng, dim)
                for p in image.points2D
            ]
            descriptors = np.array(clean) + noise * rng.standard_normal((len(xy), dim))
            group = local.create_group(name)
            off = keypoint_noise * rng.standard_normal(xy.shape) if keypoint_noise else 0.0
            group["keypoints"] = (xy - 0.5 + off).astype(np.float32)
            group["descriptors"] = normalise_rows(descriptors).T.astype(np.float16)
            group["scores"] = rng.uniform(0.1, 0.9, len(xy)).astype(np.float16)
            group["image_size"] = np.array([camera.width, camera.height])
            group["keypoints"].attrs["uncertainty"] = 2.0
            for key, value in (extras or {}).items():
                group[key] = np.broadcast_to(value, (len(xy), *np.shape(value)))
            # Cameras that look the same way get similar global descriptors.
            direction = np.concatenate([image.viewing_direction(), np.ones(1)])
            padded = np.concatenate([direction, np.zeros(12)])
            global_.create_group(name)["global_descriptor"] = padded.astype(np.float32)
            if name in query_names:
                params = " ".join(str(float(p)) for p in camera.params)
                model_name = camera.model.name
                queries.append(f"{name} {model_name} {camera.width} {camera.height} {params}\n")
                pose = image.cam_from_world()
                values = [*pose.rotation.quat[[3, 0, 1, 2]], *pose.translation]
                poses.append(" ".join([name, *map(str, map(float, values))]) + "\n")
    for image in images[len(db_names) :]:
        model.deregister_frame(image.frame_id)
    scene.sfm.mkdir(exist_ok=True)
    model.write(scene.sfm)
    scene.queries.write_text("".join(queries))
    scene.poses.write_text("".join(poses))
    scene.pairs.write_text("\n".join(f"{q} {r}" for q in query_names for r in db_names[:5]))
    return scene


def _unit(rng: np.random.Generator, dim: int) -> np.ndarray:
    x = rng.standard_normal(dim)
    return x / np.linalg.norm(x)


def compressed_scene(
    scene: Scene,
    codec: str = "pq",
    code_bytes: int = 8,
    granularity: str = "point",
    with_global: bool = True,
    rows: np.ndarray | None = None,
) -> CompressedMap:
    """The scene's map with all points (or the given rows), compressed in memory."""
    reference = read_reference(scene.sfm)
    observations = read_observations(reference, scene.features)
    rows = np.arange(reference.num_points) if rows is None else rows
    visibility, kept = reference.visibility.keep_points(rows)
    observations = observations.subset(kept, visibility.indices, len(rows))
    fitted = fit_codec(codec, observations, code_bytes)
    by_point = granularity == "point"
    codes = (
        fitted.encode_points(observations) if by_point else fitted.encode(observations.descriptors)
    )
    global_descriptors = None
    if with_global:
        x = read_global_descriptors(scene.global_features, reference.image_names)
        index = np.arange(len(x), dtype=np.int32)
        as_observations = Observations(
            x.astype(np.float16), np.ones(len(x), np.float32), x[:, :2], index, index, len(x)
        )
        global_codec = fit_codec("none", as_observations, 0)
        global_descriptors = GlobalDescriptors(global_codec, global_codec.encode(x))
    return CompressedMap(
        image_names=reference.image_names,
        cameras=reference.cameras,
        camera_index=reference.camera_index,
        cam_from_world=reference.cam_from_world,
        xyz=reference.xyz[rows],
        visibility=visibility,
        granularity=granularity,
        codec=fitted,
        codes=codes,
        scores=mean_scores(observations) if by_point else observations.scores,
        global_descriptors=global_descriptors,
        metadata={"made_by": "tests"},
    )


def write_compressed_scene(scene: Scene, path: Path, **options) -> Path:
    """Write ``compressed_scene`` to ``path``."""
    write_map(path, compressed_scene(scene, **options))
    return path


def model_of(cameras, images, points) -> pycolmap.Reconstruction:
    """A model by hand.

    Args:
        cameras: pycolmap cameras with ids.
        images: (id, name, camera id, keypoints, pose) of each registered image.
        points: (xyz, [(image id, keypoint), ...]) of each point.
    """
    model = pycolmap.Reconstruction()
    for camera in cameras:
        model.add_camera(camera)
        rig = pycolmap.Rig(rig_id=camera.camera_id)
        rig.add_ref_sensor(camera.sensor_id)
        model.add_rig(rig)
    for image_id, name, camera_id, keypoints, pose in images:
        image = pycolmap.Image(
            name=name,
            keypoints=np.reshape(keypoints, (-1, 2)),
            camera_id=camera_id,
            image_id=image_id,
        )
        frame = pycolmap.Frame()
        frame.frame_id = image.frame_id = image_id
        frame.rig_id = camera_id
        frame.add_data_id(image.data_id)
        frame.rig_from_world = pose
        model.add_frame(frame)
        model.add_image(image)
        model.register_frame(frame.frame_id)
    for xyz, elements in points:
        track = pycolmap.Track()
        for image_id, keypoint in elements:
            track.add_element(image_id, keypoint)
        model.add_point3D(np.asarray(xyz, float), track)
    return model
