"""Choose codec, code size and number of points for a budget, by measuring on the map itself.

Whole database images are held out as pseudo-queries (``holdout``). Each candidate plan is fitted
on what is left, filled with as many points as the budget allows, and localizes the pseudo-queries;
the plan with the lowest mean log translation error is used. The method is ours.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from .codecs import CODECS, Codec, fit_codec
from .compress import CompressConf, Compressor
from .compressed_map import CompressedMap
from .errors import InputError
from .evaluate import pose_error
from .holdout import HeldOutImage, HoldOut, hold_out, spread_folds
from .io.features import FeatureFile, ImageFeatures
from .localization.localizer import Localizer, Query
from .logger import logger
from .reference import Observations, ReferenceMap
from .visibility import Visibility

RANSAC_PX = 4.0
MIN_IMAGES = 4  # of a map that images are held out of
MAX_PSEUDO_QUERIES = 16
CODE_SIZES = (2, 4, 8)
CODEC_PARTS = (0.15, 0.3, 0.5)  # of the file, for codebooks and decoder
OTHER_BYTES = 6  # of a point beside its code: coordinates, tracks, score; only to choose plans


@dataclass(frozen=True)
class Plan:
    """One way to spend a budget.

    Attributes:
        codec: name in ``codecs.CODECS``.
        code_bytes: bytes of one code.
        options: of the codec.
    """

    codec: str
    code_bytes: int
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        options = "".join(f" {key}={value}" for key, value in self.options.items())
        return f"{self.codec} {self.code_bytes} B{options}"


@dataclass(frozen=True)
class Outcome:
    """What a plan gave on the pseudo-queries.

    Attributes:
        plan: the plan.
        num_points: points that fitted the budget, of the map without the held-out images.
        score: mean over pseudo-queries of the log translation error, clipped; lower is better.
        errors: (Q, 2) translation in map units and rotation in degrees, infinite for failures.
        total_bytes: of the map file.
    """

    plan: Plan
    num_points: int
    score: float
    errors: np.ndarray
    total_bytes: int


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
) -> CompressConf:
    """``conf`` with the codec, code size and options of the best plan for ``budget``.

    A map too small to hold images out gets the first candidate plan.

    Raises:
        InputError: no plan fits; the line says what would.
    """
    plans = candidate_plans(observations.dim, reference.num_points, budget, scope)
    if not plans:
        raise InputError(f"--budget {budget}: no code is small enough; nothing fits")
    best = plans[0]
    if reference.num_images >= MIN_IMAGES and len(plans) > 1:
        with FeatureFile(features) as file:
            best = plan_budget(
                reference,
                observations,
                plans,
                budget,
                scope,
                conf,
                file.read,
                global_descriptors=global_descriptors,
                device=device,
                progress=progress,
            )[0].plan
    options = {**best.options, **conf.codec_options}
    return replace(conf, codec=best.codec, code_bytes=best.code_bytes, codec_options=options)


def plan_budget(
    reference: ReferenceMap,
    observations: Observations,
    plans: Sequence[Plan],
    budget: int,
    scope: str,
    conf: CompressConf,
    read_features: Callable[[str], ImageFeatures],
    *,
    global_descriptors: np.ndarray | None = None,
    num_retrieved: int = 20,
    device: str = "cpu",
    progress: bool = False,
) -> list[Outcome]:
    """Measure plans on pseudo-queries: the outcomes of those that fit the budget, the best first.

    Args:
        reference, observations: the full map.
        plans: candidates; see ``candidate_plans``.
        budget: bytes, counted as ``scope`` says.
        conf: selector, granularity and seed of every plan.
        read_features: gives a database image's local features by name.
        global_descriptors: (I, Dg) of the images: pseudo-queries retrieve with them; without them
            they retrieve the images with which they share most points.
        num_retrieved: images that a pseudo-query retrieves.

    Raises:
        InputError: the map has fewer than four images, or no plan fits; the line says what would.
    """
    held = hold_out_queries(
        reference, observations, conf.seed, read_features, global_descriptors, num_retrieved
    )
    outcomes: list[Outcome] = []
    refused: list[str] = []
    for plan in tqdm(plans, desc="Planning", disable=not progress):
        try:
            codec = fit_codec(
                plan.codec,
                held.observations,
                plan.code_bytes,
                seed=conf.seed,
                device=device,
                **plan.options,
            )
            outcomes.append(try_plan(plan, codec, held, budget, scope, conf))
        except InputError as error:
            refused.append(str(error))
    if not outcomes:
        raise InputError(refused[-1] if refused else f"--budget {budget}: no plan to try")
    outcomes.sort(key=lambda outcome: (outcome.score, outcome.total_bytes))
    for outcome in outcomes:
        logger.info(
            f"plan {outcome.plan}: {outcome.num_points} points, {outcome.total_bytes} bytes, "
            f"mean log error {outcome.score:.3f}"
        )
    return outcomes


def hold_out_queries(
    reference: ReferenceMap,
    observations: Observations,
    seed: int,
    read_features: Callable[[str], ImageFeatures],
    global_descriptors: np.ndarray | None,
    num_retrieved: int,
) -> HoldOut:
    """One spread fold of the images as pseudo-queries, each with a retrieval list.

    Raises:
        InputError: the map has fewer than four images.
    """
    count = reference.num_images
    if count < MIN_IMAGES:
        raise InputError(f"planning holds images out, and a map of {count} has too few")
    # A tenth of the images, but enough to tell plans apart and no more than time allows.
    wanted = min(max(count // 10, 4), MAX_PSEUDO_QUERIES, count // 2)
    folds = spread_folds(reference.cam_from_world, max(2, count // wanted), seed)
    held_out = np.flatnonzero(folds == 0)[:MAX_PSEUDO_QUERIES]
    held = hold_out(
        reference,
        observations,
        held_out,
        read_features=read_features,
        global_descriptors=global_descriptors,
        num_retrieved=num_retrieved,
    )
    if global_descriptors is None:
        shared = shared_points(reference.visibility, held_out, held.image_rows)
        best = np.argsort(-shared, axis=1, kind="stable")[:, :num_retrieved]
        names = held.reference.image_names
        queries = [
            replace(query, retrieved=[names[i] for i in row])
            for query, row in zip(held.queries, best, strict=True)
        ]
        held = replace(held, queries=queries)
    return held


def shared_points(visibility: Visibility, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Number of points that images ``rows`` share with images ``others``: (n, m) int64."""
    shared = np.zeros((len(rows), len(others)), np.int64)
    for k, row in enumerate(rows):
        seen = np.zeros(visibility.num_points, bool)
        seen[visibility[row]] = True
        shared[k] = [np.count_nonzero(seen[visibility[other]]) for other in others]
    return shared


def try_plan(
    plan: Plan, codec: Codec, held: HoldOut, budget: int, scope: str, conf: CompressConf
) -> Outcome:
    """Fill the budget with points and localize the pseudo-queries.

    Raises:
        InputError: nothing fits the budget.
    """
    own = replace(conf, codec=plan.codec, code_bytes=plan.code_bytes, codec_options=plan.options)
    compressor = Compressor(held.reference, held.observations, own, codec=codec)
    compressed, data = compressor.fit_budget(budget, scope)
    errors = localize_held_out(compressed, held.queries, conf.seed)
    extent = scene_extent(held.reference.cam_from_world)
    return Outcome(plan, compressed.num_points, mean_log_error(errors, extent), errors, len(data))


def localize_held_out(
    compressed: CompressedMap, queries: Sequence[HeldOutImage], seed: int
) -> np.ndarray:
    """(Q, 2) translation and rotation errors of the pseudo-queries, infinite for failures."""
    localizer = Localizer(compressed, ransac_thresh=RANSAC_PX, seed=seed)
    row_of = {name: row for row, name in enumerate(compressed.image_names)}

    def stream():
        for query in queries:
            assert query.features is not None  # hold_out was given a reader
            images = [row_of[name] for name in query.retrieved]
            yield Query(query.name, query.camera, query.features, images)

    poses = [outcome.cam_from_world for outcome in localizer.localize_many(stream())]
    return np.array(
        [
            (np.inf, np.inf) if pose is None else pose_error(pose, query.cam_from_world)
            for pose, query in zip(poses, queries, strict=True)
        ]
    )


def scene_extent(cam_from_world: np.ndarray) -> float:
    """Length of the diagonal of the box around the camera centres, in map units."""
    centres = -np.einsum("iba,ib->ia", cam_from_world[:, :, :3], cam_from_world[:, :, 3])
    return float(np.linalg.norm(np.ptp(centres, axis=0)))


def mean_log_error(errors: np.ndarray, extent: float) -> float:
    """Mean log translation error, each clipped to 1e-5 .. 1 times the scene's extent."""
    extent = max(extent, 1e-9)
    return float(np.log(np.clip(errors[:, 0] / extent, 1e-5, 1)).mean())


def candidate_plans(dim: int, num_points: int, budget: int, scope: str) -> list[Plan]:
    """Plans worth trying for a map of ``num_points`` points and descriptors of ``dim`` dimensions.

    The differentiable residual codec with a part of the budget for itself, over a grid of code
    sizes and parts; and one bit for each dimension, which needs no codec. Where a budget holds all
    points with a larger code or codec, the smaller ones of that kind are left out.

    Args:
        budget: bytes, counted as ``scope`` says: the whole file, or the codes alone.
    """
    plans: list[Plan] = []
    if scope == "codes":
        return [Plan("drqed", size) for size in CODE_SIZES if size <= budget]
    for size in CODE_SIZES:
        fitting = [
            part for part in CODEC_PARTS if (1 - part) * budget >= num_points * (size + OTHER_BYTES)
        ]
        larger = [share for share in CODEC_PARTS if not fitting or share >= fitting[-1]]
        for part in larger:
            plans.append(Plan("drqed", size, {"codec_budget_bytes": int(part * budget)}))
    generous = [p for p in plans if p.code_bytes == CODE_SIZES[-1]]
    if generous and num_points * (CODE_SIZES[-1] + OTHER_BYTES) <= (1 - CODEC_PARTS[-1]) * budget:
        plans = generous
    if "sign" in CODECS and dim % 8 == 0:
        plans.append(Plan("sign", dim // 8))
    return plans
