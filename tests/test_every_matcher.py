"""Every matcher that hloc has a configuration of, on quantized codes: by hloc and by our localizer.

Learned networks are filled at random (see random_matchers.py).
"""

import numpy as np
import pytest
import torch
from random_matchers import import_lightglue, lightglue_state, superglue_state
from synthetic import make_scene, write_compressed_scene

from hloc_dpqed import cli, hloc_bridge
from hloc_dpqed.io.features import FeatureFile
from hloc_dpqed.io.lists import read_poses
from hloc_dpqed.localization import Localizer
from hloc_dpqed.mapfile import read_map
from hloc_dpqed.maps.image_rows import image_rows

hloc = pytest.importorskip("hloc", reason="hloc is not importable; put it on PYTHONPATH")
from hloc import match_features  # noqa: E402
from test_hloc_bridge import read_matches  # noqa: E402

# hloc's configuration, the dimension of its descriptors, and what its network is.
MATCHERS = [
    ("superglue", 256, "superglue"),
    ("superglue-fast", 256, "superglue"),
    ("superpoint+lightglue", 256, "lightglue"),
    ("disk+lightglue", 128, "lightglue"),
    ("aliked+lightglue", 128, "lightglue"),
    ("NN-superpoint", 256, None),
    ("NN-ratio", 256, None),
    ("NN-mutual", 256, None),
    ("adalam", 256, None),
]


def test_all_of_hlocs_are_here():
    assert {name for name, _, _ in MATCHERS} == set(hloc_bridge.hloc_matcher_confs())


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """By dimension, a scene and its map file."""
    made = {}
    for dim in (128, 256):
        scene = make_scene(tmp_path_factory.mktemp(f"dim{dim}"), num_points=120, dim=dim)
        made[dim] = scene, write_compressed_scene(scene, scene.folder / "map.dpqed", code_bytes=16)
    return made


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of weights for a network and a dimension."""
    folder = tmp_path_factory.mktemp("weights")

    def file(network, dim):
        if network is None:
            return None
        path = folder / f"{network}{dim}.pth"
        if not path.exists():
            state = superglue_state() if network == "superglue" else lightglue_state(dim)
            torch.save(state, path)
        return path

    return file


@pytest.mark.parametrize(("name", "dim", "network"), MATCHERS)
def test_a_matcher_by_hloc_and_by_the_localizer(
    name, dim, network, scenes, weights, tmp_path, monkeypatch
):
    if network == "lightglue":
        import_lightglue(monkeypatch)
    if name == "adalam":
        pytest.importorskip("kornia", reason="kornia is not installed")
    (scene, map_file), file = scenes[dim], weights(network, dim)
    path = tmp_path / "m.h5"
    with hloc_bridge.installed(), hloc_bridge.weights_of_user(network, file):
        conf = match_features.confs[name]
        match_features.main(conf, scene.pairs, scene.features, matches=path, features_ref=map_file)
    of_hloc = read_matches(path)
    assert len(of_hloc) == 15
    compressed = read_map(map_file)
    for matcher in dict.fromkeys([name, f"hloc:{name}"]):
        # The localizer's matches are hloc's: rows of the query and points of the image.
        localizer = Localizer(compressed, matcher, matcher_weights=file)
        with FeatureFile(scene.features) as features:
            query = features.read("query/q2.jpg")
        for image, found in enumerate(localizer.match(query, [0, 1])):
            database = compressed.image_names[image].replace("/", "-")
            rows = of_hloc[f"query-q2.jpg/{database}/matches0"]
            kept = np.flatnonzero(rows >= 0)
            points = image_rows(compressed, image).points[rows[kept]]
            theirs, ours = {*zip(kept, points, strict=True)}, {*map(tuple, found.pairs)}
            assert len(theirs) > (15 if name == "adalam" else 40)
            same = len(theirs & ours) / len(theirs | ours)
            # kornia's LightGlue is another program, and AdaLAM draws at random.
            exact = matcher.startswith("hloc:") or network != "lightglue"
            assert same == 1 if exact and name != "adalam" else same > 0.9
        # The command line, on the same files.
        argv = ["localize", "--map", map_file, "--queries", scene.queries, "--retrieval"]
        argv += [scene.pairs, "--features", scene.features, "--results", tmp_path / "r.txt"]
        argv += ["--matcher", matcher, "--threads", "1", "--overwrite"]
        argv += [] if file is None else ["--matcher_weights", file]
        assert cli.main([*map(str, argv)]) == 0
        assert len(read_poses(tmp_path / "r.txt")) == 3
