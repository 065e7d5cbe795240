"""Errors of one map in several frames: as it is, georeferenced, turned, scaled.

    python benchmarks/georeferenced.py [--scenes fountain-P11 castle-P30] [--hloc | --turns 20]

Each model is moved by a similarity with pycolmap and goes through the commands ``compress``
(``pq``, 8 bytes), ``localize`` and ``evaluate``. Errors are in units of the map as it is. With
``--turns`` random rotations are compared near the origin and in ECEF. With
``--hloc`` (which needs hloc importable) hloc's own ``localize_sfm`` localizes with the moved model
itself and with the map's export, both on matches by mutual nearest neighbours.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pycolmap
from common import DATA, SCENES, print_table

from hloc_dpqed import compress, evaluate, export, localize
from hloc_dpqed.io.lists import read_poses, write_poses

TURN = pycolmap.Rotation3d(np.array([0.3, -0.5, 0.4, 0.7]) / np.sqrt(0.99)).matrix()
FRAMES: dict[str, tuple[float, np.ndarray, np.ndarray]] = {
    "as it is": (1.0, np.eye(3), np.zeros(3)),
    "turned": (1.0, TURN, np.zeros(3)),
    "ECEF": (1.0, TURN, np.array([2.5e6, 1.4e6, 5.7e6])),
    "UTM": (1.0, np.eye(3), np.array([5e5, 5.4e6, 0.0])),
    "x 1e-6": (1e-6, np.eye(3), np.zeros(3)),
    "x 1e3": (1e3, np.eye(3), np.zeros(3)),
}


def moved_pose(pose: np.ndarray, frame: tuple[float, np.ndarray, np.ndarray]) -> np.ndarray:
    """A (3, 4) pose, camera from world, in the moved world; the camera's own units scale too."""
    scale, rotation, offset = frame
    centre = scale * rotation @ (-pose[:, :3].T @ pose[:, 3]) + offset
    turned = pycolmap.Rotation3d(pose[:, :3] @ rotation.T).matrix()  # orthonormal to the last digit
    return np.column_stack([turned, -turned @ centre])


def move(
    scene: Path, sfm: str, frame: tuple[float, np.ndarray, np.ndarray], out: Path
) -> tuple[Path, Path]:
    """Write the moved model and the moved true poses; their paths."""
    model = pycolmap.Reconstruction(str(scene / sfm))
    scale, rotation, offset = frame
    model.transform(pycolmap.Sim3d(scale, pycolmap.Rotation3d(rotation), offset))
    (out / "sfm").mkdir(parents=True)
    model.write_binary(str(out / "sfm"))
    truth = read_poses(scene / "poses_gt.txt")
    write_poses(out / "truth.txt", {n: moved_pose(p, frame) for n, p in truth.items()})
    return out / "sfm", out / "truth.txt"


def localized(
    found: Path, scene: Path, features: str, pairs: str, truth: Path, seeds: int
) -> list[tuple[float, float]]:
    """Median errors of ``localize`` with each RANSAC seed."""
    errors = []
    for seed in range(seeds):
        results = found.parent / f"results-{seed}.txt"
        localize.main(
            found, scene / "queries.txt", scene / features, results, scene / pairs,
            seed=seed, progress=False,
        )  # fmt: skip
        told = evaluate.main(results, truth)
        errors.append((told["median_translation"], told["median_rotation"]))
    return errors


def turned(scenes: list[str], count: int) -> None:
    """Print the errors of randomly rotated maps, near the origin and in ECEF: mean and range."""
    rows = []
    for name in scenes:
        folder, sfm, features, pairs = SCENES[name]
        for label, offset in (("turned", np.zeros(3)), ("turned, ECEF", FRAMES["ECEF"][2])):
            rng = np.random.default_rng(0)
            errors = []
            for _ in range(count):
                quat = rng.standard_normal(4)
                rotation = pycolmap.Rotation3d(quat / np.linalg.norm(quat)).matrix()
                with tempfile.TemporaryDirectory() as temporary:
                    work = Path(temporary)
                    frame = 1.0, rotation, offset
                    model, truth = move(DATA / folder, sfm, frame, work / "moved")
                    found = work / "map.dpqed"
                    own = DATA / folder / features
                    compress.main(model, own, found, codec="pq", code_bytes=8, progress=False)
                    errors += localized(found, DATA / folder, features, pairs, truth, 1)
            cells = [
                f"{e.mean():.{d}f} ({e.min():.{d}f} to {e.max():.{d}f})"
                for e, d in zip(np.array(errors).T, (5, 4), strict=True)
            ]
            rows.append([name, label, *cells])
    print_table(["scene", "frame", "translation", "rotation, degrees"], rows)


def by_hloc(
    model: Path,
    compressed: Path,
    work: Path,
    pairs: Path,
    queries: Path,
    features: Path,
    truth: Path,
    runs: int,
) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    """Median errors of hloc's runs with the model, the map's export, and the map itself."""
    from hloc import localize_sfm, match_features

    from hloc_dpqed.hloc_bridge.patches import installed

    exported = export.main(compressed, work / "exported", progress=False)
    with installed():
        for how, reference, described in (
            ("model", model, features),
            ("export", exported / "sfm", exported / "features.h5"),
            ("map", compressed, compressed),
        ):
            matches = work / f"matches-{how}.h5"
            match_features.match_from_paths(
                match_features.confs["NN-mutual"], pairs, matches, features, described
            )
            errors = []
            for run in range(runs):
                pycolmap.set_random_seed(run)
                results = work / f"hloc-{how}-{run}.txt"
                localize_sfm.main(reference, queries, pairs, features, matches, results)
                told = evaluate.main(results, truth)
                errors.append((told["median_translation"], told["median_rotation"]))
            yield how, errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--scenes", nargs="+", choices=SCENES, default=["fountain-P11", "castle-P30"]
    )
    parser.add_argument("--frames", nargs="+", choices=FRAMES, default=list(FRAMES))
    parser.add_argument("--seeds", type=int, default=10, help="of RANSAC")
    parser.add_argument("--turns", type=int, default=0, help="random rotations, as mean and range")
    parser.add_argument("--hloc", action="store_true", help="localize with hloc's localize_sfm")
    args = parser.parse_args()
    rows = []
    if args.turns:
        turned(args.scenes, args.turns)
        return
    for name in args.scenes:
        folder, sfm, features, pairs = SCENES[name]
        scene = DATA / folder
        for label in args.frames:
            with tempfile.TemporaryDirectory() as temporary:
                work = Path(temporary)
                model, truth = move(scene, sfm, FRAMES[label], work / "moved")
                found = work / "map.dpqed"
                compress.main(
                    model, scene / features, found, codec="pq", code_bytes=8, progress=False
                )
                if args.hloc:
                    own = scene / pairs, scene / "queries.txt", scene / features, truth
                    for how, told in by_hloc(model, found, work, *own, args.seeds):
                        mean = np.mean(told, 0) / (FRAMES[label][0], 1)
                        rows.append([name, label, how, f"{mean[0]:.5f}", f"{mean[1]:.4f}"])
                    continue
                errors = localized(found, scene, features, pairs, truth, args.seeds)
                size = found.stat().st_size
            mean = np.mean(errors, 0) / (FRAMES[label][0], 1)
            rows.append([name, label, f"{mean[0]:.5f}", f"{mean[1]:.4f}", f"{size:,}"])
    last = [] if args.hloc else ["bytes"]
    how = ["hloc with"] if args.hloc else []
    print_table(["scene", "frame", *how, "translation", "rotation, degrees", *last], rows)


if __name__ == "__main__":
    main()
