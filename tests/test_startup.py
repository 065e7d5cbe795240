"""What starting a command loads: names of choices, and for ``info`` neither torch nor faiss."""

import json
import subprocess
import sys

import pytest
from synthetic import make_scene

from hloc_dpqed import choices
from hloc_dpqed.cli import build_parser, main
from hloc_dpqed.codecs import CODECS
from hloc_dpqed.matching.learned import PAIR_MATCHERS
from hloc_dpqed.matching.nearest_neighbor import NN_CONFS
from hloc_dpqed.selection import SELECTORS

HEAVY = {"faiss", "h5py", "numpy", "pycolmap", "safetensors", "torch", "tqdm"}
COMMANDS = sorted(build_parser()._subparsers._group_actions[0].choices)


def loaded_by(*argv: str) -> set[str]:
    """Which heavy modules a command in a process of its own has loaded when it ends."""
    code = (
        "import sys, json\n"
        "from hloc_dpqed.cli import main\n"
        "try:\n    code = main(sys.argv[1:])\n"
        "except SystemExit as end:\n    code = end.code\n"
        "print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True)
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code == 0 and done.stdout, done.stderr
    return HEAVY & set(modules)


@pytest.mark.parametrize(
    "argv", [["--version"], ["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join
)
def test_help_loads_nothing_heavy(argv):
    assert loaded_by(*argv) == set()


@pytest.mark.parametrize("codec", ["drqed", "pq", "none"])
def test_info_loads_neither_torch_nor_faiss(tmp_path, codec):
    scene = make_scene(tmp_path, num_points=60, dim=16)
    output = tmp_path / "map.dpqed"
    argv = ["compress", "--reference_sfm", scene.sfm, "--features", scene.features]
    argv += ["--codec", codec, "--code_bytes", 2, "--output", output]
    if codec == "pq":
        argv += ["--global_features", scene.global_features]
    assert main([*map(str, argv)]) == 0
    assert loaded_by("info", str(output)) <= {"numpy", "pycolmap", "safetensors"}


def test_info_of_a_map_with_a_codec_file_loads_neither_torch_nor_faiss(tmp_path):
    scene = make_scene(tmp_path, num_points=60, dim=16)
    inputs = ["--reference_sfm", str(scene.sfm), "--features", str(scene.features)]
    shared, output = str(tmp_path / "codec.safetensors"), str(tmp_path / "map.dpqed")
    assert main(["fit-codec", *inputs, "--codec", "pq", "--output", shared]) == 0
    assert main(["compress", *inputs, "--codec_file", shared, "--output", output]) == 0
    assert loaded_by("info", output, "--codec_file", shared) <= {"numpy", "pycolmap", "safetensors"}


def test_the_names_are_those_of_the_registries():
    assert tuple(CODECS) == choices.CODECS
    assert {name: kind.name for name, kind in CODECS.items()} == {n: n for n in choices.CODECS}
    assert tuple(SELECTORS) == choices.SELECTORS
    assert (*NN_CONFS, *PAIR_MATCHERS) == choices.MATCHERS
