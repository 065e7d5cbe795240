"""The smallest map that keeps a recall, found on held-out database images (ours).

The size of the file is searched: doubled until a plan reaches the recall on the pseudo-queries,
then halved and bisected. At each size the plan that reached it last is tried first, then its
neighbours; the first that reaches the recall ends the trial. In a small map the images that can be
held out at once are too few to tell a recall: several folds of them are, one after the other.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from ..compression.conf import DEFAULT_WORK, CompressConf, Work
from ..compression.source import Source
from ..errors import InputError
from ..evaluation.pose_errors import parse_thresholds
from ..io.features import open_features
from ..io.sizes import format_size
from ..logger import logger
from .plans import Plan, candidate_plans, neighbour_plans, shared_plans
from .pseudo_queries import DEFAULT_MATCHER, MAX_PSEUDO_QUERIES, TrialMatcher, num_folds
from .trials import Outcome, Trials

ONE_IN = 6  # of so many images one is held out: a recall needs more queries than a comparison
FIRST_BYTES = 6  # of each point, in the file that is tried first
MOST_BYTES = 48  # of each point, in the largest file that is tried
WIDEST = 1.1  # ratio of the sizes between which the search ends


@dataclass(frozen=True)
class Target:
    """A recall to keep: a share of queries with errors under thresholds.

    Attributes:
        recall: 0 .. 1.
        translation: map units.
        rotation: degrees.
    """

    recall: float
    translation: float
    rotation: float

    def __str__(self) -> str:
        return f"{self.recall:g}@{self.translation:g}/{self.rotation:g}"

    def reached(self, outcome: Outcome) -> bool:
        return outcome.recall(self.translation, self.rotation) >= self.recall - 1e-9


def parse_target(text: str) -> Target:
    """``0.95@0.25/2``: recall at map units / degrees.

    Raises:
        InputError: not such a target.
    """
    match = re.fullmatch(r"\s*([0-9.]+)@([^,]+)", text)
    try:
        if match is None:
            raise ValueError
        recall = float(match[1])
        ((translation, rotation),) = parse_thresholds(match[2])
        if not 0 < recall <= 1:
            raise ValueError
    except (ValueError, InputError) as error:
        raise InputError(
            f"--target_recall {text}: expected recall@translation/rotation such as 0.95@0.25/2, "
            "the recall above 0 and at most 1"
        ) from error
    return Target(recall, translation, rotation)


def plan_recall(
    source: Source,
    target: Target,
    conf: CompressConf,
    work: Work = DEFAULT_WORK,
    *,
    fixed: bool = False,
    matcher: TrialMatcher = DEFAULT_MATCHER,
) -> tuple[CompressConf, int]:
    """How to make the smallest map that keeps a recall.

    Args:
        source: the map; its global descriptors are what pseudo-queries retrieve with.
        target: the recall to keep, on held-out images.
        conf: selector, granularity and seed; codec and code size too where ``fixed``; with
            ``shared`` the codec is that of ``source``.
        fixed: do not choose the codec and the code size.
        work: how the fitting is done.
        matcher: what localizes the held-out images.

    Returns:
        The configuration and the number of points. The points of the map without the held-out
        images are as many for each of its points as those of the full one.

    Raises:
        InputError: the map has too few images, or no map reaches the recall; one line says what
            the best reached.
    """
    folds: list[Trials] = []
    with open_features(source.features) as file:
        for fold in range(num_folds(source.reference.num_images, ONE_IN)):
            folds.append(
                Trials(
                    source.reference,
                    source.observations,
                    conf,
                    file.read,
                    global_descriptors=source.global_descriptors,
                    one_in=ONE_IN,
                    fold=fold,
                    work=replace(work, progress=False),
                    matcher=matcher,
                    shared=source.shared,
                )
            )
            if sum(len(trials.held.queries) for trials in folds) >= MAX_PSEUDO_QUERIES:
                break
    search = _Search(folds, target, conf, fixed)
    found = search.run(work.progress)
    wanted = min(math.ceil(found.num_points / folds[0].share), source.reference.num_points)
    logger.info(
        f"plan {found.plan}: {format_size(found.total_bytes)} and {found.num_points} points reach "
        f"{found.recall(target.translation, target.rotation):.3f} at {target.translation:g}/"
        f"{target.rotation:g} on {len(found.errors)} held-out images"
    )
    return found.plan.conf(conf, found.total_bytes), wanted


class _Search:
    """The search for the smallest file; ``fixed`` keeps codec and code size of ``conf``."""

    def __init__(self, folds: list[Trials], target: Target, conf: CompressConf, fixed: bool):
        self.folds, self.target, self.conf, self.fixed = folds, target, conf, fixed
        self.held = folds[0].held
        self.best_seen: tuple[float, int] | None = None  # a recall, and of how many images
        self.refusal = ""

    def run(self, progress: bool) -> Outcome:
        """The outcome of the smallest file found.

        Raises:
            InputError: none reaches the target.
        """
        points = self.held.reference.num_points
        most, size = MOST_BYTES * points + 100_000, FIRST_BYTES * points
        found: Outcome | None = None
        failed = 0
        with tqdm(desc="Searching", disable=not progress) as bar:
            while found is None and size <= most:
                bar.set_postfix_str(format_size(size))
                found = self._reach(size, None)
                bar.update()
                if found is None:
                    failed, size = size, 2 * size
            if found is None:
                raise self._none_reaches()
            while found.total_bytes > max(WIDEST * failed, 1):
                size = found.total_bytes // 2
                if failed:
                    size = int(math.sqrt(found.total_bytes * failed))
                bar.set_postfix_str(format_size(size))
                smaller = self._reach(size, found.plan)
                bar.update()
                if smaller is None:
                    failed = size
                else:
                    found = smaller
        return found

    def _reach(self, size: int, plan: Plan | None) -> Outcome | None:
        """The first outcome within ``size`` bytes that reaches the target."""
        for candidate in self._candidates(size, plan):
            try:
                outcome = self._run(candidate, size)
            except InputError as error:
                self.refusal = str(error)
                continue
            recall = outcome.recall(self.target.translation, self.target.rotation)
            logger.debug(f"{size} bytes, {candidate}: {recall:.3f}")
            self.best_seen = max(self.best_seen or (0.0, 0), (recall, len(outcome.errors)))
            if self.target.reached(outcome):
                return outcome
        return None

    def _run(self, plan: Plan, size: int) -> Outcome:
        """What the first fold gave, with the errors of all; of fewer where those settle a failure.

        Raises:
            InputError: see ``Trials.run``.
        """
        allowed = (1 - self.target.recall) * sum(len(trials.held.queries) for trials in self.folds)
        outcomes: list[Outcome] = []
        for trials in self.folds:
            outcomes.append(trials.run(plan, size, "total"))
            pooled = replace(outcomes[0], errors=np.concatenate([o.errors for o in outcomes]))
            recall = pooled.recall(self.target.translation, self.target.rotation)
            if (1 - recall) * len(pooled.errors) > allowed + 1e-9:
                break
        return pooled

    def _candidates(self, size: int, plan: Plan | None) -> Iterator[Plan]:
        if plan is not None:
            yield plan
            # The smallest map has one code a point.
            near = [p for p in neighbour_plans(plan) if p.codes_per_point == 1]
        else:
            near = self._start(size)
        if not self.fixed:
            yield from near
            if plan is not None and not self.conf.shared:  # what the codec of the plan cannot do
                yield from (p for p in self._start(size) if p.shared != plan.shared)
            return
        codec, code_bytes = self.conf.codec, self.conf.code_bytes
        if plan is not None:
            yield from (p for p in near if p.code_bytes == plan.code_bytes)
            return
        part = near[0].codec_part if codec == "drqed" else 0.0
        yield replace(near[0], codec=codec, code_bytes=code_bytes, codec_part=part)

    def _start(self, size: int) -> list[Plan]:
        """Plans to begin with, the sooner tried ones first."""
        dim, points = self.held.observations.dim, self.held.reference.num_points
        shared, plans = self.folds[0].shared, []
        if shared is not None:
            plans += shared_plans(shared.codec, points, size, "total")
        if not self.conf.shared:
            plans += candidate_plans(dim, points, size, "total")
        return [plan for plan in plans if plan.codes_per_point == 1]

    def _none_reaches(self) -> InputError:
        if self.best_seen is None:
            return InputError(f"--target_recall {self.target}: {self.refusal}")
        recall, images = self.best_seen
        return InputError(
            f"--target_recall {self.target}: no map reaches it, the best keeps {recall:.3f} of "
            f"{images} held-out images"
        )
