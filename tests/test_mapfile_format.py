"""Round trips through the map file, and its bounds."""

import itertools
import json

import numpy as np
import pycolmap
import pytest
from hypothesis import given, settings, strategies as st
from mapfile_maps import CAMERA_MODELS, assert_same, make_map

from hloc_dpqed.errors import InputError
from hloc_dpqed.mapfile import (
    canonical_map,
    map_info,
    read_map,
    section_bytes,
    to_bytes,
    write_map,
)


@pytest.fixture
def round_trip(tmp_path):
    def run(compressed, **options):
        write_map(tmp_path / "map.dpqed", compressed, **options)
        return read_map(tmp_path / "map.dpqed")

    return run


def grid_error(path) -> float:
    return map_info(path)["xyz_error"]


names = st.text(
    st.characters(blacklist_categories=("Cs",), min_codepoint=1), min_size=1, max_size=30
)


@settings(max_examples=60, deadline=None)
@given(
    num_points=st.integers(0, 200),
    image_names=st.lists(names, min_size=1, max_size=12, unique=True),
    granularity=st.sampled_from(["point", "observation"]),
    codec=st.sampled_from(["pq", "none"]),
    with_global=st.booleans(),
    with_scores=st.booleans(),
    density=st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    spread=st.sampled_from([1e-3, 1.0, 1e4]),
    outliers=st.integers(0, 2),
    canonical=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_round_trip(tmp_path_factory, image_names, canonical, **options):
    made = make_map(num_images=len(image_names), names=sorted(image_names), **options)
    made = canonical_map(made) if canonical else made
    path = tmp_path_factory.mktemp("map") / "map.dpqed"
    write_map(path, made)
    read = read_map(path)
    assert_same(read, made)
    info = map_info(path)
    sections = info["sections"]
    assert sum(sections.values()) == path.stat().st_size
    assert ("order" in sections) <= (not canonical)
    # Coordinates: the stated bound, with slack for the rounding of float64.
    metadata = read_metadata(path)
    grid, frame = metadata["points"], metadata["frame"]
    core = 2 ** grid["core"] * 2 * grid["xyz_error"]
    w, x, y, z = frame["rotation"]
    axes = pycolmap.Rotation3d(np.array([x, y, z, w])).matrix()
    distance = np.abs((made.xyz - frame["origin"]) @ axes.T)
    bound = grid["xyz_error"] * np.maximum(1, 2 * distance / core)
    moved = np.abs((read.xyz - made.xyz) @ axes.T)
    assert (moved <= bound * (1 + 1e-6) + 1e-12 * distance.max(initial=0)).all()
    low = float(made.scores.min(initial=1))
    assert np.allclose(np.log(read.scores), np.log(made.scores), atol=-np.log(low) / 30 + 1e-5)


def read_metadata(path) -> dict:
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return json.loads(header["__metadata__"]["hloc_dpqed"])


@pytest.mark.parametrize("model", CAMERA_MODELS, ids=lambda m: m.name)
def test_every_camera_model(round_trip, model):
    other = pycolmap.CameraModelId.PINHOLE
    made = make_map(models=[model, other])
    read = round_trip(made)
    assert_same(read, made)
    # The projections of the points that an image sees move by less than the stated bound.
    for image in range(made.num_images):
        points = read.xyz[made.visibility[image]]
        camera = made.cameras[made.camera_index[image]]
        pixels = []
        for pose in (made.cam_from_world[image], read.cam_from_world[image]):
            local = points @ pose[:, :3].T + pose[:, 3]
            pixels.append(np.asarray(camera.img_from_cam(local))[local[:, 2] > 0])
        finite = np.isfinite(pixels[0]).all(1)
        assert np.linalg.norm(pixels[0] - pixels[1], axis=1)[finite].max(initial=0) < 0.06


def test_same_map_same_bytes():
    assert to_bytes(make_map(with_global=True)) == to_bytes(make_map(with_global=True))


def test_written_again_loses_nothing_more(round_trip):
    once = round_trip(canonical_map(make_map(num_points=500)))
    error = once.xyz
    twice = round_trip(once)
    assert np.array_equal(twice.visibility.indices, once.visibility.indices)
    assert np.abs(twice.xyz - error).max() < 0.02


def test_canonical_map_is_the_same_map():
    for granularity in ("point", "observation"):
        made = make_map(num_points=80, granularity=granularity)
        moved = canonical_map(made)
        for image in range(made.num_images):
            key = np.lexsort(made.xyz[made.visibility[image]].T)
            key_moved = np.lexsort(moved.xyz[moved.visibility[image]].T)
            for field in ("codes", "scores"):
                one = getattr(made, field)[made.code_rows(image)][key]
                other = getattr(moved, field)[moved.code_rows(image)][key_moved]
                assert np.array_equal(one, other)
        again = canonical_map(moved)
        assert np.array_equal(again.xyz, moved.xyz)


def test_xyz_error_is_kept(tmp_path):
    made = make_map(num_points=300)
    sizes = []
    for error in (1e-1, 1e-2, 1e-3, 1e-4):
        write_map(tmp_path / "map.dpqed", made, xyz_error=error)
        read = read_map(tmp_path / "map.dpqed")
        assert map_info(tmp_path / "map.dpqed")["xyz_error"] == error
        # Along each of the axes of the first image's camera.
        axes = made.cam_from_world[0, :, :3]
        assert np.abs((read.xyz - made.xyz) @ axes.T).max() <= error * (1 + 1e-4)
        sizes.append(section_bytes(tmp_path / "map.dpqed")["points"])
    # Three axes with ten times as many steps each: about 10 bits more for each point.
    for coarse, fine in itertools.pairwise(sizes):
        assert 9 < (fine - coarse) * 8 / 300 < 11


@pytest.mark.parametrize("error", [0.0, -1.0, float("nan"), float("inf"), 1e-9])
def test_impossible_xyz_error(error):
    with pytest.raises(InputError, match="xyz_error"):
        to_bytes(make_map(), xyz_error=error)


def test_scores_can_be_left_out(round_trip, tmp_path):
    read = round_trip(make_map(), score_levels=0)
    assert (read.scores == 1).all()
    assert "scores" not in section_bytes(tmp_path / "map.dpqed")
    with pytest.raises(InputError, match="score_levels"):
        round_trip(make_map(), score_levels=1)


def test_all_images_see_all_points(round_trip):
    """So predictable that only padding keeps the file within the bound of its expansion."""
    made = make_map(num_points=4000, num_images=300, density=1.0, spread=1e-3)
    size = len(to_bytes(made))
    assert_same(round_trip(made), made)
    assert size < 80_000


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_map(tmp_path / "none.dpqed")


def test_groups_add_up(tmp_path):
    write_map(tmp_path / "map.dpqed", make_map(with_global=True))
    info = map_info(tmp_path / "map.dpqed")
    assert sum(info["groups"].values()) == info["total_bytes"]
    assert info["groups"]["descriptors"] == info["descriptor_bytes"]
    assert info["groups"]["other"] == info["sections"]["header"]
    assert info["total_bytes"] == (tmp_path / "map.dpqed").stat().st_size
