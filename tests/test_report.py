"""The report: its figures against their definitions, and the page in a real browser."""

import base64
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pycolmap
import pytest
from browser import open_browser
from synthetic import make_scene

pytest.importorskip("plotly", reason="plotly is not installed (the extra `report`)")

from hloc_dpqed import cli, report
from hloc_dpqed.compress import main as compress
from hloc_dpqed.errors import InputError
from hloc_dpqed.evaluate import main as evaluate
from hloc_dpqed.evaluation.pose_errors import format_length
from hloc_dpqed.localize import main as localize
from hloc_dpqed.mapfile import map_info, read_map
from hloc_dpqed.report.commands import command_line, map_commands
from hloc_dpqed.report.figures import error_figure, scene_figure
from hloc_dpqed.report.html import Picture, match_picture, table
from hloc_dpqed.report.outcomes import chosen_queries, dropped_points, map_labels

NASTY = "</script><script>console.error('x')</script>&\".jpg"


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    names = ("db/a.jpg", "db/b.jpg", f"db/{NASTY}", "db/d.jpg")
    folder = tmp_path_factory.mktemp("report")
    return make_scene(folder, db_names=names, dim=32, noise=0.2, num_points=200)


@pytest.fixture(scope="module")
def maps(scene, tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    paths = [folder / "whole.dpqed", folder / "half.dpqed"]
    options = {"codec": "pq", "code_bytes": 2, "progress": False}
    compress(scene.sfm, scene.features, paths[0], **options)
    compress(scene.sfm, scene.features, paths[1], num_points=100, **options)
    return paths


def run(scene, maps, output, **options):
    options = {"ransac_seeds": 1, "progress": False, "overwrite": True} | options
    return report.main(maps, scene.queries, scene.features, scene.pairs, output, **options)


@pytest.fixture(scope="module")
def page(scene, maps, tmp_path_factory):
    return run(
        scene,
        maps,
        tmp_path_factory.mktemp("page") / "report.html",
        reference_sfm=scene.sfm,
        reference_features=scene.features,
        reference_poses=scene.poses,
        thresholds="0.01/0.1,5/10",
    )


def cells_of(text: str, heading: str) -> dict[str, list[str]]:
    """Rows of the first table after a heading, by their first cell."""
    body = text.split(f"<h2>{heading}</h2>")[1].split("<tbody>")[1].split("</tbody>")[0]
    rows = [row.replace("</td>", "").split("<td>")[1:] for row in body.split("</tr>")]
    return {row[0]: [cell.strip() for cell in row[1:]] for row in rows if row}


def test_figures_are_those_of_the_commands(scene, maps, page, tmp_path):
    text = page.read_text()
    rows = cells_of(text, "Accuracy")
    assert list(rows) == ["float (uncompressed)", "whole", "half"]
    results = tmp_path / "results.txt"
    files = (maps[1], scene.queries, scene.features, results, scene.pairs)
    localize(*files, full_names=True, progress=False)
    figures = evaluate(results, scene.poses, "0.01/0.1,5/10")
    assert rows["half"][0] == "100"
    assert rows["half"][-2:] == [f"{row['fraction']:.3f}" for row in figures["recall"]]
    median = f"{figures['median_translation']:.4f} / {figures['median_rotation']:.3f}"
    assert rows["half"][-3] == median
    sections = cells_of(text, "Bytes")
    info = map_info(maps[0])
    for name, size in info["sections"].items():
        assert sections[name][0].split()[0] == f"{size:,}"
    assert sections["whole file"][0].split()[0] == f"{maps[0].stat().st_size:,}"


def test_same_inputs_give_the_same_page_and_nothing_is_loaded(scene, maps, page):
    text = page.read_text()
    again = run(
        scene,
        maps,
        page,
        reference_sfm=scene.sfm,
        reference_features=scene.features,
        reference_poses=scene.poses,
        thresholds="0.01/0.1,5/10",
    )
    assert again.read_text() == text
    # The commands hold the configuration; names are escaped wherever they come.
    assert "--num_points 100" in text and "hloc-dpqed report" in text
    assert "</script><script>console" not in text
    assert "src=" not in text.split("</script>")[-1]


def show(browser, name: str) -> None:
    """Scroll to a figure and wait until it is drawn at its size."""
    browser.run(f"document.querySelector('#figure-{name}').scrollIntoView()")
    figure = f"document.querySelector('#figure-{name} .main-svg')"
    browser.wait_for(f"return {figure} !== null")
    size = browser.run(f"const r = {figure}.getBoundingClientRect(); return [r.width, r.height]")
    assert min(size) > 100, name


def test_opens_offline_in_a_browser(page, tmp_path):
    with open_browser(tmp_path) as browser:
        browser.call("POST", "/goog/cdp/execute", {"cmd": "Network.enable", "params": {}})
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        command = {"cmd": "Network.emulateNetworkConditions", "params": offline}
        browser.call("POST", "/goog/cdp/execute", command)
        browser.open(page)
        for name in ("bytes", "errors"):
            show(browser, name)
        bars = "return document.querySelectorAll('#figure-bytes .bars .point path').length"
        assert browser.run(bars) >= 10
        assert browser.run("return document.querySelectorAll('#figure-errors .bars').length") == 6
        show(browser, "scene")
        # The 3D view is a canvas of WebGL, with points and lines that have positions.
        browser.wait_for("return document.querySelectorAll('#figure-scene canvas').length")
        names = browser.run(
            "return document.querySelector('#figure-scene')._fullData.map(t => t.name)"
        )
        assert names[:2] == ["dropped, whole (0)", "dropped, half (100)"]
        assert names[2:6] == [
            "kept, whole (200)",
            "kept, half (100)",
            "database cameras (4)",
            "query cameras (3)",
        ]
        assert "no-webgl" not in browser.run("return document.body.innerHTML").lower()
        lines = browser.run(
            "return [...document.querySelectorAll('.matches svg')]"
            ".map(s => s.querySelectorAll('path').length)"
        )
        assert len(lines) == 9 and min(lines) >= 1  # three queries, three maps
        errors = [entry for entry in browser.log("browser") if entry["level"] == "SEVERE"]
        assert errors == []
        within = ("data:", "blob:", "chrome:", "chrome-untrusted:")  # the browser's own start page
        requests = [u for u in browser.requests() if not u.startswith(within)]
        assert requests == [page.resolve().as_uri()]


def test_pictures_and_command_line_on_a_real_scene(fountain, tmp_path):
    pytest.importorskip("PIL", reason="Pillow is not installed (the extra `report`)")
    features = fountain / "feats-superpoint.h5"
    small, output = tmp_path / "small.dpqed", tmp_path / "report.html"
    options = {"codec": "pq", "code_bytes": 4, "num_points": 400, "progress": False}
    compress(fountain / "sfm", features, small, **options)
    argv = [
        *("report", small, "--queries", fountain / "queries.txt", "--features", features),
        *("--retrieval", fountain / "pairs-query-vlad7.txt", "--images", fountain / "images"),
        *("--reference_sfm", fountain / "sfm", "--reference_poses", fountain / "poses_gt.txt"),
        *("--ransac_seeds", 1, "--ransac_thresh", 4, "--threads", 1, "--output", output),
    ]
    assert cli.main([str(word) for word in argv]) == 0
    text = output.read_text()
    rows = cells_of(text, "Accuracy")
    assert list(rows) == ["small"] and float(rows["small"][3]) > 0
    uris = text.split('href="data:image/jpeg;base64,')[1:]
    assert 4 <= len(uris) <= 6  # three queries, and up to three database images
    assert base64.b64decode(uris[0].split('"')[0]).startswith(b"\xff\xd8")
    assert "cannot be shown" not in text
    compressed = read_map(small)
    assert f"kept, small ({compressed.num_points:,})" in text


def test_without_poses_errors_are_against_the_uncompressed_map(scene, maps, tmp_path):
    files = {"reference_sfm": scene.sfm, "reference_features": scene.features}
    text = run(scene, maps[1:], tmp_path / "r.html", **files).read_text()
    rows = cells_of(text, "Accuracy")
    assert rows["float (uncompressed)"][-4] == "0.0000 / 0.000"
    assert "the poses that the uncompressed map gives" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing to compare with"),
        ({"reference_features": "x.h5"}, "needs --reference_sfm"),
        ({"reference_poses": "no.txt"}, "no.txt: no such file"),
        ({"reference_poses": "no.txt", "images": "no"}, "no: no such folder"),
        ({"reference_poses": "no.txt", "ransac_seeds": 0}, "--ransac_seeds 0"),
        ({"reference_poses": "no.txt", "ransac_thresh": 0}, "--ransac_thresh 0"),
        ({"reference_poses": "no.txt", "thresholds": "1"}, "--thresholds 1"),
    ],
)
def test_mistakes_are_one_line(scene, maps, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        run(scene, maps, tmp_path / "r.html", **options)
    assert not (tmp_path / "r.html").exists()


def test_without_plotly_or_pillow_one_line_says_so(scene, maps, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(InputError, match="needs Pillow"):
        run(scene, maps, tmp_path / "r.html", reference_poses=scene.poses, images=tmp_path)
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(InputError, match="needs plotly"):
        run(scene, maps, tmp_path / "r.html", reference_poses=scene.poses)


def test_dropped_points_are_found_by_their_coordinates():
    rng = np.random.default_rng(0)
    xyz = rng.uniform(-5, 5, (2000, 3))
    kept = np.sort(rng.choice(2000, 700, replace=False))
    error = 1e-3
    stored = xyz[kept] + rng.uniform(-error, error, (700, 3))
    expected = np.ones(2000, bool)
    expected[kept] = False
    assert np.array_equal(dropped_points(xyz, stored, error), expected)
    assert dropped_points(xyz, np.zeros((0, 3)), error).all()


def test_best_median_and_worst_query():
    errors = np.array([[3.0, 3], [1, 9], [np.inf, np.inf], [0.5, 0.7], [4, 4]])
    assert chosen_queries(errors) == [("best", 3), ("median", 4), ("worst", 2)]
    assert chosen_queries(errors[:2]) == [("best", 0), ("worst", 1)]
    assert chosen_queries(errors[:1]) == [("best", 0)]


def test_labels_commands_and_tables():
    paths = [Path("a/m.dpqed"), Path("b/m.dpqed"), Path("c/n.dpqed")]
    assert map_labels(paths) == ["a/m.dpqed", "b/m.dpqed", "n"]
    line = command_line("localize", ["--full_names"], {"map": "my map", "seed": 0, "logs": None})
    assert line == "hloc-dpqed localize --full_names --map 'my map' --seed 0"
    assert "<td>&lt;b&gt;</td>" in table(["x"], [["<b>"]])


def test_the_command_of_a_planned_map_asks_for_what_was_asked():
    conf = {"selector": "hybrid", "codec": "drqed", "code_bytes": 2, "granularity": "point"}
    conf |= {"seed": 0, "codec_options": {"codec_budget_bytes": 7500}}
    names = ("reference_sfm", "reference_features", "reference_poses", "queries", "features")
    arguments = dict.fromkeys((*names, "retrieval", "matcher", "ransac_thresh", "thresholds"))

    def command(asked):
        compressed = SimpleNamespace(metadata={"conf": {**conf, "asked": asked}}, num_points=9)
        lines = map_commands(
            Path("m"), SimpleNamespace(label="m", compressed=compressed), arguments
        )
        return lines[1], any(line.startswith("# in Python") for line in lines)

    line, needs_python = command({"budget": 25000, "budget_scope": "total", "planned": True})
    assert line.endswith("--budget 25000 --budget_scope total") and "--codec" not in line
    assert not needs_python
    line, _ = command({"target_recall": "1@1/1"})
    assert "--codec drqed --code_bytes 2" in line and line.endswith("--target_recall 1@1/1")


def test_match_lines_join_the_pixels_of_both_images():
    text = match_picture(
        ("q", 100, 50),
        ("d", 40, 25),
        np.array([[10.0, 20.0], [1.0, 2.0]]),
        np.array([[4.0, 5.0], [0.0, 25.0]]),
        np.array([True, False]),
        "<caption>",
        {"q": Picture("picture-0", "data:,")},
    )
    # The right image is twice as large, and begins 10 pixels right of the left one.
    assert '<path class="correct" d="M10.0 20.0L118.0 10.0"/>' in text
    assert '<path class="wrong" d="M1.0 2.0L110.0 50.0"/>' in text
    assert 'viewBox="0 0 190.0 50"' in text and "&lt;caption&gt;" in text
    assert text.count("<use") == 1 and text.count("<rect") == 1


def test_a_scene_far_from_the_origin_is_drawn_around_it():
    """A browser draws in float32."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-5, 5, (50, 3))
    camera = pycolmap.Camera(model="PINHOLE", width=640, height=480, params=[500, 500, 320, 240])
    drawn = []
    for offset in (np.zeros(3), np.array([2.5e6, 1.4e6, 5.7e6])):
        pose = np.column_stack([np.eye(3), -offset])[None]
        cameras = pose, [camera], ["a.jpg"]
        figure, _ = scene_figure({"map": points + offset}, {}, cameras, cameras, {"map": pose})
        marks = figure.data[0]
        drawn.append(np.stack([marks.x, marks.y, marks.z], 1).astype(float))
        title = figure.layout.scene.xaxis.title.text
        assert not title if offset[0] == 0 else title == "x - 2500000"
    np.testing.assert_allclose(np.ptp(drawn[1], axis=0), np.ptp(drawn[0], axis=0), atol=1e-5)


def test_errors_of_a_map_in_small_units_are_told_apart():
    assert format_length(0.00431) == "0.0043" and format_length(0.0) == "0.0000"
    assert format_length(4.3123e-9) == "4.31e-09"
    figure = error_figure({"map": np.array([[1e-9, 0.1], [4e-8, 0.2]])})
    assert sum(count > 0 for count in figure.data[0].y) == 2
