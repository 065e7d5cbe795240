"""Which database image sees which 3D point, as compressed sparse rows."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Visibility:
    """Binary sparse matrix, images by points, in compressed sparse rows.

    Attributes:
        indptr: (num_images + 1,) int64, where each image's row starts.
        indices: (num_observations,) int32, point rows, strictly increasing within an image.
        num_points: number of columns.
    """

    indptr: np.ndarray
    indices: np.ndarray
    num_points: int

    @property
    def num_images(self) -> int:
        return len(self.indptr) - 1

    @property
    def num_observations(self) -> int:
        return len(self.indices)

    def __getitem__(self, image: int) -> np.ndarray:
        """Point rows that ``image`` sees: (n,) int32, increasing."""
        return self.indices[self.indptr[image] : self.indptr[image + 1]]

    def image_of_observation(self) -> np.ndarray:
        """Image of each observation: (num_observations,) int32, in the order of ``indices``."""
        counts = np.diff(self.indptr)
        return np.repeat(np.arange(self.num_images, dtype=np.int32), counts)

    def track_lengths(self) -> np.ndarray:
        """Number of images that see each point: (num_points,) int64."""
        return np.bincount(self.indices, minlength=self.num_points)

    def transpose(self) -> tuple["Visibility", np.ndarray]:
        """Points by images, and the order that takes observations there.

        Returns:
            The transposed matrix (its ``indices`` are images) and ``order``, (num_observations,)
            int64: observation ``order[k]`` of this matrix is observation ``k`` of the transpose.
        """
        order = np.argsort(self.indices, kind="stable")
        indptr = np.zeros(self.num_points + 1, np.int64)
        np.cumsum(self.track_lengths(), out=indptr[1:])
        images = self.image_of_observation()[order]
        return Visibility(indptr, images, self.num_images), order

    def keep_points(self, rows: np.ndarray) -> tuple["Visibility", np.ndarray]:
        """Restrict to the points ``rows`` (sorted, unique), renumbered 0 .. len(rows) - 1.

        Returns:
            The smaller matrix and the (n,) int64 observations of this one that it keeps.
        """
        new_row = np.full(self.num_points, -1, np.int32)
        new_row[rows] = np.arange(len(rows), dtype=np.int32)
        mapped = new_row[self.indices]
        kept = np.flatnonzero(mapped >= 0)
        indptr = np.searchsorted(kept, self.indptr).astype(np.int64)
        return Visibility(indptr, mapped[kept], len(rows)), kept

    @staticmethod
    def from_lists(rows_of_images: list[np.ndarray], num_points: int) -> "Visibility":
        """Build from one array of point rows for each image; each is sorted and made unique."""
        rows = [np.unique(np.asarray(r, np.int32)) for r in rows_of_images]
        indptr = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(r) for r in rows], out=indptr[1:])
        indices = np.concatenate(rows) if rows else np.zeros(0, np.int32)
        return Visibility(indptr, indices.astype(np.int32), num_points)
