"""What the environment tells OpenMP, OpenBLAS and MKL decides no byte of a result."""

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pycolmap
import pytest
from synthetic import Scene, make_scene
from test_compress import QUICK, environment, hashes_of_all, make

from hloc_dpqed import localize, sweep
from hloc_dpqed.codecs import CODECS
from hloc_dpqed.selection import SELECTORS
from hloc_dpqed.threads import steady_products
from hloc_dpqed.training.kmeans import latent_basis

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
TOGETHER = [dict.fromkeys(VARIABLES, count) for count in ("1", "2", "5")]
EACH = [{name: count} for name in VARIABLES for count in ("1", "2", "5")]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    """A folder with a scene for all codecs, and one whose principal axes hang on each rounding."""
    folder = tmp_path_factory.mktemp("environment")
    make_scene(folder / "small", num_points=120, dim=32)
    names = tuple(f"db/{i}.jpg" for i in range(10))
    alike = make_scene(folder / "alike", db_names=names, num_points=600, dim=256, noise=0)
    # Descriptors of an orthogonal set: many axes have the same energy.
    rows = np.ones((1, 1))
    while len(rows) < 256:
        rows = np.block([[rows, rows], [rows, -rows]])
    rng = np.random.default_rng(0)
    row_of = rng.integers(0, 256, 601)
    model = pycolmap.Reconstruction(alike.sfm)
    with h5py.File(alike.features, "a") as file:
        for image in model.images.values():
            ids = [p.point3D_id if p.has_point3D() else 0 for p in image.points2D]
            file[image.name]["descriptors"][...] = (rows[row_of[np.array(ids) % 601]] / 16).T
    return folder


def lines_of(scenes: Path, folder: Path, full: bool) -> list[str]:
    """A line with a hash for each result of a process."""
    small, alike = Scene(scenes / "small", (), ()), Scene(scenes / "alike", (), ())
    lines = hashes_of_all(small, folder)
    map_file = folder / "drqed"
    localize.main(
        map_file, small.queries, small.features, folder / "poses.txt", retrieval=small.pairs,
        threads=2, progress=False,
    )  # fmt: skip
    found = {"localize": (folder / "poses.txt").read_bytes()}
    for name, options in {
        "pca": {"codec": "pca", "code_bytes": 64},
        "drqed": {"codec": "drqed"},
        "drqed of means": {"codec": "drqed", "code_targets": "mean"},
        "dpqed": {"codec": "dpqed"},
        "qp": {"codec": "sign", "selector": "qp", "num_points": 300},
        "hybrid": {"codec": "sign", "selector": "hybrid", "num_points": 300},
    }.items():
        found[f"alike, {name}"] = make(alike, folder / f"alike {name}", threads=2, **options)
    rng = np.random.default_rng(0)
    with steady_products():
        x = rng.standard_normal((6000, 256)).astype(np.float32)
        gram = x.T.astype(np.float64) @ x
        for name, product in {
            "matrices": gram,
            "a vector": x @ x[0],
            "eigh": np.linalg.eigh(gram)[1],
            "svd": np.linalg.svd(gram)[0],
            "qr": np.linalg.qr(gram)[0],
            "solve": np.linalg.solve(gram, gram[::-1]),
            "axes": latent_basis(x, 256),
        }.items():
            found[f"product, {name}"] = np.ascontiguousarray(product).tobytes()
    if full:
        QUICK.clear()  # fitted to the end
        for codec in ("dpqed", "drqed"):
            found[f"{codec} to the end"] = make(alike, folder / f"{codec} long", codec=codec)
        sweep.main(
            small.sfm, small.features, small.queries, small.pairs, small.poses, folder / "sweep",
            codecs=["pq", "drqed"], code_bytes=[4], selectors=["hybrid"], fractions=[0.5], seeds=1,
            ransac_seeds=2, plots=False, progress=False, threads=2,
        )  # fmt: skip
        found["sweep"] = (folder / "sweep" / "sweep.csv").read_bytes()
    return lines + [f"{name} {hashlib.sha256(data).hexdigest()}" for name, data in found.items()]


def lines_of_a_process(scenes: Path, folder: Path, told: dict[str, str], full: bool) -> list[str]:
    folder.mkdir()
    code = (
        "import sys; from pathlib import Path; from test_environment import lines_of\n"
        "scenes, folder, full = sys.argv[1:]\n"
        "lines = lines_of(Path(scenes), Path(folder), full == 'full')\n"
        "(Path(folder) / 'lines.txt').write_text('\\n'.join(lines))"
    )
    others = {k: v for k, v in environment().items() if k not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", code, str(scenes), str(folder), "full" if full else "quick"],
        env={**others, **told},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return (folder / "lines.txt").read_text().splitlines()


@pytest.mark.parametrize("full", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_no_byte_depends_on_the_environment(scenes, tmp_path, full):
    """Each codec and selector, localization, and the products that all of them are made of.

    In processes of their own: the variables are read once. In the full tier also the codecs that
    train to their last step, and a sweep; and each variable alone, and none, without those.
    """
    told = [(one, full) for one in TOGETHER]
    told += [(one, False) for one in ([*EACH, {}] if full else [])]
    with ThreadPoolExecutor(2) as pool:  # that wait for two processes
        first, *others = pool.map(
            lambda k: lines_of_a_process(scenes, tmp_path / str(k), *told[k]), range(len(told))
        )
    assert len(first) > len(CODECS) + len(SELECTORS)
    for lines, (one, to_the_end) in zip(others, told[1:], strict=True):
        assert lines == (first if to_the_end else first[: len(lines)]), one
        assert len(lines) > len(CODECS) + len(SELECTORS)


def test_the_environment_reaches_the_libraries():
    """Else the test above shows nothing."""
    code = (
        "import numpy, faiss, threadpoolctl\n"
        "print({p['num_threads'] for p in threadpoolctl.threadpool_info()})"
    )
    seen = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **dict.fromkeys(VARIABLES, count)},
            capture_output=True,
            text=True,
        ).stdout.strip()
        for count in ("1", "2")
    ]
    assert seen[0] == "{1}" and (os.cpu_count() == 1 or seen[1] == "{2}")
