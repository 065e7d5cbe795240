"""Points that let the poses of new images be estimated most surely and most accurately.

Source: ours. Near a database image i, a query's pose has the information matrix

    L_i(S) = L_0 + sum over the kept points p that i sees of r_p J_ip' J_ip

with J_ip (2 x 6) the derivative of the projection by the pose over the pixel noise, r_p the
relative chance that p is found again and matched with what the map stores for it (mean 1), and
L_0 a weak prior. The selection maximizes

    F(S) = sum over i of [ log det L_i(S) + c log(1 + sum over p of r_p) ]

The log-determinant is minus twice the expected logarithm of the pose error (up to constants): it
asks for points spread over the image and in depth. The second term is the logarithm of the
expected matches, which RANSAC lives on: it asks for points that are found again. Both are concave,
so that an image with few points comes first. F is monotone and submodular, so that the greedy
choice reaches at least 1 - 1/e of the best value, and it does not know the budget: the points have
one order, and each budget keeps the head of it.

With ``crowd`` = k, matches of one part of an image count less and less: in place of the sum of r_p
stands the sum over the image's ``CELLS`` x ``CELLS`` cells of k log(1 + (sum of r_p in it) / k). A
concave function of a monotone submodular one is submodular, so that all of the above stays true.
"""

import numpy as np
from tqdm import tqdm

from ..errors import InputError
from .base import SelectionProblem
from .statistics import ranges

PRIOR = 1e-2  # variance of the pose before any match: 0.1 radians, a tenth of the median depth
CELLS = 4  # of a side of an image
_CHUNK = 1 << 16  # observations at a time


def select_hybrid(
    problem: SelectionProblem, num_points: int, *, seed: int = 0, **options
) -> np.ndarray:
    """Exactly ``num_points`` points: the head of ``hybrid_order``, with its options.

    Returns:
        (num_points,) int64, increasing.
    """
    return np.sort(hybrid_order(problem, num_points, seed=seed, **options))


def hybrid_order(
    problem: SelectionProblem,
    num_points: int,
    *,
    seed: int = 0,
    sharpness: float = 1.5,
    matches: float = 20.0,
    crowd: float = 0.0,
    pixel_noise: float = 2.0,
    tolerance: float = 0.05,
    progress: bool = False,
) -> np.ndarray:
    """The first ``num_points`` points of the lazy greedy maximization of F (see the module).

    Args:
        problem: the map; without observations the descriptors play no part.
        num_points: how many points to put in order; fewer are the head of the same order.
        seed: not used, nothing is drawn.
        sharpness: power of the reliability in r_p, which is that times the survival.
        matches: c, the weight of the expected matches.
        crowd: k of the module, in expected matches of the mean point; 0 counts all alike.
        pixel_noise: standard deviation of a keypoint in pixels.
        tolerance: each added point gains at least 1 - ``tolerance`` times the best one.
        progress: show a progress bar.

    Returns:
        (num_points,) int64, as greedy adds them; points that no image sees come last.

    Raises:
        InputError: an option is out of range.
    """
    if not (0 < tolerance < 1 and pixel_noise > 0):
        raise InputError("hybrid: expected 0 < tolerance < 1 and pixel_noise > 0")
    if not (sharpness >= 0 and matches >= 0 and 0 <= crowd < np.inf):
        raise InputError("hybrid: expected sharpness, matches and crowd >= 0")
    chance = problem.reliability**sharpness * problem.survival
    seen = problem.visibility.track_lengths() > 0
    chance = chance / max(chance[seen].mean(), 1e-12) if seen.any() else chance
    information = _Information(problem, chance, pixel_noise, matches, crowd)
    return information.maximize(min(num_points, problem.num_points), tolerance, progress)


class _Information:
    """The terms of F of all images and their greedy maximization."""

    def __init__(
        self,
        problem: SelectionProblem,
        chance: np.ndarray,
        pixel_noise: float,
        matches: float,
        crowd: float = 0.0,
    ):
        visibility = problem.visibility
        by_point, order = visibility.transpose()
        self.starts, self.images = by_point.indptr, by_point.indices
        points = visibility.indices[order]
        self.num_points = visibility.num_points
        self.weight = chance[points].astype(np.float32)
        self.jacobian = pose_jacobians(problem, pixel_noise)[order]
        self.covariance = np.repeat(PRIOR * np.eye(6)[None], visibility.num_images, 0)
        self.cells = image_cells(problem)[order] if crowd else None
        self.crowd = crowd
        self.expected = np.zeros(visibility.num_images)  # matches, without c
        self.expected_in_cell = np.zeros(visibility.num_images * CELLS**2)
        self.matches = matches

    def gains(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Increase of F by each of the points.

        Returns:
            (n,) float64 gains; (k,) observations of the points; (k,) position of each
            observation's point in ``points``.
        """
        first, last = self.starts[points], self.starts[points + 1]
        rows = ranges(first, last)
        own = np.repeat(np.arange(len(points)), last - first)
        values = np.empty(len(rows))
        for begin in range(0, len(rows), _CHUNK):
            part = rows[begin : begin + _CHUNK]
            j, images = self.jacobian[part].astype(np.float64), self.images[part]
            weight = self.weight[part].astype(np.float64)
            m = j @ self.covariance[images] @ j.transpose(0, 2, 1) * weight[:, None, None]
            values[begin : begin + _CHUNK] = np.log(
                (1 + m[:, 0, 0]) * (1 + m[:, 1, 1]) - m[:, 0, 1] * m[:, 1, 0]
            ) + self.matches * np.log1p(self.counted(part, weight) / (1 + self.expected[images]))
        return np.bincount(own, values, minlength=len(points)), rows, own

    def add(self, rows: np.ndarray) -> None:
        """Add observations, no two of one image, to the terms of their images."""
        rows = rows[self.weight[rows] > 0]
        j = self.jacobian[rows].astype(np.float64)
        images = self.images[rows]
        before = self.covariance[images]
        cj = before @ j.transpose(0, 2, 1)
        inner = j @ cj + np.eye(2) / self.weight[rows, None, None]
        after = before - cj @ np.linalg.solve(inner, cj.transpose(0, 2, 1))
        self.covariance[images] = (after + after.transpose(0, 2, 1)) / 2
        self.expected[images] += self.counted(rows, self.weight[rows])
        if self.cells is not None:
            self.expected_in_cell[self.cells[rows]] += self.weight[rows]

    def counted(self, rows: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """What expected matches add to their image: less in a cell that has many."""
        if self.cells is None:
            return weight
        before = self.expected_in_cell[self.cells[rows]]
        return self.crowd * np.log1p(weight / (self.crowd + before))

    def maximize(self, num_points: int, tolerance: float, progress: bool = False) -> np.ndarray:
        """The first ``num_points`` points of greedy maximization of F, in its order.

        Gains only shrink, so that old gains bound new ones from above. Each step renews the gains
        of the points whose bound is near the largest and adds those that are still near it and
        share no image with a better one: their gains do not depend on each other. Nothing but
        the points added so far decides on a step, so that fewer points are the head of more.
        """
        bound = self.gains(np.arange(self.num_points))[0]
        taken = np.zeros(self.num_points, bool)
        parts: list[np.ndarray] = []
        count = 0
        bar = tqdm(total=num_points, desc="Selecting points", disable=not progress)
        # Each step passes over all bounds: large maps add more points in one.
        least = min(max(64, self.num_points // 300), 4096)
        while count < num_points:
            best = bound.max()
            if best <= 0:  # only points that no image sees are left
                break
            near = np.flatnonzero(bound >= (1 - tolerance) * best)
            batch = int(np.clip(count // 16, least, 4096))
            if len(near) > batch:
                near = near[np.lexsort((near, -bound[near]))[:batch]]
                near.sort()
            gain, rows, own = self.gains(near)
            bound[near] = gain
            order = np.lexsort((near, -gain))
            rank = np.empty(len(near), np.int64)
            rank[order] = np.arange(len(near))
            leader = np.full(len(self.covariance), len(near))
            np.minimum.at(leader, self.images[rows], rank[own])
            free = gain >= (1 - tolerance) * bound.max()
            free[own[leader[self.images[rows]] != rank[own]]] = False
            chosen = order[free[order]]
            parts.append(near[chosen])
            taken[near[chosen]] = True
            bound[near[chosen]] = -np.inf
            count += len(chosen)
            bar.update(len(chosen))
            is_chosen = np.zeros(len(near), bool)
            is_chosen[chosen] = True
            self.add(rows[is_chosen[own]])
        bar.close()
        rest = np.flatnonzero(~taken)
        return np.concatenate([*parts, rest])[:num_points].astype(np.int64)


def image_cells(problem: SelectionProblem) -> np.ndarray:
    """Where each observation's point projects, in ``CELLS`` by ``CELLS`` cells of each image.

    Returns:
        (N,) int64 in the order of the visibility, below ``num_images * CELLS**2``; projections
        beside the image count to the nearest cell.
    """
    visibility = problem.visibility
    out = np.zeros(visibility.num_observations, np.int64)
    for i in range(visibility.num_images):
        share = np.nan_to_num(problem.in_image(i)[0])
        column, row = np.clip(share * CELLS, 0, CELLS - 1).astype(np.int64).T
        out[visibility.indptr[i] : visibility.indptr[i + 1]] = (i * CELLS + row) * CELLS + column
    return out


def pose_jacobians(problem: SelectionProblem, pixel_noise: float) -> np.ndarray:
    """Derivative of each observation's projection by its image's pose, over the pixel noise.

    The pose is disturbed on the left: a rotation in radians, then a translation in units of the
    image's median depth. Lens distortion is left out.

    Returns:
        (N, 2, 6) float32 in the order of the visibility; zero for points not in front.
    """
    visibility = problem.visibility
    out = np.zeros((visibility.num_observations, 2, 6), np.float32)
    for i in range(visibility.num_images):
        points = visibility[i]
        if len(points) == 0:
            continue
        pose = problem.cam_from_world[i]
        in_camera = problem.xyz[points] @ pose[:, :3].T + pose[:, 3]
        front = in_camera[:, 2] > 1e-9 * np.abs(in_camera[:, 2]).max()
        depth = np.where(front, in_camera[:, 2], 1.0)
        x, y = (in_camera[:, :2] / depth[:, None]).T
        nearness = (np.median(depth[front]) if front.any() else 1.0) / depth
        zero = np.zeros_like(x)
        jacobian = np.stack(
            [
                np.stack([-x * y, 1 + x * x, -y, nearness, zero, -x * nearness], 1),
                np.stack([-(1 + y * y), x * y, x, zero, nearness, -y * nearness], 1),
            ],
            1,
        )
        camera = problem.cameras[problem.camera_index[i]]
        jacobian *= camera.mean_focal_length() / pixel_noise
        jacobian[~front] = 0
        out[visibility.indptr[i] : visibility.indptr[i + 1]] = jacobian
    return out
