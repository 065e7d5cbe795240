"""Points of the triplets that give the most accurate poses of the database images.

Source: Sattler, Kukelova, "Simple but Effective Triplet-Based Compression Strategies for Compact
Visual Localization", CVPR 2026: draw triplets of each database image's points, estimate the
image's pose from each by P3P, and keep the points of the triplets with the most accurate poses.
Only a summary of that paper could be read. Ours to choose were: how many triplets are drawn,
what 'accurate' is (the distance of camera centres, over the median depth), how a budget of the
whole map is shared (in rounds, below), PROSAC's growth (Chum and Matas, CVPR 2005) for the ordered
draw, and the reading of 'sharing' as counting the points that other images already keep.
"""

import numpy as np
from tqdm import tqdm

from ..errors import InputError
from ..scene.triangulation import undistort
from .base import SelectionProblem
from .p3p import solve_p3p

PRESETS = {"full": 1000, "fast": 100}  # triplets of an image
ORDERS = ("prosac", "random")
_CHUNK = 1 << 15  # triplets at a time


def select_triplet(
    problem: SelectionProblem, num_points: int, *, seed: int = 0, **options
) -> np.ndarray:
    """Exactly ``num_points`` points: the head of ``triplet_order``, with its options.

    Returns:
        (num_points,) int64, increasing.
    """
    return np.sort(triplet_order(problem, num_points, seed=seed, **options))


def triplet_order(
    problem: SelectionProblem,
    num_points: int,
    *,
    seed: int = 0,
    preset: str = "full",
    num_triplets: int | None = None,
    order: str = "prosac",
    sharing: bool = True,
    progress: bool = False,
) -> np.ndarray:
    """The first ``num_points`` points of the best triplets, the images taking turns.

    In round n every image that keeps fewer than 3 n points takes its next best triplet; with
    ``sharing`` the points that came in through other images count as kept, else only its own
    triplets do.

    Args:
        problem: the map; keypoints are those of the observations, or projections with a pixel of
            noise where there are none.
        num_points: how many points to put in order; fewer are the head of the same order.
        seed: of the draws.
        preset: 'full' or 'fast': 1,000 or 100 triplets an image.
        num_triplets: of an image, instead of a preset.
        order: 'prosac' draws triplets of long tracks first, 'random' draws uniformly.
        sharing: see above.
        progress: show a progress bar.

    Returns:
        (num_points,) int64, as the turns add them; last, long tracks in no triplet.

    Raises:
        InputError: an unknown preset or order, or ``num_triplets`` below 1.
    """
    if preset not in PRESETS:
        raise InputError(f"triplet: preset {preset!r}, expected one of {', '.join(PRESETS)}")
    if order not in ORDERS:
        raise InputError(f"triplet: order {order!r}, expected one of {', '.join(ORDERS)}")
    count = PRESETS[preset] if num_triplets is None else num_triplets
    if count < 1:
        raise InputError(f"triplet: num_triplets {count}, expected at least 1")
    visibility = problem.visibility
    lengths = visibility.track_lengths()
    rays = _rays(problem, seed)
    best: list[np.ndarray] = []
    images = range(visibility.num_images)
    for i in tqdm(images, desc="Drawing triplets", disable=not progress):
        points = visibility[i]
        own = slice(visibility.indptr[i], visibility.indptr[i + 1])
        rng = np.random.default_rng([seed, i])
        drawn = draw_triplets(lengths[points], count, order, rng)
        error = triplet_errors(rays[own], problem.xyz[points], problem.cam_from_world[i], drawn)
        good = np.flatnonzero(np.isfinite(error))
        best.append(points[drawn[good[np.argsort(error[good], kind="stable")]]])
    return _share_out(problem, best, num_points, sharing)


def draw_triplets(
    lengths: np.ndarray, count: int, order: str, rng: np.random.Generator
) -> np.ndarray:
    """Up to ``count`` triplets of an image's points.

    Args:
        lengths: (n,) track length of each point.
        count: how many to draw; a triplet with a repeated point is left out.
        order: 'random', or 'prosac': the points by length, and the t-th triplet from the first
            m of them with the m-th always included, where binomial(m, 3) / binomial(n, 3) = t / T.
        rng: source of the draws.

    Returns:
        (k, 3) int64, k <= ``count``, positions in ``lengths``.
    """
    n = len(lengths)
    if n < 3:
        return np.zeros((0, 3), np.int64)
    if order == "random":
        drawn = rng.integers(0, n, (count, 3))
        return drawn[_distinct(drawn)]
    by_length = np.lexsort((np.arange(n), -lengths))
    m = np.arange(3, n + 1, dtype=np.float64)
    share = m * (m - 1) * (m - 2) / (n * (n - 1.0) * (n - 2))
    pool = 3 + np.searchsorted(share, np.arange(1, count + 1) / count - 1e-12)
    pool = np.minimum(pool, n)
    drawn = np.c_[rng.integers(0, (pool - 1)[:, None], (count, 2)), pool - 1]
    return by_length[drawn[_distinct(drawn)]]


def _distinct(drawn: np.ndarray) -> np.ndarray:
    a, b, c = drawn.T
    return (a != b) & (b != c) & (a != c)


def triplet_errors(
    rays: np.ndarray, xyz: np.ndarray, cam_from_world: np.ndarray, triplets: np.ndarray
) -> np.ndarray:
    """Distance of the P3P camera centre nearest to the true one, over the median depth.

    Args:
        rays: (n, 2) observations on the plane z = 1.
        xyz: (n, 3) their points.
        cam_from_world: (3, 4) the image's pose.
        triplets: (k, 3) rows of ``rays``.

    Returns:
        (k,) float64, infinite where P3P has no solution.
    """
    out = np.full(len(triplets), np.inf)
    if len(triplets) == 0:
        return out
    bearings = np.c_[rays, np.ones(len(rays))]
    bearings /= np.linalg.norm(bearings, axis=1, keepdims=True)
    centre = -cam_from_world[:, :3].T @ cam_from_world[:, 3]
    depth = np.abs(np.median(xyz @ cam_from_world[2, :3] + cam_from_world[2, 3]))
    local = xyz - centre  # keeps the digits where the map's origin is far away
    for begin in range(0, len(triplets), _CHUNK):
        part = triplets[begin : begin + _CHUNK]
        poses, exists = solve_p3p(bearings[part], local[part])
        centres = np.einsum("nsji,nsj->nsi", poses[..., :3], poses[..., 3])
        distance = np.where(exists, np.linalg.norm(centres, axis=-1), np.inf)
        out[begin : begin + _CHUNK] = distance.min(1)
    out = out / max(depth, 1e-12)
    return np.where(np.isnan(out), np.inf, out)


def _rays(problem: SelectionProblem, seed: int) -> np.ndarray:
    """(N, 2) observations on the plane z = 1."""
    visibility = problem.visibility
    camera = problem.camera_index[visibility.image_of_observation()]
    if problem.observations is not None:
        pixels = problem.observations.keypoints.astype(np.float64) + 0.5
        return undistort(pixels, problem.cameras, camera)
    poses = problem.cam_from_world[visibility.image_of_observation()]
    in_camera = np.einsum("nij,nj->ni", poses[:, :, :3], problem.xyz[visibility.indices])
    in_camera += poses[:, :, 3]
    focal = np.array([c.mean_focal_length() for c in problem.cameras])[camera]
    noise = np.random.default_rng(seed).normal(0, 1, (len(focal), 2)) / focal[:, None]
    with np.errstate(all="ignore"):
        return in_camera[:, :2] / in_camera[:, 2:] + noise


def _share_out(
    problem: SelectionProblem, best: list[np.ndarray], num_points: int, sharing: bool
) -> np.ndarray:
    """Give every image in turn its next best triplet until the budget is spent."""
    visibility = problem.visibility
    by_point, _ = visibility.transpose()
    num_points = min(num_points, problem.num_points)
    taken = np.zeros(problem.num_points, bool)
    order: list[int] = []
    kept = np.zeros(visibility.num_images, np.int64)
    next_triplet = [0] * visibility.num_images
    target = 0
    active = [i for i, triplets in enumerate(best) if len(triplets)]
    while active and len(order) < num_points:
        target += 3
        still = []
        for i in active:
            while next_triplet[i] < len(best[i]) and kept[i] < target and len(order) < num_points:
                triplet = best[i][next_triplet[i]]
                next_triplet[i] += 1
                if not sharing:
                    kept[i] += 3
                for point in triplet.tolist():
                    if not taken[point]:
                        taken[point] = True
                        order.append(point)
                        if sharing:
                            kept[by_point[point]] += 1
            if next_triplet[i] < len(best[i]):
                still.append(i)
        active = still
    left = np.flatnonzero(~taken)  # every triplet is used up: long tracks fill the budget
    longest = np.lexsort((left, -visibility.track_lengths()[left]))
    return np.r_[np.array(order, np.int64), left[longest]][:num_points]
