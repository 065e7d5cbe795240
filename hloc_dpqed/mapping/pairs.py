"""Which photos of a map are matched with one another."""

import itertools

import numpy as np

from ..localization.vlad import VladVocabulary, most_similar


def choose_pairs(descriptors: dict[str, np.ndarray], seed: int = 0) -> list[tuple[str, str]]:
    """Pairs of photos to match: all of a few, else those that look alike and neighbours by name."""
    names = sorted(descriptors)
    if len(names) <= 30:
        return list(itertools.combinations(names, 2))
    listed = [descriptors[name] for name in names]
    described = VladVocabulary.fit(listed, seed=seed).describe(listed)
    pairs = {(i, j) for i in range(len(names)) for j in range(i + 1, min(i + 4, len(names)))}
    for i, similar in enumerate(most_similar(described, described, 16)):
        pairs |= {(min(i, j), max(i, j)) for j in similar.tolist() if j != i}
    return [(names[i], names[j]) for i, j in sorted(pairs)]
