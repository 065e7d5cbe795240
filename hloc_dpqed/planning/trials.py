"""Trials of plans on held-out images."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tqdm import tqdm

from ..codecs import HEADED
from ..compression.conf import DEFAULT_WORK, CompressConf, NothingFits, Work
from ..compression.engine import Compressor
from ..compression.kept import KeptPoints, keep_points
from ..compression.source import SharedCodec
from ..errors import InputError
from ..io.features import ImageFeatures
from ..logger import logger
from ..mapfile import with_stored_xyz
from ..maps.compressed import CompressedMap
from ..scene.appearances import AppearanceTrees
from ..scene.reference import Observations, ReferenceMap
from .holdout import HoldOut
from .plans import Plan
from .pseudo_queries import (
    DEFAULT_MATCHER,
    TrialMatcher,
    hold_out_queries,
    localize_held_out,
    mean_log_error,
    scene_extent,
)
from .room import Room

MAX_PLANS = 12  # that are fitted for one budget
TRIAL_STEPS = 150  # of a trial's training: enough to tell plans apart
SEEN_BYTES = 4  # of the shared code that the selection of all its plans is made for
LEAST_CODES = 1.2  # of a point, on average, to begin with
LEVEL = 0.03  # difference of scores that few held-out images cannot tell from none
PLAN_SLACK = 0.01  # of the budget, that filling it for a trial may leave


@dataclass(frozen=True)
class Outcome:
    """What a plan gave on the pseudo-queries.

    Attributes:
        plan: the plan.
        num_points: points that fitted the budget, of the map without the held-out images.
        score: ``mean_log_error`` of the pseudo-queries; lower is better.
        errors: (Q, S, 2) translation in map units and rotation in degrees for each RANSAC seed,
            infinite for failures.
        total_bytes: of the map file.
        correct: correct matches of a pseudo-query, on average.
        whole_bytes: of the file of the full map with as large a share of its points, about; 0 where
            the budget counts codes alone.
    """

    plan: Plan
    num_points: int
    score: float
    errors: np.ndarray
    total_bytes: int
    correct: float = 0.0
    whole_bytes: int = 0

    def recall(self, translation: float, rotation: float) -> float:
        """Share of (pseudo-query, seed) with both errors strictly under the thresholds."""
        near = (self.errors[..., 0] < translation) & (self.errors[..., 1] < rotation)
        return float(near.mean())


class Trials:
    """Plans tried on the same held-out images; selections are shared among them.

    Args:
        reference, observations: the full map.
        conf: selector, granularity and seed of every plan.
        read_features: gives a database image's local features by name.
        global_descriptors: (I, Dg) of the images: pseudo-queries retrieve with them; without them
            they retrieve the images with which they share most points.
        num_retrieved: images that a pseudo-query retrieves.
        one_in, fold: which images are held out, see ``hold_out_queries``.
        work: how the fitting is done.
        matcher: what localizes the held-out images.
        shared: the codec of plans that are ``shared``.

    Attributes:
        share: points of the held-out map for each of the full map.

    Raises:
        InputError: the map has fewer than four images.
    """

    def __init__(
        self,
        reference: ReferenceMap,
        observations: Observations,
        conf: CompressConf,
        read_features: Callable[[str], ImageFeatures],
        *,
        global_descriptors: np.ndarray | None = None,
        num_retrieved: int = 20,
        one_in: int = 10,
        fold: int = 0,
        work: Work = DEFAULT_WORK,
        matcher: TrialMatcher = DEFAULT_MATCHER,
        shared: SharedCodec | None = None,
    ):
        self.held: HoldOut = hold_out_queries(
            reference,
            observations,
            conf.seed,
            read_features,
            global_descriptors,
            num_retrieved,
            one_in,
            fold,
        )
        self.conf, self.work, self.matcher, self.shared = conf, work, matcher, shared
        self.share = self.held.reference.num_points / reference.num_points
        self.extent = scene_extent(self.held.reference.cam_from_world)
        self.room = Room(reference, observations, conf)
        self._trees = AppearanceTrees(self.held.reference, self.held.observations)
        self._by_codes: dict[tuple[bool, float], KeptPoints] = {}

    def kept(self, conf: CompressConf) -> KeptPoints:
        """The selections for a plan; one for all code sizes of a shared codec, which they see as
        those of ``compress`` do."""
        key = conf.shared, conf.codes_per_point
        if key not in self._by_codes:
            own = replace(self.conf, codes_per_point=conf.codes_per_point)
            codec = None
            if conf.shared:
                assert self.shared is not None
                codec = self.shared.codec
                if codec.name in HEADED:
                    codec = codec.head(min(SEEN_BYTES, codec.code_size))
                own = replace(own, codec=codec.name)
            self._by_codes[key] = keep_points(
                self.held.reference,
                self.held.observations,
                own,
                None if codec is None else lambda: codec,
                given=codec,
                trees=self._trees,
            )
        return self._by_codes[key].at(conf.xyz_pixels, conf.score_levels)

    def run(self, plan: Plan, budget: int, scope: str) -> Outcome:
        """Fill the budget with points and localize the pseudo-queries.

        Raises:
            InputError: nothing fits the budget, or the plan is not possible.
        """
        conf = plan.conf(self.conf, budget)
        if conf.codec == "drqed":
            options = {"steps": TRIAL_STEPS, **conf.codec_options}
            conf = replace(conf, codec_options=options)
        given: dict[str, Any] = {}
        if conf.shared:
            assert self.shared is not None
            codec = self.shared.codec.head(conf.code_bytes)
            given = {"codec": codec, "codec_hash": self.shared.digest}
        compressor = Compressor(
            self.held.reference,
            self.held.observations,
            conf,
            work=replace(self.work, progress=False),
            kept=self.kept(conf),
            **given,
        )
        compressed, data = compressor.fit_budget(budget, scope, slack=PLAN_SLACK)
        # What coarse coordinates cost counts. They make one place of a few points.
        stored = with_stored_xyz(compressed, conf.xyz_pixels)
        books = int(plan.codec_part * budget)
        whole = 0 if scope == "codes" else books + round((len(data) - books) / self.share)
        outcome = self.measure(plan, stored, len(data))
        return replace(outcome, num_points=compressed.num_places, whole_bytes=whole)

    def measure(self, plan: Plan, compressed: CompressedMap, size: int) -> Outcome:
        """Localize the pseudo-queries in a map of the held-out scene."""
        errors, expected, correct = localize_held_out(
            compressed, self.held.queries, self.conf.seed, self.matcher
        )
        score = mean_log_error(errors, expected, self.extent)
        return Outcome(plan, compressed.num_places, score, errors, size, float(correct.mean()))

    def search(
        self,
        start: Sequence[Plan],
        neighbours: Callable[[Plan], Sequence[Plan]],
        budget: int,
        scope: str,
        most: int = MAX_PLANS,
    ) -> list[Outcome]:
        """Try plans from ``start`` on to the neighbours of the best: outcomes, the best first.

        Each codec is climbed to its own best plan, the better ones first. Where the budget holds
        all points with several codes, it is one of the plans to start from to have as many as fit.

        Args:
            neighbours: of a plan, the likelier ones first.
            most: plans that are tried; those of ``start`` all are.

        Raises:
            NothingFits: no plan does; of the one whose smallest map is the smallest.
            InputError: no plan is possible.
        """
        outcomes: list[Outcome] = []
        refused: list[InputError] = []
        tried: list[Plan] = []
        start = [plan for plan in start if self._open(plan)]
        start += self._with_more_codes(start, budget, scope)
        waiting = list(start)
        with tqdm(desc="Planning", disable=not self.work.progress) as bar:
            while waiting and len(tried) < max(most, len(start)):
                plan = waiting.pop(0)
                tried.append(plan)
                bar.set_postfix_str(str(plan))
                try:
                    outcomes.append(self.run(plan, budget, scope))
                except InputError as error:
                    refused.append(error)
                bar.update()
                if outcomes and not any(p in start for p in waiting):
                    # Those of the best; where all were tried, of the best of another codec.
                    waiting = []
                    seen: set[str] = set()
                    ranked = _by_score(outcomes)
                    if start[0].shared:
                        ranked = best_first(outcomes, budget)
                    for best in ranked:
                        if waiting or best.plan.codec in seen:
                            continue
                        seen.add(best.plan.codec)
                        waiting = [
                            p
                            for p in (
                                self._finer(near, best.plan, budget, scope)
                                for near in neighbours(best.plan)
                            )
                            if p not in tried
                            and self._open(p)
                            and not self._leaves_more(p, best)
                            and not self._drops_more(p, best, budget, scope)
                        ]
        if not outcomes:
            raise least_refused(refused)
        outcomes = best_first(outcomes, budget)
        for outcome in outcomes:
            logger.info(
                f"plan {outcome.plan}: {outcome.num_points} points, {outcome.total_bytes} bytes, "
                f"mean log error {outcome.score:.3f}"
            )
        return outcomes

    def _open(self, plan: Plan) -> bool:
        """Whether the plan leaves the codes of a point as they were asked for."""
        settled = self.conf.granularity != "point" or self.conf.codes_per_point > 1
        return not settled or plan.codes_per_point == 1

    def _with_more_codes(self, start: Sequence[Plan], budget: int, scope: str) -> list[Plan]:
        """Of each codec that may have several codes a point the plan of the longest, with as many
        as fit."""
        longest: dict[str, Plan] = {}
        for plan in start:
            known = longest.get(plan.codec)
            if (plan.codec_part or plan.shared) and (
                known is None or plan.code_bytes > known.code_bytes
            ):
                longest[plan.codec] = plan
        several = [
            replace(plan, codes_per_point=self.room.most_codes(plan, budget, scope))
            for plan in longest.values()
        ]
        return [p for p in several if p.codes_per_point >= LEAST_CODES and self._open(p)]

    def _finer(self, plan: Plan, best: Plan, budget: int, scope: str) -> Plan:
        """The plan; where finer coordinates leave room for fewer codes than the best has, with as
        many as fit."""
        if plan.codes_per_point == 1 or plan.xyz_pixels >= best.xyz_pixels:
            return plan
        most = self.room.most_codes(plan, budget, scope)
        return replace(plan, codes_per_point=min(plan.codes_per_point, most))

    def _drops_more(self, plan: Plan, best: Outcome, budget: int, scope: str) -> bool:
        """Whether the plan would spend on further codes of a point, or on precision of points with
        shared codes, what points need that are left out, here or in the whole map."""
        missing = best.num_points < self.held.reference.num_points
        if missing and plan.shared and plan.xyz_pixels < best.plan.xyz_pixels:
            return True
        if plan.codes_per_point == 1:
            return False
        if missing and plan.codes_per_point > best.plan.codes_per_point:
            return True
        return plan.codes_per_point > self.room.most_codes(plan, budget, scope)

    def _leaves_more(self, plan: Plan, best: Outcome) -> bool:
        """Whether the plan would only leave more of a budget that holds all points already."""
        kept = best.plan
        return (
            best.num_points == self.held.reference.num_points
            and plan.xyz_pixels >= kept.xyz_pixels
            and plan.options == kept.options
            and plan.code_bytes <= kept.code_bytes
            and plan.codec_part <= kept.codec_part
            and plan.codes_per_point <= kept.codes_per_point
        )


def least_refused(errors: Sequence[InputError]) -> InputError:
    """Of refused plans the one of the smallest map; where none was too large, the last."""
    too_large = [error for error in errors if isinstance(error, NothingFits)]
    return min(too_large, key=lambda error: error.smallest, default=errors[-1])


def best_first(outcomes: Sequence[Outcome], budget: float = math.inf) -> list[Outcome]:
    """The best score first; before it, of those level with it, the one that keeps most points.

    Held-out images are few, and see a part of the map: where they cannot tell two plans apart, the
    one with more points has more for queries from elsewhere. Shared codes differ in nothing but
    their length, which trades points for matches: of these, and between them and the best of the
    others, it is the plan with most correct matches; and so it is of several codes a point, where
    they leave no more points out, and one.

    Args:
        budget: bytes of the whole file, within which the full map should be.
    """
    ranked = _by_score(outcomes)
    level = [o for o in ranked if o.score <= ranked[0].score + LEVEL]
    found: list[Outcome] = []
    for shared in (True, False):
        own = [o for o in level if o.plan.shared == shared]
        if not own:
            continue
        simple = [o for o in own if o.plan.codes_per_point == 1] or own
        most = max(simple, key=lambda outcome: outcome.num_points)  # the first of equals
        found += simple if shared else [most]
        several = [o for o in own if o.plan.codes_per_point > 1]
        found += [
            o
            for o in several
            if o.num_points >= most.num_points and o.whole_bytes <= max(budget, most.whole_bytes)
        ]
    best = max(found, key=lambda outcome: outcome.correct)
    return [best, *(o for o in ranked if o is not best)]


def _by_score(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return sorted(outcomes, key=_rank)


def _rank(outcome: Outcome) -> tuple[float, int]:
    return outcome.score, outcome.total_bytes
