"""What hloc does not check before it matches or localizes with a map file."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..io.features import feature_kind, open_features
from ..io.lists import read_lines, read_queries
from ..io.same_image import check_query_size
from ..maps.image_rows import check_matchable
from ..maps.same_features import check_dimension, check_extractor
from ..matching.hloc_models import hloc_module
from .feature_store import FeatureStore, is_map_file

UNIT_WITHIN = 0.1  # of 1, the length of a descriptor that rounding may give


def check_matching(
    reference: Path, queries: Any, pairs: Path, allow_other_extractor: bool = False
) -> None:
    """Check that the pairs can be matched: a worker of hloc would fail with a long traceback.

    Raises:
        InputError: the pairs cannot be read or are the wrong way round, a name is not in its file,
            an image of the map has too many rows for hloc's match files, the queries' descriptors
            are not unit vectors, or are of another dimension or extractor.
    """
    io = hloc_module("utils.io")
    with FeatureStore(reference) as store, io.h5py.File(queries, "r") as features:
        named = read_hloc_pairs(pairs)
        if not any(name in store for references in named.values() for name in references) and all(
            name in store for name in named
        ):
            raise InputError(
                f"{pairs}: its first names are images of the map, expected `query reference`: the "
                "two names of each line are the wrong way round"
            )
        for name in dict.fromkeys(r for references in named.values() for r in references):
            check_matchable(name, len(store[name]["scores"]))
        for name in named:
            if name not in features:
                raise InputError(f"{queries}: image {name!r} of {pairs} is not in the feature file")
        for name in list(named)[:1]:
            dim = features[name]["descriptors"].shape[0]
            check_dimension(store.compressed, dim, f"{queries}: image {name!r}")
            lengths = np.linalg.norm(np.asarray(features[name]["descriptors"], np.float32), axis=0)
            if len(lengths) and (np.abs(lengths - 1) > UNIT_WITHIN).any():
                raise InputError(
                    f"{queries}: image {name!r} has descriptors of length {lengths.min():.3g} to "
                    f"{lengths.max():.3g}, but a map's have length 1 and hloc does not normalise "
                    "them: it would match the longest; `hloc-dpqed localize` does normalise"
                )
        if not is_map_file(queries):
            kind = feature_kind(Path(queries))
            check_extractor(store.compressed, kind, os.fspath(queries), allow_other_extractor)


def read_hloc_pairs(path: Any) -> dict[str, list[str]]:
    """A pairs file as hloc reads it.

    Raises:
        InputError: a line has not two words, where hloc would end with a traceback.
    """
    read_lines(Path(path), "a pairs file")  # there, and text
    try:
        return hloc_module("utils.parsers").parse_retrieval(path)
    except ValueError as error:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
        number, words = next(
            ((n, len(line.split())) for n, line in enumerate(lines, 1) if len(line.split()) != 2),
            (1, 0),
        )
        raise InputError(
            f"{path}:{number}: hloc reads two names separated by a space and nothing else (no "
            f"scores, no commas, no comments), found {words} words"
        ) from error


def check_query_sizes(queries: Any, features: Any) -> None:
    """Check that the queries' intrinsics are of their features' images: hloc does not compare.

    Raises:
        InputError: a query's camera is of another size than its features' ``image_size``.
    """
    if is_map_file(features):
        return
    with open_features(Path(features)) as file:
        for name, camera in read_queries(Path(queries)):
            check_query_size(file.image_size(name), camera, f"{features}: image {name!r}")
