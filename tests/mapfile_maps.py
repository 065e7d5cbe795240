"""Random compressed maps of any size for the tests of the map file."""

import numpy as np
import pycolmap

from hloc_dpqed.codecs.none import NoneCodec
from hloc_dpqed.codecs.pq import PQCodec
from hloc_dpqed.mapfile.frame import rotation_matrices
from hloc_dpqed.maps.compressed import CompressedMap, GlobalDescriptors
from hloc_dpqed.scene.visibility import Visibility

CAMERA_MODELS = [m for name, m in pycolmap.CameraModelId.__members__.items() if name != "INVALID"]


def make_camera(model: pycolmap.CameraModelId, seed: int = 0) -> pycolmap.Camera:
    """A camera of 640 x 480 pixels with small, random distortion."""
    create = getattr(pycolmap.Camera, "create_from_model_id", None) or pycolmap.Camera.create
    camera = create(1, model, 500.0, 640, 480)
    params = np.array(camera.params)
    rng = np.random.default_rng(seed)
    fixed = {*camera.focal_length_idxs(), *camera.principal_point_idxs()}
    extra = [i for i in range(len(params)) if i not in fixed]
    params[extra] = params[extra] + rng.uniform(-1e-3, 1e-3, len(extra))
    camera.params = params
    return camera


def make_map(
    num_points: int = 60,
    num_images: int = 5,
    *,
    seed: int = 0,
    granularity: str = "point",
    codec: str = "pq",
    code_bytes: int = 4,
    with_global: bool = False,
    with_scores: bool = True,
    names: list[str] | None = None,
    models: list[pycolmap.CameraModelId] | None = None,
    density: float = 0.4,
    spread: float = 1.0,
    outliers: int = 0,
) -> CompressedMap:
    """Points in a box in front of cameras on a line; images see nearby points at random."""
    rng = np.random.default_rng(seed)
    xyz = rng.uniform(-1, 1, (num_points, 3)) * [4, 2, 1] * spread + [0, 0, 8 * spread]
    xyz[: min(outliers, num_points)] *= 1e6
    q = np.concatenate([np.ones((num_images, 1)), rng.normal(0, 0.1, (num_images, 3))], 1)
    if num_images > 1:
        q[1] = [-0.1, 0.9, 0.3, 0.2]  # another component is the largest, of either sign
    rotations = rotation_matrices(q / np.linalg.norm(q, axis=1, keepdims=True))
    centres = np.stack([np.linspace(-4, 4, num_images), *np.zeros((2, num_images))], 1) * spread
    poses = np.concatenate([rotations, -np.einsum("nij,nj->ni", rotations, centres)[:, :, None]], 2)
    near = np.abs(xyz[:, 0] - centres[:, :1]) < 4 * spread
    sees = near & (rng.random((num_images, num_points)) < density)
    visibility = Visibility.from_lists([np.flatnonzero(row) for row in sees], num_points)
    rows = num_points if granularity == "point" else visibility.num_observations
    if codec == "pq":
        centroids = rng.normal(size=(code_bytes, 256, 2)).astype(np.float16)
        fitted = PQCodec.from_tensors({"centroids": centroids}, {"bits": 8})
    else:
        fitted = NoneCodec(code_bytes // 2)
    models = models or [pycolmap.CameraModelId.SIMPLE_RADIAL]
    global_descriptors = None
    if with_global:
        global_codec = NoneCodec(6)
        global_descriptors = GlobalDescriptors(
            global_codec, global_codec.encode(rng.normal(size=(num_images, 6)))
        )
    return CompressedMap(
        image_names=names or [f"db/img_{i:04d}.jpg" for i in range(num_images)],
        cameras=[make_camera(model, seed) for model in models],
        camera_index=(np.arange(num_images) % len(models)).astype(np.int32),
        cam_from_world=poses,
        xyz=xyz,
        visibility=visibility,
        granularity=granularity,
        codec=fitted,
        codes=rng.integers(0, 256, (rows, fitted.code_size), np.uint8),
        scores=(rng.uniform(0.01, 1, rows) if with_scores else np.ones(rows)).astype(np.float32),
        global_descriptors=global_descriptors,
        metadata={"made_by": "tests"},
    )


def assert_same(read: CompressedMap, made: CompressedMap) -> None:
    """``read`` is ``made``: exactly where the format is exact, else within its bounds."""
    assert read.image_names == made.image_names
    assert read.granularity == made.granularity
    assert read.metadata == made.metadata
    assert [c.model for c in read.cameras] == [c.model for c in made.cameras]
    for one, other in zip(read.cameras, made.cameras, strict=True):
        assert (one.width, one.height) == (other.width, other.height)
        assert np.array_equal(one.params, other.params)
    assert read.camera_index.dtype == np.int32
    assert np.array_equal(read.camera_index, made.camera_index)
    assert np.array_equal(read.visibility.indptr, made.visibility.indptr)
    assert np.array_equal(read.visibility.indices, made.visibility.indices)
    assert read.visibility.indices.dtype == np.int32
    assert read.codes.dtype == np.uint8 and np.array_equal(read.codes, made.codes)
    assert type(read.codec) is type(made.codec) and read.codec.config() == made.codec.config()
    for name, tensor in made.codec.tensors().items():
        assert np.array_equal(read.codec.tensors()[name], tensor)
    assert (read.global_descriptors is None) == (made.global_descriptors is None)
    if made.global_descriptors is not None and read.global_descriptors is not None:
        assert np.array_equal(read.global_descriptors.codes, made.global_descriptors.codes)
    assert read.xyz.shape == made.xyz.shape and read.scores.shape == made.scores.shape
    assert read.cam_from_world.shape == made.cam_from_world.shape
