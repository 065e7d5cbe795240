"""The bridge against hloc's contract: a stand-in built from the contract, and hloc where it is."""

import collections
import importlib
import inspect
import sys
import types

import h5py
import hloc_contract as contract
import numpy as np
import pycolmap
import pytest

from hloc_dpqed import hloc_bridge
from hloc_dpqed.errors import InputError
from hloc_dpqed.matching.learned import FROM_HLOC, LIGHTGLUE_FEATURES
from hloc_dpqed.matching.nearest_neighbor import NN_CONFS


def function(parameters: str):
    """A function with these parameters that must not be called."""
    names = parameters.split()
    parts = ["**kwargs" if n == "kwargs" else f"{n}=None" for n in names]
    scope: dict = {}
    exec(f"def stand_in({', '.join(parts)}):\n    raise AssertionError", scope)
    return scope["stand_in"]


def build(monkeypatch) -> dict[str, types.ModuleType]:
    """Modules that have what the contract says and nothing else, in place of hloc."""
    for name in [n for n in sys.modules if n == "hloc" or n.startswith("hloc.")]:
        monkeypatch.delitem(sys.modules, name)
    modules = {name: types.ModuleType(f"hloc.{name}") for name in contract.ATTRIBUTES}
    values = {
        "h5py": h5py,
        "pycolmap": pycolmap,
        "confs": {n: {"output": n, "model": {"name": n}} for n in contract.MATCH_CONFS},
        "BaseModel": type("BaseModel", (), {}),
        **{n: collections.namedtuple(n, f) for n, f in contract.RECORDS.items()},
    }
    for name, module in modules.items():
        for attribute in contract.ATTRIBUTES[name]:
            setattr(module, attribute, values[attribute])
        for attribute, parameters in contract.FUNCTIONS.get(name, {}).items():
            setattr(module, attribute, function(parameters))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for package in ("hloc", "hloc.utils"):
        module = types.ModuleType(package)
        module.__path__ = []
        monkeypatch.setitem(sys.modules, package, module)
    return modules


@pytest.fixture
def stand_in(monkeypatch):
    modules = build(monkeypatch)
    yield modules
    hloc_bridge.uninstall()


def test_install_replaces_what_it_says_and_uninstall_all_of_it(stand_in):
    def state():
        return {name: dict(vars(module)) for name, module in stand_in.items()}

    before, names = state(), set(sys.modules)
    with hloc_bridge.installed():
        for name, attributes in state().items():
            changed = {k for k, v in attributes.items() if before[name].get(k) is not v}
            assert changed == contract.REPLACED.get(name, set()), name
        assert set(sys.modules) - names == {"hloc.matchers.adalam", "hloc.matchers.dpqed"}
    assert state() == before and set(sys.modules) == names


@pytest.mark.parametrize(
    "module, attribute", [(m, a) for m, names in contract.REPLACED.items() for a in sorted(names)]
)
def test_another_hloc_is_refused_in_one_line(stand_in, module, attribute):
    before = {name: dict(vars(m)) for name, m in stand_in.items()}
    delattr(stand_in[module], attribute)
    with pytest.raises(InputError, match=f"not one that the bridge knows.*{attribute}"):
        hloc_bridge.install()
    setattr(stand_in[module], attribute, before[module][attribute])
    assert {name: dict(vars(m)) for name, m in stand_in.items()} == before


def test_matchers_of_the_package_are_named_as_in_hloc():
    ours = {*NN_CONFS, *FROM_HLOC, *LIGHTGLUE_FEATURES, "adalam"}
    assert ours == set(contract.MATCH_CONFS)


def test_every_configuration_is_registered(stand_in):
    with hloc_bridge.installed():
        confs = stand_in["match_features"].confs
        assert set(confs) == {
            f"{prefix}{name}"
            for prefix in ("", "dpqed-", "dpqed-symmetric-")
            for name in contract.MATCH_CONFS
        }
    assert list(hloc_bridge.hloc_matcher_confs()) == contract.MATCH_CONFS


# --- the same facts, of hloc itself -----------------------------------------------------------


@pytest.fixture
def hloc():
    return pytest.importorskip("hloc", reason="hloc is not importable; put it on PYTHONPATH")


def test_signatures_of_hloc(hloc):
    for name, functions in {**contract.FUNCTIONS, **contract.PIPELINE_FUNCTIONS}.items():
        module = importlib.import_module(f"hloc.{name}")
        for attribute, parameters in functions.items():
            found = inspect.signature(getattr(module, attribute)).parameters
            assert list(found) == parameters.split(), f"hloc.{name}.{attribute}"


def test_attributes_of_hloc(hloc):
    for name, attributes in contract.ATTRIBUTES.items():
        module = importlib.import_module(f"hloc.{name}")
        for attribute in attributes:
            assert hasattr(module, attribute), f"hloc.{name}.{attribute}"
    from hloc.utils import read_write_model

    for name, fields in contract.RECORDS.items():
        assert list(getattr(read_write_model, name)._fields) == fields.split()
    assert list(importlib.import_module("hloc.match_features").confs) == contract.MATCH_CONFS


@pytest.mark.parametrize("package, name", [("matchers", "superglue"), ("extractors", "superpoint")])
def test_how_models_load_their_weights(hloc, package, name):
    """By ``torch.load`` of their own module, beside a folder of weights: what is replaced."""
    wrapper = pytest.importorskip(f"hloc.{package}.{name}")
    code = getattr(wrapper, name, None) or importlib.import_module(
        f"SuperGluePretrainedNetwork.models.{name}"
    )
    assert code.__name__ == f"SuperGluePretrainedNetwork.models.{name}"
    source = inspect.getsource(code)
    assert source.count("torch.load(") == 1 and f"weights/{name}_" in source


def test_hlocs_extraction_has_keypoints_and_names_as_expected(hloc):
    """``feats-NAME-...`` names the extractor; -nN in it is the number of keypoints."""
    from hloc.extract_features import confs

    from hloc_dpqed.maps.same_features import _by_name

    local = {n: c for n, c in confs.items() if not c["output"].startswith("global-feats-")}
    assert all(_by_name(conf["output"]) for conf in local.values())
    conf = confs["superpoint_aachen"]
    assert conf["output"] == "feats-superpoint-n4096-r1024"
    assert conf["model"]["max_keypoints"] == 4096


def test_layout_of_match_files(hloc, tmp_path):
    """One group a pair, '/' in names as '-'; int16 matches, -1 for none; float16 scores."""
    import torch
    from hloc.match_features import writer_fn
    from hloc.utils.io import get_matches
    from hloc.utils.parsers import names_to_pair

    pair = names_to_pair("query/a.jpg", "db/b.jpg")
    assert pair == "query-a.jpg/db-b.jpg"
    matches = torch.tensor([[-1, 32_767, 3]])
    writer_fn((pair, {"matches0": matches, "matching_scores0": torch.ones(1, 3)}), tmp_path / "m")
    with h5py.File(tmp_path / "m") as file:
        assert file[pair]["matches0"].dtype == np.int16
        assert file[pair]["matching_scores0"].dtype == np.float16
    found, _ = get_matches(tmp_path / "m", "query/a.jpg", "db/b.jpg")
    np.testing.assert_array_equal(found, [[1, 32_767], [2, 3]])
    reverse, _ = get_matches(tmp_path / "m", "db/b.jpg", "query/a.jpg")
    np.testing.assert_array_equal(reverse, found[:, ::-1])


def test_layout_of_feature_files(hloc, tmp_path):
    """A dataset reads every array of both images' groups and calls them NAME0 and NAME1."""
    from hloc.match_features import FeaturePairsDataset

    with h5py.File(tmp_path / "f", "w") as file:
        for name in ("q", "db/r"):
            file[f"{name}/keypoints"] = np.zeros((4, 2), np.float16)
            file[f"{name}/descriptors"] = np.zeros((8, 4), np.float16)
            file[f"{name}/scores"] = np.zeros(4, np.float16)
            file[f"{name}/image_size"] = np.array([30, 20])
    data = FeaturePairsDataset([("q", "db/r")], tmp_path / "f", tmp_path / "f")[0]
    keys = {"keypoints", "descriptors", "scores", "image_size", "image"}
    assert set(data) == {f"{key}{side}" for key in keys for side in "01"}
    assert data["image1"].shape == (1, 20, 30) and data["descriptors1"].shape == (8, 4)


def test_layout_of_results(hloc, tmp_path):
    """Base name, quaternion w x y z, translation, camera from world."""
    from hloc.utils.io import write_poses

    from hloc_dpqed.io.lists import read_poses

    rotation = pycolmap.Rotation3d(np.array([0.1, 0.2, 0.3, 0.4]) / np.sqrt(0.3))
    pose = pycolmap.Rigid3d(rotation, np.array([1.0, 2.0, 3.0]))
    write_poses({"day/cam/q.jpg": pose}, tmp_path / "r.txt", prepend_camera_name=False)
    np.testing.assert_allclose(read_poses(tmp_path / "r.txt")["q.jpg"], pose.matrix(), atol=1e-12)
    write_poses({"day/cam/q.jpg": pose}, tmp_path / "r.txt", prepend_camera_name=True)
    assert list(read_poses(tmp_path / "r.txt")) == ["cam/q.jpg"]
