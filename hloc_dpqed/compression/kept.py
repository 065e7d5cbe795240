"""Selections of one map at several sizes, and what the file spends on each beside the codes.

Budgets and plans ask for many numbers of points. What they share is computed once here: the
selection for a number of points, and the bytes of coordinates, tracks, scores and images, which do
not depend on the codec.
"""

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..codecs import Codec
from ..codecs.sign import SignCodec
from ..mapfile import canonical_map, to_bytes
from ..maps.compressed import CompressedMap
from ..scene.appearances import Appearances, AppearanceTrees
from ..scene.reference import Observations, ReferenceMap, mean_scores
from ..selection import ORDERS, SelectionProblem, select_points, selection_order
from ..training.sharpen import sharpened_descriptors
from .conf import CompressConf

OTHER_BYTES = 6  # of a point beside its code, about: coordinates, tracks, score
GRID = 4  # sizes are measured at the number of all points divided by its powers


class KeptPoints:
    """Which points are kept, for each number of them.

    Points are selected; what is kept of each is its row, or its rows where it has several codes.

    Args:
        problem: the map as selectors see it, with observations.
        reference: the map.
        split: the map by rows, where points have several codes; None where a point is a row.
        select: gives the points ((k,) int64) for a problem and a number of points.
        nested: the points are in an order of which each head is the selection of that size.
        xyz_pixels, score_levels: with which the map is written; see ``mapfile.to_bytes``.
    """

    def __init__(
        self,
        problem: SelectionProblem,
        reference: ReferenceMap,
        split: Appearances | None,
        select: Callable[[SelectionProblem, int], np.ndarray],
        nested: bool,
        xyz_pixels: float,
        score_levels: int,
    ):
        assert problem.observations is not None
        self.observations: Observations = problem.observations
        self.reference, self.problem, self._split = reference, problem, split
        if split is not None:
            self.reference, self.observations = split.reference, split.observations
        self.select, self.nested = select, nested
        self.xyz_pixels, self.score_levels = xyz_pixels, score_levels
        self.scores = mean_scores(self.observations)
        self._points: dict[int, np.ndarray] = {}
        self._sharpened: dict[tuple[int, str | None], np.ndarray] = {}
        self._costs: dict[tuple[int, float, int], tuple[int, int, int]] = {}
        total = self.num_points
        self._grid = sorted({max(1, total // GRID**k) for k in range(total.bit_length())})

    def at(self, xyz_pixels: float, score_levels: int) -> "KeptPoints":
        """The same selections, shared, written with another precision."""
        other = copy.copy(self)
        other.xyz_pixels, other.score_levels = xyz_pixels, score_levels
        return other

    @property
    def num_points(self) -> int:
        """Points of the uncompressed map."""
        return self.problem.num_points

    def rows(self, num_points: int) -> np.ndarray:
        """The rows of at most ``num_points`` points: (k,) int64, increasing."""
        points = self._chosen(num_points)
        return points if self._split is None else self._split.rows(points)

    def _chosen(self, num_points: int) -> np.ndarray:
        if not self.nested:
            if num_points not in self._points:
                self._points[num_points] = self.select(self.problem, num_points)
            return self._points[num_points]
        total = self.num_points
        if num_points >= total:
            return np.arange(total)
        order = self._points.get(0, np.zeros(0, np.int64))
        if len(order) < num_points:  # a little more, as trials come close to one another
            order = self.select(self.problem, min(total, num_points + num_points // 4))
            self._points[0] = order
        return np.sort(order[:num_points])

    def observations_of(self, rows: np.ndarray) -> Observations:
        """The observations of the points ``rows``, as those of a map of these points alone."""
        if len(rows) == self.observations.num_points:
            return self.observations
        visibility, kept = self.reference.visibility.keep_points(rows)
        part = self.observations.subset(kept, visibility.indices, len(rows))
        places = self.observations.places
        return part if places is None else replace(part, places=places[rows])

    def sharpened(
        self, seed: int, progress: bool = False, codec: Codec | None = None
    ) -> np.ndarray:
        """``sharpened_descriptors`` of all points: (P, D) float16.

        Dropped points take part: the queries see them too.

        Args:
            codec: what they are for, where it is known (``Codec.sharpened``).
        """
        if self.observations.targets is not None:
            return self.observations.targets
        key = seed, None if codec is None else codec.name
        if key not in self._sharpened:
            make = sharpened_descriptors if codec is None else codec.sharpened
            self._sharpened[key] = make(self.observations, seed, progress)
        return self._sharpened[key]

    def cost(self, num_points: int) -> tuple[int, int, int]:
        """Bytes of the file without codes and codec (nearly), and the numbers of observations and
        of rows."""
        key = num_points, self.xyz_pixels, self.score_levels
        if key not in self._costs:
            reference, rows = self.reference, self.rows(num_points)
            visibility, _ = reference.visibility.keep_points(rows)
            skeleton = CompressedMap(
                image_names=reference.image_names,
                cameras=reference.cameras,
                camera_index=reference.camera_index,
                cam_from_world=reference.cam_from_world,
                xyz=reference.xyz[rows],
                visibility=visibility,
                granularity="point",
                codec=SignCodec(8),
                codes=np.zeros((len(rows), 1), np.uint8),  # entropy-coded to nothing
                scores=self.scores[rows],
                global_descriptors=None,
                metadata={},
            )
            data = to_bytes(
                canonical_map(skeleton, xyz_pixels=self.xyz_pixels),
                xyz_pixels=self.xyz_pixels,
                score_levels=self.score_levels,
            )
            self._costs[key] = len(data), visibility.num_observations, len(rows)
        return self._costs[key]

    def affordable(
        self, budget: int, fixed: int, code_size: int, per_observation: bool, codes_only: bool
    ) -> int:
        """About how many points ``budget`` bytes hold, 0 where not even one.

        Args:
            budget: bytes of the whole file, or of the codes.
            fixed: bytes beside those of ``cost`` and of the codes.
            code_size: bytes of a code.
            per_observation: whether each observation has a code.
            codes_only: the budget counts the codes alone.
        """
        total = self.num_points
        if codes_only and not per_observation and self._split is None:
            return min(total, budget // code_size)

        def spent(count: int) -> int:
            other, observations, rows = self.cost(count)
            codes = code_size * (observations if per_observation else rows)
            return codes if codes_only else fixed + other + codes

        grid = self._grid
        # Between the grid's numbers the size is nearly linear. Start near the answer: selections
        # of many points take long.
        guess = budget / (code_size + OTHER_BYTES)
        k = max(int(np.searchsorted(grid, guess, "right")) - 1, 0)
        while k > 0 and spent(grid[k]) > budget:
            k -= 1
        while k + 1 < len(grid) and spent(grid[k + 1]) <= budget:
            k += 1
        low = spent(grid[k])
        if low > budget:
            return 0
        if k + 1 == len(grid):
            return total
        slope = (spent(grid[k + 1]) - low) / (grid[k + 1] - grid[k])
        return min(grid[k + 1] - 1, grid[k] + int((budget - low) / max(slope, 1e-9)))


def keep_points(
    reference: ReferenceMap,
    observations: Observations,
    conf: CompressConf,
    codec: Callable[[], Codec] | None = None,
    progress: bool = False,
    given: Codec | None = None,
    trees: AppearanceTrees | None = None,
) -> KeptPoints:
    """The selections of ``conf``; ``codec`` is that of ``SelectionProblem``, ``given`` what it
    gives where nothing is fitted, ``trees`` those of the map where they are grown already."""

    nested = conf.selector in ORDERS and "min_per_image" not in conf.selector_options
    chosen = selection_order if nested else select_points

    def select(problem: SelectionProblem, num_points: int) -> np.ndarray:
        return chosen(problem, conf.selector, num_points, seed=conf.seed, **conf.selector_options)

    # The selector looks at what will be stored.
    if codec is not None and conf.sharpens and observations.targets is None:
        make = sharpened_descriptors if given is None else given.sharpened
        observations = replace(observations, targets=make(observations, conf.seed, progress))
    problem = SelectionProblem.from_reference(reference, observations, codec)
    split = None
    if conf.codes_per_point > 1:
        trees = trees or AppearanceTrees(reference, problem.observations or observations)
        split = trees.split(conf.codes_per_point)
    return KeptPoints(problem, reference, split, select, nested, conf.xyz_pixels, conf.score_levels)
