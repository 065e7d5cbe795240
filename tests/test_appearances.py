"""Points with several codes: the split against scikit-learn, matches of places, maps and files."""

import dataclasses
import json

import h5py
import numpy as np
import pytest
import torch
from grown_maps import part_of
from hypothesis import given, settings, strategies as st
from sklearn.cluster import AgglomerativeClustering
from synthetic import make_scene

from hloc_dpqed import append, compress, evaluate, export, localize, merge, prune
from hloc_dpqed.cli import main as cli
from hloc_dpqed.compression.conf import CompressConf
from hloc_dpqed.compression.engine import Compressor
from hloc_dpqed.compression.kept import keep_points
from hloc_dpqed.io.features import ImageFeatures
from hloc_dpqed.io.model import read_observations, read_reference
from hloc_dpqed.localization.localizer import Localizer, Query
from hloc_dpqed.mapfile import read_map, write_map
from hloc_dpqed.maps.compressed import first_rows, places_of
from hloc_dpqed.maps.reconstruction import to_reconstruction
from hloc_dpqed.scene.appearances import split_points
from hloc_dpqed.scene.reference import normalise_rows
from hloc_dpqed.scene.visibility import Visibility
from hloc_dpqed.training.losses import contrastive_loss
from hloc_dpqed.training.sharpen import contrastive_gradient


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Half of the points look different by night: their descriptors are others."""
    scene = make_scene(tmp_path_factory.mktemp("appearances"), num_points=200, dim=64, noise=0.03)
    reference = read_reference(scene.sfm)
    observations = read_observations(reference, scene.features)
    night = np.random.default_rng(1).normal(size=(reference.num_points, 64))
    with h5py.File(scene.features, "r+") as file:
        for image in range(reference.num_images):
            if "night" not in reference.image_names[image]:
                continue
            rows = np.flatnonzero(observations.image_index == image)
            descriptors = file[reference.image_names[image]]["descriptors"]
            turned = descriptors[:].T.astype(np.float32)
            for row in rows:
                point = observations.point_index[row]
                if point % 2:
                    turned[reference.keypoint_index[row]] += night[point] / 4
            descriptors[:] = normalise_rows(turned).T.astype(np.float16)
    return scene


@pytest.fixture(scope="module")
def arrays(scene):
    reference = read_reference(scene.sfm)
    return reference, read_observations(reference, scene.features)


def squared_error(observations, rows: np.ndarray) -> float:
    """Of the observations' descriptors from the means of their rows."""
    x = observations.descriptors.astype(np.float64)
    total = np.zeros((rows.max() + 1, x.shape[1]))
    np.add.at(total, rows, x)
    mean = total / np.maximum(np.bincount(rows), 1)[:, None]
    return float(((x - mean[rows]) ** 2).sum())


@pytest.mark.parametrize("codes", [1.0, 1.3, 1.5, 2.5, 50.0])
def test_as_many_codes_as_asked_in_wards_clusters(arrays, codes):
    reference, observations = arrays
    split = split_points(*arrays, codes)
    own, counts = split.observations, np.diff(split.starts)
    assert own.num_points == min(round(codes * reference.num_points), len(observations))
    np.testing.assert_array_equal(own.places[own.point_index], observations.point_index)
    np.testing.assert_array_equal(split.reference.xyz, reference.xyz[own.places])
    np.testing.assert_array_equal(split.reference.visibility.indices, own.point_index)
    for point in np.flatnonzero(counts > 1):
        rows = np.flatnonzero(observations.point_index == point)
        wanted = AgglomerativeClustering(int(counts[point]), linkage="ward").fit_predict(
            observations.descriptors[rows].astype(np.float64)
        )
        found = own.point_index[rows]
        assert len({*zip(wanted, found, strict=True)}) == len(set(wanted)) == len(set(found))
    if codes == 1:
        assert counts.max() == 1
        np.testing.assert_array_equal(own.point_index, observations.point_index)


def test_codes_go_to_points_that_look_different(arrays):
    split = split_points(*arrays, 1.3)
    odd = np.arange(arrays[0].num_points) % 2 == 1
    several = np.diff(split.starts) > 1
    assert several[odd].mean() > 0.5 > 0.05 > several[~odd].mean()
    whole = squared_error(arrays[1], arrays[1].point_index)
    assert squared_error(split.observations, split.observations.point_index) < 0.5 * whole


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_rows_of_points(arrays, data):
    split = split_points(*arrays, data.draw(st.sampled_from([1.0, 1.4, 3.0])))
    total = arrays[0].num_points
    points = np.array(sorted(data.draw(st.sets(st.integers(0, total - 1)))), np.int64)
    wanted = np.flatnonzero(np.isin(split.observations.places, points))
    np.testing.assert_array_equal(split.rows(points), wanted)


@given(st.lists(st.integers(0, 3), max_size=40))
def test_first_rows(values):
    xyz = np.array([[v // 2, v % 2, -0.0 if v else 0.0] for v in values]).reshape(-1, 3)
    wanted = [next(j for j in range(i + 1) if (xyz[j] == xyz[i]).all()) for i in range(len(xyz))]
    assert first_rows(xyz).tolist() == wanted


def test_rows_that_an_image_sees_together_are_points_of_their_own():
    xyz = np.array([[1.0, 0, 0], [2, 0, 0], [1, 0, 0], [2, 0, 0], [1, 0, 0], [3, 0, 0]])
    visibility = Visibility.from_lists([np.array([0, 1, 5]), np.array([2, 3]), np.array([1, 3])], 6)
    assert places_of(xyz, visibility).tolist() == [0, 1, 0, 3, 0, 5]


def test_other_codes_of_a_point_are_no_rivals():
    torch.manual_seed(0)
    unit = torch.nn.functional.normalize
    anchors, keys = (unit(torch.randn(9, 5, dtype=torch.float64), dim=1) for _ in range(2))
    keys.requires_grad_()
    places, labels = torch.tensor([0, 0, 1, 2, 2, 2, 3, 4, 5]), torch.arange(9)
    alike = (places[:, None] == places[None]).fill_diagonal_(False)
    loss = contrastive_loss(anchors, keys, labels, labels, 0.1, True, alike)["total"]
    loss.sum().backward()
    found = contrastive_gradient(anchors, keys.detach(), 0.1, alike)
    torch.testing.assert_close(found, keys.grad)
    lone = [2, 6, 7, 8]  # to these, all of the others are rivals
    whole = contrastive_loss(anchors, keys, labels, labels, 0.1, True)["total"]
    torch.testing.assert_close(loss[lone], whole[lone])
    assert (loss[[0, 1, 3, 4, 5]] < whole[[0, 1, 3, 4, 5]]).all()


@pytest.mark.parametrize("codec", ["none", "pq", "dpqed", "drqed"])
def test_a_map_is_written_read_and_localized_with(scene, tmp_path, codec):
    size = {} if codec == "none" else {"code_bytes": 2}
    options = {"steps": 20} if codec in ("dpqed", "drqed") else {}
    output = tmp_path / "map.dpqed"
    compress.main(
        scene.sfm,
        scene.features,
        output,
        codec=codec,
        codes_per_point=1.4,
        codec_options=options,
        progress=False,
        **size,
    )
    compressed = read_map(output)
    total = read_reference(scene.sfm).num_points
    assert compressed.num_points == round(1.4 * total)
    assert compressed.num_places == total == compressed.info()["num_places"]
    assert compressed.metadata["conf"]["codes_per_point"] == 1.4
    again = tmp_path / "again.dpqed"
    write_map(again, compressed)
    np.testing.assert_array_equal(read_map(again).place_of_point, compressed.place_of_point)
    results = tmp_path / "results.txt"
    for retrieval in (scene.pairs, "none"):
        localize.main(
            output,
            scene.queries,
            scene.features,
            results,
            retrieval=retrieval,
            progress=False,
            overwrite=True,
            full_names=True,
        )
        figures = evaluate.main(results, scene.poses)
        assert figures["num_localized"] == len(scene.query_names)
        assert figures["median_translation"] < 0.05


def test_info_tells_the_places(scene, tmp_path, capsys):
    output = tmp_path / "map.dpqed"
    argv = ["--reference_sfm", scene.sfm, "--features", scene.features, "--output", output]
    argv += ["--codec", "sign", "--codes_per_point", "1.4"]
    assert cli(["compress", *map(str, argv)]) == 0
    capsys.readouterr()
    assert cli(["info", str(output)]) == 0
    assert capsys.readouterr().out.startswith("280 points at 200 places, ")
    assert cli(["info", "--json", str(output)]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["num_points"], figures["num_places"]) == (280, 200)


def doubled(compressed):
    """Every point twice, with one code: images of even rows see the one, the others the other."""
    total = compressed.num_points
    visibility = compressed.visibility
    shift = total * (visibility.image_of_observation() % 2)
    return dataclasses.replace(
        compressed,
        xyz=np.concatenate([compressed.xyz] * 2),
        codes=np.concatenate([compressed.codes] * 2),
        scores=np.concatenate([compressed.scores] * 2),
        visibility=Visibility(
            visibility.indptr, (visibility.indices + shift).astype(np.int32), 2 * total
        ),
    )


@pytest.mark.parametrize("clusters", [False, True])
def test_a_match_counts_once_with_each_of_its_codes(arrays, clusters):
    one = Compressor(*arrays, CompressConf("all", "sign", 8)).compress(arrays[0].num_points)
    two = doubled(one)
    assert two.num_places == one.num_points
    for image in range(one.num_images):
        rows = np.flatnonzero(arrays[1].image_index == image)
        features = ImageFeatures(
            arrays[1].keypoints[rows],
            arrays[1].descriptors[rows].astype(np.float32),
            arrays[1].scores[rows],
            None,
        )
        camera = one.cameras[one.camera_index[image]]
        others = [i for i in range(one.num_images) if i != image]
        for retrieved in (others, None):
            outcomes = [
                Localizer(m, covisibility_clustering=clusters).localize(
                    Query("q", camera, features, retrieved)
                )
                for m in (one, two)
            ]
            found = [o.correspondences for o in outcomes]
            np.testing.assert_array_equal(found[0].keypoint_index, found[1].keypoint_index)
            np.testing.assert_array_equal(found[0].point_index, found[1].point_index)
            np.testing.assert_array_equal(found[0].votes, found[1].votes)
            assert outcomes[0].num_inliers == outcomes[1].num_inliers
            np.testing.assert_array_equal(outcomes[0].cam_from_world, outcomes[1].cam_from_world)


def test_exported_tracks_are_those_of_the_model(arrays, tmp_path):
    conf = CompressConf("all", "none", 0, codes_per_point=1.5)
    compressed = Compressor(*arrays, conf).compress(arrays[0].num_points)
    model = to_reconstruction(compressed)
    lengths = [p.track.length() for p in model.points3D.values() if p.track.length()]
    assert len(lengths) == arrays[0].num_points
    assert sum(lengths) == arrays[0].visibility.num_observations
    path = tmp_path / "map.dpqed"
    write_map(path, compressed)
    export.main(path, tmp_path / "hloc")
    assert (tmp_path / "hloc" / "sfm" / "points3D.bin").is_file()


def test_maps_with_several_codes_are_extended_and_merged(scene, arrays, tmp_path):
    path, other = tmp_path / "map.dpqed", tmp_path / "other.dpqed"
    common = {"codec": "sign", "codes_per_point": 1.4, "progress": False}
    compress.main(scene.sfm, scene.features, path, **common)
    made = read_map(path)
    append.main(path, scene.sfm, scene.features, other, progress=False)
    merge.main(path, path, tmp_path / "merged.dpqed")
    for found in (read_map(other), read_map(tmp_path / "merged.dpqed")):
        assert (found.num_points, found.num_places) == (280, 200)
        assert found.visibility.num_observations == made.visibility.num_observations
    prune.main(path, tmp_path / "few.dpqed", num_points=100)
    assert read_map(tmp_path / "few.dpqed").num_points == 100


@pytest.mark.parametrize("codec", ["sign", "none"])
def test_append_gives_second_codes_where_new_images_see_points_otherwise(scene, tmp_path, codec):
    """A map of the images by day, and then all: odd points look otherwise by night."""
    model = part_of(scene, {n for n in scene.db_names if "day" in n}, tmp_path / "day")
    path = tmp_path / "day.dpqed"
    compress.main(model, scene.features, path, codec=codec, progress=False)
    day = read_map(path)
    grown = {}
    for share in (0.0, 0.3, 1.0):
        output = tmp_path / f"{share}.dpqed"
        append.main(
            path, scene.sfm, scene.features, output, second_codes=share, progress=False
        )  # fmt: skip
        grown[share] = read_map(output)
    assert grown[0.0].num_points == grown[0.0].num_places
    for share, found in grown.items():
        assert found.num_places == grown[0.0].num_places
        assert found.num_points - found.num_places <= round(share * day.num_points)
        places = found.place_of_point
        for image, name in enumerate(found.image_names):
            rows = found.visibility[image]
            assert len(np.unique(places[rows])) == len(rows)
            if name in day.image_names:  # they see what they saw
                own = day.visibility[day.image_names.index(name)]
                assert {*map(bytes, day.codes[own])} <= {*map(bytes, found.codes[rows])}
    reference = read_reference(scene.sfm)
    observations = read_observations(reference, scene.features)
    similar = {share: night_similarity(m, reference, observations) for share, m in grown.items()}
    odd = np.arange(reference.num_points) % 2 == 1
    assert np.nanmean(similar[0.3][odd]) > np.nanmean(similar[0.0][odd]) + 0.05
    even = np.nanmean(similar[0.0][~odd])
    np.testing.assert_allclose(np.nanmean(similar[0.3][~odd]), even, atol=0.01)


def night_similarity(compressed, reference, observations) -> np.ndarray:
    """(P,) mean cosine similarity of the model's points by night and what their codes decode to;
    a point's row is told by its image and pixel."""
    decoded = compressed.codec.decode(compressed.codes)
    total, count = np.zeros((2, reference.num_points))
    for image, name in enumerate(reference.image_names):
        if "night" not in name:
            continue
        rows = compressed.visibility[compressed.image_names.index(name)]
        mine = np.flatnonzero(observations.image_index == image)
        points = observations.point_index[mine]
        apart = ((reference.xyz[points][:, None] - compressed.xyz[rows][None]) ** 2).sum(2)
        near = apart.argmin(1)
        found = apart.min(1) < 1e-4
        seen = observations.descriptors[mine].astype(np.float32)
        similarity = (seen * decoded[rows[near]]).sum(1)
        np.add.at(total, points[found], similarity[found])
        np.add.at(count, points[found], 1)
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)


@pytest.mark.parametrize("selector", ["kcover", "hybrid"])
def test_budgets_and_counts(scene, arrays, tmp_path, selector):
    conf = CompressConf(selector, "sign", 8, codes_per_point=1.5)
    kept = keep_points(*arrays, conf)
    split = split_points(*arrays, 1.5)
    chosen = keep_points(*arrays, dataclasses.replace(conf, codes_per_point=1.0)).rows(50)
    np.testing.assert_array_equal(kept.rows(50), split.rows(chosen))
    assert kept.cost(50)[2] == len(kept.rows(50))
    for scope in ("total", "codes"):
        output = tmp_path / f"{scope}.dpqed"
        compress.main(
            scene.sfm,
            scene.features,
            output,
            budget=900 if scope == "codes" else 6000,
            budget_scope=scope,
            selector=selector,
            codec="sign",
            codes_per_point=1.5,
            progress=False,
        )
        compressed = read_map(output)
        spent = compressed.codes.nbytes if scope == "codes" else output.stat().st_size
        assert 0.9 * spent < (900 if scope == "codes" else 6000) >= spent
        assert compressed.num_places < compressed.num_points


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--codes_per_point", "0.5"], "--codes_per_point 0.5: expected 1 to 100"),
        (["--codes_per_point", "nan"], "--codes_per_point nan: expected 1 to 100"),
        (["--codes_per_point", "2", "--granularity", "observation"], "each has one already"),
    ],
)
def test_wrong_arguments(scene, tmp_path, capsys, argv, told):
    output = tmp_path / "map.dpqed"
    base = ["--reference_sfm", scene.sfm, "--features", scene.features, "--output", output]
    assert cli(["compress", *map(str, base), *argv]) == 2
    assert told in capsys.readouterr().err
    assert not output.exists()
