"""benchmarks/paper_tables.py: without data, and its tables from pipelines that are replaced."""

import json
import sys
from pathlib import Path

import pytest

from hloc_dpqed.errors import InputError

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import paper_tables
from pipelines import common


@pytest.fixture(autouse=True)
def no_data(monkeypatch):
    for name in paper_tables.FOLDERS:
        monkeypatch.delenv(name, raising=False)


def run(*arguments):
    args = paper_tables.build_parser().parse_args([*map(str, arguments)])
    return common.run_script(paper_tables.run, args)


def test_without_data_it_says_so(capsys):
    assert run() == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "error: none of AACHEN_DIR, CAMBRIDGE_DIR, SEVEN_SCENES_DIR is set: no dataset to run on"
    ]


@pytest.mark.parametrize("name", paper_tables.FOLDERS)
def test_a_folder_that_is_not_the_dataset_is_one_line(name, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(name, str(tmp_path))
    assert run("--outputs", tmp_path / "out") == 2
    assert "missing, expected as the README lists it" in capsys.readouterr().err


def test_the_tables(monkeypatch, tmp_path, capsys):
    seen = []

    def run_aachen(args):
        seen.append((args.budget, args.budget_scope, args.matcher, args.dataset))
        return {"results": f"results-{args.budget}.txt"}

    def run_cambridge(args):
        keys = ("points", "codes", "file")
        return [
            {
                "scene": scene,
                "median (cm / deg)": "1.23 / 0.456",
                "5 cm, 5 deg": "50.0 %",
                **dict.fromkeys(keys, "5"),
            }
            for scene in args.scenes
        ]

    monkeypatch.setattr(paper_tables.aachen, "run", run_aachen)
    monkeypatch.setattr(paper_tables.cambridge, "run", run_cambridge)
    monkeypatch.setattr(paper_tables.seven_scenes, "run", run_cambridge)
    sizes = {"descriptor_bytes": 10**6, "total_bytes": 3 * 10**6}
    monkeypatch.setattr(paper_tables.info, "main", lambda path: sizes)
    monkeypatch.setenv("AACHEN_DIR", "a")
    monkeypatch.setenv("CAMBRIDGE_DIR", "c")
    monkeypatch.setenv("SEVEN_SCENES_DIR", "s")
    scores = tmp_path / "scores.json"
    scores.write_text(json.dumps({"1MB": {"day": "1.0 / 2.0 / 3.0", "night": "4.0 / 5.0 / 6.0"}}))
    outputs = ["--outputs", tmp_path, "--aachen_scores", scores]
    assert run(*outputs, "--", "--matcher", "NN-mutual") == 0
    assert seen == [(b, "codes", "NN-mutual", Path("a")) for b in ("1MB", "500KB")]
    lines = capsys.readouterr().out.splitlines()
    ours = [line for line in lines if "| ours, drqed" in line]
    assert "1.0 / 2.0 / 3.0" in ours[0]
    assert "1.0 MB of codes, file 3.0 MB" in ours[0]
    assert ours[1].count("upload results-500KB.txt") == 2
    published = [line for line in lines if "D-PQED" in line]
    assert all("second-hand" in line for line in published)
    assert sum("1.23 / 0.456" in line for line in lines) == 5 + 7
    (stairs,) = [line for line in lines if "| stairs" in line]
    assert "49.4 %" in stairs and "50.0 %" in stairs


@pytest.mark.parametrize("text", ["", "[]", '{"2MB": {}}'])
def test_wrong_scores(text, tmp_path):
    path = tmp_path / "scores.json"
    path.write_text(text)
    with pytest.raises(InputError, match="--aachen_scores"):
        paper_tables.read_scores(path)
