"""How many codes a point may have within a budget that holds all points (ours)."""

import math
from dataclasses import replace

from ..compression.conf import CompressConf
from ..compression.kept import keep_points
from ..scene.appearances import AppearanceTrees
from ..scene.reference import Observations, ReferenceMap
from .plans import Plan

LEFT = 0.003  # of the budget, for metadata and what is not known before codes are
FIXED_BYTES = 400  # of metadata
STEP = 0.01  # of a number of codes
NEAR = 0.005  # of the budget, which may be left where filling it takes more trials


class Room:
    """What all points of a map take in a file, by how many codes they have.

    Args:
        reference, observations: the map.
        conf: how it is compressed.
    """

    def __init__(self, reference: ReferenceMap, observations: Observations, conf: CompressConf):
        self._conf, self._trees = conf, AppearanceTrees(reference, observations)
        self._costs: dict[tuple[int, float, int], int] = {}
        self._most: dict[tuple[str, int, str], float] = {}

    @property
    def all_codes(self) -> float:
        """Codes of a point, on average, where each observation has its own."""
        observations, points = len(self._trees.observations), self._trees.reference.num_points
        return max(1.0, round(math.ceil(observations / max(points, 1) / STEP) * STEP, 2))

    def most_codes(self, plan: Plan, budget: int, scope: str) -> float:
        """Codes of a point, on average, with which all points are within the budget: at least 1,
        and not more than points have observations.

        Args:
            plan: its ``codes_per_point`` does not count.
            budget, scope: bytes, of the whole file or of the codes.
        """
        key = str(replace(plan, codes_per_point=1.0)), budget, scope
        if key not in self._most:
            self._most[key] = round(self._find(plan, budget, scope) * STEP, 2)
        return self._most[key]

    def _find(self, plan: Plan, budget: int, scope: str) -> int:
        """In steps."""
        allowed = budget
        if scope == "total":
            allowed -= int((LEFT + plan.codec_part) * budget) + FIXED_BYTES
        low, high = round(1 / STEP), round(self.all_codes / STEP)
        spare: float = allowed - self._bytes(plan, low, scope)
        if spare <= 0 or high <= low:
            return low
        lacking: float = self._bytes(plan, high, scope) - allowed
        if lacking <= 0:
            return high
        # The Illinois method: bytes grow less and less with the codes, and the secant alone would
        # stay on one side.
        left, moved = spare, 0
        while high - low > 1 and not 0 <= left <= NEAR * allowed:
            guess = low + math.floor((high - low) * spare / (spare + lacking))
            guess = min(max(guess, low + 1), high - 1)
            left = allowed - self._bytes(plan, guess, scope)
            if left >= 0:
                low, spare = guess, left
                lacking /= 2 if moved > 0 else 1
                moved = 1
            else:
                high, lacking = guess, -left
                spare /= 2 if moved < 0 else 1
                moved = -1
        return low

    def _bytes(self, plan: Plan, steps: int, scope: str) -> int:
        """Of a file of all points without its codec, or of its codes."""
        trees = self._trees
        points = trees.reference.num_points
        rows = min(round(steps * STEP * points), len(trees.observations))
        codes = rows * plan.code_bytes
        if scope != "total":
            return codes
        key = steps, plan.xyz_pixels, plan.score_levels
        if key not in self._costs:
            conf = replace(
                self._conf,
                selector="all",
                selector_options={},
                codes_per_point=steps * STEP,
                xyz_pixels=plan.xyz_pixels,
                score_levels=plan.score_levels,
            )
            kept = keep_points(trees.reference, trees.observations, conf, trees=trees)
            self._costs[key] = kept.cost(points)[0]
        return self._costs[key] + codes
