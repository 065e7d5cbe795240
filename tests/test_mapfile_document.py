"""The document describes the files: an independent reader, and files of released versions."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from grown_maps import map_of
from independent_reader import read
from mapfile_maps import make_map

from hloc_dpqed.codecs import fit_codec
from hloc_dpqed.io.model import read_observations, read_reference
from hloc_dpqed.mapfile import canonical_map, map_info, read_map, write_map
from hloc_dpqed.maps.compressed import CompressedMap

DATA = Path(__file__).parent / "data"


def assert_independent_reader_agrees(path: Path) -> None:
    codes, xyz, tracks = read(path)
    ours = read_map(path)
    assert np.array_equal(codes, ours.codes)
    assert np.array_equal(xyz, ours.xyz)  # to the last bit
    visibility, _ = ours.visibility.transpose()
    assert len(tracks) == visibility.num_images
    for point, track in enumerate(tracks):
        assert track == visibility[point].tolist()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_points": 0},
        {"num_points": 1},
        {"num_images": 1},
        {"num_points": 300, "num_images": 30, "density": 0.8},
        {"num_points": 250, "outliers": 3, "granularity": "observation"},
        {"num_points": 200, "codec": "none", "code_bytes": 140},
        {"num_points": 16500, "num_images": 2, "density": 0.1},  # a level of two blocks
    ],
)
@pytest.mark.parametrize("canonical", [False, True])
def test_independent_reader(tmp_path, options, canonical):
    made = make_map(**options)
    write_map(tmp_path / "map.dpqed", canonical_map(made) if canonical else made)
    assert_independent_reader_agrees(tmp_path / "map.dpqed")


def compress_scene(scene: Path, code_bytes: int = 4) -> CompressedMap:
    """All points of a real scene with the plainest codec, in the file's order."""
    reference = read_reference(scene / "sfm")
    features = scene / "feats-superpoint.h5"
    observations = read_observations(reference, features)
    codec = fit_codec("pq", observations, code_bytes)
    return canonical_map(replace(map_of(reference, features, codec), codec_hash=None, metadata={}))


def test_independent_reader_on_a_real_scene(fountain, tmp_path):
    write_map(tmp_path / "map.dpqed", compress_scene(fountain))
    assert_independent_reader_agrees(tmp_path / "map.dpqed")


def test_every_byte_earns_its_place(south_building, tmp_path):
    made = compress_scene(south_building)
    write_map(tmp_path / "map.dpqed", made)
    info = map_info(tmp_path / "map.dpqed")
    without_codec = info["total_bytes"] - info["codec_bytes"]
    assert without_codec <= 12 * info["num_points"]
    assert info["sections"]["header"] <= 2000
    read_back = read_map(tmp_path / "map.dpqed")
    # Nothing that localization uses moves by more than a fraction of a pixel.
    moved = []
    for image in range(made.num_images):
        before, inside = made.project(image)
        after, _ = read_back.project(image)
        moved.append(np.linalg.norm(after - before, axis=1)[inside])
    moved = np.concatenate(moved)
    assert np.median(moved) < 0.25 and np.percentile(moved, 99) < 0.75


@pytest.mark.parametrize("version", [1, 2])
def test_golden_file(version):
    golden = read_map(DATA / f"golden_v{version}.dpqed")
    expected = json.loads((DATA / f"golden_v{version}.json").read_text())
    assert golden.image_names == expected["image_names"]
    assert [c.model.name for c in golden.cameras] == expected["camera_models"]
    assert [c.params.tolist() for c in golden.cameras] == expected["camera_params"]
    assert golden.camera_index.tolist() == expected["camera_index"]
    assert golden.visibility.indptr.tolist() == expected["indptr"]
    assert golden.visibility.indices.tolist() == expected["indices"]
    assert golden.codes.tolist() == expected["codes"]
    assert golden.xyz.tolist() == expected["xyz"]
    assert np.allclose(golden.cam_from_world, expected["poses"], rtol=0, atol=1e-12)
    assert np.allclose(golden.scores, expected["scores"], rtol=1e-6)
    assert golden.codec.tensors()["centroids"].astype(float).tolist() == expected["centroids"]
    assert golden.global_descriptors is not None
    assert golden.global_descriptors.codes.tolist() == expected["global_codes"]
    assert golden.metadata == expected["made"]
    assert_independent_reader_agrees(DATA / f"golden_v{version}.dpqed")
    assert map_info(DATA / f"golden_v{version}.dpqed")["format_version"] == version
