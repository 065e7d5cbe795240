"""Feature files as extractors write them: from compress to poses, with every codec."""

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from synthetic import Scene, make_scene

from hloc_dpqed import compress, fit_codec, localize, sweep
from hloc_dpqed.codecs import CODECS
from hloc_dpqed.errors import InputError
from hloc_dpqed.evaluation.pose_errors import pose_error
from hloc_dpqed.io.lists import read_poses
from hloc_dpqed.mapfile import read_map
from hloc_dpqed.maps.same_features import extractor_name

Change = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


def scene_of(folder: Path, dim: int, change: Change) -> Scene:
    """A scene whose feature file holds what ``change`` makes of each image's datasets."""
    scene = make_scene(folder, num_points=80, dim=dim)
    with h5py.File(scene.features, "a") as file:
        for name in (*scene.db_names, *scene.query_names):
            group = file[name]
            datasets = change({key: dataset[:] for key, dataset in group.items()})
            for key in list(group):
                del group[key]
            for key, value in datasets.items():
                group[key] = value
    return scene


def positive(descriptors: np.ndarray) -> np.ndarray:
    """Histograms, as SIFT's are: no entry is negative."""
    x = np.maximum(descriptors.astype(np.float64), 0)
    return x / np.linalg.norm(x, axis=0)


def with_frames(datasets, columns):
    """Keypoints with scale and orientation, or with an affine shape, behind the position."""
    frames = np.random.default_rng(0).uniform(1, 9, (len(datasets["keypoints"]), columns - 2))
    return np.concatenate([datasets["keypoints"], frames.astype(np.float32)], 1)


def sift(datasets):
    """OpenCV's and COLMAP's: whole numbers up to 255, of length about 512."""
    values = np.clip(np.round(512 * positive(datasets["descriptors"])), 0, 255)
    scales = np.ones(len(datasets["keypoints"]), np.float32)
    return datasets | {
        "keypoints": with_frames(datasets, 4),
        "descriptors": values.astype(np.uint8),
        "scales": scales,
        "oris": scales,
    }


def sift_float(datasets):
    made = sift(datasets)
    return made | {"descriptors": made["descriptors"].astype(np.float32)}


def root_sift(datasets):
    x = positive(datasets["descriptors"])
    root = np.sqrt(x / x.sum(0))
    made = {**datasets, "keypoints": with_frames(datasets, 6), "descriptors": root}
    return {key: made[key] for key in ("keypoints", "descriptors")}  # no scores, no size


def root_sift_bytes(datasets):
    """COLMAP's L1_ROOT: 512 times the root, as bytes."""
    made = root_sift(datasets)
    values = np.clip(np.round(512 * made["descriptors"]), 0, 255)
    return made | {"descriptors": values.astype(np.uint8)}


def plain(datasets):
    return datasets


def d2net(datasets):
    """Positions with scales, descriptors of no negative entry."""
    x = positive(datasets["descriptors"]).astype(np.float32)
    return datasets | {"keypoints": with_frames(datasets, 3), "descriptors": x}


def long_float(datasets):
    """DeDoDe's: not normalised, each of another length."""
    lengths = np.random.default_rng(1).uniform(3, 40, len(datasets["keypoints"]))
    return datasets | {"descriptors": (datasets["descriptors"] * lengths).astype(np.float32)}


EXTRACTORS: dict[str, tuple[int, Change]] = {
    "SIFT, uint8": (128, sift),
    "SIFT, float32": (128, sift_float),
    "RootSIFT": (128, root_sift),
    "RootSIFT, uint8": (128, root_sift_bytes),
    "R2D2": (128, plain),
    "D2-Net": (512, d2net),
    "DeDoDe": (256, long_float),
    "DeDoDe G": (512, long_float),
    "ALIKED": (128, plain),
    "XFeat": (64, plain),
}


def whole_way(scene: Scene, folder: Path, **options) -> None:
    """Compress and localize: every query is found where it is."""
    path, results = folder / "map.dpqed", folder / "results.txt"
    compress.main(scene.sfm, scene.features, path, progress=False, overwrite=True, **options)
    localize.main(
        path, scene.queries, scene.features, results, scene.pairs,
        ransac_thresh=4, progress=False, full_names=True, overwrite=True,
    )  # fmt: skip
    truth, found = read_poses(scene.poses), read_poses(results)
    assert set(found) == set(truth)
    for name, pose in found.items():
        translation, rotation = pose_error(pose, truth[name])
        assert translation < 0.02 and rotation < 0.2, (name, translation, rotation)


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_files_of_other_extractors(tmp_path, extractor):
    dim, change = EXTRACTORS[extractor]
    scene = scene_of(tmp_path, dim, change)
    whole_way(scene, tmp_path, codec="none")
    compressed = read_map(tmp_path / "map.dpqed")
    rows = compressed.codec.decode(compressed.codes)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-3)
    whole_way(scene, tmp_path, codec="pq", code_bytes=8)


# Bytes of a code that each codec takes at 64 to 512 dimensions.
CODE_BYTES = {"none": None, "sq8": None, "sign": None, "rabitq": None, "pca": 16}


TAKE_LONG = {"dpqed", "drqed", "opq", "rq", "lsq", "prq"}


@pytest.mark.parametrize(
    "codec",
    [pytest.param(c, marks=[pytest.mark.slow] if c in TAKE_LONG else []) for c in CODECS],
)
def test_every_codec_at_other_dimensions(tmp_path, codec):
    for dim, change in ((64, plain), (128, sift), (512, d2net)):
        size = CODE_BYTES.get(codec, 4)
        if codec == "sign":
            size = dim // 8
        scene = scene_of(tmp_path / str(dim), dim, change)
        options = {} if size is None else {"code_bytes": size}
        whole_way(scene, tmp_path, codec=codec, **options)
        compressed = read_map(tmp_path / "map.dpqed")
        assert compressed.codec.dim == dim and compressed.codec.name == codec
        if codec not in ("none", "sq8", "rabitq"):
            assert compressed.codes.shape[1] == size


def binary(count):
    def change(datasets):
        rows = len(datasets["keypoints"])
        bits = np.random.default_rng(0).integers(0, 256, (count, rows))
        return datasets | {"descriptors": bits.astype(np.uint8)}

    return change


@pytest.mark.parametrize(
    ("count", "told"), [(16, "BRIEF"), (32, "ORB"), (61, "AKAZE"), (64, "BRISK")]
)
def test_binary_descriptors_are_refused(tmp_path, count, told):
    scene = scene_of(tmp_path / "scene", 16, binary(count))
    good = make_scene(tmp_path / "good", num_points=80, dim=16)
    path, out = tmp_path / "map.dpqed", tmp_path / "out"
    compress.main(good.sfm, good.features, path, codec="none", progress=False)
    runs = [
        lambda: compress.main(scene.sfm, scene.features, out, progress=False),
        lambda: compress.main(scene.sfm, scene.features, out, budget="20KB", progress=False),
        lambda: fit_codec.main([scene.sfm], [scene.features], out, progress=False),
        lambda: localize.main(path, scene.queries, scene.features, out, "none", progress=False),
        lambda: sweep.main(
            scene.sfm, scene.features, scene.queries, scene.pairs, scene.poses, out, plots=False,
            progress=False,
        ),
    ]  # fmt: skip
    for run in runs:
        with pytest.raises(
            InputError, match=f"{count} bytes .* {told}.* Hamming distance"
        ) as error:
            run()
        message = str(error.value)
        assert message.startswith(f"{scene.features}: image '") and "\n" not in message
        assert not out.exists()
        shutil.rmtree(f"{out}.part", ignore_errors=True)
        Path(f"{out}.part").unlink(missing_ok=True)


def test_descriptors_of_another_extractor_are_still_told_apart(tmp_path):
    """A SIFT query against a map of another dimension."""
    good = make_scene(tmp_path / "good", num_points=80, dim=64)
    other = scene_of(tmp_path / "other", 128, sift)
    path = tmp_path / "map.dpqed"
    compress.main(good.sfm, good.features, path, codec="none", progress=False)
    with pytest.raises(InputError, match=r"128 dimensions, .* descriptors of 64"):
        localize.main(
            path, other.queries, other.features, tmp_path / "r.txt", "none", progress=False
        )


def test_the_extractor_is_told_by_attribute_or_by_name():
    assert extractor_name({"name": "feats-superpoint-n4096-r1024"}) == "superpoint"
    assert extractor_name({"name": "feats-xfeat"}) == "xfeat"
    assert extractor_name({"name": "features", "extractor": "COLMAP's SIFT"}) == "sift"
    assert extractor_name({"name": "feats-superpoint", "extractor": "hloc's ALIKED"}) == "aliked"
    for unknown in ({}, {"name": "superpoint"}, {"name": "feats-mine"}, {"extractor": "mine"}):
        assert extractor_name(unknown) is None
