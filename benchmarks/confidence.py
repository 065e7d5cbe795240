"""Is a pose right as often as its confidence says? The reliability diagram of docs/localization.md.

    python benchmarks/confidence.py [--scenes south-building castle-P30] [--plot PNG]

Each map keeps 3 % of the points and is calibrated (``compress --calibrate``) on its own images. Its
listed queries, which nothing was fitted on, are localized with all, 1/2, 1/4, 1/8 and 1/16 of their
keypoints and several RANSAC seeds; for each pose the probability of its errors being under each of
a range of thresholds is compared with how often they are. ``gap`` is the expected calibration
error, the mean distance of the two over ten bins, weighted by their samples; ``Brier`` the mean
squared error of the probability, beside that of the samples' own mean. ``sigma`` is the share of
position errors under one, two and three standard deviations of the covariance (0.61, 0.99 and
1.00 for a normal distribution that is the same along each axis).
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import SCENES, load_scene, print_table

from hloc_dpqed import compress
from hloc_dpqed.evaluation.pose_errors import pose_error
from hloc_dpqed.localization.confidence import Calibration
from hloc_dpqed.localization.localizer import Localizer, Query
from hloc_dpqed.mapfile import read_map

ONE_OF = (1, 2, 4, 8, 16)
TRANSLATIONS = {
    "south-building": (0.003, 0.01, 0.03, 0.1, 0.3),
    "castle-P30": (0.01, 0.03, 0.1, 0.3, 1.0),
    "fountain-P11": (0.003, 0.01, 0.03, 0.1, 0.3),
}
ROTATIONS = (0.03, 0.1, 0.3, 1.0)
SIGMAS = (1.0, 2.0, 3.0)


def samples_of(name: str, folder: Path, seeds: int, fraction: float):
    """(n, 2) probability and whether it was so; (m,) error over standard deviation; not found."""
    scene = load_scene(name)
    path = folder / f"{name}-{fraction}-calibrated.dpqed"
    if not path.exists():
        options = {"fraction": fraction, "calibrate": True, "threads": 1}
        compress.main(scene.sfm, scene.features, path, **options)
    compressed = read_map(path)
    calibration = Calibration.from_json(compressed.confidence)
    assert calibration is not None
    row_of = {image: row for row, image in enumerate(compressed.image_names)}
    samples, ratios, asked = [], [], 0
    for seed in range(seeds):
        localizer = Localizer(compressed, seed=seed)
        for query in scene.queries:
            for one_of in ONE_OF:
                f = query.features
                rng = np.random.default_rng([99, seed, one_of])
                rows = np.sort(rng.permutation(len(f.keypoints))[: len(f.keypoints) // one_of])
                few = replace(
                    f,
                    keypoints=f.keypoints[rows],
                    descriptors=f.descriptors[rows],
                    scores=f.scores[rows],
                )
                retrieved = [row_of[image] for image in query.retrieved or ()]
                asked += 1
                outcome = localizer.localize(Query(query.name, query.camera, few, retrieved))
                if outcome.cam_from_world is None or outcome.evidence is None:
                    continue
                away, turn = pose_error(outcome.cam_from_world, query.cam_from_world)
                ratios.append(away / outcome.evidence.position_std)
                for translation in TRANSLATIONS[name]:
                    for rotation in ROTATIONS:
                        likely = calibration.probability(outcome.evidence, translation, rotation)
                        samples.append((likely, away < translation and turn < rotation))
    return np.array(samples, float), np.array(ratios), asked


def bins_of(samples: np.ndarray) -> list[tuple[float, float, int]]:
    """Mean probability, share that was so, and count, of each tenth that holds a sample."""
    tenth = np.minimum((samples[:, 0] * 10).astype(int), 9)
    return [
        (*samples[tenth == k].mean(0).tolist(), int((tenth == k).sum()))
        for k in range(10)
        if (tenth == k).any()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    names = [name for name in SCENES if name in TRANSLATIONS]
    parser.add_argument(
        "--scenes", nargs="+", choices=names, default=["south-building", "castle-P30"]
    )
    parser.add_argument("--fraction", type=float, default=0.03)
    parser.add_argument("--seeds", type=int, default=3, help="of RANSAC and of the keypoints")
    parser.add_argument("--folder", type=Path, default=Path("outputs/confidence"))
    parser.add_argument("--plot", type=Path, metavar="PNG")
    args = parser.parse_args()
    rows, curves = [], {}
    for name in args.scenes:
        samples, ratios, asked = samples_of(name, args.folder, args.seeds, args.fraction)
        bins = curves[name] = bins_of(samples)
        total = len(samples)
        gap = sum(n * abs(said - was) for said, was, n in bins) / total
        brier = np.mean((samples[:, 0] - samples[:, 1]) ** 2)
        mean = samples[:, 1].mean()
        sure = samples[samples[:, 0] >= 0.9]
        within = ", ".join(f"{(ratios < s).mean():.2f}" for s in SIGMAS)
        cells = [name, f"{len(ratios)} of {asked}", f"{gap:.3f}"]
        cells += [f"{brier:.3f} ({mean * (1 - mean):.3f})"]
        rows.append([*cells, f"{len(sure)}, {sure[:, 1].mean():.3f}", within])
        print(f"{name}: " + "; ".join(f"{s:.2f} {w:.2f} ({n})" for s, w, n in bins))
    print_table(["map", "poses", "gap", "Brier", "said 0.9 or more, true", "sigma"], rows)
    if args.plot is not None:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(4, 4))
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        for name, bins in curves.items():
            axes.plot([b[0] for b in bins], [b[1] for b in bins], marker="o", label=name)
        axes.set(xlabel="probability", ylabel="share of poses", xlim=(0, 1), ylim=(0, 1))
        axes.legend()
        figure.tight_layout()
        figure.savefig(args.plot, dpi=110)


if __name__ == "__main__":
    main()
