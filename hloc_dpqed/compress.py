"""Compress an hloc map: COLMAP model and feature file in, one map file out."""

import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faiss
import h5py
import numpy as np
import pycolmap
import torch

from . import __version__
from .codecs import Codec, codec_class, fit_codec
from .compressed_map import GRANULARITIES, CompressedMap, GlobalDescriptors
from .errors import InputError
from .io.atomic import check_output, write_bytes
from .io.features import feature_kind, read_global_descriptors
from .io.model import read_observations, read_reference
from .io.sizes import format_size, parse_size
from .logger import logger
from .mapfile import canonical_map, to_bytes
from .reference import Observations, ReferenceMap, mean_scores
from .selection import SELECTORS, SelectionProblem, select_points
from .threads import check_device, check_seed, set_num_threads

BUDGET_SCOPES = ("total", "codes")


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
    """

    selector: str = "hybrid"
    codec: str = "drqed"
    code_bytes: int = 4
    granularity: str = "point"
    seed: int = 0
    selector_options: dict[str, Any] = field(default_factory=dict)
    codec_options: dict[str, Any] = field(default_factory=dict)


def main(
    reference_sfm: Path,
    features: Path,
    output: Path,
    budget: str | int | None = None,
    budget_scope: str = "total",
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
) -> Path:
    """Write the compressed map of an hloc model.

    Args:
        reference_sfm: folder of the COLMAP model.
        features: hloc's local feature file that the model refers to.
        output: the map file.
        budget: bytes, such as ``300KB``; as many points are kept as fit.
        budget_scope: what the budget counts: the whole file ('total') or the codes alone.
        num_points: how many points to keep.
        fraction: which fraction of the points to keep, in (0, 1].
        selector, granularity, seed, *_options: see ``CompressConf``.
        codec, code_bytes: see ``CompressConf``. With a budget and without a codec, the planner
            chooses both (``planner``); pass one of them to do without it.
        global_features: hloc's global feature file, to store the images' global descriptors.
        overwrite: replace ``output``; otherwise an existing file is an error.
        threads, device, progress: of the work.

    Returns:
        ``output``.

    Raises:
        InputError: an input is missing or wrong, ``output`` exists, or nothing fits the budget.
    """
    output = Path(output)
    if output.exists() and not overwrite:
        raise InputError(f"{output}: exists already, pass --overwrite to replace it")
    planned = budget is not None and codec is None and code_bytes is None
    conf = CompressConf(
        selector,
        codec or CompressConf.codec,
        CompressConf.code_bytes if code_bytes is None else code_bytes,
        granularity,
        seed,
        selector_options or {},
        codec_options or {},
    )
    check_arguments(conf, budget, budget_scope, num_points, fraction)
    check_output(output)
    check_device(device)
    set_num_threads(threads)
    reference = read_reference(reference_sfm)
    if reference.num_points == 0:
        raise InputError(f"{reference_sfm}: the model has no 3D point")
    if reference.visibility.num_observations == 0:
        raise InputError(f"{reference_sfm}: no image of the model sees a 3D point")
    observations = read_observations(reference, features, progress)
    described = None
    if global_features is not None:
        described = read_global_descriptors(global_features, reference.image_names)
    if planned:
        from .planner import plan_compression

        conf = plan_compression(
            reference,
            observations,
            features,
            parse_size(budget or 0),
            budget_scope,
            conf,
            described,
            device=device,
            progress=progress,
        )
    compressor = Compressor(
        reference, observations, conf, described, device, progress, features=feature_kind(features)
    )
    if budget is not None:
        data = compressor.fit_budget(parse_size(budget), budget_scope)[1]
    else:
        wanted = reference.num_points if num_points is None else num_points
        if fraction is not None:
            wanted = max(1, int(np.floor(fraction * reference.num_points)))
        data = to_bytes(compressor.compress(wanted))
    write_bytes(output, data)
    logger.info(f"Wrote {output}: {format_size(len(data))}")
    return output


def check_arguments(
    conf: CompressConf,
    budget: str | int | None,
    budget_scope: str,
    num_points: int | None,
    fraction: float | None,
) -> None:
    """Refuse impossible arguments before any work is done.

    Raises:
        InputError: in one line, which argument and what was expected.
    """
    codec_class(conf.codec)
    if conf.selector not in SELECTORS:
        raise InputError(
            f"--selector {conf.selector}: unknown, expected one of {', '.join(SELECTORS)}"
        )
    if conf.granularity not in GRANULARITIES:
        raise InputError(
            f"--granularity {conf.granularity}: expected one of {', '.join(GRANULARITIES)}"
        )
    if budget_scope not in BUDGET_SCOPES:
        raise InputError(
            f"--budget_scope {budget_scope}: expected one of {', '.join(BUDGET_SCOPES)}"
        )
    if conf.code_bytes < 1:
        raise InputError(f"--code_bytes {conf.code_bytes}: expected at least 1")
    check_seed(conf.seed)
    if sum(value is not None for value in (budget, num_points, fraction)) > 1:
        raise InputError("--budget, --num_points and --fraction exclude one another")
    if budget is not None:
        parse_size(budget)
    if num_points is not None and num_points < 1:
        raise InputError(f"--num_points {num_points}: expected at least 1")
    if fraction is not None and not 0 < fraction <= 1:
        raise InputError(f"--fraction {fraction}: expected a number above 0, at most 1")


class Compressor:
    """Compresses one reference map to several sizes; the codec is fitted once.

    Args:
        reference: the map.
        observations: its descriptors.
        conf: how.
        global_descriptors: (I, Dg) float32 of the images, or None.
        device, progress: of the fitting.
        codec: a fitted codec to use as it is.
        features: of what kind the descriptors are, as ``feature_kind`` tells it; kept in the map.
    """

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
    ):
        self.reference = reference
        self.features = features or {}
        self.observations = observations
        self.conf = conf
        self.problem = SelectionProblem.from_reference(reference, observations)
        self.codec: Codec = codec or fit_codec(
            conf.codec,
            observations,
            conf.code_bytes,
            seed=conf.seed,
            device=device,
            progress=progress,
            **conf.codec_options,
        )
        if conf.granularity == "point":
            self.codes = self.codec.encode_points(observations)
            self.scores = mean_scores(observations)
        else:
            self.codes = self.codec.encode(observations.descriptors.astype(np.float32))
            self.scores = observations.scores
        self.global_descriptors = None
        if global_descriptors is not None:
            self.global_descriptors = encode_global_descriptors(global_descriptors, conf.seed)

    def compress(self, num_points: int) -> CompressedMap:
        """The map with at most ``num_points`` points."""
        rows = select_points(
            self.problem,
            self.conf.selector,
            num_points,
            seed=self.conf.seed,
            **self.conf.selector_options,
        )
        return self.with_points(rows)

    def with_points(self, rows: np.ndarray) -> CompressedMap:
        """The map with the points ``rows`` ((k,) int64, increasing), in the file's order."""
        reference = self.reference
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
            codec=self.codec,
            codes=self.codes[code_rows],
            scores=self.scores[code_rows],
            global_descriptors=self.global_descriptors,
            metadata=provenance(self.conf)
            | {"features": {"dim": self.observations.dim, **self.features}},
        )
        return canonical_map(compressed)

    def fit_budget(self, budget: int, scope: str) -> tuple[CompressedMap, bytes]:
        """The map with the most points whose size, as ``scope`` counts it, is within ``budget``.

        Returns:
            The map, and the bytes of its file.

        Raises:
            InputError: not even a map with one point fits; the line says what would.
        """
        total = self.reference.num_points
        if scope == "codes" and self.conf.granularity == "point":
            count = budget // self.codec.code_size
            if count < 1:
                raise InputError(
                    f"--budget {budget}: a code has {self.codec.code_size} bytes; nothing fits"
                )
            compressed = self.compress(min(count, total))
            return compressed, to_bytes(compressed)

        def size(candidate: CompressedMap, data: bytes) -> int:
            return candidate.codes.nbytes if scope == "codes" else len(data)

        # The size grows with the points, nearly linearly: a bracketed secant search. The selection
        # is made anew for each count, so sizes may waver: only what was measured is trusted.
        smallest = self.compress(1)
        best = smallest, to_bytes(smallest)
        low, low_size = 1, size(*best)
        if low_size > budget:
            raise InputError(
                f"--budget {format_size(budget)}: nothing fits, the smallest possible map "
                f"({self.conf.codec}, {self.codec.code_size} bytes a code, one point) has "
                f"{format_size(low_size)}"
            )
        everything = (
            self.compress(total)
            if self.conf.selector != "all"
            else self.with_points(np.arange(total))
        )
        data = to_bytes(everything)
        high, high_size = total, size(everything, data)
        if high_size <= budget:
            return everything, data
        while high - low > max(1, low // 500):
            slope = (high_size - low_size) / (high - low)
            guess = low + int((budget - low_size) / max(slope, 1e-9))
            margin = max(1, (high - low) // 20)
            middle = int(np.clip(guess, low + margin, high - margin))
            if not low < middle < high:
                break
            candidate = self.compress(middle)
            data = to_bytes(candidate)
            measured = size(candidate, data)
            if measured <= budget:
                low, low_size, best = middle, measured, (candidate, data)
            else:
                high, high_size = middle, measured
        return best


def encode_global_descriptors(described: np.ndarray, seed: int) -> GlobalDescriptors:
    """Codes of (I, Dg) float32 global descriptors: product quantization where it saves bytes.

    Codebooks of 256 centroids cost more than they save in a map of few images; such a map keeps
    float16.
    """
    count, dim = described.shape
    observations = Observations(
        described.astype(np.float16),
        np.ones(count, np.float32),
        np.zeros((count, 2), np.float32),
        np.arange(count, dtype=np.int32),
        np.arange(count, dtype=np.int32),
        count,
    )
    code_bytes = max((m for m in range(1, dim // 4 + 1) if dim % m == 0), default=0)
    plain, quantized = 2 * count * dim, 2 * 256 * dim + count * code_bytes
    if code_bytes and quantized < plain:
        codec = fit_codec("pq", observations, code_bytes, seed=seed)
    else:
        codec = fit_codec("none", observations, 0, seed=seed)
    return GlobalDescriptors(codec, codec.encode(described))


def provenance(conf: CompressConf) -> dict[str, Any]:
    """How a map was made: configuration and versions."""
    return {
        "conf": {
            "selector": conf.selector,
            "codec": conf.codec,
            "code_bytes": conf.code_bytes,
            "granularity": conf.granularity,
            "seed": conf.seed,
            "selector_options": conf.selector_options,
            "codec_options": conf.codec_options,
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
