"""Which image sees which point, predicted from the points around it (source: ours).

Points come in the order of the file, coarse to fine: first every 2**k-th one, then those half-way
between them, and so on. The images that the known neighbours of a point see, and the images next
to those in a chain of co-visible images, are its candidates. Each is a coin whose chance depends
on how many neighbours see it and on the candidates beside it. The images that are no candidate are
listed.
"""

from collections.abc import Iterator

import numpy as np

from ..entropy.rans import Coder, DamagedStream, Player, Recorder, code_integers
from ..scene.visibility import Visibility
from .chain import image_chain
from .ragged import ragged

THRESHOLDS = np.array([3, 6, 10, 16, 26, 39, 52])  # of a share of the weight, in 64ths
BUCKETS = len(THRESHOLDS) + 2
STRIDES = (8, 4, 2, 1)  # of the candidates of a point that one pass codes
COIN_CONTEXTS = BUCKETS * (1 + 4 * (len(STRIDES) - 1))
LIST_CONTEXTS = 6
NEIGHBOURS = 8  # on each side
CITY = 150_000  # points above which fewer neighbours are asked, to read quickly
CITY_NEIGHBOURS = 3
MAX_NEIGHBOURS = 16
MAX_WEIGHT = 12
CANDIDATE_POINTS = 1 << 10  # whose candidates are found at a time: what it takes is much more
BLOCK = 1 << 13  # points of a level that are coded at a time; bounds the memory


def _bucket_table() -> np.ndarray:
    """Bucket of each total (rows) and part of it (columns)."""
    part = np.arange(2 * MAX_NEIGHBOURS * MAX_WEIGHT + 1)
    share = 64 * part // np.maximum(part[:, None], 1)
    return np.where(part > 0, 1 + np.searchsorted(THRESHOLDS, share, side="right"), 0)


BUCKET_OF = _bucket_table()
# Of a neighbour whose squared distance is this many times that of the nearest, rounded down.
WEIGHT_OF_RATIO = np.maximum(MAX_WEIGHT - 2 * (np.frexp(np.arange(65))[1].clip(1) - 1), 1)


def encode_tracks(visibility: Visibility, cells: np.ndarray) -> tuple[bytes, int]:
    """A stream of the matrix, and the number of neighbours that it was predicted from.

    Args:
        visibility: I x P.
        cells: (P, 3) int64 grid cells of the points.
    """
    neighbours = NEIGHBOURS if len(cells) <= CITY else CITY_NEIGHBOURS
    recorder = Recorder(COIN_CONTEXTS, LIST_CONTEXTS)
    num_images, num_observations = visibility.num_images, visibility.num_observations
    chain = image_chain(visibility.transpose()[0])
    recorder.bits(np.full(num_images, _chain_bits(num_images)), chain)
    chained = Visibility.from_lists([visibility[i] for i in chain], visibility.num_points)
    tracks, _ = chained.transpose()
    _code(recorder, cells, num_images, num_observations, neighbours, tracks)
    # Each lane costs about 3 bytes; large maps can afford more of them, to be read quickly.
    return recorder.finish(2048 if num_observations > 50_000 else 4096), neighbours


def _chain_bits(num_images: int) -> int:
    return max(num_images - 1, 0).bit_length()


def decode_tracks(
    data: bytes, cells: np.ndarray, num_images: int, num_observations: int, neighbours: int
) -> Visibility:
    """The matrix of a stream.

    Raises:
        DamagedStream: the stream is not one of this many images and observations.
    """
    player = Player(data, COIN_CONTEXTS, LIST_CONTEXTS)
    chain = player.bits(np.full(num_images, _chain_bits(num_images)))
    if (np.sort(chain) != np.arange(num_images)).any():
        raise DamagedStream("the order of the images is no permutation")
    points, images = _code(player, cells, num_images, num_observations, neighbours)
    images = chain[images]
    player.finish()
    keys = np.sort(images * max(len(cells), 1) + points)
    if (keys[1:] == keys[:-1]).any():
        raise DamagedStream("an image sees a point twice")
    indptr = np.zeros(num_images + 1, np.int64)
    np.cumsum(np.bincount(images, minlength=num_images), out=indptr[1:])
    return Visibility(indptr, (keys % max(len(cells), 1)).astype(np.int32), len(cells))


def _code(
    coder: Coder,
    cells: np.ndarray,
    num_images: int,
    num_observations: int,
    neighbours: int,
    truth: Visibility | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Code all tracks (``truth`` is points by images): point and image of each observation."""
    num_points = len(cells)
    # The tracks known so far: images of point p are pool[start[p]] ... (count[p] of them).
    pool = np.zeros(num_observations, np.int32)
    owner = np.zeros(num_observations, np.int32)
    start, count = np.zeros(num_points, np.int64), np.zeros(num_points, np.int64)
    filled = 0
    for points, stride in _blocks(num_points):
        rows, images, buckets = _candidates(
            points, stride, cells, (start, count, pool), num_images, neighbours
        )
        seen, listed = None, None
        if truth is not None:
            lengths = truth.indptr[points + 1] - truth.indptr[points]
            at = ragged(truth.indptr[points], lengths)
            true_rows = np.repeat(np.arange(len(points)), lengths)
            seen, listed = _compare(rows, images, true_rows, truth.indices[at], num_images)
        chosen = _code_candidates(coder, rows, buckets, len(points), seen) > 0
        rows, images = rows[chosen], images[chosen]
        found = np.bincount(rows, minlength=len(points))
        left = num_observations - filled - len(rows)
        more_rows, more_images = _code_listed(coder, found, num_images, left, listed)
        rows, images = np.concatenate([rows, more_rows]), np.concatenate([images, more_images])
        order = np.argsort(rows, kind="stable")
        end = filled + len(rows)
        pool[filled:end], owner[filled:end] = images[order], points[rows[order]]
        count[points] = np.bincount(rows, minlength=len(points))
        start[points] = filled + np.cumsum(count[points]) - count[points]
        filled = end
    if filled != num_observations:
        raise DamagedStream("the file has fewer observations than it says")
    return owner, pool


def _blocks(num_points: int) -> Iterator[tuple[np.ndarray, int]]:
    """Pairs of (new points, stride); the known points are the multiples of twice the stride."""
    if num_points == 0:
        return
    stride = 1
    while stride < num_points:
        stride *= 2
    yield np.zeros(1, np.int64), stride
    while stride > 1:
        stride //= 2
        for first in range(stride, num_points, 2 * stride * BLOCK):
            last = min(first + 2 * stride * BLOCK, num_points)
            yield np.arange(first, last, 2 * stride), stride


def _compare(
    rows: np.ndarray,
    images: np.ndarray,
    true_rows: np.ndarray,
    true_images: np.ndarray,
    num_images: int,
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Which candidates are true, and the true (rows, images) that are no candidates."""
    keys, true_keys = rows * num_images + images, true_rows * num_images + true_images
    seen = np.isin(keys, true_keys, assume_unique=True).astype(np.int64)
    missed = ~np.isin(true_keys, keys, assume_unique=True)
    return seen, (true_rows[missed], true_images[missed].astype(np.int64))


def _candidates(
    points: np.ndarray,
    stride: int,
    cells: np.ndarray,
    tracks: tuple[np.ndarray, np.ndarray, np.ndarray],
    num_images: int,
    neighbours: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Candidates of new points as (row in ``points``, image, bucket), sorted by row and image."""
    parts = []
    for first in range(0, len(points), CANDIDATE_POINTS):
        part = points[first : first + CANDIDATE_POINTS]
        rows, images, buckets = _candidates_of(part, stride, cells, tracks, num_images, neighbours)
        parts.append((rows + first, images, buckets))
    rows, images, buckets = (np.concatenate(column) for column in zip(*parts, strict=True))
    return rows, images, buckets


def _candidates_of(
    points: np.ndarray,
    stride: int,
    cells: np.ndarray,
    tracks: tuple[np.ndarray, np.ndarray, np.ndarray],
    num_images: int,
    neighbours: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``_candidates`` of few points."""
    start, count, pool = tracks
    steps = stride * (2 * np.arange(neighbours) + 1)
    near = points[:, None] + np.concatenate([-steps, steps])
    valid = (near >= 0) & (near < len(cells))
    near[~valid] = 0
    weights = _weights(cells, points, near, valid)
    total = weights.sum(1)
    width = num_images + 2  # a column beside the first and the last image
    size = len(points) * width
    first_key = np.arange(len(points))[:, None] * width + 1
    counts = (count[near] * valid).ravel()
    entries = ragged(start[near].ravel(), counts)
    if size <= 8 * len(entries):
        keys = np.repeat(np.broadcast_to(first_key, near.shape).ravel(), counts)
        keys += pool[entries]
        weight = np.bincount(
            keys, np.repeat(weights.ravel().astype(np.float64), counts), minlength=size
        )
        found = weight > 0
        candidate = found.copy()
        candidate[1:] |= found[:-1]
        candidate[:-1] |= found[1:]
        keys = np.flatnonzero(candidate)
        weight = weight[keys].astype(np.int64)
        rows = np.repeat(
            np.arange(len(points)), np.count_nonzero(candidate.reshape(-1, width), axis=1)
        )
    else:
        # Narrow integers where they suffice: this is where a large map spends its reading time.
        integer = np.int32 if size < 1 << 26 else np.int64
        packed = (first_key * 16 + weights).astype(integer).ravel()  # a weight has 4 bits
        packed = np.repeat(packed, counts) + (pool[entries].astype(integer) << 4)
        keys, weight = _sum_sorted(packed)
        rows = keys // width
    images = keys - rows * width - 1
    inside = (images >= 0) & (images < num_images)
    rows, images, weight = rows[inside], images[inside], weight[inside]
    return rows, images, BUCKET_OF[total[rows], weight]


def _weights(
    cells: np.ndarray, points: np.ndarray, near: np.ndarray, valid: np.ndarray
) -> np.ndarray:
    """Weight of each neighbour: 12 for the nearest, 2 less for each doubling of d**2, 1 or more."""
    squares = np.zeros(near.shape, np.int64)
    for axis in range(3):
        column = cells[:, axis]
        squares += (column[near] - column[points][:, None]) ** 2
    squares += 1
    least = np.where(valid, squares, np.int64(1) << 50).min(1, keepdims=True)
    ratio = np.minimum(squares // least, len(WEIGHT_OF_RATIO) - 1)
    return np.where(valid, WEIGHT_OF_RATIO[ratio], 0)


def _sum_sorted(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unique keys and those beside them, sorted, with the sum of the weights of each.

    Args:
        packed: (n,) keys times 16 plus weights, in any order.
    """
    if len(packed) == 0:
        return packed, packed
    packed = np.sort(packed)
    keys = packed >> 4
    new = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=new[1:])
    first = new.nonzero()[0]
    sums = np.add.reduceat(packed & 15, first)
    keys = keys[first]
    step = np.diff(keys)
    left = np.concatenate([[True], step > 1])
    right = np.concatenate([step > 2, [True]])  # at a step of 2 it is the next one's left
    at = np.cumsum(1 + left + right) - 1 - right
    size = int(at[-1]) + 2
    all_keys, all_sums = np.zeros(size, keys.dtype), np.zeros(size, keys.dtype)
    all_keys[at], all_sums[at] = keys, sums
    all_keys[at[left] - 1] = keys[left] - 1
    all_keys[at[right] + 1] = keys[right] + 1
    return all_keys, all_sums


def _code_candidates(
    coder: Coder, rows: np.ndarray, buckets: np.ndarray, num_rows: int, seen: np.ndarray | None
) -> np.ndarray:
    """Code a coin for each candidate, coarse to fine within each row: (n,) int64."""
    sizes = np.bincount(rows, minlength=num_rows)
    first = np.cumsum(sizes) - sizes
    rank = np.arange(len(rows)) - np.repeat(first, sizes)
    phase = (rank & (STRIDES[0] - 1)).astype(np.uint8)
    after_it = np.minimum(np.repeat(first + sizes - 1, sizes) - np.arange(len(rows)), 8)
    after_it = after_it.astype(np.uint8)  # how many candidates of the row come after
    result = np.zeros(len(rows) + STRIDES[0], np.int16)  # nothing is seen beyond the end
    buckets = buckets.astype(np.int16)
    now = (phase == 0).nonzero()[0]
    result[now] = coder.coins(buckets[now], None if seen is None else seen[now])
    base = BUCKETS
    for stride in STRIDES[1:]:
        now = (phase & (2 * stride - 1) == stride).nonzero()[0]
        before = result[now - stride]
        after = result[now + stride] * (after_it[now] >= stride)
        context = base + 4 * buckets[now] + 2 * before + after
        result[now] = coder.coins(context, None if seen is None else seen[now])
        base += 4 * BUCKETS
    return result[: len(rows)]


def _code_listed(
    coder: Coder,
    found: np.ndarray,
    num_images: int,
    at_most: int,
    listed: tuple[np.ndarray, np.ndarray] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Code the images that are no candidates, as (rows, images)."""
    counts = None if listed is None else np.bincount(listed[0], minlength=len(found))
    counts = code_integers(coder, np.minimum(found, 3), counts)
    if at_most < 0 or counts.max(initial=0) > num_images or counts.sum() > at_most:
        raise DamagedStream("the file has more observations than it says")
    rows = np.repeat(np.arange(len(counts)), counts)
    first = np.cumsum(counts) - counts
    is_first = np.ones(len(rows), bool)
    is_first[1:] = rows[1:] != rows[:-1]
    gaps = None
    if listed is not None:
        images = listed[1]
        gaps = images - np.where(is_first, 0, np.concatenate([[0], images[:-1] + 1]))
    gaps = code_integers(coder, np.where(is_first, 4, 5), gaps)
    if gaps.max(initial=0) >= num_images:
        raise DamagedStream("an observation is of an image that the file does not have")
    # Each image is the one before it in its row, plus 1, plus the gap.
    total = np.cumsum(gaps + 1)
    before = total[first[rows]] - gaps[first[rows]] - 1 if len(rows) else total
    images = total - before - 1
    if images.max(initial=0) >= num_images:
        raise DamagedStream("an observation is of an image that the file does not have")
    return rows, images
