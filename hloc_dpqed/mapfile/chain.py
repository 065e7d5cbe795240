"""An order of the images in which neighbours see the same points (source: ours)."""

import numpy as np

from ..scene.visibility import Visibility
from .ragged import ragged

MAX_PAIRS = 4_000_000  # pairs of images counted; beyond, every n-th point is asked
EDGES = 8  # of each image that are considered


def image_chain(tracks: Visibility) -> np.ndarray:
    """A path through all images along the strongest co-visibilities: (I,) int64.

    Edges are taken from the strongest on, where they leave the images a set of paths (the greedy
    heuristic of the travelling salesman); the paths are then put one after the other.

    Args:
        tracks: points by images.
    """
    num_images = tracks.num_points
    pairs, strength = _strongest(*_covisibility(tracks), num_images)
    order = np.lexsort((pairs[:, 1], pairs[:, 0], -strength))
    root = list(range(num_images))
    beside: list[list[int]] = [[] for _ in range(num_images)]

    def find(image: int) -> int:
        while root[image] != image:
            root[image] = root[root[image]]
            image = root[image]
        return image

    for a, b in pairs[order].tolist():
        if len(beside[a]) < 2 and len(beside[b]) < 2 and find(a) != find(b):
            root[find(a)] = find(b)
            beside[a].append(b)
            beside[b].append(a)
    chain: list[int] = []
    done = [False] * num_images
    for first in range(num_images):
        if done[first] or len(beside[first]) > 1:
            continue
        image: int | None = first
        while image is not None:
            done[image] = True
            chain.append(image)
            image = next((other for other in beside[image] if not done[other]), None)
    return np.array(chain, np.int64)


def _covisibility(tracks: Visibility) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of images a < b (n, 2), and for each the cosine of what they see."""
    lengths = np.diff(tracks.indptr)
    every = 1 + int((lengths**2).sum()) // MAX_PAIRS
    points = np.arange(0, len(lengths), every)
    lengths = lengths[points]
    # Each observation beside each observation of the same point.
    per_observation = np.repeat(lengths, lengths)
    point_start = np.repeat(tracks.indptr[points], lengths)
    own = np.repeat(ragged(tracks.indptr[points], lengths), per_observation)
    others = ragged(point_start, per_observation)
    images = tracks.indices.astype(np.int64)
    a, b = images[own], images[others]
    num_images = max(tracks.num_points, 1)
    keys, counts = np.unique((a * num_images + b)[a <= b], return_counts=True)
    a, b = keys // num_images, keys % num_images
    seen = np.ones(num_images)
    seen[a[a == b]] = counts[a == b]
    return np.stack([a, b], 1)[a < b], (counts / np.sqrt(seen[a] * seen[b]))[a < b]


def _strongest(
    pairs: np.ndarray, strength: np.ndarray, num_images: int
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs that are among the ``EDGES`` strongest of either image."""
    image = pairs.T.ravel()
    row = np.tile(np.arange(len(pairs)), 2)
    order = np.lexsort((row, -strength[row], image))
    first = np.searchsorted(image[order], np.arange(num_images))
    rank = np.arange(len(order)) - first[image[order]]
    kept = np.unique(row[order[rank < EDGES]])
    return pairs[kept], strength[kept]
