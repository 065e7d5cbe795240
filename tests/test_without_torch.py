"""Without torch and faiss: maps are read, shown, exported and localized in, with the same poses."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from synthetic import make_scene
from test_nearest_neighbor import CONFS, brute_force, grid, unit

from hloc_dpqed import compress, localize
from hloc_dpqed.localization.localizer import BASIS_ENERGY, common_basis
from hloc_dpqed.matching import plain
from hloc_dpqed.matching.nearest_neighbor import match_images

# A process in which both cannot be found, as where they are not installed.
BLOCKED = """
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "faiss"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from hloc_dpqed.cli import main
sys.exit(main(sys.argv[1:]))
"""


def run(*argv) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", BLOCKED, *map(str, argv)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return make_scene(tmp_path_factory.mktemp("scene"), num_points=120, dim=32)


@pytest.fixture(scope="module")
def maps(scene) -> dict[str, Path]:
    """Of each kind of codec that needs neither, and of one that needs faiss."""
    made = {}
    for codec, options in (
        ("drqed", {"codec_options": {"steps": 20}}),
        ("pq", {}),
        ("sign", {}),
        ("none", {"global_features": scene.global_features}),
        ("rq", {}),
    ):
        made[codec] = scene.folder / f"{codec}.dpqed"
        compress.main(scene.sfm, scene.features, made[codec], codec=codec, code_bytes=4, **options)
    return made


@pytest.mark.parametrize("codec", ["drqed", "pq", "sign", "none"])
@pytest.mark.parametrize("retrieval", ["pairs", "none"])
def test_same_poses(scene, maps, tmp_path, codec, retrieval):
    pairs = scene.pairs if retrieval == "pairs" else "none"
    inputs = (maps[codec], scene.queries, scene.features)
    localize.main(*inputs, tmp_path / "with.txt", retrieval=pairs, threads=1)
    argv = ["localize", "--map", inputs[0], "--queries", inputs[1], "--features", inputs[2]]
    argv += ["--retrieval", pairs, "--threads", 2]
    done = run(*argv, "--results", tmp_path / "without.txt")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "without.txt").read_bytes() == (tmp_path / "with.txt").read_bytes()
    assert len((tmp_path / "with.txt").read_text().splitlines()) == 3


def test_retrieval_by_the_map(scene, maps, tmp_path):
    argv = ["localize", "--map", maps["none"], "--queries", scene.queries, "--features"]
    argv += [scene.features, "--global_features", scene.global_features, "--num_retrieved", 3]
    done = run(*argv, "--results", tmp_path / "r.txt")
    assert done.returncode == 0, done.stderr


def test_info_export_evaluate(scene, maps, tmp_path):
    for codec in ("drqed", "rq"):
        assert run("info", maps[codec]).returncode == 0
    done = run("export", maps["drqed"], "--output", tmp_path / "exported")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "exported" / "features.h5").is_file()
    done = run("evaluate", "--results", scene.poses, "--reference", scene.poses)
    assert done.returncode == 0 and "recall" in done.stdout


def test_what_needs_them_says_so_in_one_line(scene, maps, tmp_path):
    made = ["--reference_sfm", scene.sfm, "--features", scene.features]
    inputs = ["--queries", scene.queries, "--features", scene.features, "--retrieval", scene.pairs]
    inputs += ["--results", tmp_path / "r.txt"]
    for argv, lacking in (
        (["compress", *made, "--output", tmp_path / "m.dpqed"], "pip install torch"),
        (["localize", "--map", maps["rq"], *inputs], "codec rq: this needs faiss"),
        (
            ["localize", "--map", maps["drqed"], *inputs, "--matcher", "adalam"],
            "pip install torch",
        ),
        (["localize", "--map", maps["drqed"], *inputs, "--device", "cuda"], "needs torch"),
        (["localize", "--map", maps["drqed"], *inputs, "--symmetric"], "pip install torch"),
    ):
        done = run(*argv)
        assert done.returncode == 2 and lacking in done.stderr, done.stderr
        assert sum("error" in line for line in done.stderr.splitlines()) == 1
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "m.dpqed").exists() and not (tmp_path / "r.txt").exists()


@pytest.mark.parametrize("name", CONFS)
@pytest.mark.parametrize("make", [grid, unit], ids=["with ties", "without ties"])
@settings(max_examples=40)
@given(
    st.integers(0, 10_000),
    st.integers(0, 12),
    st.integers(1, 12),
    st.lists(st.integers(0, 12), max_size=4),
    st.sampled_from([1, 3, 128]),
)
def test_plain_matches(name, make, seed, num_queries, num_rows, sizes, step):
    """Against a plain search, a pair of images at a time, in blocks of queries."""
    rng = np.random.default_rng(seed)
    query, database = make(rng, num_queries), make(rng, num_rows)
    images = [rng.integers(0, num_rows, size) for size in sizes]
    before, plain.MOST_ROWS = plain.MOST_ROWS, step
    try:
        found = plain.match_images(query, database, images, CONFS[name])
        whole = plain.match_all(query, database, CONFS[name])
    finally:
        plain.MOST_ROWS = before
    images, found = [*images, np.arange(num_rows)], [*found, whole]
    for rows, matches in zip(images, found, strict=True):
        np.testing.assert_array_equal(
            matches.pairs, brute_force(query, database[rows], CONFS[name])
        )
        similarity = (query[matches.pairs[:, 0]] * database[rows][matches.pairs[:, 1]]).sum(1)
        np.testing.assert_allclose(matches.similarity, similarity, atol=1e-6)
        assert matches.pairs.dtype == np.int64 and matches.similarity.dtype == np.float32


def test_plain_matches_are_those_of_torch():
    """On many rows that cannot be told by hand."""
    rng = np.random.default_rng(0)
    database, query = unit(rng, 600, 24), unit(rng, 500, 24)
    images = [np.sort(rng.choice(600, 200, replace=False)) for _ in range(5)]
    for conf in CONFS.values():
        found = plain.match_images(query, database, images, conf)
        tensors = [torch.from_numpy(rows) for rows in images]
        other = match_images(torch.from_numpy(query), torch.from_numpy(database), tensors, conf)
        for one, two in zip(found, other, strict=True):
            np.testing.assert_array_equal(one.pairs, two.pairs)


def test_plain_basis():
    rng = np.random.default_rng(0)
    inside = np.linalg.qr(rng.normal(size=(256, 40)))[0]
    rows = (rng.normal(size=(2000, 40)) @ inside.T).astype(np.float32)
    basis = plain.common_basis(rows, BASIS_ENERGY)
    assert basis is not None and basis.shape == (256, 40)
    assert np.allclose(basis @ basis.T, inside @ inside.T, atol=1e-4)
    assert plain.common_basis(rng.normal(size=(2000, 256)).astype(np.float32), 2e-5) is None
    assert plain.common_basis(rows[:100], 2e-5) is None
    assert common_basis(torch.from_numpy(rows)).shape == basis.shape


def test_sequences(scene, maps, tmp_path):
    inputs = (maps["drqed"], scene.queries, scene.features)
    figures = localize.main(
        *inputs, tmp_path / "with.txt", retrieval=scene.pairs, threads=1, track=True
    )
    assert figures["num_tracked"] == 2
    argv = ["localize", "--map", inputs[0], "--queries", inputs[1], "--features", inputs[2]]
    argv += ["--retrieval", scene.pairs, "--track", "--results", tmp_path / "without.txt"]
    done = run(*argv)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "without.txt").read_bytes() == (tmp_path / "with.txt").read_bytes()
