"""The engine of compression: fits, encodes, and fills a budget with points."""

import math
from dataclasses import replace

import numpy as np

from ..codecs import Codec, fit_codec
from ..codecs.base import PointEncoder
from ..errors import InputError
from ..io.sizes import format_size
from ..mapfile import canonical_map, to_bytes
from ..maps.compressed import CompressedMap
from ..scene.reference import Observations, ReferenceMap
from ..threads import steady_products
from .conf import CODEC_BYTES, DEFAULT_WORK, CompressConf, NothingFits, Work
from .global_descriptors import encode_global_descriptors
from .kept import OTHER_BYTES, KeptPoints, keep_points
from .provenance import provenance

MAX_TRIALS = 6  # of a number of points, to fill a budget
ASKED_BYTES = 16  # by which another budget may change the metadata
MAX_FITS = 3  # of the codec, on the points that a budget holds


class Compressor:
    """Compresses one reference map to several sizes.

    Unless a codec is given, or ``conf.codec_train`` is 'all', it is fitted on the kept points:
    codebooks that describe fewer points describe them better.

    Args:
        reference: the map.
        observations: its descriptors.
        conf: how.
        global_descriptors: (I, Dg) float32 of the images, or None.
        work: how the fitting is done.
        codec: a fitted codec to use as it is.
        features: of what kind the descriptors are, as ``feature_kind`` tells it; kept in the map.
        kept: selections of this map that another compressor made already.
        codec_hash: of the codec file that the maps refer to, where ``codec`` is from one.
    """

    @steady_products()
    def __init__(
        self,
        reference: ReferenceMap,
        observations: Observations,
        conf: CompressConf,
        global_descriptors: np.ndarray | None = None,
        work: Work = DEFAULT_WORK,
        codec: Codec | None = None,
        features: dict[str, str] | None = None,
        kept: KeptPoints | None = None,
        codec_hash: str | None = None,
    ):
        self.features = features or {}
        self.conf = conf
        self.work = work
        self.codec_hash = codec_hash
        self._given = codec
        known = codec is not None or conf.codec_train == "all"
        self.kept = kept or keep_points(
            reference,
            observations,
            conf,
            (lambda: self.fit(np.arange(self.reference.num_points))) if known else None,
            work.progress,
            codec,
        )
        self.problem = self.kept.problem
        # By rows, where points have several codes.
        self.reference, self.observations = self.kept.reference, self.kept.observations
        self._encoded: tuple[Codec, np.ndarray, np.ndarray] | None = None
        self._encoder: tuple[Codec, PointEncoder | None] | None = None
        self.scores = self.observations.scores
        if conf.granularity == "point":
            self.scores = self.kept.scores
        self.global_descriptors = None
        if global_descriptors is not None:
            self.global_descriptors = encode_global_descriptors(global_descriptors, conf.seed)

    def fit(self, rows: np.ndarray) -> Codec:
        """The codec for a map of the rows of ``kept``: the given one, or one fitted on them."""
        if self._given is not None:
            return self._given
        everything = self.conf.codec_train == "all"
        if everything:
            rows = np.arange(self.reference.num_points)
        fitted = self._fitted(rows) if self.conf.tuned_for is None else self._tuned(rows)
        if everything:
            self._given = fitted
        return fitted

    def _fitted(self, rows: np.ndarray) -> Codec:
        return fit_codec(
            self.conf.codec,
            self._observations_of(rows),
            self.conf.code_bytes,
            seed=self.conf.seed,
            device=self.work.device,
            progress=self.work.progress,
            resume=self.work.resume,
            **self.conf.codec_options,
        )

    def _tuned(self, rows: np.ndarray) -> Codec:
        """A codec tuned for ``conf.tuned_for`` on the points ``rows``.

        Its codes come with it: what they decode to need not be what is nearest to the points' own
        descriptors.
        """
        from ..matching.learned import load_fast_lightglue
        from ..matching.tuning import tuned_codec

        conf = self.conf
        assert conf.tuned_for is not None
        codec, codes = tuned_codec(
            load_fast_lightglue(conf.tuned_for, self.work.matcher_weights),
            self.reference,
            self._observations_of(np.arange(self.reference.num_points)),
            rows,
            conf.code_bytes,
            seed=conf.seed,
            progress=self.work.progress,
            **conf.codec_options,
        )
        self._encoded = codec, codes, np.ones(len(codes), bool)
        return codec

    def _observations_of(self, rows: np.ndarray) -> Observations:
        """The observations of the points ``rows``, with what their codes should decode to."""
        part = self.kept.observations_of(rows)
        if not self.conf.sharpens:
            return part
        sharpened = self.kept.sharpened(self.conf.seed, self.work.progress, self._given)
        return replace(part, targets=sharpened[rows])

    def compress(self, num_points: int) -> CompressedMap:
        """The map with at most ``num_points`` points."""
        return self.with_points(self.kept.rows(num_points))

    @steady_products()
    def with_points(
        self, rows: np.ndarray, codec: Codec | None = None, draft: bool = False
    ) -> CompressedMap:
        """The map with the rows ((k,) int64, increasing) of ``kept``, in the file's order.

        Args:
            codec: a fitted codec; by default what ``fit`` gives.
            draft: of codes of about the size of those that the points would choose.
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
            codes=self._codes(codec, code_rows, draft),
            scores=self.scores[code_rows],
            global_descriptors=self.global_descriptors,
            metadata=provenance(self.conf)
            | {"features": {"dim": self.observations.dim, **self.features}},
            codec_hash=self.codec_hash,
        )
        return canonical_map(compressed, xyz_pixels=self.conf.xyz_pixels)

    def _codes(self, codec: Codec, rows: np.ndarray, draft: bool = False) -> np.ndarray:
        """Codes of points, or of observations; each is encoded once with the same codec.

        Those of points may depend on which others are kept (``Codec.point_encoder``).
        """
        encoder = self._point_encoder(codec)
        if encoder is not None:
            return encoder.nearest(rows) if draft else encoder(rows)
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

    def _point_encoder(self, codec: Codec) -> PointEncoder | None:
        if not self.conf.sharpens:
            return None
        if self._encoder is None or self._encoder[0] is not codec:
            everything = np.arange(self.reference.num_points)
            self._encoder = codec, codec.point_encoder(self._observations_of(everything))
        return self._encoder[1]

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
        total = self.kept.num_points
        low, high = 0, total + 1
        trials = 0
        # Sizes may waver, as some selections are made anew for each count: only what was measured
        # is trusted.
        while low + 1 < high:
            candidate = self.with_points(self.kept.rows(count), codec, draft=True)
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
        while low and self._point_encoder(codec) is not None:
            candidate = self.with_points(self.kept.rows(low), codec)
            data = self.to_bytes(candidate)
            over = (candidate.codes.nbytes if scope == "codes" else len(data)) - budget
            best = candidate, data
            if over <= 0:
                break
            low, best = max(low - 1 - int(over // each), 0), None
        if best is None:
            raise self._nothing_fits(budget, codec)
        return best

    def _everything(self, budget: int, scope: str) -> tuple[CompressedMap, bytes]:
        compressed = self.compress(self.kept.num_points)
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
            other, observations, rows = self.kept.cost(1)
            codes = code_size * (observations if per_observation else rows)
            fixed = len(self._smallest(codec)) - other - codes
        return self.kept.affordable(budget, fixed, code_size, per_observation, scope == "codes")

    def _smallest(self, codec: Codec) -> bytes:
        return self.to_bytes(self.with_points(self.kept.rows(1), codec, draft=True))

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
