"""The sweep on synthetic maps, and its main experiment on a real scene."""

import csv
import json
import math

import numpy as np
import pytest
from synthetic import make_scene
from test_compress import TRIALS, killed

from hloc_dpqed import cli, sweep
from hloc_dpqed.choices import PRESETS
from hloc_dpqed.compress import main as compress
from hloc_dpqed.compression.conf import CompressConf
from hloc_dpqed.compression.engine import Compressor
from hloc_dpqed.errors import InputError
from hloc_dpqed.evaluate import main as evaluate
from hloc_dpqed.io.model import read_observations, read_reference
from hloc_dpqed.localize import main as localize
from hloc_dpqed.mapfile import map_info
from hloc_dpqed.sweep import plots as sweep_plots
from hloc_dpqed.sweep.cells import Cell, affordable, choose, measure_file, plan
from hloc_dpqed.sweep.tables import optimum_lines


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return make_scene(tmp_path_factory.mktemp("sweep"), dim=32, noise=0.2)


def run(scene, output, **options):
    defaults = {"codecs": ["pq"], "code_bytes": [2], "fractions": [1, 0.25], "seeds": 1}
    defaults |= {"selectors": ["random", "kcover"], "ransac_seeds": 1, "progress": False}
    return sweep.main(
        scene.sfm,
        scene.features,
        scene.queries,
        scene.pairs,
        scene.poses,
        output,
        **(defaults | options),
    )


def rows_of(table):
    with open(table, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_paper_preset_spends_each_budget_on_codes():
    cells = plan(1000, 256, range(3), **choose("paper", None, None, None, None, None))
    selectors = {cell.selector for cell in cells}
    assert {"all", "random", "kcover", "hybrid"} <= selectors
    assert {cell.code_bytes for cell in cells} == {2, 4, 8, 16, 32}
    for cell in cells:
        assert any(
            cell.num_points * cell.code_bytes <= 1000 * budget < (cell.num_points + 1) * 32
            and cell.num_points == math.floor(1000 * budget / cell.code_bytes)
            for budget in (2, 1, 0.5)
        )
    # Where the budget pays for every point there is nothing to select.
    assert {c.code_bytes for c in cells if c.selector == "all"} == {2}
    assert len(cells) == len(set(cells))
    per_codec = 3 * (1 + 14 * (len(selectors) - 1))
    assert len(cells) == per_codec * len({cell.codec for cell in cells})


def test_absent_codecs_of_a_preset_are_left_out_with_a_warning(monkeypatch, caplog):
    monkeypatch.setitem(PRESETS, "test", {"codecs": ("pq", "abc"), "selectors": ("random",)})
    with caplog.at_level("WARNING", "hloc_dpqed"):
        assert choose("test", None, None, None, None, None)["codecs"] == ("pq",)
    assert "no codec abc here" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "x"}, "--preset x: unknown"),
        ({"codecs": ["x"]}, "--codec x: unknown"),
        ({"selectors": ["x"]}, "--selectors x: unknown"),
        ({"code_bytes": [0]}, "--code_bytes 0"),
        ({"fractions": [0.0]}, "--fractions 0.0"),
        ({"fractions": None, "code_budgets": [math.nan]}, "--code_budgets nan"),
        ({"code_budgets": [1.0]}, "exclude one another"),
        ({"selectors": ["all"]}, "keeps every point"),
        ({"seeds": 0}, "expected at least 1"),
        ({"granularity": "x"}, "--granularity x"),
        ({"ransac_thresh": -1}, "--ransac_thresh -1"),
        ({"thresholds": "1"}, "--thresholds 1"),
    ],
)
def test_mistakes_are_told_before_any_work(scene, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        run(scene, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_cells_are_what_compress_localize_and_evaluate_give(scene, tmp_path):
    table = run(scene, tmp_path / "out", thresholds="0.01/0.1,5/10", ransac_thresh=6, plots=False)
    rows = rows_of(table)
    assert [(r["selector"], r["num_points"]) for r in rows] == [
        ("all", "300"),
        ("random", "75"),
        ("kcover", "75"),
    ]
    result, small = tmp_path / "results.txt", tmp_path / "map.dpqed"
    options = {"codec": "pq", "code_bytes": 2, "codec_train": "all", "progress": False}
    compress(scene.sfm, scene.features, small, selector="kcover", num_points=75, **options)
    files = (small, scene.queries, scene.features, result, scene.pairs)
    localize(*files, ransac_thresh=6, full_names=True, progress=False)
    figures = evaluate(result, scene.poses, "0.01/0.1,5/10")
    assert int(rows[2]["total_bytes"]) == small.stat().st_size
    assert int(rows[2]["descriptor_bytes"]) == map_info(small)["descriptor_bytes"]
    assert float(rows[2]["median_translation"]) == pytest.approx(figures["median_translation"])
    assert [float(rows[2][f"recall@{limit}"]) for limit in ("0.01/0.1", "5/10")] == [
        row["fraction"] for row in figures["recall"]
    ]


def test_an_interrupted_sweep_continues_and_ends_with_the_same_table(scene, tmp_path, monkeypatch):
    whole = run(scene, tmp_path / "whole", plots=False).read_bytes()
    measured = []
    original = measure_file

    def interrupted(*args, **localizing):
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(1)
        return original(*args, **localizing)

    monkeypatch.setattr("hloc_dpqed.sweep.stage.measure_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(scene, tmp_path / "parts", plots=False)
    cells = sorted((tmp_path / "parts" / "cells").iterdir())
    assert len(cells) == 2 and not (tmp_path / "parts" / "sweep.csv").exists()
    cells[0].write_text('{"outcome": {}}')  # a damaged cell is measured again
    measured.clear()
    assert run(scene, tmp_path / "parts", plots=False).read_bytes() == whole
    assert len(measured) == 2
    # Other thresholds measure nothing anew; other RANSAC settings measure everything anew.
    with pytest.raises(InputError, match="other arguments, pass --overwrite"):
        run(scene, tmp_path / "parts", plots=False, thresholds="1/1")
    run(scene, tmp_path / "parts", plots=False, thresholds="1/1", overwrite=True)
    with pytest.raises(KeyboardInterrupt):
        run(scene, tmp_path / "parts", plots=False, ransac_thresh=5, overwrite=True)


@pytest.mark.parametrize("trials", TRIALS)
def test_killed_at_any_moment(scene, tmp_path, trials):
    """No table or the whole one, the same as without a kill; finished cells are kept."""
    output = tmp_path / "sweep"
    argv = ["sweep", "--reference_sfm", str(scene.sfm), "--features", str(scene.features),
            "--queries", str(scene.queries), "--retrieval", str(scene.pairs),
            "--reference_poses", str(scene.poses), "--output", str(output), "--codecs", "pq",
            "--code_bytes", "2", "--selectors", "random", "--fractions", "1", "0.5",
            "--seeds", "1", "--ransac_seeds", "1", "--no_plots", "--threads", "1"]  # fmt: skip
    seen = killed(
        argv=argv, output=str(output / "sweep.csv"), old=None, trials=trials,
        part=str(output / "cells"), clear=[str(output)],
    )  # fmt: skip
    assert set(seen["seen"]) <= {"old", "new"}
    assert seen["last_status"] == 0 and seen["last_is_new"]
    if trials >= 50:
        assert seen["continued"] > 0


def test_code_budgets_plots_and_summary(scene, tmp_path, caplog):
    pytest.importorskip("matplotlib")
    options = {"code_bytes": [2, 4], "fractions": None, "code_budgets": [2.0, 0.5], "seeds": 2}
    with caplog.at_level("INFO", "hloc_dpqed"):
        table = run(scene, tmp_path / "out", selectors=["kcover"], **options)
    rows = rows_of(table)
    kept = [(int(row["num_points"]), int(row["code_bytes"]), row["seed"]) for row in rows]
    points = [(300, 2), (75, 2), (150, 4), (37, 4)]
    assert sorted(kept) == sorted((n, size, seed) for n, size in points for seed in "01")
    pictures = {p.name: p.read_bytes() for p in (tmp_path / "out").glob("*.png")}
    assert set(pictures) == {"accuracy.png", "code_budgets.png"}
    assert len([line for line in caplog.messages if "correct matches" in line]) == 2
    # From the cells, the same table and plots.
    run(scene, tmp_path / "out", selectors=["kcover"], **options)
    assert rows_of(table) == rows
    assert pictures == {p.name: p.read_bytes() for p in (tmp_path / "out").glob("*.png")}


def test_summary_compares_four_bytes_with_the_best_other():
    def outcome(correct):
        return {"correct": correct}

    cells = [
        (Cell("pq", 2, 0, "all", 100), outcome([10, 20])),
        (Cell("pq", 4, 0, "random", 50), outcome([14, 24])),
        (Cell("pq", 4, 1, "random", 50), outcome([16, 26])),
        (Cell("pq", 8, 0, "random", 25), outcome([5, 5])),
        (Cell("pq", 8, 0, "random", 12), outcome([500, 500])),
    ]
    (line,) = optimum_lines(cells, 100, [2.0])
    assert "2 B 15, 4 B 20, 8 B 5; 4 B minus 2 B: +5.0, 95 % +5.0 .. +5.0" in line
    assert affordable(2, 100, 8) == 25 and affordable(2, 100, 1) == 100
    assert affordable(0.001, 100, 8) == 1


def test_without_matplotlib_one_line_says_so(scene, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match="--no_plots"):
        sweep_plots.check_matplotlib()
    with pytest.raises(InputError, match="need matplotlib"):
        run(scene, tmp_path / "out")


def test_codec_none_has_no_code_size():
    cells = plan(100, 64, range(2), ["none"], [2, 4], ["random", "kcover"], [], [128.0, 64.0])
    assert cells == [
        Cell("none", 0, 0, "all", 100),
        Cell("none", 0, 0, "random", 50),
        Cell("none", 0, 0, "kcover", 50),
        Cell("none", 0, 1, "random", 50),
        Cell("none", 0, 1, "kcover", 50),
    ]


def test_command_line_on_a_real_scene(fountain, tmp_path, capsys):
    features = fountain / "feats-superpoint.h5"
    argv = [
        *("sweep", "--reference_sfm", fountain / "sfm", "--features", features),
        *("--queries", fountain / "queries.txt", "--retrieval", fountain / "pairs-query-vlad7.txt"),
        *("--reference_poses", fountain / "poses_gt.txt", "--output", tmp_path / "out"),
        *("--preset", "paper", "--codecs", "pq", "--code_bytes", "4", "--code_budgets", "1"),
        *("--selectors", "kcover", "--seeds", "1", "--ransac_seeds", "1", "--ransac_thresh", "4"),
        *("--thresholds", "0.25/2", "--no_plots", "--threads", "1"),
    ]
    assert cli.main([str(word) for word in argv]) == 0
    (row,) = rows_of(tmp_path / "out" / "sweep.csv")
    reference = read_reference(fountain / "sfm")
    assert int(row["num_points"]) == reference.num_points // 4
    assert float(row["recall@0.25/2"]) == 1
    (cell,) = (tmp_path / "out" / "cells").iterdir()
    outcome = json.loads(cell.read_text())["outcome"]
    # The kept points are those that the selector keeps.
    observations = read_observations(reference, features)
    conf = CompressConf("kcover", "pq", 4, codec_train="all")
    compressed = Compressor(reference, observations, conf).compress(reference.num_points // 4)
    assert outcome["distinct_codes"] == len(np.unique(compressed.codes, axis=0))
