"""Choose codec, code size, precision and number of points for a budget.

Whole database images are held out as pseudo-queries (``holdout``). Each candidate plan is fitted
on what is left, filled with as many points as the budget allows, and localizes the pseudo-queries;
the plan with the lowest mean log translation error is used, as its correct matches let expect it.
The candidates are searched by hill-climbing: from a few plans that are far apart to the neighbours
of the best. The method is ours.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from .compress import (
    CODEC_BYTES,
    CompressConf,
    Compressor,
    NothingFits,
    global_code_bytes,
    keep_points,
)
from .compressed_map import CompressedMap
from .errors import InputError
from .holdout import HoldOut
from .io.features import FeatureFile, ImageFeatures
from .io.sizes import format_size
from .kept import OTHER_BYTES, KeptPoints
from .logger import logger
from .mapfile import SCORE_LEVELS, XYZ_PIXELS
from .pseudo_queries import (
    MIN_IMAGES,
    hold_out_queries,
    localize_held_out,
    mean_log_error,
    scene_extent,
)
from .reference import Observations, ReferenceMap

T = TypeVar("T")

CODE_SIZES = (2, 3, 4, 6, 8)
CODEC_PARTS = (0.1, 0.2, 0.3, 0.45, 0.6)  # of the file, for codebooks and decoder
PCA_SIZES = (8, 12, 16, 24, 32)  # bytes of a code of ``pca``, two dimensions each
START_SIZES, START_PART = (2, 4, 8), 0.3  # where the search begins; two of these sizes
# Where not every point fits, coarser coordinates pay for more points. Mutual nearest neighbours,
# with which plans are measured, do not look at scores.
FRUGAL_PIXELS, FRUGAL_LEVELS = 0.5, 0
MAX_PLANS = 12  # that are fitted for one budget
TRIAL_STEPS = 150  # of a trial's training: enough to tell plans apart
LEVEL = 0.03  # difference of scores that few held-out images cannot tell from none
PLAN_SLACK = 0.01  # of the budget, that filling it for a trial may leave


@dataclass(frozen=True)
class Plan:
    """One way to spend a budget.

    Attributes:
        codec: name in ``codecs.CODECS``.
        code_bytes: bytes of one code.
        options: of the codec.
        codec_part: share of the budget for the codec, where it can take any size; 0 elsewhere.
        xyz_pixels, score_levels: as in ``CompressConf``.
        code_targets: as in ``CompressConf``, unless the user says what they are.
    """

    codec: str
    code_bytes: int
    options: dict[str, Any] = field(default_factory=dict)
    codec_part: float = 0.0
    xyz_pixels: float = XYZ_PIXELS
    score_levels: int = SCORE_LEVELS
    code_targets: str | None = None

    def __str__(self) -> str:
        options = "".join(f" {key}={value}" for key, value in self.options.items())
        part = f", {self.codec_part:.0%} for the codec" if self.codec_part else ""
        coarse = f", {self.xyz_pixels:g} px" if self.xyz_pixels != XYZ_PIXELS else ""
        return f"{self.codec} {self.code_bytes} B{options}{part}{coarse}"

    def conf(self, base: CompressConf, budget: int) -> CompressConf:
        """``base`` with what this plan decides for a file of ``budget`` bytes."""
        part = {CODEC_BYTES: int(self.codec_part * budget)} if self.codec_part else {}
        return replace(
            base,
            codec=self.codec,
            code_bytes=self.code_bytes,
            codec_options={**part, **self.options, **base.codec_options},
            xyz_pixels=self.xyz_pixels,
            score_levels=self.score_levels,
            code_targets=base.code_targets or self.code_targets,
        )


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
    """

    plan: Plan
    num_points: int
    score: float
    errors: np.ndarray
    total_bytes: int

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
        resume: folder where interrupted fits continue, see ``fit_codec``.

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
        device: str = "cpu",
        progress: bool = False,
        resume: Path | None = None,
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
        self.conf, self.device, self.progress = conf, device, progress
        self.resume = resume
        self.share = self.held.reference.num_points / reference.num_points
        self.extent = scene_extent(self.held.reference.cam_from_world)
        self._kept = keep_points(self.held.reference, self.held.observations, conf)

    def kept(self, conf: CompressConf) -> KeptPoints:
        return self._kept.at(conf.xyz_pixels, conf.score_levels)

    def run(self, plan: Plan, budget: int, scope: str) -> Outcome:
        """Fill the budget with points and localize the pseudo-queries.

        Raises:
            InputError: nothing fits the budget, or the plan is not possible.
        """
        conf = plan.conf(self.conf, budget)
        if conf.codec == "drqed":
            options = {"steps": TRIAL_STEPS, **conf.codec_options}
            conf = replace(conf, codec_options=options)
        compressor = Compressor(
            self.held.reference,
            self.held.observations,
            conf,
            device=self.device,
            kept=self.kept(conf),
            resume=self.resume,
        )
        compressed, data = compressor.fit_budget(budget, scope, slack=PLAN_SLACK)
        return self.measure(plan, compressed, len(data))

    def measure(self, plan: Plan, compressed: CompressedMap, size: int) -> Outcome:
        """Localize the pseudo-queries in a map of the held-out scene."""
        errors, expected = localize_held_out(compressed, self.held.queries, self.conf.seed)
        score = mean_log_error(errors, expected, self.extent)
        return Outcome(plan, compressed.num_points, score, errors, size)

    def search(
        self,
        start: Sequence[Plan],
        neighbours: Callable[[Plan], Sequence[Plan]],
        budget: int,
        scope: str,
        most: int = MAX_PLANS,
    ) -> list[Outcome]:
        """Try plans from ``start`` on to the neighbours of the best: outcomes, the best first.

        Each codec is climbed to its own best plan, the better ones first.

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
        waiting = list(start)
        with tqdm(desc="Planning", disable=not self.progress) as bar:
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
                    for best in sorted(outcomes, key=_rank):
                        if waiting or best.plan.codec in seen:
                            continue
                        seen.add(best.plan.codec)
                        waiting = [
                            p
                            for p in neighbours(best.plan)
                            if p not in tried and not self._leaves_more(p, best)
                        ]
        if not outcomes:
            too_large = [error for error in refused if isinstance(error, NothingFits)]
            raise min(too_large, key=lambda error: error.smallest, default=refused[-1])
        outcomes = best_first(outcomes)
        for outcome in outcomes:
            logger.info(
                f"plan {outcome.plan}: {outcome.num_points} points, {outcome.total_bytes} bytes, "
                f"mean log error {outcome.score:.3f}"
            )
        return outcomes

    def _leaves_more(self, plan: Plan, best: Outcome) -> bool:
        """Whether the plan would only leave more of a budget that holds all points already."""
        kept = best.plan
        return (
            best.num_points == self.held.reference.num_points
            and plan.xyz_pixels >= kept.xyz_pixels
            and plan.options == kept.options
            and plan.code_bytes <= kept.code_bytes
            and plan.codec_part <= kept.codec_part
        )


def best_first(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The best score first; before it, of those level with it, the one that keeps most points.

    Held-out images are few, and see a part of the map: where they cannot tell two plans apart, the
    one with more points has more for queries from elsewhere.
    """
    ranked = sorted(outcomes, key=_rank)
    level = [o for o in ranked if o.score <= ranked[0].score + LEVEL]
    best = max(level, key=lambda outcome: outcome.num_points)  # the first of equals
    return [best, *(o for o in ranked if o is not best)]


def _rank(outcome: Outcome) -> tuple[float, int]:
    return outcome.score, outcome.total_bytes


def plan_compression(
    reference: ReferenceMap,
    observations: Observations,
    features: Path,
    budget: int,
    scope: str,
    conf: CompressConf,
    global_descriptors: np.ndarray | None = None,
    *,
    device: str = "cpu",
    progress: bool = False,
    resume: Path | None = None,
) -> CompressConf:
    """``conf`` with the codec, code size, precision and options of the best plan for ``budget``.

    A map too small to hold images out gets the first candidate plan.

    Where no plan fits, it is that of the smallest map, for ``Compressor.fit_budget`` to refuse.

    Raises:
        InputError: no plan is possible.
    """
    if global_descriptors is not None and scope == "total":  # trials do without them
        budget = max(budget - global_code_bytes(*global_descriptors.shape)[1], 1)
    plans = candidate_plans(observations.dim, reference.num_points, budget, scope)
    if not plans:
        raise InputError(
            f"--budget {format_size(budget)}: nothing fits, the smallest possible map has "
            f"{START_SIZES[0]} bytes of codes (one point)"
        )
    best = plans[0]
    if reference.num_images >= MIN_IMAGES and len(plans) > 1:
        with FeatureFile(features) as file:
            trials = Trials(
                reference,
                observations,
                conf,
                file.read,
                global_descriptors=global_descriptors,
                device=device,
                progress=progress,
                resume=resume,
            )
            try:
                best = trials.search(plans, neighbour_plans, budget, scope)[0].plan
            except NothingFits as error:  # in a part of the map: let the whole one say what would
                return error.conf
    return best.conf(conf, budget)


def candidate_plans(dim: int, num_points: int, budget: int, scope: str) -> list[Plan]:
    """Plans to begin with, for ``num_points`` points and descriptors of ``dim`` dimensions.

    The differentiable residual codec with a part of the budget for itself; one bit for each
    dimension, which needs no codec; and four bits for each principal component, for maps so small
    that codebooks do not pay. Where a budget holds all points with the largest code, there is
    nothing to save.

    Args:
        budget: bytes, counted as ``scope`` says: the whole file, or the codes alone.
    """
    if scope == "codes":
        return [Plan("drqed", size) for size in START_SIZES if size <= budget]
    simple = [Plan("sign", dim // 8, code_targets="sharpened")] if dim % 8 == 0 else []
    largest = CODE_SIZES[-1]
    if num_points * (largest + 8) <= 0.5 * budget:
        return [Plan("drqed", largest, codec_part=0.45), *simple]
    frugal: dict[str, Any] = {"xyz_pixels": FRUGAL_PIXELS, "score_levels": FRUGAL_LEVELS}
    sizes = START_SIZES[:2]
    if num_points * (sizes[1] + OTHER_BYTES) <= (1 - START_PART) * budget:  # all fit
        sizes = START_SIZES[1:]
    plans = [Plan("drqed", size, codec_part=START_PART, **frugal) for size in sizes]
    if dim >= 32:
        simple.append(Plan("pca", 16, {"bits": 4}, code_targets="sharpened"))
    return plans + [replace(plan, **frugal) for plan in simple]


def adjacent(values: Sequence[T], value: T) -> list[T]:
    """The values before and after ``value``, in this order; none where it is not among them."""
    if value not in values:
        return []
    k = values.index(value)
    return [*values[max(k - 1, 0) : k], *values[k + 1 : k + 2]]


def neighbour_plans(plan: Plan) -> list[Plan]:
    """Plans that differ in one step of the codec's part, of the code size, or in precision."""
    near = []
    for part in reversed(adjacent(CODEC_PARTS, plan.codec_part)):
        near.append(replace(plan, codec_part=part))
    sizes = {"drqed": CODE_SIZES if plan.codec_part else (), "pca": PCA_SIZES}
    for size in adjacent(sizes.get(plan.codec, ()), plan.code_bytes):
        near.append(replace(plan, code_bytes=size))
    if plan.xyz_pixels == FRUGAL_PIXELS:
        near.append(replace(plan, xyz_pixels=XYZ_PIXELS, score_levels=SCORE_LEVELS))
    else:
        near.append(replace(plan, xyz_pixels=FRUGAL_PIXELS, score_levels=FRUGAL_LEVELS))
    return near
