"""hloc itself on map files. Skipped where hloc is not importable; test_hloc_contract.py is not."""

import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import faiss
import h5py
import numpy as np
import pycolmap
import pytest
import torch
from colmap_files import scene_database, scene_features
from synthetic import compressed_scene, make_scene, write_compressed_scene

from hloc_dpqed import compress, hloc_bridge
from hloc_dpqed.errors import InputError
from hloc_dpqed.evaluation.pose_errors import pose_error
from hloc_dpqed.hloc_bridge.feature_store import FeatureStore
from hloc_dpqed.io.lists import read_poses
from hloc_dpqed.logger import logger
from hloc_dpqed.mapfile import read_map, write_map
from hloc_dpqed.maps.image_rows import image_rows

hloc = pytest.importorskip("hloc", reason="hloc is not importable; put it on PYTHONPATH")
from hloc import (  # noqa: E402
    localize_sfm,
    match_features,
    pairs_from_covisibility,
    pairs_from_poses,
    pairs_from_retrieval,
)
from hloc.utils import io as hloc_io  # noqa: E402
from hloc.utils.read_write_model import read_images_binary, read_model  # noqa: E402

NN = match_features.confs["NN-mutual"]


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return make_scene(tmp_path_factory.mktemp("bridge"))


@pytest.fixture(scope="module")
def map_file(scene):
    return write_compressed_scene(scene, scene.folder / "map.dpqed")


@pytest.fixture(scope="module")
def exported(scene, map_file):
    """The map as the files that unmodified hloc reads."""
    from hloc_dpqed import export

    export.main(map_file, scene.folder / "exported")
    return scene.folder / "exported"


@pytest.fixture(autouse=True)
def uninstalled():
    yield
    assert not hloc_bridge.patches._replaced, "a test left the bridge installed"


def hloc_state():
    """Every attribute of every hloc module, and the modules that there are."""
    state = {}
    for name in sorted(sys.modules):
        if name == "hloc" or name.startswith("hloc."):
            module = sys.modules[name]
            state[name] = (id(module), {k: id(v) for k, v in vars(module).items()})
    return state


def read_matches(path):
    matches = {}
    with h5py.File(path) as file:

        def visit(name, item):
            if name.endswith("matches0"):
                matches[name] = item[()]

        file.visititems(visit)
    return matches


def use_thread_pools():
    """What a parent process has done before hloc forks its workers."""
    torch.set_num_threads(2)
    x = torch.randn(300, 300)
    (x @ x).sum()
    faiss.omp_set_num_threads(2)
    rows = np.random.default_rng(0).standard_normal((4000, 64)).astype(np.float32)
    pq = faiss.ProductQuantizer(64, 4, 8)
    pq.train(rows)
    pq.decode(pq.compute_codes(rows))
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)


def run_hloc(scene, folder, features_ref, reference_sfm, conf=NN, **options):
    matches, results = folder / "matches.h5", folder / "results.txt"
    match_features.main(
        conf, scene.pairs, scene.features, matches=matches, features_ref=features_ref
    )
    localize_sfm.main(
        reference_sfm, scene.queries, scene.pairs, scene.features, matches, results, **options
    )
    return matches, read_poses(results)


def test_intrinsics_of_another_size_are_refused(scene, map_file, tmp_path):
    """hloc would localize with them, metres off."""
    lines = scene.queries.read_text().splitlines(keepends=True)
    queries = tmp_path / "queries.txt"
    queries.write_text("".join(line.replace(" 1024 768 ", " 768 1024 ") for line in lines))
    with hloc_bridge.installed(), pytest.raises(InputError, match="turned by 90 degrees"):
        localize_sfm.main(
            map_file, queries, scene.pairs, scene.features, tmp_path / "none.h5", tmp_path / "r.txt"
        )
    assert not (tmp_path / "r.txt").exists()


def test_pairs_that_hloc_cannot_read_are_refused(scene, map_file, tmp_path):
    query, image = scene.query_names[0], scene.db_names[0]
    pairs = tmp_path / "pairs.txt"
    for text, told in [
        (f"{query} {image} 0.9\n", ":1: hloc reads two names separated by a space and nothing"),
        (f"{query} {image}\n{query},{image}\n", ":2: hloc reads two names .* found 1 words"),
        (f"{image} {query}\n", "the two names of each line are the wrong way round"),
    ]:
        pairs.write_text(text)
        with hloc_bridge.installed(), pytest.raises(InputError, match=told) as error:
            match_features.main(
                NN, pairs, scene.features, matches=tmp_path / "m.h5", features_ref=map_file
            )
        assert str(error.value).startswith(str(pairs)) and "\n" not in str(error.value)
    assert not (tmp_path / "m.h5").exists()


def test_descriptors_that_are_not_unit_vectors_are_refused(scene, map_file, tmp_path):
    """hloc does not normalise them."""
    queries = tmp_path / "feats.h5"
    shutil.copy(scene.features, queries)
    with h5py.File(queries, "a") as file:
        for name in scene.query_names:
            long = 512 * file[name]["descriptors"][:].astype(np.float32)
            del file[name]["descriptors"]
            file[name]["descriptors"] = np.clip(np.abs(np.round(long)), 0, 255).astype(np.uint8)
    with hloc_bridge.installed(), pytest.raises(InputError, match="hloc does not normalise"):
        match_features.main(
            NN, scene.pairs, queries, matches=tmp_path / "m.h5", features_ref=map_file
        )
    assert not (tmp_path / "m.h5").exists()


@pytest.mark.parametrize("as_type", [str, Path])
def test_match_and_localize_with_the_map_file(scene, map_file, exported, tmp_path, as_type):
    use_thread_pools()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with hloc_bridge.installed():
        matches, poses = run_hloc(
            scene, tmp_path / "a", features_ref=as_type(map_file), reference_sfm=as_type(map_file)
        )
    other, other_poses = run_hloc(scene, tmp_path / "b", exported / "features.h5", exported / "sfm")
    mounted, on_files = read_matches(matches), read_matches(other)
    assert set(mounted) == set(on_files) and len(mounted) == 15
    for pair in mounted:
        assert mounted[pair].dtype == np.int16
        # The export stores float16, so a tie may fall the other way.
        assert (mounted[pair] == on_files[pair]).mean() > 0.99
    truth = {k.split("/")[-1]: v for k, v in read_poses(scene.poses).items()}
    assert set(poses) == set(other_poses) == set(truth)
    for name, pose in truth.items():
        for estimated in (poses[name], other_poses[name]):
            translation, rotation = pose_error(estimated, pose)
            assert translation < 0.02 and rotation < 0.2


def test_the_queries_features_may_be_a_colmap_database(tmp_path):
    """The same matches and poses as with the equivalent feature file."""
    scene = make_scene(tmp_path / "scene", dim=128, num_points=150)
    features = scene_features(scene, tmp_path / "features.h5", unit=True)
    database = scene_database(scene, tmp_path / "database.db")
    map_file = tmp_path / "map.dpqed"
    compress.main(scene.sfm, database, map_file, codec="none", progress=False)
    found = []
    for kind, path in (("h5", features), ("db", database)):
        folder = tmp_path / kind
        folder.mkdir()
        with hloc_bridge.installed():
            matches, results = folder / "matches.h5", folder / "results.txt"
            match_features.main(NN, scene.pairs, path, matches=matches, features_ref=map_file)
            localize_sfm.main(map_file, scene.queries, scene.pairs, path, matches, results)
        found.append((read_matches(matches), read_poses(results)))
    (ours, poses), (theirs, same) = found
    assert ours.keys() == theirs.keys() and len(ours) > 0
    for pair in ours:
        np.testing.assert_array_equal(ours[pair], theirs[pair])
    assert poses.keys() == same.keys() and len(poses) == len(scene.query_names)
    for name, pose in poses.items():
        np.testing.assert_allclose(pose, same[name], atol=1e-9)


@pytest.mark.parametrize("clustering", [False, True])
def test_agrees_with_our_localizer(scene, map_file, tmp_path, clustering):
    from hloc_dpqed import localize

    with hloc_bridge.installed():
        _, poses = run_hloc(scene, tmp_path, map_file, map_file, covisibility_clustering=clustering)
    localize.main(
        map_file,
        scene.queries,
        scene.features,
        tmp_path / "ours.txt",
        retrieval=scene.pairs,
        covisibility_clustering=clustering,
        progress=False,
    )
    ours = read_poses(tmp_path / "ours.txt")
    assert set(ours) == set(poses)
    for name in ours:
        translation, rotation = pose_error(ours[name], poses[name])
        assert translation < 0.01 and rotation < 0.1


def test_symmetric_matching(scene, map_file, tmp_path):
    with hloc_bridge.installed():
        conf = match_features.confs["dpqed-symmetric-NN-mutual"]
        path = tmp_path / "symmetric.h5"
        match_features.main(conf, scene.pairs, scene.features, matches=path, features_ref=map_file)
    compressed = read_map(map_file)
    found = read_matches(path)
    with h5py.File(scene.features) as file:
        query = file["query/q2.jpg"]["descriptors"][()].T.astype(np.float32)
    decoded = compressed.codec.decode(compressed.codec.encode(query))
    database = compressed.codec.decode(compressed.codes[image_rows(compressed, 0).codes])
    similarity = decoded @ database.T
    expected = similarity.argmax(1)
    mutual = similarity.argmax(0)[expected] == np.arange(len(query))
    expected = np.where(mutual, expected, -1)
    assert (found["query-q2.jpg/db-day-0.jpg/matches0"] == expected).mean() > 0.99


def test_registered_configurations():
    before = dict(match_features.confs)
    with hloc_bridge.installed():
        for name, conf in before.items():
            ours = match_features.confs[f"dpqed-{name}"]
            assert ours["model"] == conf["model"] and ours["output"] != conf["output"]
            assert match_features.confs[f"dpqed-symmetric-{name}"]["model"]["name"] == "dpqed"
    assert match_features.confs == before


def test_a_spawned_worker_installs_the_bridge(map_file):
    dataset = match_features.FeaturePairsDataset([("a", "b")], Path("q.h5"), None)
    dataset.feature_path_r = hloc_bridge.patches._as_path(str(map_file))
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        count = pool.apply(_rows_in_worker, (dataset,))
    assert count == len(image_rows(read_map(map_file), 0).points)
    # In this process, sending the path about changes nothing.
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.feature_path_r == map_file and not hloc_bridge.patches._replaced


# A user's script: upstream hloc but for the bridge, its workers started as the argument says.
SCRIPT = """
import multiprocessing, os, sys
from pathlib import Path

import faiss, numpy as np, torch

from hloc import match_features
from hloc_dpqed import compress, hloc_bridge

if __name__ == "__main__":
    method, pairs, features, map_file, matches = sys.argv[1:]
    multiprocessing.set_start_method(method)
    torch.set_num_threads(2)
    faiss.omp_set_num_threads(2)
    x = torch.randn(300, 300)
    (x @ x).sum()
    rows = np.random.default_rng(0).standard_normal((4000, 64)).astype(np.float32)
    pq = faiss.ProductQuantizer(64, 4, 8)
    pq.train(rows)
    pq.decode(pq.compute_codes(rows))
    torch.set_num_threads(1)
    hloc_bridge.install()
    started = []
    start = multiprocessing.process.BaseProcess.start

    def counted(process):
        start(process)
        started.append(type(process._popen).__module__)

    multiprocessing.process.BaseProcess.start = counted
    match_features.main(
        match_features.confs["NN-mutual"],
        Path(pairs),
        Path(features),
        matches=Path(matches),
        features_ref=Path(map_file),
    )
    print("workers", *started)
"""


@pytest.fixture(scope="module")
def forked_and_spawned(scene, map_file, tmp_path_factory):
    """Matches by the script under each start method, and what its workers were."""
    folder = tmp_path_factory.mktemp("script")
    (folder / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    found = {}
    for method in ("fork", "spawn"):
        matches = folder / f"{method}.h5"
        paths = [scene.pairs, scene.features, map_file, matches]
        done = subprocess.run(
            [sys.executable, folder / "script.py", method, *paths],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        found[method] = read_matches(matches), done.stdout.split("workers ")[1].split()
    return found


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_match_features_whole_under_each_start_method(
    forked_and_spawned, scene, map_file, tmp_path, method
):
    matches, workers = forked_and_spawned[method]
    # hloc's DataLoader has five workers.
    module = {"fork": "popen_fork", "spawn": "popen_spawn_posix"}[method]
    assert workers == [f"multiprocessing.{module}"] * 5
    with hloc_bridge.installed():
        path = tmp_path / "m.h5"
        match_features.main(NN, scene.pairs, scene.features, matches=path, features_ref=map_file)
    expected = read_matches(path)
    assert set(matches) == set(expected) and len(matches) == 15
    for pair, rows in expected.items():
        np.testing.assert_array_equal(matches[pair], rows)
        assert (rows >= 0).sum() > 50


def _rows_in_worker(dataset):
    with match_features.h5py.File(dataset.feature_path_r, "r") as file:
        return len(file["db/day/0.jpg"]["keypoints"])


def test_retrieval_with_the_map_for_descriptors_and_model(scene, map_file, tmp_path):
    from_files, mounted, as_model = (tmp_path / f"{k}.txt" for k in "abc")
    queries = dict(query_list=list(scene.query_names))
    pairs_from_retrieval.main(scene.global_features, from_files, 4, db_model=scene.sfm, **queries)
    with hloc_bridge.installed():
        pairs_from_retrieval.main(
            scene.global_features, mounted, 4, db_descriptors=str(map_file), **queries
        )
        pairs_from_retrieval.main(
            scene.global_features,
            as_model,
            4,
            db_descriptors=map_file,
            db_model=str(map_file),
            **queries,
        )
    expected = sorted(from_files.read_text().split("\n"))
    assert expected == sorted(mounted.read_text().split("\n"))
    assert expected == sorted(as_model.read_text().split("\n"))
    assert len(expected) == 12


@pytest.mark.parametrize("as_type", [str, Path])
def test_the_map_for_every_feature_file(scene, map_file, exported, tmp_path, as_type):
    """Also for the queries' features: database images with one another, as hloc maps them."""
    exhaustive = pytest.importorskip("hloc.pairs_from_exhaustive")
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    files = {
        ours: (as_type(map_file), as_type(map_file)),
        theirs: (exported / "global-features.h5", exported / "features.h5"),
    }
    with hloc_bridge.installed():
        for folder, (global_features, features) in files.items():
            folder.mkdir()
            pairs_from_retrieval.main(global_features, folder / "pairs.txt", 2)
            exhaustive.main(folder / "all.txt", features=Path(features))
            match_features.main(
                NN, folder / "pairs.txt", features, matches=folder / "m.h5", features_ref=None
            )
    for name in ("pairs.txt", "all.txt"):
        lines = [sorted((f / name).read_text().split("\n")) for f in (ours, theirs)]
        assert lines[0] == lines[1] and len(lines[0]) >= 14
    found, expected = read_matches(ours / "m.h5"), read_matches(theirs / "m.h5")
    assert set(found) == set(expected)
    for pair in found:
        assert (found[pair] == expected[pair]).mean() > 0.99  # the export stores float16


@pytest.mark.parametrize("as_type", [str, Path])
def test_covisibility_pairs(map_file, exported, tmp_path, as_type):
    with hloc_bridge.installed():
        pairs_from_covisibility.main(as_type(map_file), tmp_path / "a.txt", 3)
        pairs_from_poses.main(as_type(map_file), tmp_path / "c.txt", 3, rotation_threshold=180)
    pairs_from_covisibility.main(exported / "sfm", tmp_path / "b.txt", 3)
    pairs_from_poses.main(exported / "sfm", tmp_path / "d.txt", 3, rotation_threshold=180)

    def pairs(name):
        return sorted((tmp_path / name).read_text().split("\n"))

    assert pairs("a.txt") == pairs("b.txt") and len(pairs("a.txt")) == 7 * 3
    assert pairs("c.txt") == pairs("d.txt") and len(pairs("c.txt")) > 7


def test_model_of_map_is_what_hloc_reads_from_an_export(map_file, exported):
    ours = hloc_bridge.model_of_map(read_map(map_file))
    theirs = read_model(exported / "sfm", ".bin")
    assert [len(x) for x in ours] == [len(x) for x in theirs]
    for a, b in zip(ours[0].values(), theirs[0].values(), strict=True):
        assert (a.id, a.model, a.width, a.height) == (b.id, b.model, b.width, b.height)
        np.testing.assert_allclose(a.params, b.params)
    by_name = {image.name: image for image in theirs[1].values()}
    for image in ours[1].values():
        other = by_name[image.name]
        np.testing.assert_allclose(image.qvec2rotmat(), other.qvec2rotmat(), atol=1e-9)
        np.testing.assert_allclose(image.tvec, other.tvec, atol=1e-9)
        np.testing.assert_allclose(image.xys, other.xys, atol=1e-3)
        np.testing.assert_array_equal(image.point3D_ids, other.point3D_ids)
    for i, point in ours[2].items():
        np.testing.assert_allclose(point.xyz, theirs[2][i].xyz)
        np.testing.assert_array_equal(point.image_ids, theirs[2][i].image_ids)
        np.testing.assert_array_equal(point.point2D_idxs, theirs[2][i].point2D_idxs)


def test_visualization(scene, map_file, tmp_path):
    plt = pytest.importorskip("matplotlib.pyplot")
    cv2 = pytest.importorskip("cv2")
    from hloc import visualization

    plt.switch_backend("agg")
    images = tmp_path / "images"
    for name in (*scene.db_names, *scene.query_names):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(images / name), np.zeros((768, 1024, 3), np.uint8))
    with hloc_bridge.installed():
        for color_by in ("visibility", "track_length", "depth"):
            visualization.visualize_sfm_2d(map_file, images, color_by=color_by, n=1)
        run_hloc(scene, tmp_path, map_file, map_file)
        visualization.visualize_loc(
            tmp_path / "results.txt", images, reconstruction=map_file, n=2, top_k_db=1
        )
    assert len(plt.get_fignums()) >= 5
    plt.close("all")


def test_helpers_of_hloc_read_the_store(scene, map_file):
    with hloc_bridge.installed():
        assert sorted(hloc_io.list_h5_names(map_file)) == sorted(scene.db_names)
        keypoints, uncertainty = hloc_io.get_keypoints(map_file, "db/day/0.jpg", True)
    np.testing.assert_array_equal(keypoints, image_rows(read_map(map_file), 0).keypoints)
    assert uncertainty is None


def test_real_files_work_as_before_while_installed(scene, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    _, before = run_hloc(scene, tmp_path / "a", scene.features, scene.sfm)
    with hloc_bridge.installed():
        _, inside = run_hloc(scene, tmp_path / "b", scene.features, scene.sfm)
        model = localize_sfm.pycolmap.Reconstruction(scene.sfm)
        assert isinstance(model, localize_sfm.pycolmap.Reconstruction)
        assert type(model) is pycolmap.Reconstruction
        with match_features.h5py.File(tmp_path / "new.h5", "w") as file:
            assert type(file) is h5py.File and isinstance(file, match_features.h5py.File)
        with pytest.raises(OSError):
            match_features.h5py.File(scene.queries, "r")
    assert (
        read_matches(tmp_path / "a/matches.h5").keys()
        == read_matches(tmp_path / "b/matches.h5").keys()
    )
    for name in before:
        assert pose_error(before[name], inside[name])[0] < 1e-3


def test_uninstall_leaves_no_trace(map_file):
    with hloc_bridge.installed():
        pass  # imports what install imports
    before = hloc_state()
    others = {name: id(sys.modules[name]) for name in ("h5py", "pycolmap")}
    h5py_file, reconstruction = h5py.File, pycolmap.Reconstruction
    hloc_bridge.install()
    hloc_bridge.install()
    assert hloc_state() != before
    with hloc_bridge.installed(), hloc_bridge.installed():
        pass
    assert hloc_bridge.patches._replaced, "installed() inside install() must not uninstall"
    hloc_bridge.uninstall()
    hloc_bridge.uninstall()
    assert hloc_state() == before
    assert {name: id(sys.modules[name]) for name in others} == others
    assert h5py.File is h5py_file and pycolmap.Reconstruction is reconstruction
    with pytest.raises(RuntimeError), hloc_bridge.installed():
        raise RuntimeError
    assert hloc_state() == before
    with pytest.raises(OSError):
        match_features.h5py.File(map_file, "r")


def test_messages(scene, map_file, tmp_path, monkeypatch):
    matches = tmp_path / "m.h5"

    def match(pairs, features=scene.features, reference=map_file):
        path = tmp_path / "pairs.txt"
        path.write_text(pairs)
        match_features.main(NN, path, features, matches=matches, features_ref=reference)

    other = make_scene(tmp_path / "other", dim=128)
    with hloc_bridge.installed():
        with pytest.raises(InputError, match=r"image 'db/x.jpg' is not in the map"):
            match("query/q2.jpg db/x.jpg")
        with pytest.raises(InputError, match=r"image 'query/x.jpg' of .* is not in the feature"):
            match("query/x.jpg db/day/0.jpg")
        with pytest.raises(InputError, match=r"128 dimensions, but the map was made .* of 256"):
            match("query/q2.jpg db/day/0.jpg", features=other.features)
        monkeypatch.setattr("hloc_dpqed.maps.image_rows.MAX_MATCHABLE_ROWS", 10)
        with pytest.raises(InputError, match="int16"):
            match("query/q2.jpg db/day/0.jpg")
        monkeypatch.undo()
        with pytest.raises(InputError, match="read-only"):
            match_features.h5py.File(map_file, "a")
        with pytest.raises(InputError, match="no global descriptors"):
            local = write_compressed_scene(scene, tmp_path / "l.dpqed", with_global=False)
            pairs_from_retrieval.main(
                scene.global_features, tmp_path / "p.txt", 2, db_descriptors=local
            )


def test_another_extractor_is_refused(scene, map_file, tmp_path, capsys, caplog):
    compressed = compressed_scene(scene)
    compressed.metadata["features"] = {"name": "features", "extractor": "SOSNet"}
    write_map(tmp_path / "map.dpqed", compressed)
    features = tmp_path / "feats.h5"
    shutil.copy(scene.features, features)
    with h5py.File(features, "a") as file:
        file.attrs["extractor"] = "HardNet"
    argv = ["match_features", "--conf", "NN-mutual", "--pairs", scene.pairs]
    argv += ["--features", features, "--features_ref", tmp_path / "map.dpqed"]
    argv = [*map(str, argv), "--matches", str(tmp_path / "m.h5")]
    assert hloc_bridge.main(argv) == 2
    told = "features of HardNet, but the map was made from features of SOSNet"
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("hloc_bridge")]
    assert f"{told}; pass --allow_other_extractor" in line
    assert not (tmp_path / "m.h5").exists()
    logger.addHandler(caplog.handler)
    try:
        assert hloc_bridge.main([*argv, "--allow_other_extractor"]) == 0
    finally:
        logger.removeHandler(caplog.handler)
    assert told in caplog.text and (tmp_path / "m.h5").exists()
    with hloc_bridge.installed(), match_features.h5py.File(tmp_path / "map.dpqed") as store:
        assert dict(store.attrs) == {"extractor": "SOSNet"}


def test_matches_of_another_map_are_refused(scene, map_file, tmp_path):
    """Matched with the original features, then localized with the map."""
    small = tmp_path / "small.dpqed"
    write_map(small, compressed_scene(scene, rows=np.arange(0, 300, 30)))
    matches = tmp_path / "m.h5"
    match_features.main(NN, scene.pairs, scene.features, matches=matches)
    with (
        hloc_bridge.installed(),
        pytest.raises(InputError, match=r"the map has .* rows for it; match again"),
    ):
        localize_sfm.main(
            small, scene.queries, scene.pairs, scene.features, matches, tmp_path / "r.txt"
        )


def test_command_line(scene, map_file, tmp_path, capsys):
    run = hloc_bridge.main
    matches, results = str(tmp_path / "m.h5"), str(tmp_path / "r.txt")
    common = ["--features", str(scene.features), "--matches", matches]
    pairs = ["--pairs", str(scene.pairs)]
    conf = ["--conf", "dpqed-NN-mutual"]
    code = run(["match_features", *conf, *pairs, *common, "--features_ref", str(map_file)])
    assert code == 0
    inputs = ["--reference_sfm", str(map_file), "--queries", str(scene.queries)]
    outputs = ["--retrieval", str(scene.pairs), "--results", results]
    code = run(["localize_sfm", *inputs, *common, *outputs])
    assert code == 0 and len(read_poses(Path(results))) == 3
    assert run(["match_features", "--conf", "none", *pairs, *common]) == 2
    assert "--conf none: expected one of" in capsys.readouterr().err


def test_read_images_binary_elsewhere_is_untouched(scene):
    with hloc_bridge.installed():
        assert len(read_images_binary(scene.sfm / "images.bin")) == 7


def test_the_store_survives_hlocs_writer_threads(scene, map_file, tmp_path):
    """Twice in one process: the second time, the parent's cache is warm at the fork."""
    with hloc_bridge.installed(), FeatureStore(map_file) as store:
        for name in scene.db_names:
            store[name]["descriptors"].__array__()
        for i in range(2):
            path = tmp_path / f"{i}.h5"
            match_features.main(
                NN, scene.pairs, scene.features, matches=path, features_ref=map_file
            )
            assert len(read_matches(path)) == 15


def test_a_georeferenced_map_file_is_localized_in_a_local_frame(scene, map_file, tmp_path):
    """hloc's solver, given coordinates of millions of metres, would lose three digits."""
    compressed = read_map(map_file)
    offset = np.array([2.5e6, 1.4e6, 5.7e6])
    poses = compressed.cam_from_world.copy()
    poses[:, :, 3] -= poses[:, :, :3] @ offset
    moved = replace(compressed, xyz=compressed.xyz + offset, cam_from_world=poses)
    write_map(tmp_path / "moved.dpqed", moved)
    found = []
    for k, path in enumerate((map_file, tmp_path / "moved.dpqed")):
        matches, results = tmp_path / f"matches-{k}.h5", tmp_path / f"results-{k}.txt"
        with hloc_bridge.installed():
            match_features.match_from_paths(NN, scene.pairs, matches, scene.features, path)
            localize_sfm.main(path, scene.queries, scene.pairs, scene.features, matches, results)
        found.append(read_poses(results))
    assert len(found[0]) == len(scene.query_names)
    for name, pose in found[0].items():
        expected = pose.copy()
        expected[:, 3] -= pose[:, :3] @ offset
        translation, rotation = pose_error(found[1][name], expected)
        assert translation < 1e-3 and rotation < 1e-2
