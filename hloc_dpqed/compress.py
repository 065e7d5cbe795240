"""Compress an hloc map: COLMAP model and feature file in, one map file out."""

import math
import platform
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import faiss
import h5py
import numpy as np
import pycolmap
import torch

from . import __version__
from .choices import BUDGET_SCOPES, CODEC_TRAIN, GRANULARITIES
from .codecs import Codec, fit_codec, sharpens
from .codecs.file import codec_hash, read_codec
from .compressed_map import CompressedMap, GlobalDescriptors
from .errors import InputError
from .io.atomic import check_output, write_bytes
from .io.features import descriptor_dimension, feature_kind, read_global_descriptors
from .io.model import read_observations, read_reference
from .io.sizes import format_size, parse_size
from .kept import OTHER_BYTES, KeptPoints
from .logger import logger
from .mapfile import SCORE_LEVELS, XYZ_PIXELS, canonical_map, to_bytes
from .options import check_code_bytes, check_codec_options, check_selector_options
from .reference import Observations, ReferenceMap
from .selection import ORDERS, SELECTORS, SelectionProblem, select_points, selection_order
from .threads import check_device, check_seed, set_num_threads, steady_products
from .training.checkpoint import fit_folder
from .training.sharpen import with_sharpened_targets

MAX_TRIALS = 6  # of a number of points, to fill a budget
ASKED_BYTES = 16  # by which another budget may change the metadata
MAX_FITS = 3  # of the codec, on the points that a budget holds
CODEC_BYTES = "codec_budget_bytes"  # the option of codecs that can take any size
CODEC_PART = 0.3  # of a whole-file budget, for such a codec


@dataclass(frozen=True)
class CompressConf:
    """How to compress a map.

    Attributes:
        selector: name in ``selection.SELECTORS``.
        codec: name in ``codecs.CODECS``.
        code_bytes: bytes of one code.
        granularity: a code for each 'point' or for each 'observation'.
        seed: of everything random.
        selector_options, codec_options: passed on.
        xyz_pixels: greatest error of a stored coordinate, in pixels of the nearest camera.
        score_levels: levels of the stored detection scores, 0 for none.
        asked: the budget or the recall that was asked for; kept in the map.
        codec_train: fit the codec on the observations of the 'kept' points or of 'all'.
        code_targets: what a point's code should decode to: the 'mean' of its observations, or that
            mean 'sharpened' against the other points (``training.sharpen``); None leaves it to the
            codec. Codes for each observation have no target.
    """

    selector: str = "hybrid"
    codec: str = "drqed"
    code_bytes: int = 4
    granularity: str = "point"
    seed: int = 0
    selector_options: dict[str, Any] = field(default_factory=dict)
    codec_options: dict[str, Any] = field(default_factory=dict)
    xyz_pixels: float = XYZ_PIXELS
    score_levels: int = SCORE_LEVELS
    asked: dict[str, Any] = field(default_factory=dict)
    codec_train: str = "kept"
    code_targets: str | None = None

    @property
    def sharpens(self) -> bool:
        """Whether the codes aim at sharpened targets."""
        return self.granularity == "point" and sharpens(self.codec, self.code_targets)


class NothingFits(InputError):
    """Not even one point fits a budget.

    Attributes:
        conf: of the maps that were tried.
        smallest: bytes of the one with one point.
    """

    def __init__(self, message: str, conf: CompressConf, smallest: int):
        super().__init__(message)
        self.conf, self.smallest = conf, smallest


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
    codec_file: Path | None = None,
    codec_train: str = CompressConf.codec_train,
    code_targets: str | None = CompressConf.code_targets,
) -> Path:
    """Write the compressed map of an hloc model.

    Args:
        reference_sfm: folder of the COLMAP model.
        features: hloc's local feature file that the model refers to.
        output: the map file.
        budget: bytes, such as ``300KB``; as many points are kept as fit.
        budget_scope: what the budget counts: the whole file ('total') or the codes alone.
        target_recall: such as ``0.95@0.25/2``: the smallest map that keeps this share of held-out
            database images within these map units and degrees (``target``).
        num_points: how many points to keep.
        fraction: which fraction of the points to keep, in (0, 1].
        selector, granularity, seed, *_options: see ``CompressConf``.
        codec, code_bytes: see ``CompressConf``. With a budget and without a codec, the planner
            chooses both (``planner``); pass one of them to do without it.
        global_features: hloc's global feature file, to store the images' global descriptors.
        overwrite: replace ``output``; otherwise an existing file is an error.
        threads, device, progress: of the work.
        codec_file: a codec that ``fit_codec.main`` fitted, to use as it is. The map then holds its
            hash instead of the codec.
        codec_train, code_targets: see ``CompressConf``.

    Returns:
        ``output``.

    Raises:
        InputError: an input is missing or wrong, ``output`` exists, nothing fits the budget or
            no map reaches the recall.
    """
    output = Path(output)
    if output.exists() and not overwrite:
        raise InputError(f"{output}: exists already, pass --overwrite to replace it")
    shared = None
    if codec_file is not None:
        if codec is not None or code_bytes is not None or codec_options:
            raise InputError("--codec_file: excludes --codec, --code_bytes and codec options")
        shared = read_codec(codec_file)
        codec, code_bytes = shared.name, shared.code_size
    asked: dict[str, Any] = {}
    if budget is not None:
        asked = {"budget": parse_size(budget), "budget_scope": budget_scope}
    elif target_recall is not None:
        asked = {"target_recall": target_recall}
    if asked and codec is None and code_bytes is None:
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
    )
    check_arguments(conf, budget, budget_scope, num_points, fraction, target_recall)
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
    if shared is not None and shared.dim != observations.dim:
        raise InputError(
            f"{codec_file}: a codec of {shared.dim} dimensions, but {features} has descriptors of "
            f"{observations.dim}"
        )
    described = None
    if global_features is not None:
        described = read_global_descriptors(global_features, reference.image_names)
    with fit_folder(output) as resume:
        if target_recall is not None or (asked and shared is None):
            conf, planned_points = _planned(
                reference, observations, features, conf, described, device, progress, resume
            )
            num_points = planned_points or num_points
        compressor = Compressor(
            reference,
            observations,
            conf,
            described,
            device,
            progress,
            codec=shared,
            features=feature_kind(features),
            codec_hash=None if shared is None else codec_hash(shared),
            resume=resume,
        )
        if budget is not None:
            data = compressor.fit_budget(parse_size(budget), budget_scope)[1]
        else:
            wanted = reference.num_points if num_points is None else num_points
            if fraction is not None:
                wanted = max(1, int(np.floor(fraction * reference.num_points)))
            data = compressor.to_bytes(compressor.compress(wanted))
        write_bytes(output, data)
    logger.info(f"Wrote {output}: {format_size(len(data))}")
    return output


def _planned(
    reference: ReferenceMap,
    observations: Observations,
    features: Path,
    conf: CompressConf,
    described: np.ndarray | None,
    device: str,
    progress: bool,
    resume: Path,
) -> tuple[CompressConf, int | None]:
    """What ``conf.asked`` makes of ``conf``, and the number of points where that is known."""
    free = conf.asked.get("planned", False)
    if "target_recall" in conf.asked:
        from .target import parse_target, plan_recall

        return plan_recall(
            reference,
            observations,
            features,
            parse_target(conf.asked["target_recall"]),
            conf,
            described,
            fixed=not free,
            device=device,
            progress=progress,
            resume=resume,
        )
    budget: int = conf.asked["budget"]
    scope: str = conf.asked["budget_scope"]
    if free:
        from .planner import plan_compression

        planned = plan_compression(
            reference,
            observations,
            features,
            budget,
            scope,
            conf,
            described,
            device=device,
            progress=progress,
            resume=resume,
        )
        return planned, None
    if conf.codec == "drqed" and scope == "total":
        share = int(CODEC_PART * budget)
        return replace(conf, codec_options={CODEC_BYTES: share, **conf.codec_options}), None
    return conf, None


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
    check_code_bytes(conf.codec, conf.code_bytes)
    check_codec_options(conf.codec, conf.codec_options)
    check_selector_options(conf.selector, conf.selector_options)
    check_seed(conf.seed)
    if sum(value is not None for value in (budget, target_recall, num_points, fraction)) > 1:
        raise InputError(
            "--budget, --target_recall, --num_points and --fraction exclude one another"
        )
    if budget is not None:
        parse_size(budget)
    if target_recall is not None:
        from .target import parse_target

        parse_target(target_recall)
    if num_points is not None and num_points < 1:
        raise InputError(f"--num_points {num_points}: expected at least 1")
    if fraction is not None and not 0 < fraction <= 1:
        raise InputError(f"--fraction {fraction}: expected a number above 0, at most 1")


class Compressor:
    """Compresses one reference map to several sizes.

    Unless a codec is given, or ``conf.codec_train`` is 'all', it is fitted on the kept points:
    codebooks that describe fewer points describe them better.

    Args:
        reference: the map.
        observations: its descriptors.
        conf: how.
        global_descriptors: (I, Dg) float32 of the images, or None.
        device, progress: of the fitting.
        codec: a fitted codec to use as it is.
        features: of what kind the descriptors are, as ``feature_kind`` tells it; kept in the map.
        kept: selections of this map that another compressor made already.
        codec_hash: of the codec file that the maps refer to, where ``codec`` is from one.
        resume: folder where interrupted fits continue, see ``fit_codec``.
    """

    @steady_products()
    def __init__(
        self,
        reference: ReferenceMap,
        observations: Observations,
        conf: CompressConf,
        global_descriptors: np.ndarray | None = None,
        device: str = "cpu",
        progress: bool = False,
        codec: Codec | None = None,
        features: dict[str, str] | None = None,
        kept: KeptPoints | None = None,
        codec_hash: str | None = None,
        resume: Path | None = None,
    ):
        self.reference = reference
        self.features = features or {}
        self.observations = observations
        self.conf = conf
        self.device, self.progress = device, progress
        self.codec_hash = codec_hash
        self.resume = resume
        self._given = codec
        known = codec is not None or conf.codec_train == "all"
        self.kept = kept or keep_points(
            reference,
            observations,
            conf,
            (lambda: self.fit(np.arange(reference.num_points))) if known else None,
            progress,
        )
        self.problem = self.kept.problem
        self._encoded: tuple[Codec, np.ndarray, np.ndarray] | None = None
        self.scores = observations.scores
        if conf.granularity == "point":
            self.scores = self.kept.scores
        self.global_descriptors = None
        if global_descriptors is not None:
            self.global_descriptors = encode_global_descriptors(global_descriptors, conf.seed)

    def fit(self, rows: np.ndarray) -> Codec:
        """The codec for a map of the points ``rows``: the given one, or one fitted on them."""
        if self._given is not None:
            return self._given
        everything = self.conf.codec_train == "all"
        fitted = fit_codec(
            self.conf.codec,
            self._observations_of(np.arange(self.reference.num_points) if everything else rows),
            self.conf.code_bytes,
            seed=self.conf.seed,
            device=self.device,
            progress=self.progress,
            resume=self.resume,
            **self.conf.codec_options,
        )
        if everything:
            self._given = fitted
        return fitted

    def _observations_of(self, rows: np.ndarray) -> Observations:
        """The observations of the points ``rows``, with what their codes should decode to."""
        part = self.kept.observations_of(rows)
        if not self.conf.sharpens:
            return part
        sharpened = self.kept.sharpened(self.conf.seed, self.progress)
        return replace(part, targets=sharpened[rows])

    def compress(self, num_points: int) -> CompressedMap:
        """The map with at most ``num_points`` points."""
        return self.with_points(self.kept.rows(num_points))

    @steady_products()
    def with_points(self, rows: np.ndarray, codec: Codec | None = None) -> CompressedMap:
        """The map with the points ``rows`` ((k,) int64, increasing), in the file's order.

        Args:
            codec: a fitted codec; by default what ``fit`` gives.
        """
        reference = self.reference
        codec = codec or self.fit(rows)
        visibility, kept = reference.visibility.keep_points(rows)
        code_rows = rows if self.conf.granularity == "point" else kept
        compressed = CompressedMap(
            image_names=reference.image_names,
            cameras=reference.cameras,
            camera_index=reference.camera_index,
            cam_from_world=reference.cam_from_world,
            xyz=reference.xyz[rows],
            visibility=visibility,
            granularity=self.conf.granularity,
            codec=codec,
            codes=self._codes(codec, code_rows),
            scores=self.scores[code_rows],
            global_descriptors=self.global_descriptors,
            metadata=provenance(self.conf)
            | {"features": {"dim": self.observations.dim, **self.features}},
            codec_hash=self.codec_hash,
        )
        return canonical_map(compressed, xyz_pixels=self.conf.xyz_pixels)

    def _codes(self, codec: Codec, rows: np.ndarray) -> np.ndarray:
        """Codes of points, or of observations; each is encoded once with the same codec."""
        if self._encoded is None or self._encoded[0] is not codec:
            codes = np.zeros((len(self.scores), codec.code_size), np.uint8)
            self._encoded = codec, codes, np.zeros(len(codes), bool)
        _, codes, done = self._encoded
        missing = rows[~done[rows]]
        if self.conf.granularity == "point":
            codes[missing] = codec.encode_points(self._observations_of(missing))
        else:
            described = self.observations.descriptors[missing].astype(np.float32)
            codes[missing] = codec.encode(described)
        done[missing] = True
        return codes[rows]

    @steady_products()
    def to_bytes(self, compressed: CompressedMap) -> bytes:
        """The file of a map of this compressor."""
        return to_bytes(
            compressed,
            xyz_pixels=self.conf.xyz_pixels,
            score_levels=self.conf.score_levels,
        )

    @steady_products()
    def fit_budget(
        self, budget: int, scope: str, *, slack: float = 0.002
    ) -> tuple[CompressedMap, bytes]:
        """The map with the most points whose size, as ``scope`` counts it, is within ``budget``.

        Args:
            slack: share of the budget that may be left, where filling it takes more trials.

        Returns:
            The map, and the bytes of its file.

        Raises:
            NothingFits: not even a map with one point does; the line says what would.
        """
        if self.conf.selector == "all":
            return self._everything(budget, scope)
        codec, count = self._start(budget, scope)
        best: tuple[CompressedMap, bytes] | None = None
        total = self.reference.num_points
        low, high = 0, total + 1
        trials = 0
        # Sizes may waver, as some selections are made anew for each count: only what was measured
        # is trusted.
        while low + 1 < high:
            candidate = self.with_points(self.kept.rows(count), codec)
            data = self.to_bytes(candidate)
            codes = candidate.codes.nbytes
            spare = budget - (codes if scope == "codes" else len(data))
            each = codes / count + (0 if scope == "codes" else OTHER_BYTES)
            if spare >= 0:
                low, best = count, (candidate, data)
            else:
                high = count
            trials += 1
            # Where nearly all points fit, see whether all do.
            nearly = high > total and 0.97 * total < count < total
            full = 0 <= spare <= max(each / 2, slack * budget) and not nearly
            if full or (best is not None and trials >= MAX_TRIALS):
                break
            step = math.floor(spare / each)
            if trials >= MAX_TRIALS:  # sizes that waver more than steps can follow
                step = -(count // 8)
            wanted = total if nearly else count + (step or 1)
            count = min(max(wanted, low + 1), high - 1)
        if best is None:
            raise self._nothing_fits(budget, codec)
        return best

    def _everything(self, budget: int, scope: str) -> tuple[CompressedMap, bytes]:
        compressed = self.compress(self.reference.num_points)
        data = self.to_bytes(compressed)
        size = compressed.codes.nbytes if scope == "codes" else len(data)
        if size > budget:
            raise InputError(
                f"--budget {format_size(budget)}: --selector all keeps every point, which takes "
                f"{format_size(size)}; choose another selector, such as hybrid"
            )
        return compressed, data

    def _start(self, budget: int, scope: str) -> tuple[Codec, int]:
        """A codec, and about how many points the budget then holds.

        How many points fit is known once the codec is fitted, and what it is fitted on once it is
        known how many fit: the codec is fitted anew where the first guess was far off.
        """
        codec = self._given
        count = self._affordable(budget, scope, codec)
        if codec is None:
            for _ in range(MAX_FITS):
                fitted_on = max(count, 1)
                codec = self.fit(self.kept.rows(fitted_on))
                count = self._affordable(budget, scope, codec)
                if count < 1 or 0.8 * fitted_on <= count <= 1.6 * fitted_on:
                    break
        assert codec is not None
        if count < 1:
            raise self._nothing_fits(budget, codec)
        return codec, count

    def _affordable(self, budget: int, scope: str, codec: Codec | None) -> int:
        """About how many points the budget holds; without a codec with what is known of it."""
        code_size, fixed = self.conf.code_bytes, self.conf.codec_options.get(CODEC_BYTES, 0)
        per_observation = self.conf.granularity == "observation"
        if codec is not None:
            code_size = codec.code_size
            other, observations = self.kept.cost(1)
            codes = code_size * (observations if per_observation else 1)
            fixed = len(self._smallest(codec)) - other - codes
        return self.kept.affordable(budget, fixed, code_size, per_observation, scope == "codes")

    def _smallest(self, codec: Codec) -> bytes:
        return self.to_bytes(self.with_points(self.kept.rows(1), codec))

    def _nothing_fits(self, budget: int, codec: Codec) -> NothingFits:
        smallest = len(self._smallest(codec))
        # Rounded up, and the file also holds what was asked for.
        enough = math.ceil((smallest + ASKED_BYTES) / 100) * 100
        return NothingFits(
            f"--budget {format_size(budget)}: nothing fits, the smallest possible map "
            f"({self.conf.codec}, {codec.code_size} bytes a code, one point) has "
            f"{format_size(enough)}",
            self.conf,
            smallest,
        )


def keep_points(
    reference: ReferenceMap,
    observations: Observations,
    conf: CompressConf,
    codec: Callable[[], Codec] | None = None,
    progress: bool = False,
) -> KeptPoints:
    """The selections of ``conf``; ``codec`` is that of ``SelectionProblem``."""

    nested = conf.selector in ORDERS and "min_per_image" not in conf.selector_options
    chosen = selection_order if nested else select_points

    def select(problem: SelectionProblem, num_points: int) -> np.ndarray:
        return chosen(problem, conf.selector, num_points, seed=conf.seed, **conf.selector_options)

    if codec is not None and conf.sharpens:  # the selector looks at what will be stored
        observations = with_sharpened_targets(observations, conf.seed, progress)
    problem = SelectionProblem.from_reference(reference, observations, codec)
    return KeptPoints(problem, reference, select, nested, conf.xyz_pixels, conf.score_levels)


def global_code_bytes(count: int, dim: int) -> tuple[int, int]:
    """How (``count``, ``dim``) global descriptors are stored in the fewest bytes.

    Codebooks of 256 centroids cost more than they save in a map of few images; such a map keeps
    float16. Ours.

    Returns:
        Bytes of a product-quantization code, 0 for float16, and those of codes and codec together.
    """
    code_bytes = max((m for m in range(1, dim // 4 + 1) if dim % m == 0), default=0)
    plain, quantized = 2 * count * dim, 2 * 256 * dim + count * code_bytes
    if code_bytes and quantized < plain:
        return code_bytes, quantized
    return 0, plain


def encode_global_descriptors(described: np.ndarray, seed: int) -> GlobalDescriptors:
    """Codes of (I, Dg) float32 global descriptors, as ``global_code_bytes`` says."""
    count, dim = described.shape
    observations = Observations(
        described.astype(np.float16),
        np.ones(count, np.float32),
        np.zeros((count, 2), np.float32),
        np.arange(count, dtype=np.int32),
        np.arange(count, dtype=np.int32),
        count,
    )
    code_bytes, _ = global_code_bytes(count, dim)
    codec = fit_codec("pq" if code_bytes else "none", observations, code_bytes, seed=seed)
    return GlobalDescriptors(codec, codec.encode(described))


def provenance(conf: CompressConf) -> dict[str, Any]:
    """How a map was made: configuration and versions."""
    asked: dict[str, Any] = {"asked": conf.asked} if conf.asked else {}
    if conf.codec_train != CompressConf.codec_train:
        asked["codec_train"] = conf.codec_train
    if conf.code_targets is not None:
        asked["code_targets"] = conf.code_targets
    return {
        "conf": {
            "selector": conf.selector,
            "codec": conf.codec,
            "code_bytes": conf.code_bytes,
            "granularity": conf.granularity,
            "seed": conf.seed,
            "selector_options": conf.selector_options,
            "codec_options": conf.codec_options,
            **asked,
        },
        "versions": {
            "hloc_dpqed": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": torch.__version__,
            "faiss": faiss.__version__,
            "pycolmap": pycolmap.__version__,
            "h5py": h5py.__version__,
        },
    }
