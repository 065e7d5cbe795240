"""Checks of numbers and options that every command makes before it reads anything."""

import inspect
import math
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .choices import CODECS, MATCHERS, SELECTORS
from .errors import InputError

MAX_SEEDS = 1000  # of a sweep or a report: each is a run for each query
MAX_PIXELS = 100_000
_GIVEN = {"observations", "code_bytes", "seed", "device", "progress", "checkpoint"}
_GIVEN |= {"problem", "num_points"}
_SMALLEST = 1e-9

# Least and greatest value of the options of codecs and selectors.
_RANGES: dict[str, tuple[float, float]] = {
    "batch": (1, 1 << 20),
    "beam": (1, 256),
    "codec_budget_bytes": (1, 10**12),
    "confidence": (_SMALLEST, 1 - _SMALLEST),
    "coverage": (_SMALLEST, 1),
    "distinctiveness": (0, 1e6),
    "grid": (1, 1000),
    "grid_weight": (0, 1e9),
    "hidden": (1, 4096),
    "keypoints": (1, 65_536),
    "latent": (1, 65_536),
    "learning_rate": (_SMALLEST, 100),
    "margin": (0, 1000),
    "matches": (_SMALLEST, 1e6),
    "max_block": (1, 10**7),
    "min_per_image": (0, 10**9),
    "neighbours": (0, 1),
    "num_triplets": (1, 10**6),
    "pixel_noise": (_SMALLEST, 1e6),
    "probability": (_SMALLEST, 1 - _SMALLEST),
    "rate_weight": (0, 1e6),
    "reconstruction_weight": (0, 1e9),
    "refresh": (1, 10**6),
    "max_rows": (1, 10**9),
    "rounds": (0, 1000),
    "rounds_rows": (1, 10**9),
    "rows_per_centroid": (1, 10**6),
    "sharpness": (0, 1e6),
    "slack_cost": (0, 1e9),
    "splits": (1, 64),
    "steps": (1, 10**6),
    "temperature": (_SMALLEST, 1e6),
    "tolerance": (0, 1),
    "triplet_weight": (0, 1e6),
    "used_bits": (1, 16_384),
}


def check_number(flag: str, value: float, least: float, greatest: float = math.inf) -> None:
    """Refuse a number that is not in a range.

    Raises:
        InputError: in one line, the argument and the range.
    """
    if not least <= value <= greatest or not math.isfinite(value):
        high = f"at least {least}" if not value > greatest else f"{least} to {greatest}"
        raise InputError(f"{flag} {value}: expected {high}")


def check_ransac_thresh(value: float) -> None:
    """Refuse what is no threshold in pixels.

    Raises:
        InputError: in one line.
    """
    if not 0 < value <= MAX_PIXELS:
        raise InputError(
            f"--ransac_thresh {value}: expected a positive number of pixels, at most {MAX_PIXELS}"
        )


def check_matcher(name: str, weights: Path | None = None) -> None:
    """Refuse a matcher that there is not, before a map is read for it.

    Raises:
        InputError: in one line, with those that there are; or it takes no weights.
    """
    if name not in MATCHERS and not name.startswith("hloc:"):
        known = ", ".join(MATCHERS)
        raise InputError(f"--matcher {name}: unknown, expected one of {known}, or hloc:NAME")
    if weights is not None and name.startswith("NN-"):
        raise InputError(f"--matcher_weights: {name} has no weights")


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Refuse to replace a file that nobody said to replace.

    Raises:
        InputError: it exists, and ``overwrite`` is not set.
    """
    if not overwrite and Path(path).exists():
        raise InputError(f"{path}: exists already, pass --overwrite to replace it")


def parse_options(words: Sequence[str] | None, flag: str) -> dict[str, Any]:
    """``KEY=VALUE`` words as a dictionary; values read as numbers, true, false or lists of them.

    Raises:
        InputError: a word is not of this form, or a key comes twice.
    """
    options: dict[str, Any] = {}
    for word in words or ():
        key, equal, text = word.partition("=")
        if not (key and equal and text):
            raise InputError(f"{flag} {word}: expected KEY=VALUE")
        if key in options:
            raise InputError(f"{flag} {word}: {key} comes twice")
        options[key] = _value(text)
    return options


def parse_named_options(words: Sequence[str] | None, flag: str) -> dict[str, dict[str, Any]]:
    """``NAME.KEY=VALUE`` words, such as ``drqed.steps=300``, as options by name.

    Raises:
        InputError: as of ``parse_options``.
    """
    options: dict[str, dict[str, Any]] = {}
    for key, value in parse_options(words, flag).items():
        name, dot, own = key.partition(".")
        if not (name and dot and own):
            raise InputError(f"{flag} {key}: expected NAME.KEY=VALUE, such as drqed.steps=300")
        options.setdefault(name, {})[own] = value
    return options


def _value(text: str) -> Any:
    if "," in text:
        return [_value(part) for part in text.split(",") if part]
    if text.lower() in ("true", "false", "none"):
        return {"true": True, "false": False, "none": None}[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def check_codec_options(codec: str, options: dict[str, Any], tuned: bool = False) -> None:
    """Refuse options that the codec does not have, or values that it cannot use.

    Args:
        tuned: they are those of ``matching.tuning``.

    Raises:
        InputError: in one line, with the options that there are.
    """
    from .codecs import codec_class

    if options and tuned:
        from .matching.tuning import tuned_codec

        _check(f"--tune: codec {codec}", tuned_codec, options, {})
    elif options:
        _check(f"codec {codec}", codec_class(codec).fit, options, {})


def check_selector_options(selector: str, options: dict[str, Any]) -> None:
    """The same for a selector.

    Raises:
        InputError: in one line, with the options that there are.
    """
    if not options:
        return
    from .selection import ORDERS, SELECTORS as REGISTERED

    # Some pass what they are given on to their order.
    known = ORDERS.get(selector) or REGISTERED[selector]
    _check(f"selector {selector}", known, options, {"min_per_image": int})


def check_named_options(flag: str, options: dict[str, dict[str, Any]], used: Sequence[str]) -> None:
    """Refuse options by name of a codec or selector that is not used, or has none such.

    Raises:
        InputError: in one line.
    """
    for name, own in options.items():
        if name not in used:
            raise InputError(f"{flag} {name}: not among those of this run, {', '.join(used)}")
        if name in CODECS:
            check_codec_options(name, own)
        elif name in SELECTORS:
            check_selector_options(name, own)


def _check(
    what: str, function: Callable[..., Any], options: dict[str, Any], more: dict[str, Any]
) -> None:
    hints = typing.get_type_hints(function)
    known = {
        name: hints.get(name, Any)
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in _GIVEN and parameter.kind is parameter.KEYWORD_ONLY
    } | more
    for name, value in options.items():
        if name not in known:
            possible = f"its options are {', '.join(known)}" if known else "it has none"
            raise InputError(f"{what}: no option {name!r}, {possible}")
        kinds = _kinds(known[name])
        if not any(_is(value, kind) for kind in kinds):
            expected = " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds)
            raise InputError(f"{what}: {name} {value!r}, expected {expected}")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            least, greatest = _RANGES.get(name, (-math.inf, math.inf))
            if not (math.isfinite(value) and least <= value <= greatest):
                raise InputError(f"{what}: {name} {value}, expected {least:g} to {greatest:g}")


def _kinds(hint: Any) -> tuple[Any, ...]:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return typing.get_args(hint)
    return (hint,)


def _is(value: Any, kind: Any) -> bool:
    if kind is Any:
        return True
    if kind is type(None):
        return value is None
    if typing.get_origin(kind) is list:
        (item,) = typing.get_args(kind)
        return isinstance(value, list) and all(_is(part, item) for part in value)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def code_sizes(codec: str, dim: int, options: dict[str, Any] | None = None) -> list[int] | None:
    """Bytes of a code that a codec can use for descriptors of ``dim`` dimensions, increasing.

    None has sizes beyond those of a float16 descriptor. None where the codec has one size of its
    own and ``code_bytes`` is not looked at.

    Args:
        codec: its name.
        dim: of the descriptors.
        options: of the codec; ``bits``, ``used_bits`` and ``splits`` matter.
    """
    options = options or {}
    bits = options.get("bits") or (4 if codec == "pca" else 8)
    whole = range(1, 2 * dim + 1)
    if codec in ("none", "sq8", "sign", "rabitq"):
        return None
    if codec == "drqed":
        used = options.get("used_bits")
        if used is not None:
            fits = used >= 1 and (not isinstance(bits, list) or sum(bits) == used)
            return [-(-used // 8)] if fits else []
        if isinstance(bits, list):
            return [sum(bits) // 8] if sum(bits) % 8 == 0 else []
        # 4 bits a dimension are what quantizing each principal axis by itself takes; the residual
        # codebooks' time grows with the square of the size.
        return [size for size in whole if size <= max(8, dim // 2)]
    if codec == "nested":
        if isinstance(bits, list):
            return [sum(bits) // 8] if sum(bits) % 8 == 0 else []
        return [size for size in whole if size <= 32]
    if bits not in (4, 8):
        return []
    if codec in ("pq", "opq", "dpqed"):
        return [size for size in whole if dim % (size * 8 // bits) == 0]
    if codec == "pca":
        return [size for size in whole if size * 8 // bits <= dim]
    sizes = []
    for size in whole:
        indices = size * 8 // bits
        parts = options.get("splits") or (2 if codec == "prq" and indices > 1 else 1)
        # faiss keeps a product of each two centroids of a part: 256 MB at 32 indices of 8 bits.
        if indices % parts == 0 and dim % parts == 0 and indices // parts << bits <= 1 << 13:
            sizes.append(size)
    return sizes


def check_code_bytes(
    codec: str, code_bytes: int, dim: int | None = None, options: dict[str, Any] | None = None
) -> None:
    """Refuse a code size that a codec cannot use.

    Args:
        codec: its name.
        code_bytes: asked for.
        dim: of the descriptors; None where it is not known yet.
        options: of the codec.

    Raises:
        InputError: in one line, with the sizes that are possible.
    """
    if code_bytes < 1:
        raise InputError(f"--code_bytes {code_bytes}: expected at least 1")
    if dim is None:
        return
    sizes = code_sizes(codec, dim, options)
    if sizes is None:
        if code_bytes > 2 * dim:
            raise InputError(
                f"--code_bytes {code_bytes}: a float16 descriptor of {dim} dimensions has "
                f"{2 * dim}, and {codec} has a size of its own"
            )
    elif code_bytes not in sizes:
        possible = f"can use {_listed(sizes)}" if sizes else "can use none with these options"
        raise InputError(
            f"--code_bytes {code_bytes}: {codec} {possible} for descriptors of {dim} dimensions"
        )


def _listed(sizes: list[int]) -> str:
    """Numbers as people write them: runs of three and more as ``1 to 8``."""
    runs: list[list[int]] = []
    for size in sizes:
        if runs and size == runs[-1][-1] + 1:
            runs[-1].append(size)
        else:
            runs.append([size])
    parts: list[str] = []
    for run in runs:
        parts += [f"{run[0]} to {run[-1]}"] if len(run) > 2 else [str(size) for size in run]
    return ", ".join(parts[:-1]) + (" or " if len(parts) > 1 else "") + parts[-1]
