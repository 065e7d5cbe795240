"""Photos to tracks of descriptors, from which `train_codec.py` fits a codec that ships.

    python tools/photo_tracks.py --extractor superpoint --weights superpoint_v1.pth \
        --photos DIR [DIR ...] --sequences DIR [DIR ...] --output TRACKS

A photo of ``--photos`` is seen again through random homographies and changes of light; keypoints
that fall on one another are a track. With ``--views 0`` it is seen as it is and mirrored at four
fifths of its size, and each keypoint is a track of its own: of these there are many more for the
same time. The photos directly in a folder of ``--sequences`` show one
scene, each near the one before; mutual nearest neighbours that agree with an epipolar geometry are
joined to tracks. Each photo, or folder of a sequence, becomes a file in ``--output``; a second run
makes only what is missing there.
"""

import argparse
import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pycolmap
from extractors import EXTRACTORS, KEYPOINTS, Features
from PIL import Image, ImageFilter
from scipy.spatial import cKDTree
from tqdm import tqdm

from hloc_dpqed.io.atomic import write_bytes
from hloc_dpqed.threads import set_num_threads

SUFFIXES = {".jpg", ".jpeg", ".png"}
SAME = 2.0  # pixels of the photo: keypoints this near are one point
EPIPOLAR = 3.0  # pixels
LEAST_INLIERS = 25
AHEAD = 6  # a photo of a sequence is matched with this many after it


def read_photo(path: Path, size: int) -> Image.Image:
    """A photo in grey, its longer side at most ``size``."""
    with Image.open(path) as photo:
        photo = photo.convert("RGB")
        photo.thumbnail((size, size), Image.Resampling.LANCZOS)
        return photo


def random_homography(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """(3, 3) from a view's pixels to the photo's.

    A rotation of up to 30 degrees, a scale of 0.6 to 1.25, corners that move by up to 18 % of the
    sides, and a centre that moves by up to 12 %.
    """
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    moved = corners + rng.uniform(-0.18, 0.18, (4, 2)) - 0.5
    angle = math.radians(rng.uniform(-30, 30))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    size = np.array([width, height])
    scale = math.exp(rng.uniform(math.log(0.8), math.log(1.6)))
    moved = moved * size @ turn.T / scale + (0.5 + rng.uniform(-0.12, 0.12, 2)) * size
    rows = []
    for (x, y), (u, v) in zip(corners * size, moved, strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y, -u])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y, -v])
    return np.linalg.svd(np.array(rows))[2][-1].reshape(3, 3)


def random_view(
    photo: Image.Image, rng: np.random.Generator
) -> tuple[Image.Image, np.ndarray, np.ndarray]:
    """A view of the photo, the homography to the photo, and where the view shows it (bool)."""
    width, height = photo.size
    homography = random_homography(rng, width, height)
    h = (homography / homography[2, 2]).ravel()[:8].tolist()
    view = photo.transform(photo.size, Image.Transform.PERSPECTIVE, h, Image.Resampling.BICUBIC)
    inside = Image.new("L", photo.size, 255)
    inside = inside.transform(photo.size, Image.Transform.PERSPECTIVE, h)
    if rng.random() < 0.4:
        view = view.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.3)))
    light = np.asarray(view, np.float32) / 255
    light = light ** math.exp(rng.uniform(-0.5, 0.5)) * rng.uniform(0.7, 1.2)
    light = (light - 0.5) * rng.uniform(0.7, 1.2) + 0.5 + rng.uniform(-0.1, 0.1)
    light += rng.normal(0, rng.uniform(0, 0.03), light.shape[:2])[..., None]
    view = Image.fromarray((np.clip(light, 0, 1) * 255).astype(np.uint8))
    if rng.random() < 0.5:
        view = jpeg(view, int(rng.integers(40, 95)))
    return view, homography, np.asarray(inside) > 0


def jpeg(photo: Image.Image, quality: int) -> Image.Image:
    """The photo after lossy compression."""
    buffer = io.BytesIO()
    photo.save(buffer, "jpeg", quality=quality)
    with Image.open(buffer) as again:
        return again.convert("RGB")


def views_to_tracks(
    photo: Image.Image, extract: Callable[[Image.Image], Features], views: int, seed: int
) -> dict[str, np.ndarray]:
    """Tracks of a photo and ``views`` random views of it; see ``to_tracks``."""
    rng = np.random.default_rng(seed)
    seen = [extract(photo)]
    places = [seen[0].keypoints]
    for _ in range(views):
        view, homography, inside = random_view(photo, rng)
        found = extract(view)
        xy = np.floor(found.keypoints + 0.5).astype(int)
        border = 8  # a descriptor looks around its keypoint
        keep = np.ones(len(xy), bool)
        for dx in (-border, 0, border):
            for dy in (-border, 0, border):
                x, y = xy[:, 0] + dx, xy[:, 1] + dy
                keep &= (x >= 0) & (y >= 0) & (x < photo.width) & (y < photo.height)
                keep &= inside[y.clip(0, photo.height - 1), x.clip(0, photo.width - 1)]
        found = Features(found.keypoints[keep], found.descriptors[keep])
        mapped = np.c_[found.keypoints + 0.5, np.ones(len(found.keypoints))] @ homography.T
        seen.append(found)
        places.append(mapped[:, :2] / mapped[:, 2:] - 0.5)
    edges = []
    starts = np.cumsum([0, *(len(place) for place in places)])
    for i in range(len(places)):
        for j in range(i):
            a, b = places[i], places[j]
            if len(a) == 0 or len(b) == 0:
                continue
            distance, nearest = cKDTree(b).query(a)
            back = cKDTree(a).query(b)[1]
            mutual = (back[nearest] == np.arange(len(a))) & (distance <= SAME)
            edges.append(np.c_[np.flatnonzero(mutual) + starts[i], nearest[mutual] + starts[j]])
    return to_tracks(seen, edges)


def keypoints_alone(
    photo: Image.Image, extract: Callable[[Image.Image], Features]
) -> dict[str, np.ndarray]:
    """Each keypoint of the photo, and of its mirror image at four fifths, as a track of its own."""
    smaller = photo.resize((photo.width * 4 // 5, photo.height * 4 // 5), Image.Resampling.LANCZOS)
    seen = [extract(photo), extract(smaller.transpose(Image.Transpose.FLIP_LEFT_RIGHT))]
    descriptors = np.concatenate([found.descriptors for found in seen])
    return {
        "descriptors": descriptors.astype(np.float16),
        "points": np.arange(len(descriptors), dtype=np.int32),
        "images": np.repeat([0, 1], [len(found.keypoints) for found in seen]).astype(np.int16),
    }


def sequence_to_tracks(
    photos: list[Image.Image], extract: Callable[[Image.Image], Features], progress: str
) -> dict[str, np.ndarray]:
    """Tracks of photos of one scene; see ``to_tracks``."""
    seen = [extract(photo) for photo in tqdm(photos, desc=progress, leave=False)]
    starts = np.cumsum([0, *(len(found.keypoints) for found in seen)])
    options = pycolmap.RANSACOptions()
    options.max_error, options.max_num_trials, options.random_seed = EPIPOLAR, 2000, 0
    edges = []
    for i in range(len(seen)):
        for j in range(i + 1, min(i + 1 + AHEAD, len(seen))):
            a, b = seen[i], seen[j]
            if min(len(a.keypoints), len(b.keypoints)) < LEAST_INLIERS:
                continue
            similar = a.descriptors @ b.descriptors.T
            nearest = similar.argmax(1)
            rows = np.flatnonzero(similar.argmax(0)[nearest] == np.arange(len(nearest)))
            if len(rows) < LEAST_INLIERS:
                continue
            found = pycolmap.estimate_fundamental_matrix(
                a.keypoints[rows].astype(float) + 0.5,
                b.keypoints[nearest[rows]].astype(float) + 0.5,
                options,
            )
            if found is None or found["num_inliers"] < LEAST_INLIERS:
                continue
            rows = rows[found["inlier_mask"]]
            edges.append(np.c_[rows + starts[i], nearest[rows] + starts[j]])
    return to_tracks(seen, edges)


def to_tracks(seen: list[Features], edges: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Connected keypoints as tracks.

    A track has at most one keypoint of an image, the first, and at least two keypoints.

    Args:
        seen: of each image.
        edges: (n, 2) rows of keypoints, counted through all images, that show one point.

    Returns:
        'descriptors' (N, D) float16, 'points' (N,) int32 and 'images' (N,) int16 of each
        observation.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    image = np.repeat(np.arange(len(seen)), [len(found.keypoints) for found in seen])
    count = len(image)
    pairs = np.concatenate([np.zeros((0, 2), np.int64), *edges])
    graph = coo_matrix((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), (count, count))
    label = connected_components(graph, directed=False)[1]
    first = np.sort(np.unique(np.c_[label, image], axis=0, return_index=True)[1])
    label = label[first]
    first = first[np.bincount(label)[label] >= 2]
    points = np.unique(label[np.bincount(label)[label] >= 2], return_inverse=True)[1]
    descriptors = np.concatenate([found.descriptors for found in seen])
    return {
        "descriptors": descriptors[first].astype(np.float16),
        "points": points.astype(np.int32),
        "images": image[first].astype(np.int16),
    }


def photos_in(folder: Path) -> list[Path]:
    """The photos below a folder, by name."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)


def save(path: Path, tracks: dict[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **tracks)
    write_bytes(path, buffer.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--extractor", choices=EXTRACTORS, required=True)
    parser.add_argument("--weights", type=Path, help="of the extractor")
    parser.add_argument("--photos", type=Path, nargs="*", default=[])
    parser.add_argument("--sequences", type=Path, nargs="*", default=[])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--size", type=int, default=640, help="of the longer side, pixels")
    parser.add_argument("--keypoints", type=int, default=KEYPOINTS, help="of a photo at most")
    parser.add_argument("--views", type=int, default=2, help="of each of --photos")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    extract = EXTRACTORS[args.extractor](args.weights, args.keypoints)
    for folder in args.sequences:
        path = args.output / f"sequence_{'_'.join(folder.parts[-3:])}.npz"
        if not path.is_file():
            images = [p for p in photos_in(folder) if p.parent == folder]
            photos = [read_photo(p, args.size) for p in images]
            save(path, sequence_to_tracks(photos, extract, folder.name))
    todo = [p for folder in args.photos for p in photos_in(folder)]
    # In an order without meaning, so that what an interrupted run has made is as diverse.
    order = np.random.default_rng(args.seed).permutation(len(todo))
    for row in tqdm(order, desc="photos"):
        photo = todo[row]
        kind = "photo" if args.views else "alone"
        path = args.output / f"{kind}_{'_'.join(photo.with_suffix('').parts[-3:])}.npz"
        if path.is_file():
            continue
        image = read_photo(photo, args.size)
        if args.views:
            save(path, views_to_tracks(image, extract, args.views, [args.seed, int(row)]))
        else:
            save(path, keypoints_alone(image, extract))


if __name__ == "__main__":
    main()
