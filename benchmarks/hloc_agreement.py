"""Do hloc on the original map, hloc on the compressed map and our localizer agree?

    python benchmarks/hloc_agreement.py [--scenes ...] [--codec pq --code_bytes 8]
    python benchmarks/hloc_agreement.py --scenes fountain-P11/aliked --matcher aliked+lightglue

Four ways to localize the listed queries with ``--matcher``, RANSAC threshold 4 px and
RANSAC seed 0; hloc is upstream's, unmodified:

- original: hloc's match_features and localize_sfm on the model and feature file of the scene;
- exported: the same on what ``hloc-dpqed export`` writes of the map;
- mounted: the same on the map file itself, with ``hloc_bridge.installed()``;
- ours: ``hloc_dpqed.localize`` on the map file.

Seconds are of matching and localizing, and as a share of the original's from the same run; bytes
are of the files that each way reads of the database. The queries' poses are compared with those of
hloc on the mounted map ('gap'), errors with the ground truth.
"""

import argparse
import logging
import tempfile
import time
from pathlib import Path

import numpy as np
from common import RANSAC_PX, SCENES, load_scene, print_table
from hloc_learned import lightglue_of_hloc

from hloc_dpqed import compress, export, hloc_bridge, localize
from hloc_dpqed.evaluation.pose_errors import pose_error
from hloc_dpqed.io.lists import read_poses, result_name

CONFIG = {"estimation": {"ransac": {"max_error": RANSAC_PX, "random_seed": 0}}}


def run_hloc(scene, folder: Path, features_ref: Path, reference_sfm: Path, matcher: str) -> Path:
    """hloc's two stages; the result file."""
    from hloc import localize_sfm, match_features

    matches, results = folder / "matches.h5", folder / "results.txt"
    match_features.main(
        match_features.confs[matcher],
        scene.pairs,
        scene.features,
        matches=matches,
        features_ref=features_ref,
    )
    localize_sfm.main(
        reference_sfm,
        scene.folder / "queries.txt",
        scene.pairs,
        scene.features,
        matches,
        results,
        config=CONFIG,
    )
    return results


def file_bytes(*paths: Path) -> int:
    """Bytes of files, and of all files in folders."""
    files = [f for p in paths for f in (p.rglob("*") if p.is_dir() else [p])]
    return sum(f.stat().st_size for f in files if f.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [name for name in SCENES if "/" not in name]
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=names)
    parser.add_argument("--codec", default="pq")
    parser.add_argument("--code_bytes", type=int, default=8)
    parser.add_argument("--matcher", default="NN-mutual", help="of hloc's configurations")
    parser.add_argument("--matcher_weights", type=Path, help="of LightGlue, for both")
    parser.add_argument("--threads", type=int, help="of ours")
    args = parser.parse_args()
    with lightglue_of_hloc(args.matcher, args.matcher_weights):
        run(args)


def run(args: argparse.Namespace) -> None:
    """Print each scene's table."""
    hloc_bridge.hloc_module()  # sets its logger's level
    logging.getLogger("hloc").setLevel(logging.WARNING)
    for name in args.scenes:
        scene = load_scene(name)
        truth = read_poses(scene.folder / "poses_gt.txt")
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            map_file, exported = root / "map.dpqed", root / "files"
            compress.main(
                scene.sfm,
                scene.features,
                map_file,
                codec=args.codec,
                code_bytes=args.code_bytes,
                threads=args.threads,
                progress=False,
            )
            export.main(map_file, exported)
            poses, seconds = {}, {}

            def timed(way, run, poses=poses, seconds=seconds, root=root):
                (root / way).mkdir()
                start = time.perf_counter()
                poses[way] = read_poses(run(root / way))
                seconds[way] = time.perf_counter() - start

            def ours(folder: Path, scene=scene, map_file=map_file) -> Path:
                localize.main(
                    map_file,
                    scene.folder / "queries.txt",
                    scene.features,
                    folder / "results.txt",
                    retrieval=scene.pairs,
                    matcher=args.matcher,
                    matcher_weights=args.matcher_weights,
                    config=CONFIG,
                    threads=args.threads,
                    progress=False,
                    overwrite=True,
                )
                return folder / "results.txt"

            def original(folder: Path, scene=scene) -> Path:
                return run_hloc(scene, folder, scene.features, scene.sfm, args.matcher)

            def on_export(folder: Path, scene=scene, exported=exported) -> Path:
                features = exported / "features.h5"
                return run_hloc(scene, folder, features, exported / "sfm", args.matcher)

            def mounted(folder: Path, scene=scene, map_file=map_file) -> Path:
                with hloc_bridge.installed():
                    return run_hloc(scene, folder, map_file, map_file, args.matcher)

            timed("original", original)
            timed("exported", on_export)
            timed("mounted", mounted)
            timed("ours", ours)
            sizes = {
                # The feature file holds the queries too; count the database's share of the images.
                "original": file_bytes(scene.sfm)
                + file_bytes(scene.features)
                * len(scene.reference.image_names)
                // (len(scene.reference.image_names) + len(scene.queries)),
                "exported": file_bytes(exported / "sfm", exported / "features.h5"),
                "mounted": file_bytes(map_file),
                "ours": file_bytes(map_file),
            }
        rows = []
        for way, found in poses.items():
            errors, gaps = [], []
            for query in (q.name for q in scene.queries):
                short = result_name(query)
                errors.append(
                    pose_error(found[short], truth[query]) if short in found else (np.inf,) * 2
                )
                both = short in found and short in poses["mounted"]
                gaps.append(
                    pose_error(found[short], poses["mounted"][short]) if both else (np.inf,) * 2
                )
            medians, worst = np.median(errors, axis=0), np.max(gaps, axis=0)
            rows.append(
                [
                    way,
                    f"{len(found)}/{len(scene.queries)}",
                    f"{medians[0]:.4f} / {medians[1]:.3f}",
                    f"{np.median(gaps, axis=0)[0]:.4f} / {np.median(gaps, axis=0)[1]:.3f}",
                    f"{worst[0]:.4f} / {worst[1]:.3f}",
                    f"{sizes[way] / 1000:.0f}",
                    f"{seconds[way]:.1f}",
                    f"{seconds[way] / seconds['original']:.2f}",
                ]
            )
        with_matcher = "" if args.matcher == "NN-mutual" else f", {args.matcher}"
        print(f"\n### {name}, {args.codec} with {args.code_bytes} bytes a point{with_matcher}\n")
        print_table(
            [
                "way",
                "localized",
                "median error",
                "median gap to mounted",
                "largest gap",
                "kB",
                "seconds",
                "of original",
            ],
            rows,
        )


if __name__ == "__main__":
    main()
