"""Global descriptors from local ones, for retrieval without a network."""

from collections.abc import Sequence
from dataclasses import dataclass

import faiss
import numpy as np

from ..errors import InputError
from ..maps.compressed import CompressedMap
from ..scene.reference import normalise_rows
from ..threads import single_threaded

MAP_WORDS = 32
_SAMPLE = 40_000  # descriptors that the words are fitted on


@dataclass(frozen=True)
class VladVocabulary:
    """Visual words for global descriptors.

    Source: Jégou et al., "Aggregating local descriptors into a compact image representation",
    CVPR 2010, with each word's residuals normalised (Arandjelović and Zisserman, CVPR 2013).

    Attributes:
        words: (W, D) float32.
    """

    words: np.ndarray

    @staticmethod
    def fit(
        descriptors: Sequence[np.ndarray], num_words: int = 32, seed: int = 0
    ) -> "VladVocabulary":
        """k-means over the (N, D) float32 descriptors of the given photos."""
        x = np.concatenate(descriptors)
        if len(x) > _SAMPLE:
            rows = np.random.default_rng([seed, 7]).choice(len(x), _SAMPLE, replace=False)
            x = x[np.sort(rows)]
        if len(x) < num_words:
            raise InputError(f"only {len(x)} features in all photos; they show too little")
        kmeans = faiss.Kmeans(x.shape[1], num_words, niter=15, seed=seed + 1, verbose=False)
        kmeans.cp.min_points_per_centroid = 1
        kmeans.train(x)
        return VladVocabulary(kmeans.centroids.copy())

    def describe(self, descriptors: Sequence[np.ndarray]) -> np.ndarray:
        """(photos, W D) float32, L2-normalised; a photo without features has a zero row."""
        out = np.zeros((len(descriptors), *self.words.shape), np.float32)
        half = (self.words**2).sum(1) / 2
        for row, x in enumerate(descriptors):
            if len(x) == 0:
                continue
            word = (x @ self.words.T - half).argmax(1)
            np.add.at(out[row], word, x - self.words[word])
        norms = np.linalg.norm(out, axis=2, keepdims=True)
        return normalise_rows((out / np.maximum(norms, 1e-12)).reshape(len(descriptors), -1))


def most_similar(queries: np.ndarray, database: np.ndarray, count: int) -> np.ndarray:
    """Rows of the ``count`` most similar database descriptors, best first: (Q, count) int64."""
    return np.argsort(-(queries @ database.T), axis=1, kind="stable")[:, :count]


def retrieve(
    queries: dict[str, np.ndarray], database: dict[str, np.ndarray], count: int, seed: int = 0
) -> list[tuple[str, str]]:
    """Database photos for each query, best first, by VLAD with words of the database alone.

    Args:
        queries, database: names to (N, D) float32 descriptors.
        count: database photos a query.
    """
    names, query_names = sorted(database), sorted(queries)
    listed = [database[name] for name in names]
    vocabulary = VladVocabulary.fit(listed, seed=seed)  # never sees a query
    described = vocabulary.describe([queries[name] for name in query_names])
    rows = most_similar(described, vocabulary.describe(listed), count)
    return [(q, names[i]) for q, row in zip(query_names, rows, strict=True) for i in row]


class MapVlad:
    """VLAD of a map's images, from the descriptors that its codes stand for.

    Nothing is stored for it: words and descriptors are computed when a map is loaded, the same each
    time. An image is described by the points that the map says it sees. Ours.

    Args:
        compressed: the map.
        num_words: visual words, fewer where the map has fewer codes.
        seed: of the words.
    """

    def __init__(self, compressed: CompressedMap, num_words: int = MAP_WORDS, seed: int = 0):
        codes, codec = compressed.codes, compressed.codec
        rows = np.arange(len(codes))
        if len(rows) > _SAMPLE:
            chosen = np.random.default_rng([seed, 7]).choice(len(rows), _SAMPLE, replace=False)
            rows = np.sort(chosen)
        with single_threaded():  # the words are the same with any number of threads
            sample = np.asarray(codec.decode(codes[rows]), np.float32)
            self.vocabulary = VladVocabulary.fit([sample], min(num_words, len(sample)), seed)
            shape = (compressed.num_images, self.vocabulary.words.size)
            self.described = np.zeros(shape, np.float32)
            for image in range(compressed.num_images):
                decoded = codec.decode(codes[compressed.code_rows(image)])
                part = self.vocabulary.describe([np.asarray(decoded, np.float32)])
                self.described[image] = part[0]

    def retrieve(self, descriptors: np.ndarray, count: int) -> list[int]:
        """Rows of the images most similar to a query, best first, the lowest row where some tie.

        Args:
            descriptors: (N, D) of the query's local features.
            count: at most.
        """
        query = self.vocabulary.describe([np.ascontiguousarray(descriptors, np.float32)])
        return most_similar(query, self.described, count)[0].tolist()
