"""Database images to match with each query."""

from pathlib import Path

import numpy as np

from ..errors import InputError
from ..io.features import read_global_descriptors
from ..io.lists import no_pair, read_pairs
from ..logger import logger
from ..maps.compressed import CompressedMap


def retrieve(
    compressed: CompressedMap,
    names: list[str],
    retrieval: Path | str | None,
    global_features: Path | None,
    num_retrieved: int,
) -> dict[str, list[int]] | None:
    """Rows of the database images to match with each query, best first; None for the whole map.

    Raises:
        InputError: no way to retrieve was given, or none of the pairs names an image of the map.
    """
    if retrieval is not None and str(retrieval) == "none":
        return None
    if retrieval is not None:
        row_of = {name: row for row, name in enumerate(compressed.image_names)}
        pairs = read_pairs(Path(retrieval), names, row_of)
        retrieved: dict[str, list[int]] = {}
        unknown = 0
        for name in names:
            references = pairs.get(name, [])
            retrieved[name] = [row_of[r] for r in references if r in row_of]
            unknown += len(references) - len(retrieved[name])
        if not any(retrieved.values()):
            raise InputError(no_pair(retrieval, pairs, names, compressed.image_names))
        for name in names:
            if name not in pairs:
                logger.warning(f"No images retrieved for query image {name}. Skipping...")
        if unknown:
            logger.warning(f"{retrieval}: {unknown} pairs name images that are not in the map")
        return retrieved
    if compressed.global_descriptors is None:
        raise InputError(
            "the map stores no global descriptors: pass --retrieval PAIRS, or --retrieval none "
            "to match against the whole map"
        )
    if global_features is None:
        raise InputError("retrieval with the map's global descriptors needs --global_features H5")
    stored = compressed.global_descriptors
    described = read_global_descriptors(global_features, names)
    if described.shape[1] != stored.codec.dim:
        raise InputError(
            f"{global_features}: global descriptors have {described.shape[1]} dimensions, the "
            f"map's have {stored.codec.dim}"
        )
    stored_rows = stored.codec.decode(stored.codes).astype(np.float64)
    retrieved = {}
    for start in range(0, len(names), 256):
        # Rounded, so that neither the other queries nor threads decide a tie: lowest row first.
        similarity = np.round(described[start : start + 256] @ stored_rows.T, 9)
        best = np.argsort(-similarity, axis=1, kind="stable")[:, :num_retrieved]
        retrieved |= dict(zip(names[start : start + 256], best.tolist(), strict=True))
    return retrieved
