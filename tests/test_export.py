"""What unmodified hloc reads of an exported map."""

import dataclasses

import h5py
import numpy as np
import pycolmap
import pytest
from hypothesis import given, settings, strategies as st
from synthetic import compressed_scene, make_scene
from test_compress import TRIALS, killed

from hloc_dpqed import export
from hloc_dpqed.errors import InputError
from hloc_dpqed.io.features import FeatureFile, read_global_descriptors
from hloc_dpqed.io.model import read_observations, read_reference
from hloc_dpqed.mapfile import read_map, write_map
from hloc_dpqed.maps.compressed import CompressedMap
from hloc_dpqed.scene.visibility import Visibility


@pytest.fixture(scope="module")
def compressed(tmp_path_factory) -> CompressedMap:
    scene = make_scene(tmp_path_factory.mktemp("export"), num_points=80, dim=16)
    return compressed_scene(scene, code_bytes=4)


def exported(compressed, folder):
    """The map as a file reads it again, and its exported model and features."""
    write_map(folder / "map.dpqed", compressed)
    export.main(folder / "map.dpqed", folder / "out", progress=False)
    model = pycolmap.Reconstruction(folder / "out" / "sfm")
    return read_map(folder / "map.dpqed"), model, folder / "out" / "features.h5"


def check_aligned(stored: CompressedMap, model, features) -> int:
    """Row i of an image's keypoints, descriptors, scores and points2D is one and the same point.

    Returns:
        How many observations are in the export.
    """
    images = {image.name: image for image in model.images.values()}
    assert set(images) == set(stored.image_names)
    rows_written = 0
    with h5py.File(features) as file:
        for i, name in enumerate(stored.image_names):
            image, group = images[name], file[name]
            pose = pycolmap.Rigid3d(stored.cam_from_world[i])
            camera = stored.cameras[stored.camera_index[i]]
            points = [p.point3D_id - 1 for p in image.points2D]
            rows_written += len(points)
            assert sorted(set(points)) == points  # one row for each point, the lowest first
            assert set(points) <= set(stored.visibility[i].tolist())
            keypoints = group["keypoints"][:]
            assert keypoints.shape == (len(points), 2)
            assert group["descriptors"].shape == (stored.codec.dim, len(points))
            np.testing.assert_array_equal(group["image_size"][:], [camera.width, camera.height])
            if not points:
                continue
            # COLMAP's keypoint is the projection; hloc's is half a pixel less, exactly once.
            projected = camera.img_from_cam(pose * stored.xyz[points])
            xy = np.array([p.xy for p in image.points2D])
            np.testing.assert_allclose(xy, projected, atol=1e-4)
            np.testing.assert_allclose(keypoints, projected - 0.5, atol=1e-3)
            code_of = dict(zip(stored.visibility[i].tolist(), stored.code_rows(i), strict=True))
            codes = [code_of[p] for p in points]
            decoded = stored.codec.decode(stored.codes[codes])
            np.testing.assert_array_equal(group["descriptors"][:].T, decoded.astype(np.float16))
            np.testing.assert_allclose(group["scores"][:], stored.scores[codes], atol=1e-6)
    return rows_written


@pytest.mark.parametrize("granularity", ["point", "observation"])
def test_rows_are_aligned(tmp_path, granularity):
    scene = make_scene(tmp_path / "scene", num_points=80, dim=16)
    stored, model, features = exported(
        compressed_scene(scene, code_bytes=4, granularity=granularity), tmp_path
    )
    assert check_aligned(stored, model, features) == stored.visibility.num_observations


@settings(max_examples=15)
@given(st.data())
def test_rows_are_aligned_in_any_map(tmp_path_factory, compressed, data):
    """Any subset of the points, seen by any images, some of them where no camera shows them."""
    seed = data.draw(st.integers(0, 10_000))
    kept = data.draw(st.integers(1, compressed.num_points))
    seen = data.draw(st.floats(0, 1))
    lost = data.draw(st.sampled_from([0, 0, 1, 3]))
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(compressed.num_points, kept, replace=False))
    visibility = Visibility.from_lists(
        [np.flatnonzero(rng.random(kept) < seen) for _ in range(compressed.num_images)], kept
    )
    xyz = compressed.xyz[rows].copy()
    xyz[rng.choice(kept, min(lost, kept), replace=False)] *= -50  # out of sight
    changed = dataclasses.replace(
        compressed,
        xyz=xyz,
        visibility=visibility,
        codes=compressed.codes[rows],
        scores=compressed.scores[rows],
    )
    folder = tmp_path_factory.mktemp("any")
    stored, model, features = exported(changed, folder)
    written = check_aligned(stored, model, features)
    visible = sum(int(stored.project(i)[1].sum()) for i in range(stored.num_images))
    assert written == visible


def test_left_out_rows_are_counted_and_told(tmp_path, compressed, caplog, monkeypatch):
    from hloc_dpqed.logger import logger

    monkeypatch.setattr(logger, "propagate", True)
    xyz = compressed.xyz.copy()
    xyz[7] = -60 * xyz[7]
    moved = dataclasses.replace(compressed, xyz=xyz)
    caplog.set_level("INFO")
    stored, model, features = exported(moved, tmp_path)
    count = stored.visibility.num_observations
    written = check_aligned(stored, model, features)
    assert written < count
    assert f"Left out {count - written} of {count} observations" in caplog.text
    with h5py.File(tmp_path / "again.h5", "w"):
        pass
    assert export.write_features(stored, tmp_path / "again.h5") == count - written


def test_points_that_project_to_the_same_pixel_stay(tmp_path, compressed):
    xyz = compressed.xyz.copy()
    xyz[1] = xyz[0]
    doubled = dataclasses.replace(compressed, xyz=xyz)
    stored, model, features = exported(doubled, tmp_path)
    check_aligned(stored, model, features)
    image = model.images[1]
    own = [k for k, p in enumerate(image.points2D) if p.point3D_id in (1, 2)]
    assert len(own) == 2
    np.testing.assert_allclose(image.points2D[own[0]].xy, image.points2D[own[1]].xy, atol=1e-3)


def test_our_own_readers_read_it(tmp_path, compressed):
    """An export is an hloc map again: it can be compressed once more."""
    stored, _, features = exported(compressed, tmp_path)
    reference = read_reference(tmp_path / "out" / "sfm")
    observations = read_observations(reference, features)
    assert len(observations) == stored.visibility.num_observations
    row_of = {name: i for i, name in enumerate(stored.image_names)}
    for i, name in enumerate(reference.image_names):
        np.testing.assert_array_equal(
            reference.point_ids[reference.visibility[i]] - 1,
            stored.visibility[row_of[name]],
        )
    assert (tmp_path / "out" / "global-features.h5").is_file()
    global_ = stored.global_descriptors
    np.testing.assert_allclose(
        read_global_descriptors(tmp_path / "out" / "global-features.h5", stored.image_names),
        global_.codec.decode(global_.codes),
        atol=1e-6,
    )


def test_names_with_folders_spaces_and_unicode(tmp_path):
    names = ("a b/1 .jpg", "Straße/夜.jpg", "c.jpg", "c.jpg.d/e.jpg")
    scene = make_scene(tmp_path / "scene", num_points=60, dim=16, db_names=names)
    stored, model, features = exported(compressed_scene(scene, code_bytes=4), tmp_path)
    assert set(stored.image_names) == set(names)
    check_aligned(stored, model, features)
    with FeatureFile(features) as file:
        file.check_names(names)


def test_the_extractor_goes_with_the_features(tmp_path, compressed):
    told = dataclasses.replace(compressed, metadata={"features": {"extractor": "SOSNet"}})
    for name, stored, expected in (("a", told, {"extractor": "SOSNet"}), ("b", compressed, {})):
        (tmp_path / name).mkdir()
        _, _, features = exported(stored, tmp_path / name)
        with h5py.File(features) as file:
            assert dict(file.attrs) == expected


def test_images_and_maps_without_points(tmp_path, compressed):
    few = dataclasses.replace(
        compressed,
        xyz=compressed.xyz[:1],
        codes=compressed.codes[:1],
        scores=compressed.scores[:1],
        visibility=Visibility.from_lists(
            [np.zeros(1 if i == 2 else 0, np.int32) for i in range(compressed.num_images)], 1
        ),
    )
    stored, model, features = exported(few, tmp_path)
    assert check_aligned(stored, model, features) == 1
    assert all(image.has_pose for image in model.images.values())


def test_outputs_that_exist(tmp_path, compressed):
    write_map(tmp_path / "map.dpqed", compressed)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_bytes(b"x")
    with pytest.raises(InputError, match="not an empty folder"):
        export.main(tmp_path / "map.dpqed", tmp_path / "full", progress=False)
    (tmp_path / "empty").mkdir()
    export.main(tmp_path / "map.dpqed", tmp_path / "empty", progress=False)
    assert (tmp_path / "empty" / "features.h5").is_file()
    with pytest.raises(InputError, match="no such file"):
        export.main(tmp_path / "absent.dpqed", tmp_path / "out", progress=False)


def test_hloc_matches_the_export_as_we_match_the_map(tmp_path):
    """hloc's own match_features on the exported features gives our matcher's matches."""
    match_features = pytest.importorskip("hloc.match_features", reason="hloc is not installed")
    from hloc.utils.io import get_matches

    from hloc_dpqed.localization.localizer import Localizer

    scene = make_scene(tmp_path / "scene", num_points=120, dim=64)
    stored, model, features = exported(compressed_scene(scene, code_bytes=16), tmp_path)
    matches = tmp_path / "matches.h5"
    match_features.main(
        match_features.confs["NN-mutual"],
        scene.pairs,
        scene.features,
        features_ref=features,
        matches=matches,
    )
    localizer = Localizer(stored)
    images = {image.name: image for image in model.images.values()}
    total = 0
    with FeatureFile(scene.features) as file:
        for query in scene.query_names:
            retrieved = [stored.image_names.index(n) for n in scene.db_names[:5]]
            ours = localizer.match(file.read(query), retrieved)
            for row, found in zip(retrieved, ours, strict=True):
                name = stored.image_names[row]
                theirs, _ = get_matches(matches, query, name)
                points = [images[name].points2D[int(k)].point3D_id - 1 for k in theirs[:, 1]]
                expected = set(zip(theirs[:, 0].tolist(), points, strict=True))
                # Exported descriptors are float16: a handful of ties may turn.
                mine = {tuple(p) for p in found.pairs.tolist()}
                assert len(expected ^ mine) <= 0.05 * len(mine) + 1
                total += len(mine)
    assert total > 100


@pytest.mark.parametrize("trials", TRIALS)
def test_killed_at_any_moment(tmp_path, compressed, trials):
    """No folder or the whole one."""
    write_map(tmp_path / "map.dpqed", compressed)
    output = tmp_path / "out"
    argv = ["export", str(tmp_path / "map.dpqed"), "--output", str(output)]
    seen = killed(argv=argv, output=str(output), old=None, trials=trials)
    assert set(seen["seen"]) <= {"old", "new"}
    assert seen["last_status"] == 0 and seen["last_is_new"]
