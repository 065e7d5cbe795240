"""The localization job: names, fallbacks, interruptions, memory, and sharing of one map."""

import json
import os
import resource
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from synthetic import Scene, make_scene, write_compressed_scene
from test_compress import TRIALS, environment, killed

from hloc_dpqed import localize
from hloc_dpqed.errors import InputError
from hloc_dpqed.io.checkpoint import Checkpoint
from hloc_dpqed.io.lists import read_poses
from hloc_dpqed.localization.retrieval import retrieve
from hloc_dpqed.localize import result_names
from hloc_dpqed.mapfile import read_map

QUERIES = tuple(f"query/{k:02d}.jpg" for k in range(12))


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Scene:
    return make_scene(
        tmp_path_factory.mktemp("localize"), num_points=80, dim=32, query_names=QUERIES
    )


@pytest.fixture(scope="module")
def map_file(scene) -> Path:
    return write_compressed_scene(scene, scene.folder / "map.dpqed", codec="none")


def run(scene, map_file, results, **options):
    options = {"retrieval": scene.pairs, "progress": False, "threads": 2} | options
    options.setdefault("overwrite", True)
    figures = localize.main(map_file, scene.queries, scene.features, results, **options)
    return figures, results.read_bytes()


def test_results_are_in_the_order_of_the_list(scene, map_file, tmp_path):
    figures, _ = run(scene, map_file, tmp_path / "r.txt")
    assert list(read_poses(tmp_path / "r.txt")) == [q.rsplit("/")[-1] for q in QUERIES]
    assert figures["num_localized"] == 12 and figures["num_resumed"] == 0
    assert [p.name for p in tmp_path.iterdir()] == ["r.txt"]


def test_any_number_of_threads_and_any_order_write_the_same(scene, map_file, tmp_path):
    expected = run(scene, map_file, tmp_path / "1.txt", threads=1, ransac_thresh=4)[1]
    for threads in (2, 8):
        path = tmp_path / f"{threads}.txt"
        assert run(scene, map_file, path, threads=threads, ransac_thresh=4)[1] == expected
    lines = scene.queries.read_text().splitlines(keepends=True)
    shuffled = tmp_path / "shuffled.txt"
    shuffled.write_text("".join(reversed(lines[3:9])))
    localize.main(
        map_file, shuffled, scene.features, tmp_path / "few.txt",
        retrieval=scene.pairs, ransac_thresh=4, progress=False,
    )  # fmt: skip
    few = (tmp_path / "few.txt").read_bytes().splitlines()
    assert few == expected.splitlines()[3:9][::-1]


def test_retrieval_by_the_map_does_not_depend_on_the_other_queries(scene, map_file):
    compressed = read_map(map_file)
    every = retrieve(compressed, list(QUERIES), None, scene.global_features, 3)
    for query in QUERIES[::4]:
        alone = retrieve(compressed, [query], None, scene.global_features, 3)
        assert alone[query] == every[query] and len(every[query]) == 3
    best = retrieve(compressed, list(QUERIES), None, scene.global_features, 100)
    assert all(sorted(rows) == list(range(7)) for rows in best.values())


def test_names():
    names = ["a/b/c.jpg", "d.jpg"]
    assert result_names(names) == {"a/b/c.jpg": "c.jpg", "d.jpg": "d.jpg"}
    assert result_names(names, prepend_camera_name=True)["a/b/c.jpg"] == "b/c.jpg"
    assert result_names(names, full_names=True)["a/b/c.jpg"] == "a/b/c.jpg"
    with pytest.raises(InputError, match="'a' comes twice"):
        result_names(["a", "a"])
    with pytest.raises(InputError, match="pass --full_names"):
        result_names(["x/a", "y/a"])


@pytest.mark.parametrize("fallback", ["none", "closest"])
def test_queries_without_a_pose(scene, map_file, tmp_path, fallback):
    """A query whose images see nothing fails; the fallback writes a pose but does not count."""
    few = write_compressed_scene(scene, tmp_path / "few.dpqed", codec="none", rows=np.array([5]))
    figures, _ = run(scene, few, tmp_path / "r.txt", fallback=fallback)
    assert figures["num_localized"] == 0 and figures["mean_inliers"] == 0
    poses = read_poses(tmp_path / "r.txt")
    if fallback == "none":
        assert poses == {}
    else:
        compressed = read_map(few)
        closest = compressed.image_names.index(scene.db_names[0])
        assert len(poses) == 12
        for pose in poses.values():
            np.testing.assert_allclose(pose, compressed.cam_from_world[closest], atol=1e-9)
    with pytest.raises(InputError, match="--fallback nearest"):
        run(scene, few, tmp_path / "r.txt", fallback="nearest")


def test_queries_without_pairs_are_left_out(scene, map_file, tmp_path):
    pairs = tmp_path / "pairs.txt"
    lines = scene.pairs.read_text().splitlines()
    pairs.write_text("\n".join([*lines[:5], f"{QUERIES[1]} unknown.jpg"]))
    figures, _ = run(scene, map_file, tmp_path / "r.txt", retrieval=pairs, fallback="closest")
    assert figures["num_queries"] == 12 and figures["num_localized"] == 1
    assert list(read_poses(tmp_path / "r.txt")) == ["00.jpg"]


class Stop(Exception):
    pass


def interrupt(monkeypatch, after):
    """Let a run die after so many finished queries."""
    add = Checkpoint.add
    count = 0

    def dying(self, record):
        nonlocal count
        if count == after:
            raise Stop
        count += 1
        add(self, record)

    monkeypatch.setattr(Checkpoint, "add", dying)


@pytest.mark.parametrize("after", [0, 1, 7, 11])
def test_a_run_continues_where_it_stopped(scene, map_file, tmp_path, monkeypatch, after):
    logs = tmp_path / "whole.json"
    _, expected = run(scene, map_file, tmp_path / "whole.txt", logs=logs)
    results = tmp_path / "r.txt"
    with monkeypatch.context() as patch:
        interrupt(patch, after)
        with pytest.raises(Stop):
            run(scene, map_file, results, logs=tmp_path / "l.json")
    assert not results.exists() and not (tmp_path / "l.json").exists()
    assert (tmp_path / "r.txt.part").exists() == (after > 0)
    figures, data = run(scene, map_file, results, logs=tmp_path / "l.json")
    assert figures["num_resumed"] == after and data == expected
    assert (tmp_path / "l.json").read_bytes() == logs.read_bytes()
    assert set(json.loads(logs.read_text())) == set(QUERIES)
    assert not (tmp_path / "r.txt.part").exists()


@pytest.mark.parametrize("change", [{"seed": 1}, {"ransac_thresh": 3}, {"matcher": "NN-ratio"}])
def test_another_configuration_starts_anew(scene, map_file, tmp_path, monkeypatch, change):
    _, expected = run(scene, map_file, tmp_path / "whole.txt", **change)
    with monkeypatch.context() as patch:
        interrupt(patch, 5)
        with pytest.raises(Stop):
            run(scene, map_file, tmp_path / "r.txt")
    figures, data = run(scene, map_file, tmp_path / "r.txt", **change)
    assert figures["num_resumed"] == 0 and data == expected


@pytest.mark.parametrize("trials", TRIALS)
def test_killed_at_any_moment(scene, map_file, tmp_path, trials):
    output = tmp_path / "r.txt"
    argv = ["localize", "--map", str(map_file), "--queries", str(scene.queries),
            "--features", str(scene.features), "--results", str(output),
            "--retrieval", str(scene.pairs), "--threads", "1"]  # fmt: skip
    seen = killed(argv=argv, output=str(output), old=None, trials=trials)
    assert set(seen["seen"]) <= {"old", "new"}
    assert seen["last_status"] == 0 and seen["last_is_new"] and not seen["part_is_left"]
    if trials >= 50:
        assert seen["continued"] > 0


def test_two_runs_of_one_output_at_once(scene, map_file, tmp_path):
    _, expected = run(scene, map_file, tmp_path / "whole.txt")
    errors = []

    def work():
        try:
            run(scene, map_file, tmp_path / "r.txt")
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert errors == [] and (tmp_path / "r.txt").read_bytes() == expected
    assert {p.name for p in tmp_path.iterdir()} == {"whole.txt", "r.txt"}


def test_a_full_disk_is_told_and_the_old_results_stay(scene, map_file, tmp_path):
    results = tmp_path / "r.txt"
    results.write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(InputError, match="cannot be written") as error:
            run(scene, map_file, results)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value) and results.read_text() == "old"
    run(scene, map_file, results)  # with space again, it goes on


def memory_over(map_file, scene, count) -> list[tuple[int, int]]:
    """Traced (if tracing) and resident bytes at a third and near the end of a long stream."""
    from hloc_dpqed.io.features import FeatureFile
    from hloc_dpqed.io.lists import read_queries
    from hloc_dpqed.localization.localizer import Localizer, Query

    localizer = Localizer(read_map(map_file))
    listed = read_queries(scene.queries)

    def stream():
        with FeatureFile(scene.features) as file:
            for k in range(count):
                name, camera = listed[k % len(listed)]
                yield Query(f"{k}/{name}", camera, file.read(name), range(7))

    marks = []
    for k, _ in enumerate(localizer.localize_many(stream())):
        if k in (count // 3, count - 20):
            traced = tracemalloc.get_traced_memory()[0] if tracemalloc.is_tracing() else 0
            marks.append((traced, resident()))
    return marks


def test_memory_does_not_grow_with_the_queries(scene, map_file):
    """Python's and numpy's memory."""
    tracemalloc.start()
    try:
        first, last = memory_over(map_file, scene, 120)
    finally:
        tracemalloc.stop()
    assert last[0] - first[0] < 300_000 and last[1] - first[1] < 20_000_000


@pytest.mark.slow
def test_a_hundred_thousand_queries(tmp_path):
    """The process' memory, libraries included, with room for their caches."""
    small = make_scene(tmp_path / "small", num_points=25, dim=16, query_names=QUERIES[:3])
    path = write_compressed_scene(small, tmp_path / "map.dpqed", codec="none")
    first, last = memory_over(path, small, 100_000)
    assert last[1] - first[1] < 20_000_000


def resident() -> int:
    """Bytes of this process in memory; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def digest_of(map_file: Path) -> float:
    compressed = read_map(map_file)
    return float(compressed.xyz.sum() + compressed.codec.decode(compressed.codes).sum())


def test_threads_read_one_map_file(map_file):
    expected, found = digest_of(map_file), []
    workers = [threading.Thread(target=lambda: found.append(digest_of(map_file))) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [expected] * 8


SHARE = """
import os, sys
from pathlib import Path
from hloc_dpqed import localize
# Four processes at once, forked before any library has started threads.
children = []
for k in range(4):
    pid = os.fork()
    if pid == 0:
        m, q, f, p, out = map(Path, sys.argv[1:])
        localize.main(m, q, f, out / f"{k}.txt", retrieval=p, threads=1, progress=False)
        os._exit(0)
    children.append(pid)
sys.exit(sum(os.waitpid(pid, 0)[1] for pid in children))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
def test_processes_share_one_map_file(scene, map_file, tmp_path):
    paths = [map_file, scene.queries, scene.features, scene.pairs, tmp_path]
    done = subprocess.run(
        [sys.executable, "-c", SHARE, *map(str, paths)],
        env=environment(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    _, expected = run(scene, map_file, tmp_path / "own.txt")
    assert {(tmp_path / f"{k}.txt").read_bytes() for k in range(4)} == {expected}
