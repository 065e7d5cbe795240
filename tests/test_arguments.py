"""Every numeric argument of every command with values that make no sense; options; what exists."""

import argparse
import math

import pytest
from argument_table import arguments_of, commands, documented, table
from synthetic import make_scene
from test_cli import compress, localize, refused, run

from hloc_dpqed import cli
from hloc_dpqed.codecs import CODECS, fit_codec
from hloc_dpqed.demo.main import _ABOUT, _MARKER
from hloc_dpqed.errors import InputError
from hloc_dpqed.io.model import read_observations, read_reference
from hloc_dpqed.options import (
    check_codec_options,
    check_selector_options,
    code_sizes,
    parse_named_options,
    parse_options,
)
from hloc_dpqed.selection import SELECTORS

BAD = ("0", "-1", "1000000000", "1e9", "nan", "inf", "")
# What is legitimate: all images are retrieved, all points kept, all seeds good, budgets that large.
FINE = {
    ("compress", "--num_points", "1000000000"), ("compress", "--seed", "1000000000"),
    ("compress", "--seed", "0"), ("fit-codec", "--seed", "0"),
    ("fit-codec", "--seed", "1000000000"), ("localize", "--num_retrieved", "1000000000"),
    ("localize", "--min_inliers", "0"), ("localize", "--seed", "0"),
    ("localize", "--seed", "1000000000"),
    ("sweep", "--code_budgets", "1000000000"), ("sweep", "--code_budgets", "1e9"),
    ("report", "--seed", "0"), ("report", "--seed", "1000000000"), ("demo", "--seed", "0"),
    ("map", "--seed", "0"), ("map", "--seed", "1000000000"),
    ("demo", "--seed", "1000000000"), ("demo", "--query_every", "1000000000"),
    ("append", "--seed", "0"), ("append", "--second_codes", "0"),
    ("append", "--seed", "1000000000"), ("prune", "--seed", "0"),
    ("prune", "--seed", "1000000000"), ("prune", "--num_points", "1000000000"),
    ("prune", "--budget", "1000000000"), ("prune", "--budget", "1e9"),
}  # fmt: skip
NUMERIC = [
    (name, action.option_strings[0])
    for name, parser in commands().items()
    for action in parser._actions
    if action.type in (int, float)
]
TEXTS = [
    ("compress", "--budget"), ("compress", "--target_recall"), ("evaluate", "--thresholds"),
    ("sweep", "--thresholds"), ("report", "--thresholds"),
]  # fmt: skip


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return make_scene(tmp_path_factory.mktemp("arguments"), num_points=60, dim=16)


@pytest.fixture(scope="module")
def map_file(scene):
    path = scene.folder / "map.dpqed"
    assert cli.main(compress(scene, path)) == 0
    return path


def minimal(name, scene, map_file, folder) -> list[str]:
    """A command that works, but for what is appended."""
    model = ["--reference_sfm", scene.sfm, "--features", scene.features]
    queries = ["--queries", scene.queries, "--retrieval", scene.pairs]
    poses = ["--reference_poses", scene.poses]
    words = {
        "map": ["--images", scene.folder, "--output", folder / "scene"],
        "compress": [*model, "--output", folder / "m.dpqed", "--codec", "pq"],
        "fit-codec": [*model, "--output", folder / "c.safetensors", "--codec", "pq"],
        "append": [map_file, *model, "--output", folder / "m.dpqed"],
        "prune": [map_file, "--output", folder / "m.dpqed", "--num_points", 20],
        "localize": [*queries, "--map", map_file, "--features", scene.features,
                     "--results", folder / "r.txt"],
        "evaluate": ["--results", scene.poses, "--reference", scene.poses],
        "sweep": [*model, *queries, *poses, "--output", folder / "sweep", "--codecs", "pq",
                  "--no_plots"],
        "report": [map_file, *queries, *poses, "--features", scene.features,
                   "--output", folder / "report.html"],
        "demo": ["--output", folder / "demo"],
    }[name]  # fmt: skip
    return [name, *map(str, words)]


def test_there_is_something_to_try():
    assert len(NUMERIC) > 25 and {name for name, _ in NUMERIC} >= {"compress", "sweep", "demo"}


@pytest.mark.parametrize(("name", "option"), NUMERIC + TEXTS, ids=lambda value: value)
def test_numbers_that_make_no_sense(name, option, scene, map_file, tmp_path, capfd):
    for value in BAD:
        if (name, option, value) in FINE:
            continue
        if (name, option) == ("compress", "--budget") and value == "1000000000":
            continue
        argv = [*minimal(name, scene, map_file, tmp_path), f"{option}={value}"]
        code, out, lines = run(argv, capfd)
        assert (code, out, len(lines)) == (2, "", 1), (value, code, lines)
        assert option.removeprefix("--") in lines[0] or "not a size" in lines[0], (value, lines)
        assert list(tmp_path.iterdir()) == [], value


@pytest.mark.parametrize("codec", CODECS)
def test_code_sizes_that_a_codec_cannot_use_are_told_with_those_it_can(
    codec, scene, tmp_path, capfd
):
    for name in ("compress", "fit-codec"):
        argv = minimal(name, scene, None, tmp_path)
        line = refused(
            [*argv, "--codec", codec, "--code_bytes", "7000"], "--code_bytes 7000", capfd
        )
        assert codec in line and list(tmp_path.iterdir()) == []
    argv = minimal("sweep", scene, None, tmp_path)
    refused([*argv, "--codecs", codec, "--code_bytes", "4", "7000"], "--code_bytes 7000", capfd)
    assert list(tmp_path.iterdir()) == []


def test_the_possible_sizes_are_those_that_can_be_fitted(scene):
    observations = read_observations(read_reference(scene.sfm), scene.features)
    for codec in ("pq", "opq", "dpqed", "drqed", "pca"):  # the others' largest take long to fit
        options = {"steps": 1} if CODECS[codec].trains else {}
        sizes = code_sizes(codec, observations.dim, options)
        assert sizes[0] == 1 and sizes[-1] <= 2 * observations.dim
        fitted = fit_codec(codec, observations, sizes[-1], **options)
        assert fitted.code_size == sizes[-1]
        if codec != "drqed":
            with pytest.raises(InputError):
                fit_codec(codec, observations, sizes[-1] + 1, **options)
    assert all(code_sizes(name, 128) is None for name in ("none", "sq8", "sign", "rabitq"))
    assert code_sizes("rq", 128) == list(range(1, 33)) == code_sizes("lsq", 128)
    assert code_sizes("pq", 128) == [1, 2, 4, 8, 16, 32, 64, 128]
    assert code_sizes("pq", 128, {"bits": 4})[-1] == 64
    assert code_sizes("drqed", 128) == list(range(1, 65))
    assert code_sizes("pca", 128, {"bits": 8})[-1] == 128


@pytest.mark.parametrize("value", [0, -1, 10**9, math.nan, "", None, True])
def test_options_of_codecs_and_selectors(value):
    for name, key in (("drqed", "steps"), ("drqed", "beam"), ("dpqed", "batch"), ("rq", "splits")):
        if (name, value) == ("rq", None):
            continue
        with pytest.raises(InputError, match=f"codec {name}: {key}") as error:
            check_codec_options(name, {key: value})
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="selector ilp: max_block"):
        check_selector_options("ilp", {"max_block": value})


def test_unknown_options_are_told_with_those_that_there_are(scene, tmp_path, capfd):
    argv = minimal("compress", scene, None, tmp_path)
    refused([*argv, "--codec_options", "nobody=1"], "its options are bits, entries", capfd)
    refused([*argv, "--codec_options", "bits"], "expected KEY=VALUE", capfd)
    line = refused([*argv, "--selector_options", "nobody=1"], "selector hybrid", capfd)
    assert "sharpness" in line and "min_per_image" in line
    argv = minimal("fit-codec", scene, None, tmp_path)
    refused([*argv, "--codec", "none", "--codec_options", "bits=8"], "it has none", capfd)
    argv = minimal("sweep", scene, None, tmp_path)
    refused([*argv, "--codec_options", "bits=4"], "expected NAME.KEY=VALUE", capfd)
    refused([*argv, "--codec_options", "rq.bits=4"], "not among those of this run", capfd)
    refused([*argv, "--codec_options", "pq.bits=x"], "bits 'x', expected int", capfd)
    assert list(tmp_path.iterdir()) == []
    for name in SELECTORS:
        check_selector_options(name, {"min_per_image": 3})


def test_options_are_read_as_what_they_are():
    words = [
        "steps=3",
        "temperature=0.5",
        "reencode=true",
        "bits=12,4",
        "latent=none",
        "losses=both",
    ]
    assert parse_options(words, "--codec_options") == {
        "steps": 3, "temperature": 0.5, "reencode": True, "bits": [12, 4], "latent": None,
        "losses": "both",
    }  # fmt: skip
    assert parse_named_options(["pq.bits=4", "pq.entries=int8"], "--x") == {
        "pq": {"bits": 4, "entries": "int8"}
    }
    with pytest.raises(InputError, match="twice"):
        parse_options(["a=1", "a=2"], "--x")


def test_options_reach_the_codec(scene, tmp_path, capfd):
    argv = minimal("compress", scene, None, tmp_path)
    assert run([*argv, "--codec_options", "bits=4"], capfd)[0] == 0
    argv = minimal("fit-codec", scene, None, tmp_path)
    more = ["--codec", "drqed", "--codec_options", "steps=2", "codec_budget_bytes=3000"]
    assert run([*argv, *more, "--code_bytes", "2"], capfd)[0] == 0
    assert (tmp_path / "c.safetensors").stat().st_size < 6000


def test_nothing_is_replaced_without_overwrite(scene, map_file, tmp_path, capfd):
    results, logs = tmp_path / "r.txt", tmp_path / "logs.json"
    argv = [word for word in localize(scene, map_file, results) if word != "--overwrite"]
    assert run(argv, capfd)[0] == 0
    before = results.read_bytes()
    refused(argv, "exists already, pass --overwrite", capfd)
    assert results.read_bytes() == before
    logs.write_text("mine")
    argv = [word for word in localize(scene, map_file, tmp_path / "s.txt") if word != "--overwrite"]
    refused([*argv, "--logs", str(logs)], "logs.json: exists already", capfd)
    assert logs.read_text() == "mine" and not (tmp_path / "s.txt").exists()
    assert run([*argv, "--logs", str(logs), "--overwrite"], capfd)[0] == 0

    output = tmp_path / "export"
    argv = ["export", str(map_file), "--output", str(output)]
    assert run(argv, capfd)[0] == 0
    refused(argv, "pass --overwrite", capfd)
    assert run([*argv, "--overwrite"], capfd)[0] == 0
    assert {path.name for path in output.iterdir()} == {"sfm", "features.h5"}
    (output / "notes.txt").write_text("mine")
    refused([*argv, "--overwrite"], "holds other than", capfd)
    assert (output / "notes.txt").read_text() == "mine"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]

    page = tmp_path / "report.html"
    page.write_text("mine")
    refused(minimal("report", scene, map_file, tmp_path), "exists already", capfd)
    assert page.read_text() == "mine"


def test_every_command_that_writes_takes_overwrite():
    for name, own in arguments_of().items():
        writes = {"--output", "--results", "--logs"} & set(own)
        if name == "evaluate":  # it reads the results
            continue
        assert ("--overwrite" in own) == (bool(writes) and name != "demo"), name


def test_the_demo_writes_where_it_says(tmp_path, monkeypatch, capfd):
    assert commands()["demo"].get_default("output") is not None
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "outputs" / "demo"
    mine.mkdir(parents=True)
    (mine / "notes.txt").write_text("mine")
    refused(["demo"], "was not made by this demo", capfd)
    # A marker that says something else is not the demo's.
    (mine / _MARKER).write_text(_ABOUT + "and more")
    refused(["demo"], "was not made by this demo", capfd)
    assert (mine / "notes.txt").read_text() == "mine"
    blocked = tmp_path / "file"
    blocked.write_text("")
    refused(["demo", "--output", str(blocked / "below")], "cannot be written", capfd)


def test_the_documented_table_is_that_of_the_parser():
    assert documented() == table(), "run python tests/argument_table.py and put it into docs/cli.md"


def test_arguments_of_one_name_mean_the_same():
    """The same type and default wherever a command has it, but for what the table tells."""
    seen: dict[str, tuple] = {}
    for name, parser in commands().items():
        for action in parser._actions:
            option = action.option_strings[0] if action.option_strings else action.dest
            if option in ("--output", "--code_bytes", "--codec", "--reference_sfm", "--features"):
                continue  # folders and files, one or several
            if option in ("maps", "--retrieval", "--images", "-h", "--queries", "--codec_options"):
                continue
            if (name, option) == ("compress", "--codec_file"):
                continue  # or the name of a codec that comes along
            kind = (
                action.type,
                repr(action.default),
                action.choices,
                isinstance(action, argparse._StoreAction),
            )
            assert seen.setdefault(option, kind) == kind, (name, option)


def test_sweep_and_report_take_matchers_of_pairs(scene, map_file, tmp_path, capfd):
    pytest.importorskip("kornia")
    more = ["--matcher", "adalam", "--ransac_seeds", "1"]
    argv = [*minimal("sweep", scene, None, tmp_path), *more, "--seeds", "1", "--fractions", "1"]
    assert run([*argv, "--code_bytes", "4"], capfd)[::2] == (0, [])
    assert (tmp_path / "sweep" / "sweep.csv").exists()
    argv = [*minimal("report", scene, map_file, tmp_path), "--seed", "3", *more]
    assert run(argv, capfd)[::2] == (0, [])
    assert "--matcher adalam" in (tmp_path / "report.html").read_text()
    refused([*argv, "--overwrite", "--matcher", "nobody"], "nobody", capfd)
    sweep = minimal("sweep", scene, None, tmp_path / "other")
    refused([*sweep, "--matcher", "nobody"], "nobody", capfd)
    refused([*sweep, "--matcher_weights", "w"], "NN-mutual has no weights", capfd)
    assert not (tmp_path / "other").exists()
