"""Plans: ways to spend a budget, and which lie next to one another."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from ..codecs import HEADED, Codec
from ..compression.conf import CODEC_BYTES, CompressConf
from ..compression.kept import OTHER_BYTES
from ..mapfile import SCORE_LEVELS, XYZ_PIXELS

T = TypeVar("T")

CODE_SIZES = (2, 3, 4, 6, 8)
# More than one where the budget holds all points; beside these, as many as fit.
CODES_PER_POINT = (1.0, 1.2, 1.4, 2.0, 3.0, 4.0, 6.0, 10.0)
CODEC_PARTS = (0.1, 0.2, 0.3, 0.45, 0.6)  # of the file, for codebooks and decoder
PCA_SIZES = (8, 12, 16, 24, 32)  # bytes of a code of ``pca``, two dimensions each
START_SIZES, START_PART = (2, 4, 8), 0.3  # where the search begins; two of these sizes
RICH_PART = 0.45  # where all points fit with the largest code
SHARED_SIZES, SHARED_START = (2, 3, 4, 5, 6, 7, 8), (4, 6)  # of codecs that cost a map no bytes
# Where not every point fits, coarser coordinates pay for more points. Mutual nearest neighbours,
# with which plans are measured, do not look at scores.
FRUGAL_PIXELS, FRUGAL_LEVELS = 0.5, 0


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
        codes_per_point: as in ``CompressConf``, unless the user asks for more than one.
        shared: the codec is the one that comes along, and the map holds its hash only.
    """

    codec: str
    code_bytes: int
    options: dict[str, Any] = field(default_factory=dict)
    codec_part: float = 0.0
    xyz_pixels: float = XYZ_PIXELS
    score_levels: int = SCORE_LEVELS
    code_targets: str | None = None
    shared: bool = False
    codes_per_point: float = 1.0

    def __str__(self) -> str:
        options = "".join(f" {key}={value}" for key, value in self.options.items())
        part = f", {self.codec_part:.0%} for the codec" if self.codec_part else ""
        coarse = f", {self.xyz_pixels:g} px" if self.xyz_pixels != XYZ_PIXELS else ""
        many = f", {self.codes_per_point:g} codes a point" if self.codes_per_point > 1 else ""
        name = f"shared {self.codec}" if self.shared else self.codec
        return f"{name} {self.code_bytes} B{options}{part}{coarse}{many}"

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
            shared=self.shared,
            codes_per_point=max(base.codes_per_point, self.codes_per_point),
        )


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
        plan = Plan("drqed", largest, codec_part=RICH_PART)
        return [plan, *simple]
    frugal: dict[str, Any] = {"xyz_pixels": FRUGAL_PIXELS, "score_levels": FRUGAL_LEVELS}
    sizes = START_SIZES[:2]
    if num_points * (sizes[1] + OTHER_BYTES) <= (1 - START_PART) * budget:  # all fit
        sizes = START_SIZES[1:]
    plans = [Plan("drqed", size, codec_part=START_PART, **frugal) for size in sizes]
    if dim >= 32:
        simple.append(Plan("pca", 16, {"bits": 4}, code_targets="sharpened"))
    return plans + [replace(plan, **frugal) for plan in simple]


def shared_plans(codec: Codec, num_points: int, budget: int, scope: str) -> list[Plan]:
    """Plans to begin with whose codec is ``codec``, of a file that the budget does not count.

    Args:
        codec: in its longest codes.
        num_points, budget, scope: as of ``candidate_plans``.
    """
    longest = codec.code_size
    sizes = {min(size, longest) for size in SHARED_START}
    if codec.name not in HEADED:
        sizes = {longest}
    if scope == "codes":
        return [Plan(codec.name, size, shared=True) for size in sorted(sizes) if size <= budget]
    if num_points * (longest + 8) <= 0.5 * budget:  # all fit, with nothing to save
        return [Plan(codec.name, longest, shared=True)]
    if num_points * (longest + OTHER_BYTES) <= budget:  # all fit
        sizes = {max(sizes), longest}
    plan = Plan(codec.name, longest, {}, 0.0, FRUGAL_PIXELS, FRUGAL_LEVELS, shared=True)
    return [replace(plan, code_bytes=size) for size in sorted(sizes)]


def adjacent(values: Sequence[T], value: T) -> list[T]:
    """The values before and after ``value``, in this order; none where it is not among them."""
    if value not in values:
        return []
    k = values.index(value)
    return [*values[max(k - 1, 0) : k], *values[k + 1 : k + 2]]


def neighbour_plans(plan: Plan) -> list[Plan]:
    """Plans that differ in one step of the codec's part, of the code size, of the codes of a point,
    or in precision."""
    near = []
    for part in reversed(adjacent(CODEC_PARTS, plan.codec_part)):
        near.append(replace(plan, codec_part=part))
    sizes: dict[str, tuple[int, ...]] = {"pca": PCA_SIZES}
    sizes["drqed"] = CODE_SIZES if plan.codec_part else ()
    if plan.shared:  # sizes that the codec lacks are refused when they are tried
        sizes = {plan.codec: SHARED_SIZES if plan.codec in HEADED else ()}
    for size in adjacent(sizes.get(plan.codec, ()), plan.code_bytes):
        near.append(replace(plan, code_bytes=size))
    if plan.codec_part or plan.shared:
        fewer = [codes for codes in CODES_PER_POINT if codes < plan.codes_per_point]
        more = [codes for codes in CODES_PER_POINT if codes > plan.codes_per_point]
        for codes in more[:1] + fewer[-1:]:
            near.append(replace(plan, codes_per_point=codes))
    if plan.xyz_pixels == FRUGAL_PIXELS:
        near.append(replace(plan, xyz_pixels=XYZ_PIXELS, score_levels=SCORE_LEVELS))
    else:
        near.append(replace(plan, xyz_pixels=FRUGAL_PIXELS, score_levels=FRUGAL_LEVELS))
    return near
