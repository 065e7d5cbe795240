"""Were the queries described as the map was? What tells it: the dimension and the extractor."""

from typing import Any

from ..choices import OVERRIDE
from ..errors import InputError
from ..logger import logger
from .compressed import CompressedMap

# hloc names its feature files feats-NAME-..., and writes nothing else about the extractor.
_HLOC_EXTRACTORS = ("superpoint", "r2d2", "d2net", "sift", "sosnet", "disk", "aliked", "xfeat")

# Dimension of the descriptors that learned matchers are for.
_MATCHED_DIMS = {"superpoint": 256, "disk": 128, "aliked": 128, "xfeat": 64}


def features_of(compressed: CompressedMap) -> dict[str, Any]:
    """What the map records of the features that it was made from, as ``feature_kind`` tells it."""
    recorded = compressed.metadata.get("features")
    return recorded if isinstance(recorded, dict) else {}


def tuned_for(compressed: CompressedMap) -> str | None:
    """The learned matcher that the map's codec was tuned for, None where it was not."""
    conf = compressed.metadata.get("conf")
    name = conf.get("tuned_for") if isinstance(conf, dict) else None
    return name if isinstance(name, str) else None


def check_dimension(compressed: CompressedMap, dim: int, where: str) -> None:
    """Check that a query's descriptors are of the map's dimension.

    Args:
        compressed: the map.
        dim: of the query's descriptors.
        where: file and image, for the message.

    Raises:
        InputError: they are not; the line names both.
    """
    if dim != compressed.codec.dim:
        name = features_of(compressed).get("name")
        raise InputError(
            f"{where}: descriptors have {dim} dimensions, but the map was made from descriptors "
            f"of {compressed.codec.dim}{f' ({name})' if name else ''}"
        )


def check_extractor(
    compressed: CompressedMap, kind: dict[str, Any], where: str, allow: bool = False
) -> None:
    """Check that the queries' features are by the map's extractor, where both are told.

    A file tells its extractor by the attribute ``extractor``, a COLMAP database by the type of its
    descriptors; where either lacks it, by a name of hloc's, such as
    ``feats-superpoint-n4096-r1024``.

    Args:
        compressed: the map.
        kind: of the queries' features, by ``io.features.feature_kind``.
        where: the file, for the message.
        allow: warn only.

    Raises:
        InputError: the extractors differ; the line names both and the way to go on.
    """
    recorded = features_of(compressed)
    own, other = recorded.get("extractor"), kind.get("extractor")
    if own and other:
        same = own == other
    else:
        # A COLMAP database tells its extractor, hloc's file its name: that of the family.
        own, other = own or _by_name(recorded.get("name")), other or _by_name(kind.get("name"))
        same = _family(own) == _family(other) or not (_family(own) and _family(other))
    if same:
        return
    told = f"{where}: features of {other}, but the map was made from features of {own}"
    if not allow:
        raise InputError(f"{told}; pass {OVERRIDE} if they can be matched")
    logger.warning(told)


def check_matcher(compressed: CompressedMap, matcher: str) -> None:
    """Check that a learned matcher is for the map's features, where the map tells them.

    Warns where the map's codec was tuned for another one.

    Args:
        matcher: a name such as ``aliked+lightglue``; others are for any features.

    Raises:
        InputError: it is for another extractor's, or for descriptors of another dimension.
    """
    check_matched(features_of(compressed), compressed.codec.dim, matcher)
    tuned = tuned_for(compressed)
    if tuned is not None and matcher.removesuffix("-fast") != tuned.removesuffix("-fast"):
        logger.warning(
            f"--matcher {matcher}: its codes were tuned for {tuned}, and may tell others little"
        )


def check_matched(kind: dict[str, Any], own_dim: int, matcher: str) -> None:
    """``check_matcher`` for features of a ``kind``, by ``io.features.feature_kind``, with
    descriptors of ``own_dim`` dimensions."""
    wanted = "superpoint" if matcher.startswith("superglue") else matcher.split("+")[0]
    if wanted not in _MATCHED_DIMS:
        return
    own = extractor_name(kind)
    dim = _MATCHED_DIMS[wanted]
    if own_dim != dim:
        told = f" of {own}" if own else ""
        raise InputError(
            f"--matcher {matcher} takes descriptors of {dim} dimensions, but the map was made from "
            f"descriptors of {own_dim}{told}"
        )
    if own and own != wanted:
        raise InputError(
            f"--matcher {matcher} is for features of {wanted}, but the map was made from features "
            f"of {own}"
        )


def _family(extractor: str | None) -> str | None:
    """The name of hloc's in an extractor's name, such as that of ``COLMAP's SIFT``, or None."""
    words = (extractor or "").lower().replace("_", " ").split()
    return next((name for name in _HLOC_EXTRACTORS if name in words), None)


def extractor_name(kind: dict[str, Any]) -> str | None:
    """The extractor's name of hloc's, as ``feature_kind`` tells it or its file's name; None where
    neither does."""
    named = kind.get("extractor")
    return _family(named) if isinstance(named, str) else _by_name(kind.get("name"))


def _by_name(name: Any) -> str | None:
    """hloc's extractor in the name of a feature file, or None."""
    if not isinstance(name, str) or not name.startswith("feats-"):
        return None
    extractor = name.removeprefix("feats-").split("-")[0]
    return extractor if extractor in _HLOC_EXTRACTORS else None
