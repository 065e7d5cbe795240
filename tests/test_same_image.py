"""Feature files of another extraction, another order, or images of another size."""

import importlib.util
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, strategies as st
from synthetic import Scene, compressed_scene, make_scene, write_compressed_scene

from hloc_dpqed import CompressedMap, compress, fit_codec, localize, report, sweep
from hloc_dpqed.errors import InputError
from hloc_dpqed.evaluation.measures import measure
from hloc_dpqed.evaluation.pose_errors import pose_error
from hloc_dpqed.evaluation.posed_queries import read_posed_queries
from hloc_dpqed.export import write_features
from hloc_dpqed.hloc_bridge.checks import check_query_sizes
from hloc_dpqed.io.features import FeatureFile
from hloc_dpqed.io.lists import read_poses, read_queries
from hloc_dpqed.io.model import load_reconstruction, read_observations, read_reference
from hloc_dpqed.io.same_image import same_shape
from hloc_dpqed.localization.localizer import Localizer
from hloc_dpqed.logger import logger
from hloc_dpqed.mapfile import read_map
from hloc_dpqed.maps.reconstruction import to_reconstruction
from hloc_dpqed.planning.holdout import hold_out


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("same"), num_points=80, dim=16)


def changed(scene: Scene, path: Path, change, names=None) -> Path:
    """A copy of the scene's feature file; ``change(datasets)`` gives those of each image anew."""
    shutil.copy(scene.features, path)
    with h5py.File(path, "a") as file:
        for name in names or (*scene.db_names, *scene.query_names):
            group = file[name]
            datasets = change({key: dataset[:] for key, dataset in group.items()})
            for key in list(group):
                del group[key]
            for key, value in datasets.items():
                group[key] = value
    return path


def reordered(datasets):
    order = np.random.default_rng(0).permutation(len(datasets["keypoints"]))
    return {
        "keypoints": datasets["keypoints"][order],
        "descriptors": datasets["descriptors"][:, order],
        "scores": datasets["scores"][order],
        "image_size": datasets["image_size"],
    }


def elsewhere(datasets):
    size = datasets["image_size"]
    keypoints = np.random.default_rng(1).uniform(0, size, datasets["keypoints"].shape)
    return datasets | {"keypoints": keypoints.astype(np.float32)}


def resized(factor):
    def change(datasets):
        size = np.round(datasets["image_size"] * factor).astype(int)
        ratio = size / datasets["image_size"]
        keypoints = (datasets["keypoints"] + 0.5) * ratio - 0.5
        return datasets | {"keypoints": keypoints, "image_size": size}

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (reordered, r"the median [\d.]+ pixels off: the same keypoints in another order"),
        (elsewhere, r"the median [\d.]+ pixels off: they are of another extraction"),
        (lambda d: resized(0.5)(d) | {"image_size": d["image_size"]}, "of another extraction"),
    ],
)
def test_features_that_are_not_the_models_are_refused(scene, tmp_path, change, told):
    name = scene.db_names[2]
    path = changed(scene, tmp_path / "f.h5", change, [name])
    out = tmp_path / "out"
    runs = [
        lambda: read_observations(read_reference(scene.sfm), path),
        lambda: compress.main(scene.sfm, path, out, progress=False),
        lambda: compress.main(scene.sfm, path, out, budget="20KB", progress=False),
        lambda: fit_codec.main([scene.sfm], [path], out, progress=False),
        lambda: sweep.main(
            scene.sfm, path, scene.queries, scene.pairs, scene.poses, out, plots=False,
            progress=False,
        ),
    ]  # fmt: skip
    for run in runs:
        with pytest.raises(InputError, match=told) as error:
            run()
        message = str(error.value)
        assert message.startswith(f"{path}: image {name!r}: ") and "\n" not in message
        assert [p.name for p in tmp_path.iterdir()] == ["f.h5"]


def test_the_report_refuses_them_too(scene, tmp_path):
    pytest.importorskip("plotly")
    path = changed(scene, tmp_path / "f.h5", reordered)
    map_file = write_compressed_scene(scene, tmp_path / "map.dpqed")
    with pytest.raises(InputError, match="the same keypoints in another order"):
        report.main(
            [map_file], scene.queries, scene.features, scene.pairs, tmp_path / "r.html",
            reference_sfm=scene.sfm, reference_features=path, reference_poses=scene.poses,
            progress=False,
        )  # fmt: skip


def test_real_features_in_another_order(fountain, tmp_path):
    """The map of such a file gave poses that were 15 metres off."""
    features = tmp_path / "feats.h5"
    shutil.copy(fountain / "feats-superpoint.h5", features)
    reference = read_reference(fountain / "sfm")
    with h5py.File(features, "a") as file:
        for name in reference.image_names:
            order = np.random.default_rng(0).permutation(len(file[name]["keypoints"]))
            file[name]["keypoints"][...] = file[name]["keypoints"][:][order]
            file[name]["descriptors"][...] = file[name]["descriptors"][:][:, order]
    with pytest.raises(InputError, match=r"'0000.jpg': .* in another order"):
        read_observations(reference, features)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d | {"keypoints": d["keypoints"] + 0.5},  # COLMAP's convention
        lambda d: d | {"keypoints": d["keypoints"].astype(np.float16)},
        lambda d: {k: v for k, v in d.items() if k != "image_size"},
        lambda d: d | {"image_size": np.array([320, 240])},  # of what the network saw
    ],
)
def test_conventions_and_rounding_pass(scene, tmp_path, change):
    path = changed(scene, tmp_path / "f.h5", change)
    reference = read_reference(scene.sfm)
    expected = read_observations(reference, scene.features)
    found = read_observations(reference, path)
    assert np.abs(found.keypoints - expected.keypoints).max() <= 0.8
    np.testing.assert_array_equal(found.descriptors, expected.descriptors)


def test_features_of_resized_images_are_scaled_to_the_model(scene, tmp_path):
    path = changed(scene, tmp_path / "f.h5", resized(0.4))
    reference = read_reference(scene.sfm)
    expected = read_observations(reference, scene.features)
    found = read_observations(reference, path)
    np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=1e-2)
    # So are those of images that are held out, whose cameras are the model's.
    with FeatureFile(path) as small, FeatureFile(scene.features) as full:
        (query,) = hold_out(reference, found, [1], read_features=small.read).queries
        (plain,) = hold_out(reference, expected, [1], read_features=full.read).queries
    np.testing.assert_allclose(query.features.keypoints, plain.features.keypoints, atol=1e-2)


def test_an_exported_model_and_its_features_pass(scene, tmp_path):
    compressed = compressed_scene(scene)
    (tmp_path / "sfm").mkdir()
    to_reconstruction(compressed).write(str(tmp_path / "sfm"))
    write_features(compressed, tmp_path / "features.h5")
    assert len(read_observations(read_reference(tmp_path / "sfm"), tmp_path / "features.h5"))


def test_models_of_projections_and_without_places_pass(scene, tmp_path):
    """``points2D`` refined by some pixels, or all the same as in a model that has no keypoints."""
    rng = np.random.default_rng(0)
    for name, place in [
        ("projections", lambda xy: xy + rng.normal(0, 1.5, 2)),
        ("none", lambda xy: np.zeros(2)),
    ]:
        model = load_reconstruction(scene.sfm)
        for image in model.images.values():
            for point in image.points2D:
                point.xy = place(point.xy)
        (tmp_path / name).mkdir()
        model.write(str(tmp_path / name))
        assert len(read_observations(read_reference(tmp_path / name), scene.features))


def test_real_scenes_pass(south_building):
    reference = read_reference(south_building / "xfeat" / "sfm")
    observations = read_observations(reference, south_building / "xfeat" / "feats-xfeat.h5")
    off = observations.keypoints + 0.5 - reference.keypoint_positions
    assert np.abs(off).max() < 0.01


@given(
    st.tuples(st.integers(200, 6000), st.integers(200, 6000)),
    st.integers(100, 2000),
    st.sampled_from([np.floor, np.round, np.ceil]),
)
def test_a_resized_image_has_the_same_shape(size, longer, rounding):
    factor = min(longer / max(size), 1)
    small = tuple(max(int(rounding(side * factor)), 1) for side in size)
    assert same_shape(size, small) and same_shape(small, size)


@pytest.mark.parametrize(
    ("size", "other"),
    [((1024, 683), (683, 1024)), ((1600, 1200), (1024, 683)), ((640, 480), (0, 0))],
)
def test_other_shapes(size, other):
    assert not same_shape(size, other) and not same_shape(other, size)


def listed(path: Path, scene: Scene, camera_of) -> Path:
    """The scene's query list with other cameras."""
    lines = []
    for name, camera in read_queries(scene.queries):
        camera_of(camera)
        params = " ".join(repr(float(p)) for p in camera.params)
        lines.append(f"{name} {camera.model.name} {camera.width} {camera.height} {params}\n")
    path.write_text("".join(lines))
    return path


def turned(camera):
    camera.width, camera.height = camera.height, camera.width


def test_intrinsics_of_the_original_photograph(scene, tmp_path, monkeypatch):
    """Features of a smaller image are scaled to the camera, so that the threshold is its pixels."""
    map_file = write_compressed_scene(scene, tmp_path / "map.dpqed", codec="none")
    big = listed(tmp_path / "big.txt", scene, lambda c: c.rescale(2 * c.width, 2 * c.height))
    told: list[str] = []
    monkeypatch.setattr(logger, "warning", told.append)
    figures = localize.main(
        map_file, big, scene.features, tmp_path / "r.txt", scene.pairs,
        ransac_thresh=2, progress=False, full_names=True,
    )  # fmt: skip
    assert len(told) == 1  # once, for all queries
    assert "features of an image of 1024 x 768, a camera of 2048 x 1536" in told[0]
    truth, found = read_poses(scene.poses), read_poses(tmp_path / "r.txt")
    assert figures["num_localized"] == len(truth) == 3
    for name, pose in found.items():
        translation, rotation = pose_error(pose, truth[name])
        assert translation < 0.01 and rotation < 0.1
    # The measures of `sweep` and `report` see the same.
    posed = read_posed_queries(big, scene.features, scene.pairs, scene.poses)
    plain = read_posed_queries(scene.queries, scene.features, scene.pairs, scene.poses)
    localizer = Localizer(read_map(map_file), ransac_thresh=4)
    assert measure(localizer, posed, 1).recall(0.01, 0.1) == 1
    for one, other in zip(posed, plain, strict=True):
        kept = 2 * (other.features.keypoints + 0.5) - 0.5
        np.testing.assert_allclose(one.features.keypoints, kept, atol=1e-3)


@pytest.mark.parametrize(
    ("camera_of", "features_of", "told"),
    [
        (turned, None, r"image of 1024 x 768, but .* 768 x 1024: .* \(turned by 90 degrees\)"),
        (lambda c: c.rescale(1024, 1024), None, "1024 x 1024: images of another shape, the int"),
        (
            lambda c: c.rescale(512, 384),
            lambda d: {k: v for k, v in d.items() if k != "image_size"},
            r"do not lie in the image of 512 x 384 that the query list's camera tells",
        ),
        (
            lambda c: None,
            lambda d: d | {"image_size": d["image_size"] // 2},
            r"do not lie in the image of 512 x 384 that their image_size tells",
        ),
        (lambda c: None, lambda d: d | {"image_size": np.array([0, 9])}, r"image_size is \[0, 9\]"),
    ],
)
def test_intrinsics_of_another_image_are_refused(scene, tmp_path, camera_of, features_of, told):
    features = scene.features
    if features_of is not None:
        features = changed(scene, tmp_path / "q.h5", features_of, scene.query_names)
    queries = listed(tmp_path / "other.txt", scene, camera_of)
    map_file = write_compressed_scene(scene, tmp_path / "map.dpqed", codec="none")
    before = set(tmp_path.iterdir())
    out = tmp_path / "out"
    poses = scene.poses
    runs = [
        lambda: localize.main(map_file, queries, features, out, scene.pairs, progress=False),
        lambda: localize.main(map_file, queries, features, out, "none", progress=False),
        lambda: sweep.main(
            scene.sfm, scene.features, queries, scene.pairs, poses, out, features, plots=False,
            progress=False,
        ),
        lambda: report.main(
            [map_file], queries, features, scene.pairs, out, reference_poses=poses, progress=False
        ),
    ]  # fmt: skip
    if importlib.util.find_spec("plotly") is None:
        runs.pop()
    for run in runs:
        with pytest.raises(InputError, match=told) as error:
            run()
        message = str(error.value)
        assert message.startswith(f"{features}: image 'query/") and "\n" not in message
        assert not out.exists()
    for path in set(tmp_path.iterdir()) - before:
        assert path.name == "out.part"  # the queries that were finished before


def test_the_python_interface_compares_too(scene):
    compressed = CompressedMap.of(compressed_scene(scene, codec="none"))
    (name, camera), *_ = read_queries(scene.queries)
    with FeatureFile(scene.features) as file:
        features = file.read(name)
    camera.rescale(512, 384)
    found = compressed.localize(features, camera, list(scene.db_names), name=name, ransac_thresh=2)
    truth = read_poses(scene.poses)[name]
    assert found.cam_from_world is not None and pose_error(found.cam_from_world, truth)[0] < 0.01
    turned(camera)
    with pytest.raises(InputError, match=f"query '{name}': features of an image of 1024 x 768"):
        compressed.localize(features, camera, list(scene.db_names), name=name)


def test_hloc_is_told_of_other_sizes(scene, tmp_path):
    check_query_sizes(scene.queries, scene.features)
    for camera_of, told in [(turned, "turned"), (lambda c: c.rescale(512, 384), "scales neither")]:
        queries = listed(tmp_path / "other.txt", scene, camera_of)
        with pytest.raises(InputError, match=told) as error:
            check_query_sizes(queries, scene.features)
        assert str(error.value).startswith(f"{scene.features}: image 'query/")
