"""Compress an hloc map: COLMAP model and feature file in, one map file out."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .choices import BUDGET_SCOPES, CODEC_TRAIN, GRANULARITIES, SHIPPED, TUNABLE
from .codecs import HEADED, Codec, sharpens
from .codecs.file import codec_made, read_codec
from .codecs.shipped import (
    SIMILARITY,
    check_described,
    shipped_codecs,
    shipped_for,
    shipped_path,
)
from .compression.conf import CODEC_BYTES, CompressConf, Work
from .compression.engine import Compressor
from .compression.source import SharedCodec, Source
from .errors import InputError
from .io.atomic import check_output, write_bytes
from .io.features import descriptor_dimension, feature_kind, read_global_descriptors
from .io.model import read_observations, read_reference
from .io.sizes import format_size, parse_size
from .logger import logger
from .maps.same_features import check_matched, extractor_name
from .options import (
    check_code_bytes,
    check_codec_options,
    check_matcher,
    check_selector_options,
)
from .planning.calibrate import CALIBRATION_BYTES, calibrate as calibrate_confidence
from .planning.planner import plan_compression
from .planning.pseudo_queries import TrialMatcher
from .planning.target import parse_target, plan_recall
from .scene.reference import Observations
from .selection import SELECTORS
from .threads import check_device, check_seed, set_num_threads, steady_products
from .training.checkpoint import fit_folder

CODEC_PART = 0.3  # of a whole-file budget, for such a codec
MOST_CODES = 100  # of a point


@steady_products()
def main(
    reference_sfm: Path,
    features: Path,
    output: Path,
    budget: str | int | None = None,
    budget_scope: str = "total",
    target_recall: str | None = None,
    num_points: int | None = None,
    fraction: float | None = None,
    selector: str = "hybrid",
    codec: str | None = None,
    code_bytes: int | None = None,
    granularity: str = "point",
    global_features: Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
    threads: int | None = None,
    device: str = "cpu",
    progress: bool = True,
    selector_options: dict[str, Any] | None = None,
    codec_options: dict[str, Any] | None = None,
    codec_file: Path | str | None = None,
    codec_train: str = CompressConf.codec_train,
    code_targets: str | None = CompressConf.code_targets,
    matcher: str = "NN-mutual",
    matcher_weights: Path | None = None,
    calibrate: bool = False,
    codes_per_point: float = CompressConf.codes_per_point,
    tune: bool = False,
) -> Path:
    """Write the compressed map of an hloc model.

    Args:
        reference_sfm: folder of the COLMAP model.
        features: hloc's local feature file that the model refers to, or its COLMAP database.
        output: the map file.
        budget: bytes, such as ``300KB``; as many points are kept as fit.
        budget_scope: what the budget counts: the whole file ('total') or the codes alone.
        target_recall: such as ``0.95@0.25/2``: the smallest map that keeps this share of held-out
            database images within these map units and degrees (``planning.target``).
        num_points: how many points to keep.
        fraction: which fraction of the points to keep, in (0, 1].
        selector, granularity, seed, *_options: see ``CompressConf``.
        codec, code_bytes: see ``CompressConf``. With a budget and without a codec, the planner
            chooses both (``planning.planner``); pass one of them to do without it. With
            'shipped' or a codec file whose codes have codes as their heads it chooses the code
            size alone.
        global_features: hloc's global feature file, to store the images' global descriptors.
        overwrite: replace ``output``; otherwise an existing file is an error.
        threads, device, progress: of the work.
        codec_file: a codec that ``fit_codec.main`` fitted, to use as it is, or the name of one that
            comes with the package (``codecs.shipped``; ``codec`` 'shipped' takes the one for the
            extractor of ``features``). The map then holds its hash instead of the codec.
        codec_train, code_targets: see ``CompressConf``.
        matcher, matcher_weights: what the map will be matched with, as for ``localize``: the
            planner's held-out images are, and the network that ``tune`` takes. Without a plan to
            make or a codec to tune they change nothing and are refused.
        codes_per_point: see ``CompressConf``. The file counts a point of several codes several
            times; ``num_points``, ``fraction`` count it once.
        tune: train the codebooks of ``drqed`` further, through the frozen network of ``matcher``,
            a ``+lightglue`` one (``matching.tuning``).
        calibrate: localize held-out database images, and store what their errors tell of the
            confidence of poses (``planning.calibrate``).

    Returns:
        ``output``.

    Raises:
        InputError: an input is missing or wrong, ``output`` exists, nothing fits the budget or
            no map reaches the recall.
    """
    output = Path(output)
    if output.exists() and not overwrite:
        raise InputError(f"{output}: exists already, pass --overwrite to replace it")
    shared, free_size = None, False
    if codec_file is not None or codec == SHIPPED:
        shared, codec_file = _given_codec(codec, code_bytes, codec_options, codec_file, features)
        free_size = code_bytes is None and shared.name in HEADED
        codec, code_bytes = shared.name, shared.code_size
    asked: dict[str, Any] = {}
    if budget is not None:
        asked = {"budget": parse_size(budget), "budget_scope": budget_scope}
    elif target_recall is not None:
        asked = {"target_recall": target_recall}
    if asked and (free_size or (codec is None and code_bytes is None)):
        asked["planned"] = True
    conf = CompressConf(
        selector,
        codec or CompressConf.codec,
        CompressConf.code_bytes if code_bytes is None else code_bytes,
        granularity,
        seed,
        selector_options or {},
        codec_options or {},
        asked=asked,
        codec_train=codec_train,
        code_targets=code_targets,
        codes_per_point=codes_per_point,
        tuned_for=matcher if tune else None,
        shared=shared is not None,
    )
    check_arguments(conf, budget, budget_scope, num_points, fraction, target_recall)
    planning = asked.get("planned", False) or target_recall is not None
    if matcher != "NN-mutual" and not planning and not tune:
        raise InputError(
            f"--matcher {matcher}: only a plan depends on it, and --tune; pass --budget without "
            "--codec and --code_bytes, --target_recall, or --tune"
        )
    check_matcher(matcher, matcher_weights)
    if tune:
        check_tuned(conf, planning)
    if matcher != "NN-mutual" and planning:
        asked["matcher"] = matcher
    trial_matcher = TrialMatcher(matcher, matcher_weights)
    check_output(output)
    check_device(device)
    set_num_threads(threads)
    if shared is None and Path(features).is_file():
        dim = descriptor_dimension(features)
        check_code_bytes(conf.codec, conf.code_bytes, dim, conf.codec_options)
    reference = read_reference(reference_sfm)
    if reference.num_points == 0:
        raise InputError(f"{reference_sfm}: the model has no 3D point")
    if reference.visibility.num_observations == 0:
        raise InputError(f"{reference_sfm}: no image of the model sees a 3D point")
    observations = read_observations(reference, features, progress)
    if conf.tuned_for is not None:
        check_matched(feature_kind(features), observations.dim, conf.tuned_for)
    if shared is not None and shared.dim != observations.dim:
        raise InputError(
            f"{codec_file}: a codec of {shared.dim} dimensions, but {features} has descriptors of "
            f"{observations.dim}"
        )
    if shared is not None and shared.name in HEADED:
        assert codec_file is not None
        trained = codec_made(Path(codec_file)).get(SIMILARITY)
        check_described(shared, observations, trained, f"{features}: {Path(codec_file).name}")
    described = None
    if global_features is not None:
        described = read_global_descriptors(global_features, reference.image_names)
    if shared is None and asked.get("planned") and not codec_options:
        shared = _codec_to_try(features, observations)
    known = None if shared is None else SharedCodec.of(shared)
    source = Source(reference, observations, features, described, known)
    with fit_folder(output) as resume:
        work = Work(device, progress, resume, matcher_weights)
        if planning or (asked and not conf.shared):
            conf, planned_points = _planned(source, conf, work, trial_matcher)
            num_points = planned_points or num_points
        compressor = Compressor(
            reference,
            observations,
            conf,
            described,
            work,
            codec=known.codec.head(conf.code_bytes) if known and conf.shared else None,
            features=feature_kind(features),
            codec_hash=known.digest if known and conf.shared else None,
        )
        if budget is not None:
            size = parse_size(budget)
            if calibrate and budget_scope == "total":
                size = max(size - CALIBRATION_BYTES, 1)
            compressed, data = compressor.fit_budget(size, budget_scope)
        else:
            wanted = reference.num_points if num_points is None else num_points
            if fraction is not None:
                wanted = max(1, int(np.floor(fraction * reference.num_points)))
            compressed = compressor.compress(wanted)
            data = b"" if calibrate else compressor.to_bytes(compressed)
        if calibrate:
            fitted = calibrate_confidence(source, conf, compressed.num_places, work)
            data = compressor.to_bytes(replace(compressed, confidence=fitted.to_json()))
        write_bytes(output, data)
    logger.info(f"Wrote {output}: {format_size(len(data))}")
    return output


def _given_codec(
    codec: str | None,
    code_bytes: int | None,
    codec_options: dict[str, Any] | None,
    codec_file: Path | str | None,
    features: Path,
) -> tuple[Codec, Path]:
    """The codec of ``--codec_file`` or ``--codec shipped``, and its file.

    Raises:
        InputError: there is no such codec, or the arguments exclude one another.
    """
    if codec_options:
        raise InputError("codec options are of a codec that is fitted, this one is as it is")
    if codec_file is None:
        codec_file = shipped_for(extractor_name(feature_kind(features)), features)
    elif codec is not None:
        raise InputError(f"--codec_file: excludes --codec {codec}")
    path = Path(codec_file)
    if not path.is_file():
        path = shipped_path(str(codec_file))
    found = read_codec(path)
    if found.name in HEADED:
        return found.head(min(4, found.code_size) if code_bytes is None else code_bytes), path
    if code_bytes is not None:
        raise InputError(f"--code_bytes: {path} has codes of {found.code_size} bytes only")
    return found, path


def _codec_to_try(features: Path, observations: Observations) -> Codec | None:
    """The codec that comes with the package for such features, for a plan; None without one."""
    path = shipped_codecs().get(extractor_name(feature_kind(features)) or "")
    codec = None if path is None else read_codec(path)
    if path is None or codec is None or codec.dim != observations.dim:
        return None
    try:
        trained = codec_made(path).get(SIMILARITY)
        check_described(codec, observations, trained, f"{features}: {path.name}")
    except InputError as error:
        logger.warning(f"planning without the codec that comes along: {error}")
        return None
    return codec


def _planned(
    source: Source, conf: CompressConf, work: Work, matcher: TrialMatcher
) -> tuple[CompressConf, int | None]:
    """What ``conf.asked`` makes of ``conf``, and the number of points where that is known."""
    free = conf.asked.get("planned", False)
    if "target_recall" in conf.asked:
        target = parse_target(conf.asked["target_recall"])
        return plan_recall(source, target, conf, work, fixed=not free, matcher=matcher)
    budget: int = conf.asked["budget"]
    scope: str = conf.asked["budget_scope"]
    if free:
        return plan_compression(source, budget, scope, conf, work, matcher), None
    if conf.codec == "drqed" and scope == "total":
        share = int(CODEC_PART * budget)
        return replace(conf, codec_options={CODEC_BYTES: share, **conf.codec_options}), None
    return conf, None


def check_tuned(conf: CompressConf, planning: bool) -> None:
    """Refuse to tune what cannot be tuned.

    Raises:
        InputError: in one line, which argument and what was expected.
    """
    if conf.tuned_for not in TUNABLE:
        raise InputError(
            f"--tune: --matcher {conf.tuned_for} has no network to tune for; expected one of "
            f"{', '.join(TUNABLE)}"
        )
    if conf.shared or conf.codec != "drqed" or conf.granularity != "point":
        raise InputError("--tune: takes --codec drqed and a code for each point")
    if planning:
        raise InputError("--tune: a plan does not tune; pass --code_bytes")


def check_arguments(
    conf: CompressConf,
    budget: str | int | None,
    budget_scope: str,
    num_points: int | None,
    fraction: float | None,
    target_recall: str | None = None,
) -> None:
    """Refuse impossible arguments before any work is done.

    Raises:
        InputError: in one line, which argument and what was expected.
    """
    sharpens(conf.codec, conf.code_targets)
    if conf.selector not in SELECTORS:
        raise InputError(
            f"--selector {conf.selector}: unknown, expected one of {', '.join(SELECTORS)}"
        )
    if conf.codec_train not in CODEC_TRAIN:
        raise InputError(
            f"--codec_train {conf.codec_train}: expected one of {', '.join(CODEC_TRAIN)}"
        )
    if conf.granularity not in GRANULARITIES:
        raise InputError(
            f"--granularity {conf.granularity}: expected one of {', '.join(GRANULARITIES)}"
        )
    if budget_scope not in BUDGET_SCOPES:
        raise InputError(
            f"--budget_scope {budget_scope}: expected one of {', '.join(BUDGET_SCOPES)}"
        )
    if not 1 <= conf.codes_per_point <= MOST_CODES:
        raise InputError(f"--codes_per_point {conf.codes_per_point}: expected 1 to {MOST_CODES}")
    if conf.codes_per_point > 1 and conf.granularity != "point":
        raise InputError("--codes_per_point: with --granularity observation each has one already")
    check_code_bytes(conf.codec, conf.code_bytes)
    check_codec_options(conf.codec, conf.codec_options, conf.tuned_for is not None)
    check_selector_options(conf.selector, conf.selector_options)
    check_seed(conf.seed)
    if sum(value is not None for value in (budget, target_recall, num_points, fraction)) > 1:
        raise InputError(
            "--budget, --target_recall, --num_points and --fraction exclude one another"
        )
    if budget is not None:
        parse_size(budget)
    if target_recall is not None:
        parse_target(target_recall)
    if num_points is not None and num_points < 1:
        raise InputError(f"--num_points {num_points}: expected at least 1")
    if fraction is not None and not 0 < fraction <= 1:
        raise InputError(f"--fraction {fraction}: expected a number above 0, at most 1")
