"""Parts of a synthetic model, which share images and points, and maps of them."""

from pathlib import Path

import numpy as np
import pycolmap
from synthetic import Scene

from hloc_dpqed.codecs.base import Codec
from hloc_dpqed.codecs.file import codec_hash
from hloc_dpqed.io.model import read_observations, read_reference
from hloc_dpqed.maps.compressed import CompressedMap
from hloc_dpqed.scene.reference import ReferenceMap, mean_scores


def part_of(scene: Scene, names: set[str], folder: Path) -> Path:
    """Write the scene's model with these images alone, and the points that two of them see."""
    model = pycolmap.Reconstruction(str(scene.sfm))
    for image in list(model.images.values()):
        if image.has_pose and image.name not in names:
            model.deregister_frame(image.frame_id)
    for row, point in list(model.points3D.items()):
        if len(point.track.elements) < 2:
            model.delete_point3D(row)
    folder.mkdir(parents=True, exist_ok=True)
    model.write(str(folder))
    return folder


def halves(scene: Scene) -> list[ReferenceMap]:
    """The first and the last five of seven images."""
    names = sorted(scene.db_names)
    parts = {"first": set(names[:5]), "last": set(names[-5:])}
    return [
        read_reference(part_of(scene, part, scene.folder / name)) for name, part in parts.items()
    ]


def map_of(reference: ReferenceMap, features: Path, codec: Codec) -> CompressedMap:
    """All points of a model, as a codec file's codec has them."""
    observations = read_observations(reference, features)
    return CompressedMap(
        image_names=reference.image_names,
        cameras=reference.cameras,
        camera_index=reference.camera_index,
        cam_from_world=reference.cam_from_world,
        xyz=reference.xyz,
        visibility=reference.visibility,
        granularity="point",
        codec=codec,
        codes=codec.encode_points(observations),
        scores=mean_scores(observations),
        codec_hash=codec_hash(codec.whole()),
        metadata={"features": {"dim": codec.dim}},
    )


def points_of(reference: ReferenceMap, images: np.ndarray) -> set[int]:
    """Ids of the points that some of the images see."""
    rows = np.concatenate([reference.visibility[i] for i in images])
    return set(reference.point_ids[rows].tolist())
