"""How to compress a map: one frozen configuration."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..codecs import sharpens
from ..errors import InputError
from ..mapfile import SCORE_LEVELS, XYZ_PIXELS

CODEC_BYTES = "codec_budget_bytes"  # the option of codecs that can take any size


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
        codes_per_point: codes of each point, on average over the uncompressed map: more than one
            give one to each of a point's appearances (``scene.appearances``).
        code_targets: what a point's code should decode to: the 'mean' of its observations, or that
            mean 'sharpened' against the other points (``training.sharpen``); None leaves it to the
            codec, and is 'mean' for tuned ones. Codes for each observation have no target.
        tuned_for: the learned matcher whose network the fitted codec is tuned for
            (``matching.tuning``), None for nearest neighbours.
        shared: the codec is one of a file of its own (``Source.shared``), and none is fitted.
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
    codes_per_point: float = 1.0
    tuned_for: str | None = None
    shared: bool = False

    @property
    def sharpens(self) -> bool:
        """Whether the codes aim at sharpened targets."""
        if self.tuned_for is not None and self.code_targets is None:
            return False  # sharpening is for nearest neighbours
        return self.granularity == "point" and sharpens(self.codec, self.code_targets)


@dataclass(frozen=True)
class Work:
    """How the work is done; it says nothing of what is made.

    Attributes:
        device: torch device of the codecs that train.
        progress: show progress bars.
        resume: folder where interrupted fits continue, see ``fit_codec``.
        matcher_weights: of the matcher that codecs are tuned for.
    """

    device: str = "cpu"
    progress: bool = False
    resume: Path | None = None
    matcher_weights: Path | None = None


DEFAULT_WORK = Work()


class NothingFits(InputError):
    """Not even one point fits a budget.

    Attributes:
        conf: of the maps that were tried.
        smallest: bytes of the one with one point.
    """

    def __init__(self, message: str, conf: CompressConf, smallest: int):
        super().__init__(message)
        self.conf, self.smallest = conf, smallest
