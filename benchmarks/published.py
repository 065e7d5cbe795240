"""Published estimates of 7Scenes and 12Scenes, evaluated by ``hloc-dpqed evaluate``.

    python benchmarks/published.py FOLDER

``FOLDER`` is a checkout of https://github.com/tsattler/visloc_pseudo_gt_limitations, which holds
the poses that hLoc (SuperPoint and SuperGlue), Active Search, R2D2 and DSAC* estimated and both
pseudo ground truths (Brachmann et al., "On the Limits of Pseudo Ground Truth in Visual Camera
Re-localisation", ICCV 2021). For each data set and ground truth: the mean over the scenes of the
share of queries within 5 cm and 5 degrees, then that of each scene.
"""

import argparse
import sys
from pathlib import Path

from common import print_table

from hloc_dpqed import evaluate

METHODS = {
    "Active Search": "as",
    "hLoc": "hloc",
    "DVLAD+R2D2": "r2d2_rgb",
    "DSAC*": "dsac_rgb",
}
LIMIT = "0.05/5"


def recalls(folder: Path, truth: str, data: str, method: str) -> dict[str, float]:
    """Percent of the queries within ``LIMIT``, by scene."""
    found = {}
    for reference in sorted((folder / "pgt" / truth / data).glob("*_test.txt")):
        scene = reference.name.removesuffix("_test.txt")
        estimates = folder / "estimates" / truth / data / f"{scene}_{method}.txt"
        figures = evaluate.main(estimates, reference, LIMIT)
        found[scene] = 100 * figures["recall"][0]["fraction"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    if not (folder / "pgt").is_dir():
        sys.exit(f"{folder}: holds no folder pgt, expected a checkout of the estimates")
    for data in ("7scenes", "12scenes"):
        rows: list[list[str]] = []
        header: list[str] = []
        for truth in ("sfm", "dslam"):
            for name, method in METHODS.items():
                found = recalls(folder, truth, data, method)
                header = ["data", "ground truth", "method", "mean", *found]
                values = [sum(found.values()) / len(found), *found.values()]
                rows.append([data, truth, name, *(f"{value:.1f}" for value in values)])
        print_table(header, rows)
        print()


if __name__ == "__main__":
    main()
