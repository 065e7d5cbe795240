"""Each command: exit codes, one line for each mistake, and what goes to standard output."""

import json
import os
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pycolmap
import pytest
from synthetic import Scene, make_scene, model_of

from hloc_dpqed import cli
from hloc_dpqed.io.lists import read_poses
from hloc_dpqed.logger import logger


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("cli"), num_points=80, dim=16)


@pytest.fixture(scope="module")
def map_file(scene, tmp_path_factory):
    path = tmp_path_factory.mktemp("map") / "map.dpqed"
    arguments = compress(scene, path, "--global_features", str(scene.global_features))
    assert cli.main(arguments) == 0
    return path


def compress(scene, output, *more) -> list[str]:
    """A quick codec first; later arguments win."""
    return [
        "compress", "--reference_sfm", str(scene.sfm), "--features", str(scene.features),
        "--output", str(output), "--codec", "pq", "--code_bytes", "4", *map(str, more),
    ]  # fmt: skip


def localize(scene, map_file, results, *more) -> list[str]:
    return [
        "localize", "--map", str(map_file), "--queries", str(scene.queries),
        "--features", str(scene.features), "--results", str(results),
        "--retrieval", str(scene.pairs), "--overwrite", *map(str, more),
    ]  # fmt: skip


def run(argv, capfd) -> tuple[int, str, list[str]]:
    """Exit code, standard output, and the lines of standard error that are no progress or log."""
    capfd.readouterr()
    try:
        code = cli.main(argv)
    except SystemExit as exit:
        code = exit.code
    out, err = capfd.readouterr()
    lines = [line for line in err.replace("\r", "\n").split("\n") if line.startswith("hloc-dpqed")]
    assert "Traceback" not in err
    return code, out, lines


def refused(argv, told, capfd) -> str:
    """Exit code 2, nothing on standard output, one line that says ``told``; returns it."""
    code, out, lines = run(argv, capfd)
    assert (code, out) == (2, ""), (out, lines)
    assert len(lines) == 1 and told in lines[0], lines
    return lines[0]


def test_the_whole_way(scene, map_file, tmp_path, capfd):
    results, logs = tmp_path / "results.txt", tmp_path / "logs.json"
    code, out, lines = run(
        localize(scene, map_file, results, "--json", "--full_names", "--logs", logs), capfd
    )
    assert (code, lines) == (0, [])
    figures = json.loads(out)
    assert figures["num_queries"] == figures["num_localized"] == 3
    assert figures["mean_matches"] >= figures["mean_inliers"] > 10
    assert figures["seconds_load"] > 0 and figures["seconds_per_query"] > 0
    assert set(read_poses(results)) == set(scene.query_names)
    log = json.loads(logs.read_text())
    assert set(log) == set(scene.query_names)
    assert sum(q["num_inliers"] for q in log.values()) / 3 == figures["mean_inliers"]
    assert not list(tmp_path.glob("*.part"))

    argv = ["evaluate", "--results", str(results), "--reference", str(scene.poses)]
    code, out, lines = run([*argv, "--json", "--thresholds", "0.1/1,1/10"], capfd)
    figures = json.loads(out)
    assert (code, lines) == (0, []) and figures["num_localized"] == 3
    assert [r["fraction"] for r in figures["recall"]] == [1, 1]
    code, out, _ = run(argv, capfd)
    assert code == 0 and "recall at 5 / 10: 1.000" in out

    code, out, lines = run(["info", str(map_file), "--json"], capfd)
    figures = json.loads(out)
    assert (code, lines) == (0, [])
    assert {
        "format_version", "num_points", "num_images", "num_observations", "codec", "code_bytes",
        "descriptor_dim", "granularity", "sections", "descriptor_bytes", "codec_bytes",
        "total_bytes", "distinct_codes",
    } <= set(figures)  # fmt: skip
    assert figures["total_bytes"] == map_file.stat().st_size == sum(figures["sections"].values())
    assert figures["num_points"] == 80 and figures["num_images"] == 7
    code, out, _ = run(["info", str(map_file)], capfd)
    assert code == 0 and "descriptor memory (codes only)" in out and "whole file" in out

    code, out, _ = run(["export", str(map_file), "--output", str(tmp_path / "hloc")], capfd)
    assert (code, out) == (0, "")
    assert pycolmap.Reconstruction(tmp_path / "hloc" / "sfm").num_points3D() == 80


@pytest.mark.parametrize(
    "more",
    [
        ["--retrieval", "none"],
        ["--covisibility_clustering"],
        ["--matcher", "NN-ratio"],
        ["--matcher", "NN-superpoint", "--ransac_thresh", "4"],
        ["--prepend_camera_name", "--fallback", "closest"],
        ["--threads", "1", "--seed", "7", "--num_retrieved", "2"],
    ],
    ids=" ".join,
)
def test_options_of_localize(scene, map_file, tmp_path, capfd, more):
    code, out, lines = run(localize(scene, map_file, tmp_path / "r.txt", "--json", *more), capfd)
    assert (code, lines) == (0, [])
    assert json.loads(out)["num_localized"] == 3
    names = {"day/q0.jpg", "night/q1.jpg", "query/q2.jpg"}
    if "--prepend_camera_name" not in more:
        names = {"q0.jpg", "q1.jpg", "q2.jpg"}
    assert set(read_poses(tmp_path / "r.txt")) == names


def test_retrieval_by_the_map_itself(scene, map_file, tmp_path, capfd):
    argv = localize(scene, map_file, tmp_path / "r.txt", "--json")
    at = argv.index("--retrieval")
    argv[at : at + 2] = ["--global_features", str(scene.global_features), "--num_retrieved", "3"]
    code, out, _ = run(argv, capfd)
    assert code == 0 and json.loads(out)["num_localized"] == 3


@pytest.mark.parametrize(
    ("more", "points"),
    [
        (["--num_points", "20"], 20),
        (["--num_points", str(10**30)], 80),
        (["--fraction", "0.5"], 40),
        (["--budget", "100B", "--budget_scope", "codes"], 25),
        (["--budget", "1GB"], 80),
        (["--granularity", "observation", "--num_points", "10"], 10),
        (["--codec", "none", "--selector", "random", "--num_points", "1", "--threads", "2"], 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_of_compress(scene, tmp_path, capfd, more, points):
    path = tmp_path / "map.dpqed"
    code, out, lines = run(compress(scene, path, *more), capfd)
    assert (code, out, lines) == (0, "", [])
    _, out, _ = run(["info", str(path), "--json"], capfd)
    assert json.loads(out)["num_points"] == points


def test_a_budget_is_kept(scene, tmp_path, capfd):
    path = tmp_path / "map.dpqed"
    assert run(compress(scene, path, "--budget", "10KB"), capfd)[0] == 0
    assert path.stat().st_size <= 10_000


BAD_COMPRESS = {
    "budget of 0": (["--budget", "0"], "0: not a size"),
    "negative budget": (["--budget", "-5"], "-5: not a size"),
    "negative budget with unit": (["--budget=-5KB"], "-5KB: not a size"),
    "absurd budget": (["--budget", "9" * 300 + "GB"], "not a size"),
    "budget too small": (["--budget", "10"], "nothing fits"),
    "codes too small": (["--budget", "3", "--budget_scope", "codes"], "nothing fits"),
    "no points": (["--num_points", "0"], "--num_points 0: expected at least 1"),
    "no number": (["--num_points", "many"], "invalid int value"),
    "fraction of 0": (["--fraction", "0"], "--fraction 0"),
    "fraction above 1": (["--fraction", "1.5"], "--fraction 1.5"),
    "no fraction": (["--fraction", "nan"], "--fraction nan"),
    "two sizes": (["--budget", "1MB", "--num_points", "5"], "exclude one another"),
    "codec": (["--codec", "nobody"], "invalid choice"),
    "selector": (["--selector", "nobody"], "invalid choice"),
    "all with fewer": (["--selector", "all", "--num_points", "5"], "--selector all keeps 80"),
    "code of 0 bytes": (["--code_bytes", "0"], "--code_bytes 0"),
    "absurd code": (["--code_bytes", str(10**12)], "--code_bytes"),
    "odd code": (["--code_bytes", "3"], "--code_bytes 3"),
    "negative seed": (["--seed", "-1"], "--seed -1"),
    "absurd seed": (["--seed", str(2**70)], "--seed"),
    "no threads": (["--threads", "0"], "--threads 0: expected 1 to 1024"),
    "absurd threads": (["--threads", "99999"], "--threads 99999: expected 1 to 1024"),
    "device": (["--device", "abacus"], "--device abacus: cannot be used"),
    "no model": (["--reference_sfm", "/nonexistent/sfm"], "/nonexistent/sfm: no such folder"),
    "no features": (["--features", "/nonexistent.h5"], "/nonexistent.h5: no such file"),
    "no global features": (["--global_features", "/nonexistent.h5"], "no such file"),
    "unknown option": (["--nothing"], "unrecognized arguments"),
}


@pytest.mark.parametrize("case", BAD_COMPRESS)
def test_bad_arguments_of_compress(scene, tmp_path, capfd, case):
    more, told = BAD_COMPRESS[case]
    line = refused(compress(scene, tmp_path / "map.dpqed", *more), told, capfd)
    assert line.startswith("hloc-dpqed")
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_exist_or_cannot_be_written(scene, map_file, tmp_path, capfd):
    path = tmp_path / "map.dpqed"
    path.write_bytes(b"old")
    refused(compress(scene, path), "exists already, pass --overwrite", capfd)
    assert path.read_bytes() == b"old"
    assert run(compress(scene, path, "--overwrite"), capfd)[0] == 0
    assert path.read_bytes() == map_file_without_globals(scene, tmp_path)
    refused(compress(scene, path / "below"), "cannot be written", capfd)
    refused(compress(scene, tmp_path, "--overwrite"), "it is a folder", capfd)
    refused(localize(scene, map_file, path / "below.txt"), "cannot be written", capfd)
    refused(localize(scene, map_file, tmp_path), "it is a folder", capfd)
    logs = ["--logs", tmp_path]
    refused(localize(scene, map_file, tmp_path / "r.txt", *logs), "it is a folder", capfd)
    argv = ["export", str(map_file), "--output"]
    refused([*argv, str(tmp_path)], "not an empty folder", capfd)
    refused([*argv, str(path / "below")], "cannot be written", capfd)


def map_file_without_globals(scene, tmp_path) -> bytes:
    path = tmp_path / "again.dpqed"
    assert cli.main(compress(scene, path)) == 0
    return path.read_bytes()


BAD_LOCALIZE = {
    "no map": (["--map", "/nonexistent.dpqed"], "/nonexistent.dpqed: no such file"),
    "no queries": (["--queries", "/nonexistent.txt"], "/nonexistent.txt: no such file"),
    "no features": (["--features", "/nonexistent.h5"], "/nonexistent.h5: no such file"),
    "no pairs": (["--retrieval", "/nonexistent.txt"], "/nonexistent.txt: no such file"),
    "matcher": (["--matcher", "nobody"], "nobody"),
    "threshold of 0": (["--ransac_thresh", "0"], "--ransac_thresh 0"),
    "threshold": (["--ransac_thresh", "nan"], "--ransac_thresh nan"),
    "no image": (["--num_retrieved", "0"], "--num_retrieved 0"),
    "fallback": (["--fallback", "nobody"], "invalid choice"),
    "both names": (["--prepend_camera_name", "--full_names"], "not allowed with"),
    "seed": (["--seed", "-1"], "--seed -1"),
    "threads": (["--threads", "99999"], "--threads 99999"),
    "device": (["--device", "abacus"], "--device abacus"),
}


@pytest.mark.parametrize("case", BAD_LOCALIZE)
def test_bad_arguments_of_localize(scene, map_file, tmp_path, capfd, case):
    more, told = BAD_LOCALIZE[case]
    refused(localize(scene, map_file, tmp_path / "r.txt", *more), told, capfd)
    assert list(tmp_path.iterdir()) == []


def written(path, text):
    path.write_text(text)
    return path


def test_bad_files_of_localize(scene, map_file, tmp_path, capfd):
    results = tmp_path / "r.txt"

    def told(message, *more):
        refused(localize(scene, map_file, results, *more), message, capfd)
        assert not results.exists()

    lines = scene.queries.read_text().splitlines()
    name, model = lines[0].split()[:2]
    for text, message in [
        ("", "holds no query"),
        (lines[0].replace(model, "NO_MODEL"), "no known camera model"),
        (lines[0] + " 1 2", "bad intrinsics"),
        (f"{lines[0]}\n{lines[0]}", f"query '{name}' comes twice"),
        (f"{lines[0]}\n{lines[0].replace(name, 'x/q0.jpg')}", "pass --full_names"),
        (lines[0].replace(name, "absent.jpg"), "no pair of a listed query"),
    ]:
        told(message, "--queries", written(tmp_path / "queries.txt", text))
    pairs = tmp_path / "pairs.txt"
    for text, message in [
        ("one word", "no pair of a listed query"),
        ("a b c", "expected two image names"),
        ("", "no pair of a listed query"),
        (f"{name} unknown.jpg", "no pair of a listed query"),
    ]:
        told(message, "--retrieval", written(pairs, text))
    both = written(tmp_path / "q.txt", f"{lines[0]}\n{lines[0].replace(name, 'absent.jpg')}")
    pairs.write_text(f"{name} {scene.db_names[0]}\nabsent.jpg {scene.db_names[0]}\n")
    told("'absent.jpg'", "--queries", both, "--retrieval", pairs)
    told("not a readable HDF5", "--features", scene.queries)
    refused(localize(scene, scene.features, results), "not a map file", capfd)

    argv = localize(scene, map_file, results)
    at = argv.index("--retrieval")
    refused(argv[:at] + argv[at + 2 :], "needs --global_features", capfd)
    no_globals = tmp_path / "plain.dpqed"
    assert cli.main(compress(scene, no_globals)) == 0
    argv = localize(scene, no_globals, results)
    refused(argv[:at] + argv[at + 2 :], "stores no global descriptors", capfd)


def test_features_of_another_kind(scene, map_file, tmp_path, capfd):
    other = tmp_path / "feats-other.h5"
    with h5py.File(scene.features) as file, h5py.File(other, "w") as out:
        for name in scene.query_names:
            for key in ("keypoints", "scores"):
                out[f"{name}/{key}"] = file[name][key][:]
            out[f"{name}/descriptors"] = file[name]["descriptors"][:8]
    line = refused(
        localize(scene, map_file, tmp_path / "r.txt", "--features", other),
        "descriptors have 8 dimensions, but the map was made from descriptors of 16",
        capfd,
    )
    assert "feats-other.h5" in line and "(feats-synthetic)" in line


def test_another_extractor_is_refused_unless_it_is_allowed(scene, tmp_path, capfd, caplog):
    features = tmp_path / "features.h5"
    shutil.copy(scene.features, features)
    with h5py.File(features, "a") as file:
        file.attrs["extractor"] = "one"
    assert cli.main(compress(scene, tmp_path / "m.dpqed", "--features", features)) == 0
    argv = localize(scene, tmp_path / "m.dpqed", tmp_path / "r.txt", "--features", features)
    assert run(argv, capfd)[0] == 0
    (tmp_path / "r.txt").unlink()
    with h5py.File(features, "a") as file:
        file.attrs["extractor"] = "other"
    told = "features of other, but the map was made from features of one"
    line = refused(argv, told, capfd)
    assert str(features) in line and "--allow_other_extractor" in line
    assert not list(tmp_path.glob("r.txt*"))
    logger.addHandler(caplog.handler)
    try:
        assert run([*argv, "--allow_other_extractor"], capfd)[0] == 0
    finally:
        logger.removeHandler(caplog.handler)
    assert told in caplog.text
    # A file that tells nothing is taken.
    with h5py.File(features, "a") as file:
        del file.attrs["extractor"]
    assert run(argv, capfd)[0] == 0


def test_hlocs_file_names_tell_the_extractor(scene, tmp_path, capfd):
    """Several of hloc's extractors have descriptors of 128 dimensions."""

    def named(name):
        shutil.copy(scene.features, tmp_path / name)
        return tmp_path / name

    sift = named("feats-sift.h5")
    assert cli.main(compress(scene, tmp_path / "m.dpqed", "--features", sift)) == 0
    told = "features of disk, but the map was made from features of sift"
    for other, message in (("feats-disk.h5", told), ("feats-query.h5", ""), ("mine.h5", "")):
        features = named(other)
        argv = localize(scene, tmp_path / "m.dpqed", tmp_path / "r.txt", "--features", features)
        if message:
            refused(argv, message, capfd)
        else:
            assert run(argv, capfd)[0] == 0


def test_bad_files_of_evaluate(scene, tmp_path, capfd):
    def told(message, **changes):
        files = {"results": scene.poses, "reference": scene.poses} | changes
        argv = ["evaluate"] + [f"--{key}={value}" for key, value in files.items()]
        refused(argv, message, capfd)

    told("no such file", results="/nonexistent.txt")
    told("no such file", reference="/nonexistent.txt")
    told("no such file", queries="/nonexistent.txt")
    told("expected translation/rotation pairs", thresholds="5")
    told("expected `name qw qx qy qz tx ty tz`", results=scene.queries)
    told("expected cameras, images", reference=tmp_path)
    told("holds no pose", reference=written(tmp_path / "empty.txt", ""))
    other = written(tmp_path / "other.txt", "x.jpg 1 0 0 0 0 0 0\n")
    told("shares no image name", results=other)


def test_bad_maps(scene, tmp_path, capfd):
    for command in (["info"], ["export", "--output", str(tmp_path / "out")]):
        for path, told in [
            (tmp_path / "absent", "no such file"),
            (tmp_path, "no such file"),
            (written(tmp_path / "empty", ""), ""),
            (written(tmp_path / "text", "map\n" * 1000), ""),
            (scene.features, ""),
        ]:
            refused([*command, str(path)], told, capfd)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("argv", [[], ["nothing"], ["compress"], ["info"], ["localize", "--json"]])
def test_missing_commands_and_arguments(argv, capfd):
    refused(argv, "error: ", capfd)


def test_line_breaks_in_names_stay_one_line(capfd):
    refused(["info", "/nonexistent\nfile"], "no such file", capfd)


def test_debug_shows_where(capfd):
    assert cli.main(["info", "/nonexistent", "--debug"]) == 2
    err = capfd.readouterr().err
    assert "Traceback" in err and "no such file" in err.splitlines()[-1]


def test_errors_of_our_own_are_one_line_too(monkeypatch, capfd):
    def broken(args):
        raise KeyError("a bug\nof two lines")

    monkeypatch.setattr(cli.commands, "info", broken)
    code, out, lines = run(["info", "x"], capfd)
    assert (code, out, len(lines)) == (1, "", 1)
    assert "unexpected error: KeyError" in lines[0] and "--debug" in lines[0]


def test_interrupts(monkeypatch, capfd):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.commands, "info", interrupted)
    code, out, lines = run(["info", "x"], capfd)
    assert (code, out) == (130, "") and "interrupted" in lines[0]


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_reader_that_leaves_is_no_error(map_file, more):
    """As ``hloc-dpqed info MAP | head -1`` does: no line about a broken pipe."""
    ends = os.pipe()
    os.close(ends[0])
    argv = [sys.executable, "-m", "hloc_dpqed.cli", "info", str(map_file), *more]
    done = subprocess.run(argv, stdout=ends[1], stderr=subprocess.PIPE, text=True)
    os.close(ends[1])
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this platform has no /dev/full")
def test_output_that_cannot_be_printed_is_told_once(map_file):
    argv = [sys.executable, "-m", "hloc_dpqed.cli", "info", str(map_file)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "No space left" in done.stderr


def test_compression_after_pycolmap_was_imported():
    """pycolmap 4.2 has functions of zlib's names; see the package's ``__init__``."""
    code = (
        "import hloc_dpqed, pycolmap, io, zlib, numpy, PIL.Image\n"
        "assert zlib.decompress(zlib.compress(b'abc' * 100000)) == b'abc' * 100000\n"
        "PIL.Image.fromarray(numpy.zeros((99, 99, 3), 'uint8')).save(io.BytesIO(), 'PNG')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def test_help_and_version(capfd):
    code, out, _ = run(["--version"], capfd)
    assert code == 0 and out.strip()
    for command in ("compress", "localize", "evaluate", "info", "export"):
        code, out, _ = run([command, "--help"], capfd)
        assert code == 0 and f"hloc-dpqed {command}" in out


def process(argv) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "hloc_dpqed.cli", *map(str, argv)], capture_output=True, text=True
    )


def test_real_processes_on_a_real_scene(fountain, tmp_path, capfd):
    """Standard output is one JSON object and nothing else, whatever the libraries print."""
    features = fountain / "feats-superpoint.h5"
    (pairs,) = fountain.glob("pairs-query-*.txt")
    argv = [
        "compress", "--reference_sfm", fountain / "sfm", "--features", features, "--codec", "pq",
        "--code_bytes", 8, "--num_points", 1000, "--output", tmp_path / "map.dpqed",
    ]  # fmt: skip
    assert run([*map(str, argv)], capfd) == (0, "", [])
    done = process(
        ["localize", "--map", tmp_path / "map.dpqed", "--queries", fountain / "queries.txt",
         "--features", features, "--retrieval", pairs, "--results", tmp_path / "r.txt",
         "--ransac_thresh", 4, "--json"]
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.count("\n") == 1
    assert json.loads(done.stdout)["num_localized"] == 4
    argv = [
        "evaluate", "--results", tmp_path / "r.txt", "--reference", fountain / "poses_gt.txt",
        "--json",
    ]  # fmt: skip
    code, out, _ = run([*map(str, argv)], capfd)
    assert code == 0 and json.loads(out)["median_translation"] < 0.05
    bad = process(["info", tmp_path / "r.txt"])
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr.count("\n") == 1 and bad.stderr.startswith("hloc-dpqed info: error: ")


def test_odd_names_and_images_without_kept_points(scene, tmp_path, capfd):
    names = ("a b/1 .jpg", "Straße/夜.jpg", "plain.jpg")
    queries = ("q 1.jpg", "é/q 2.jpg")
    odd = make_scene(tmp_path / "odd", num_points=60, dim=16, db_names=names, query_names=queries)
    path = tmp_path / "odd.dpqed"
    assert run(compress(odd, path, "--num_points", "5"), capfd)[0] == 0
    argv = localize(odd, path, tmp_path / "r.txt", "--full_names", "--json")
    code, out, lines = run(argv, capfd)
    assert (code, lines) == (0, []), lines
    assert json.loads(out)["num_queries"] == 2
    full = tmp_path / "full.dpqed"
    assert run(compress(odd, full), capfd)[0] == 0
    argv = localize(odd, full, tmp_path / "r.txt", "--full_names", "--json")
    assert json.loads(run(argv, capfd)[1])["num_localized"] == 2
    assert set(read_poses(tmp_path / "r.txt")) == set(queries)


def test_a_map_of_one_image(scene, tmp_path, capfd):
    model = pycolmap.Reconstruction(scene.sfm)
    image = next(i for i in model.images.values() if i.name == scene.db_names[0])
    seen = [(k, p.point3D_id) for k, p in enumerate(image.points2D) if p.has_point3D()]
    alone = model_of(
        [image.camera],
        [(1, image.name, image.camera_id, [p.xy for p in image.points2D], image.cam_from_world())],
        [(model.points3D[point].xyz, [(1, k)]) for k, point in seen],
    )
    alone.write(tmp_path)
    path = tmp_path / "one.dpqed"
    argv = compress(scene, path, "--reference_sfm", tmp_path)
    assert run(argv, capfd)[0] == 0
    code, out, _ = run(localize(scene, path, tmp_path / "r.txt", "--json"), capfd)
    assert code == 0 and json.loads(out)["num_localized"] == 3
    assert run(["export", str(path), "--output", str(tmp_path / "one.out")], capfd)[0] == 0


def test_models_that_cannot_be_compressed(scene, tmp_path, capfd):
    pycolmap.Reconstruction().write(tmp_path)
    refused(compress(scene, "m", "--reference_sfm", tmp_path), "no registered image", capfd)
    model = pycolmap.Reconstruction(scene.sfm)
    for point in list(model.points3D):
        model.delete_point3D(point)
    model.write(tmp_path)
    refused(compress(scene, "m", "--reference_sfm", tmp_path), "no 3D point", capfd)
    model.add_point3D(np.ones(3), pycolmap.Track())
    model.write(tmp_path)
    refused(compress(scene, "m", "--reference_sfm", tmp_path), "sees a 3D point", capfd)
    assert not os.path.exists("m")
