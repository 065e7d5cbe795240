"""The scripts in pipelines/: arguments, layouts, and whole runs on small copies of each dataset."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import miniatures
import numpy as np
import pycolmap
import pytest
from conftest import WEIGHTS

from hloc_dpqed.demo import dataset as datasets
from hloc_dpqed.errors import InputError
from hloc_dpqed.evaluation.pose_errors import pose_error
from hloc_dpqed.io.lists import read_poses, read_queries, write_poses
from hloc_dpqed.io.model import read_reference
from hloc_dpqed.mapping.photos import shrink_photo

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from pipelines import common, from_images

ON_SCENES = ("Strecha", "south_building")
ON_HLOC = ("Aachen", "Aachen_v1_1", "Cambridge", "7Scenes", "RobotCar", "CMU", "4Seasons")
PIPELINES = (*ON_SCENES, *ON_HLOC)
PAIRS = ["--num_covis", "6", "--num_loc", "5"]
CHEAP = ["--codec", "pq", "--matcher", "NN-mutual", "--selector", "kcover", "--threads", "1"]


def load(name):
    return importlib.import_module(f"pipelines.{name}.pipeline")


def run(name, *arguments):
    module = load(name)
    args = module.build_parser().parse_args([*map(str, arguments)])
    return common.run_script(module.run, args)


def one_line(text):
    """The line that a failing script prints, after the messages of a logger."""
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


REQUIRED = {"4Seasons": ["--sequence", "training"]}


@pytest.mark.parametrize("name", PIPELINES)
def test_every_pipeline_takes_the_arguments_of_the_compression(name):
    line = "--budget 1MB --budget_scope codes --code_bytes 8 --selector random --codec pq"
    words = [*line.split(), "--matcher", "NN-ratio", *REQUIRED.get(name, [])]
    args = load(name).build_parser().parse_args(words)
    assert (args.budget, args.budget_scope, args.code_bytes) == ("1MB", "codes", 8)
    assert (args.selector, args.codec, args.matcher) == ("random", "pq", "NN-ratio")


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("wrong", [["--codec", "zip"], ["--selector", "best"], ["--unknown"]])
def test_wrong_arguments_end_with_code_2(name, wrong, capsys):
    with pytest.raises(SystemExit) as caught:
        load(name).build_parser().parse_args([*REQUIRED.get(name, []), *wrong])
    assert caught.value.code == 2
    assert wrong[0] in capsys.readouterr().err


@pytest.mark.parametrize("name", PIPELINES)
def test_a_missing_dataset_is_one_line(name, tmp_path, capsys):
    folders = ["--dataset", tmp_path / "absent", "--outputs", tmp_path / "out"]
    assert run(name, *folders, *REQUIRED.get(name, [])) == 2
    assert "absent" in one_line(capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_named(tmp_path):
    (tmp_path / "sfm").mkdir()
    common.require_files(tmp_path, ["sfm", "s*m"])
    with pytest.raises(InputError, match=r"queries\.txt: missing"):
        common.require_files(tmp_path, ["sfm", "queries.txt"])


def test_hloc_missing_is_one_line(monkeypatch):
    for name in [n for n in sys.modules if n == "hloc" or n.startswith("hloc.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "hloc", None)
    with pytest.raises(InputError, match="hloc is needed"):
        common.require_hloc("extract_features")


def test_configurations_have_files_of_their_own():
    parser = load("Strecha").build_parser()
    lines = [
        "",
        "--codec pq",
        "--codec none",
        "--code_bytes 8",
        "--budget 1MB",
        "--budget 1MB --budget_scope codes",
        "--budget 1MB --selector random",
        "--seed 1",
    ]
    labels = [common.label(parser.parse_args(line.split())) for line in lines]
    assert len(set(labels)) == len(lines)
    assert not any("/" in text or " " in text for text in labels)


def test_the_table_is_markdown():
    rows = [{"scene": "a", "n": "10"}, {"scene": "longer", "n": "5"}]
    assert common.format_table(rows).splitlines() == [
        "| scene  | n  |",
        "|--------|----|",
        "| a      | 10 |",
        "| longer | 5  |",
    ]


def cells(table):
    """Rows of a printed table as dictionaries."""
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if line.startswith("|") and not line.startswith("|-")
    ]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


def median_centimetres(row):
    return float(row["median (cm / deg)"].split("/")[0])


def test_strecha_from_files_to_a_table(fountain, tmp_path, capsys):
    arguments = ["--dataset", fountain.parent, "--scenes", "fountain-P11"]
    outputs = tmp_path / "out"
    assert run("Strecha", *arguments, "--outputs", outputs, *CHEAP, "--budget", "120KB") == 0
    (row,) = cells(capsys.readouterr().out)
    assert row["poses"] == "4 of 4"
    assert median_centimetres(row) < 5
    assert (outputs / "fountain-P11" / "map_pq4_120KB_kcover.dpqed").stat().st_size <= 120_000


# From images. A rendered scene in the layout of each pipeline, and real images where hloc extracts.


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """A scene with images, poses and lists, and without features."""
    output = tmp_path_factory.mktemp("rendered")
    files = datasets.render_dataset(output, 10, 3, (400, 300), texels=50, progress=False)
    for name in ("fountain-P11", "south-building"):
        scene = output / "data" / name
        scene.mkdir(parents=True)
        for path in (files.images, files.sfm, files.queries, files.poses):
            (scene / path.name).symlink_to(path)
    return output / "data"


def make_nothing_anew(monkeypatch):
    for name in ("map_posed_photos", "photos_dataset", "_map_with_hloc"):
        monkeypatch.delattr(from_images, name)


def test_strecha_from_images_to_a_table(rendered, tmp_path, capsys, monkeypatch):
    arguments = ["--dataset", rendered, "--scenes", "fountain-P11", "--outputs", tmp_path, *CHEAP]
    arguments += ["--images", "--extractor", "sift"]
    assert run("Strecha", *arguments) == 0
    table = capsys.readouterr().out
    (row,) = cells(table)
    # The third query has 7 inliers: RANSAC's pose is 3 metres off, and is rejected. pycolmap 3.13
    # triangulates a map that localizes it.
    assert row["scene"] == "fountain-P11, known_sift" and row["poses"] in ("2 of 3", "3 of 3")
    assert median_centimetres(row) < 10
    # The map is that of the images: its own features, retrieval, points; the given poses.
    folder = tmp_path / "fountain-P11" / "known_sift"
    made, given = (read_reference(f / "sfm") for f in (folder, rendered / "fountain-P11"))
    assert made.image_names == given.image_names and made.num_points > 200
    np.testing.assert_allclose(made.cam_from_world, given.cam_from_world, atol=1e-9)
    # What was made is used again.
    make_nothing_anew(monkeypatch)
    assert run("Strecha", *arguments) == 0
    assert capsys.readouterr().out == table


def test_south_building_from_images_to_a_table(rendered, tmp_path, capsys):
    """The images may lie elsewhere than in the scene's folder."""
    arguments = ["--dataset", rendered / "south-building", "--outputs", tmp_path, *CHEAP]
    images = (rendered / "south-building" / "images").resolve()
    assert run("south_building", *arguments, "--images", images, "--extractor", "sift") == 0
    (row,) = cells(capsys.readouterr().out)
    assert (row["scene"], row["poses"]) == ("south-building, known_sift", "3 of 3")


@pytest.fixture(scope="module")
def half_size(fountain, tmp_path_factory):
    """fountain-P11 with images of half the size and two queries."""
    root = tmp_path_factory.mktemp("half")
    folder = root / "fountain-P11"
    model = pycolmap.Reconstruction(str(fountain / "sfm"))
    for camera in model.cameras.values():
        camera.rescale(new_width=camera.width // 2, new_height=camera.height // 2)
    (folder / "sfm").mkdir(parents=True)
    model.write(str(folder / "sfm"))
    (folder / "images").mkdir()
    listed = read_queries(fountain / "queries.txt")[:2]
    for name in [*(image.name for image in model.images.values()), *(name for name, _ in listed)]:
        pixels = pycolmap.Bitmap.read(str(fountain / "images" / name), True).to_array()
        small = shrink_photo(pixels, pixels.shape[0] // 2, pixels.shape[1] // 2)
        assert pycolmap.Bitmap.from_array(small).write(str(folder / "images" / name))
    lines = []
    for name, camera in listed:
        camera.rescale(new_width=camera.width // 2, new_height=camera.height // 2)
        params = " ".join(str(float(p)) for p in camera.params)
        lines.append(f"{name} {camera.model.name} {camera.width} {camera.height} {params}")
    (folder / "queries.txt").write_text("\n".join(lines))
    poses = read_poses(fountain / "poses_gt.txt")
    write_poses(folder / "poses_gt.txt", {name: poses[name] for name, _ in listed})
    return root


def test_strecha_from_images_alone(half_size, tmp_path, capsys):
    """Structure from motion: nothing but the images is given."""
    folder = tmp_path / "data" / "fountain-P11"
    folder.mkdir(parents=True)
    (folder / "images").symlink_to(half_size / "fountain-P11" / "images")
    arguments = ["--dataset", folder.parent, "--scenes", "fountain-P11", "--outputs", tmp_path]
    arguments += ["--images", "--poses", "sfm", "--extractor", "sift", *CHEAP]
    assert run("Strecha", *arguments) == 0
    (row,) = cells(capsys.readouterr().out)
    assert (row["scene"], row["poses"]) == ("fountain-P11, sfm_sift", "3 of 3")
    assert float(row["median (units / deg)"].split("/")[0]) < 0.02


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--images", "photos"], "photos: no such folder, expected the scene's images"),
        (["--extractor", "orb"], "--extractor orb: expected auto, sift or hloc:NAME"),
        (["--extractor_weights", "w.pth"], "--extractor_weights: sift takes no weights"),
    ],
)
def test_bad_arguments_of_images_are_one_line(rendered, tmp_path, capsys, arguments, told):
    command = ["--dataset", rendered, "--scenes", "fountain-P11", "--outputs", tmp_path]
    command += ["--images", "--extractor", "sift"]
    assert run("Strecha", *command, *CHEAP, *arguments) == 2
    assert told in one_line(capsys.readouterr().err)
    assert not any(tmp_path.iterdir())


def test_auto_without_hloc_is_sift(monkeypatch):
    # Other tests may have imported some of its modules.
    for name in ["hloc", *(name for name in sys.modules if name.startswith("hloc."))]:
        monkeypatch.setitem(sys.modules, name, None)
    assert from_images.choose_extractor("auto", None) == "sift"


def test_a_budget_that_nothing_fits_is_one_line(fountain, tmp_path, capsys):
    arguments = ["--dataset", fountain.parent, "--scenes", "fountain-P11", "--outputs", tmp_path]
    assert run("Strecha", *arguments, *CHEAP, "--budget", "1KB") == 2
    assert "nothing fits" in one_line(capsys.readouterr().err)


# Whole runs. SuperGlue's and NetVLAD's weights are absent: database images are matched by nearest
# neighbours, and hloc's extraction is replaced (`Miniature.extract`); everything else is hloc's.


@pytest.fixture(scope="session")
def hloc():
    return pytest.importorskip("hloc", reason="hloc is not importable; put it on PYTHONPATH")


@pytest.fixture
def superpoint_weights(hloc):
    pytest.importorskip("hloc.extractors.superpoint", reason="SuperPoint's code is not importable")
    path = WEIGHTS / "superpoint_v1_fp16.pth"
    if not path.is_file():
        pytest.skip("superpoint_v1_fp16.pth not found; set HLOC_DPQED_WEIGHTS to its folder")
    return path


def test_strecha_from_images_with_hlocs_superpoint(half_size, superpoint_weights, tmp_path, capsys):
    """Real images, weights, extraction, matching and triangulation."""
    arguments = ["--dataset", half_size, "--scenes", "fountain-P11", "--images"]
    arguments += ["--outputs", tmp_path / "out", *CHEAP]
    weights = ["--extractor_weights", superpoint_weights]
    assert run("Strecha", *arguments, *weights, "--sfm_matcher", "none") == 2
    assert "--sfm_matcher none: unknown" in one_line(capsys.readouterr().err)
    assert run("Strecha", *arguments, *weights) == 0
    (row,) = cells(capsys.readouterr().out)
    assert row["scene"] == "fountain-P11, known_hloc-superpoint_aachen_NN-mutual"
    assert row["poses"] == "2 of 2" and median_centimetres(row) < 5
    folder = tmp_path / "out" / "fountain-P11" / "known_hloc-superpoint_aachen_NN-mutual"
    (features,) = folder.glob("feats-*.h5")
    assert features.stem == "feats-superpoint-n2048-r1024"


def test_bad_extractors_of_hloc_are_one_line(hloc, rendered, tmp_path, capsys, monkeypatch):
    command = ["--dataset", rendered, "--scenes", "fountain-P11", "--outputs", tmp_path, *CHEAP]
    assert run("Strecha", *command, "--images", "--extractor", "hloc:none") == 2
    assert "--extractor hloc:none: unknown" in one_line(capsys.readouterr().err)

    def no_weights(*_, **__):
        raise FileNotFoundError("superpoint_v1.pth")

    extract_features = importlib.import_module("hloc.extract_features")
    monkeypatch.setattr(extract_features, "main", no_weights)
    assert run("Strecha", *command, "--images", "--extractor", "hloc:superpoint_aachen") == 2
    assert "are its weights there? --extractor_weights" in one_line(capsys.readouterr().err)


def replace_extraction(monkeypatch, mini):
    monkeypatch.setattr(importlib.import_module("hloc.extract_features"), "main", mini.extract)


def run_on_hloc(name, mini, outputs, *extra):
    mapping = ["--sfm_matcher", "NN-mutual", "--budget", "120KB"]
    return run(name, "--dataset", mini.root, "--outputs", outputs, *CHEAP, *mapping, *extra)


def assert_submission(path, mini, query_of):
    """The format of visuallocalization.net, a line for each query; poses of a few centimetres."""
    lines = [line.split(" ") for line in path.read_text().splitlines()]
    assert sorted(line[0] for line in lines) == sorted(query_of)
    assert all(len(line) == 8 for line in lines)
    for line in lines:
        values = np.array(line[1:], float)
        assert np.linalg.norm(values[:4]) == pytest.approx(1, abs=1e-6)
    poses = read_poses(path)
    errors = [pose_error(poses[name], mini.pose[query]) for name, query in query_of.items()]
    assert np.median(errors, axis=0)[0] < 0.05
    assert np.median(errors, axis=0)[1] < 0.5


def only(folder, pattern):
    (path,) = folder.glob(pattern)
    return path


@pytest.mark.parametrize("name", ["Aachen", "Aachen_v1_1"])
def test_aachen(name, hloc, fountain, tmp_path, monkeypatch):
    make = {"Aachen": miniatures.aachen, "Aachen_v1_1": miniatures.aachen_v1_1}[name]
    mini, query_of = make(fountain, tmp_path / "data")
    replace_extraction(monkeypatch, mini)
    assert run_on_hloc(name, mini, tmp_path / "out", *PAIRS) == 0
    assert_submission(only(tmp_path / "out", "Aachen*.txt"), mini, query_of)
    assert only(tmp_path / "out", "map_*.dpqed").stat().st_size <= 120_000


def test_cambridge(hloc, fountain, tmp_path, monkeypatch, capsys):
    pytest.importorskip("cv2", reason="hloc's script needs opencv")
    mini = miniatures.cambridge(fountain, tmp_path / "data")
    replace_extraction(monkeypatch, mini)
    command = ["Cambridge", mini, tmp_path / "out", *PAIRS, "--scenes", "ShopFacade"]
    assert run_on_hloc(*command) == 0
    table = capsys.readouterr().out
    (row,) = cells(table)
    assert row["scene"] == "ShopFacade"
    assert row["poses"] == "4 of 4"
    assert median_centimetres(row) < 5
    # As in hloc, results that are there are evaluated again and not made again.
    monkeypatch.delattr(importlib.import_module("hloc.extract_features"), "main")
    assert run_on_hloc(*command) == 0
    assert capsys.readouterr().out == table


@pytest.mark.parametrize("dataset", ["AACHEN_DIR", "CAMBRIDGE_DIR"])
def test_the_papers_tables(dataset, hloc, fountain, tmp_path, monkeypatch, capsys):
    """benchmarks/paper_tables.py whole, with each dataset's folder in its variable."""
    from benchmarks import paper_tables

    pytest.importorskip("cv2", reason="hloc's script needs opencv")
    for name in ("AACHEN_DIR", "CAMBRIDGE_DIR"):
        monkeypatch.delenv(name, raising=False)
    extra = [*CHEAP, *PAIRS, "--sfm_matcher", "NN-mutual"]
    if dataset == "AACHEN_DIR":
        mini, _ = miniatures.aachen(fountain, tmp_path / "data")
    else:
        mini = miniatures.cambridge(fountain, tmp_path / "data")
        extra += ["--scenes", "ShopFacade"]
    monkeypatch.setenv(dataset, str(mini.root))
    replace_extraction(monkeypatch, mini)
    words = ["--outputs", str(tmp_path / "out"), "--", *extra]
    args = paper_tables.build_parser().parse_args(words)
    assert common.run_script(paper_tables.run, args) == 0
    title = {"AACHEN_DIR": "Aachen Day-Night", "CAMBRIDGE_DIR": "Cambridge Landmarks"}[dataset]
    rows = cells(capsys.readouterr().out.split(title)[1])
    if dataset == "AACHEN_DIR":
        published = [row for row in rows if row["source"].startswith("published")]
        ours = [row for row in rows if row["source"] == "this run"]
        assert len(published) == len(paper_tables.AACHEN_PUBLISHED) and len(ours) == 2
        for row in ours:
            assert Path(row["day"].removeprefix("upload ")).is_file()
    else:
        assert [row["scene"] for row in rows] == ["ShopFacade"]
        assert float(rows[0]["ours (this run)"].split("/")[0]) < 5


def test_robotcar(hloc, fountain, tmp_path, monkeypatch):
    mini, query_of = miniatures.robotcar(fountain, tmp_path / "data")
    replace_extraction(monkeypatch, mini)
    assert run_on_hloc("RobotCar", mini, tmp_path / "out", *PAIRS) == 0
    assert_submission(only(tmp_path / "out", "RobotCar*.txt"), mini, query_of)


def test_cmu(hloc, fountain, tmp_path, monkeypatch):
    mini, query_of = miniatures.cmu(fountain, tmp_path / "data")
    replace_extraction(monkeypatch, mini)
    assert run_on_hloc("CMU", mini, tmp_path / "out", *PAIRS, "--slices", "2") == 0
    assert_submission(only(tmp_path / "out", "CMU*.txt"), mini, query_of)


def test_seven_scenes(hloc, fountain, tmp_path, monkeypatch, capsys):
    mini = miniatures.seven_scenes(fountain, tmp_path / "data")
    replace_extraction(monkeypatch, mini)
    arguments = ["--num_covis", "6", "--scenes", "chess"]
    assert run_on_hloc("7Scenes", mini, tmp_path / "out", *arguments) == 0
    (row,) = cells(capsys.readouterr().out)
    assert row["poses"] == "4 of 4"
    assert median_centimetres(row) < 5
    trained = Path(tmp_path / "out" / "chess" / "sfm_sift")
    assert sorted(read_reference(trained).image_names) == [
        f"seq-01/frame-{i:06d}.color.png" for i in range(7)
    ]


def test_dense_depth_with_a_pycolmap_that_hloc_does_not_know(monkeypatch, tmp_path):
    camera = pycolmap.Camera(model="PINHOLE", width=4, height=4, params=[4, 4, 2, 2])

    def correct(*paths):
        camera.img_from_cam("img_from_cam is given something that it does not take")

    module = load("7Scenes")
    upstream = SimpleNamespace(correct_sfm_with_gt_depth=correct)
    monkeypatch.setattr(module, "require_hloc", lambda name: [upstream])
    with pytest.raises(InputError, match=r"needs pycolmap 3\.13"):
        module.correct_with_depth(tmp_path, tmp_path, tmp_path)


def test_four_seasons(hloc, fountain, tmp_path, monkeypatch, capsys):
    mini, file = miniatures.four_seasons(fountain, tmp_path / "data")
    replace_extraction(monkeypatch, mini)
    arguments = [*PAIRS, "--sequence", "training"]
    assert run_on_hloc("4Seasons", mini, tmp_path / "out", *arguments) == 0
    (row,) = cells(capsys.readouterr().out)
    assert row["poses"] == "4 of 4"
    assert median_centimetres(row) < 5
    # Relative poses, as the challenge takes them; and no image of the dataset was deleted.
    given = (mini.root / "reference" / file).read_text().splitlines()[1:]
    submitted = only(tmp_path / "out", "submission_*") / Path(file).name
    found = submitted.read_text().splitlines()
    assert [line.split()[:2] for line in found] == [line.split()[:2] for line in given]
    assert all(path.exists() for path in mini.source)


@pytest.mark.parametrize(
    ("text", "slices"),
    [("*", [2, 3]), ("7", [7]), ("2-4", [2, 3, 4]), ("[2, 5]", [2, 5]), ("2,5", [2, 5])],
)
def test_slices(text, slices):
    assert load("CMU").parse_slices(text, [2, 3]) == slices


@pytest.mark.parametrize("text", ["", "a", "2-", "[]", "2-b", "[1.5]", "__import__('os')"])
def test_wrong_slices(text):
    with pytest.raises(InputError, match="--slices"):
        load("CMU").parse_slices(text, [2, 3])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--num_covis", "0"], "--num_covis 0: expected at least 1"),
        (["--threads", "-1"], "--threads -1: expected at least 1"),
        (["--code_bytes", "0"], "--code_bytes 0: expected at least 1"),
    ],
)
def test_numbers_that_make_no_sense_are_told_first(words, told, capsys):
    parser = common.make_parser("x", "dataset", "outputs")
    common.add_pairs_arguments(parser, 20, 10)
    common.add_compression_arguments(parser)

    def never(args):
        raise AssertionError("it ran")

    assert common.run_script(never, parser.parse_args(words)) == 2
    assert capsys.readouterr().err == f"error: {told}\n"
