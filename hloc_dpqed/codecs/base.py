"""The one interface of all codecs: descriptors to codes and back."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from ..errors import InputError
from ..scene.reference import Observations, mean_descriptors

C = TypeVar("C", bound="Codec")
F = TypeVar("F", bound="FixedCodec")

ENCODE_POINTS = 1 << 14  # at a time: what encoding needs for each would add up
BLOCK_ROWS = 2048  # encoded or decoded at once: what they pass through stays in the cache


def project(rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """``rows @ matrix`` of (N, D) and (D, E): (N, E) float32, a block of rows to each thread.

    By torch, whose threads the package sets; numpy's own would stall those of faiss.
    """
    # Here, so that reading what a map holds loads neither torch nor faiss.
    import torch

    from ..threads import spread_rows

    out = np.empty((len(rows), matrix.shape[1]), np.float32)
    onto = torch.from_numpy(np.asarray(matrix, np.float32))

    def block(part: slice) -> None:
        described = np.array(rows[part], np.float32)
        torch.mm(torch.from_numpy(described), onto, out=torch.from_numpy(out[part]))

    spread_rows(block, len(rows), BLOCK_ROWS)
    return out


def unit_rows(rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """L2-normalise the rows of (N, D) as float32, to the same bits everywhere; zero rows stay zero.

    The order of the operations is part of the map file's format (docs/format.md, "Codes and
    codec"): how a library sums a row depends on its version and on the processor.

    Args:
        rows: (N, D), of any type.
        out: (N, D) float32 to write to; may be ``rows``.
    """
    rows = np.asarray(rows, np.float32)
    count, dim = rows.shape
    out = np.empty((count, dim), np.float32) if out is None else out
    width = 1 << max(dim - 1, 0).bit_length()
    for start in range(0, count, BLOCK_ROWS):
        part = rows[start : start + BLOCK_ROWS]
        squares = np.zeros((len(part), width), np.float32)
        np.multiply(part, part, out=squares[:, :dim])
        left = width
        while left > 16:  # halves are added, down to one number
            left //= 2
            squares[:, :left] += squares[:, left : 2 * left]
        columns = np.ascontiguousarray(squares[:, :left].T)  # short rows are slow to add
        while left > 1:
            left //= 2
            columns = columns[:left] + columns[left : 2 * left]
        tiny = np.finfo(np.float32).tiny
        scale = np.float32(1) / np.maximum(np.sqrt(columns[0]), tiny)
        np.multiply(part, scale[:, None], out=out[start : start + BLOCK_ROWS])
    return out


class PointEncoder(Protocol):
    """Codes of the points of a map that it keeps."""

    def __call__(
        self, rows: np.ndarray, stored: tuple[np.ndarray, np.ndarray] | None = None
    ) -> np.ndarray:
        """The codes of the points ``rows`` in a map of them: (k, code_size) uint8.

        Args:
            rows: (k,) int64, increasing.
            stored: other points that the map has, and their codes, which stay: (s,) int64 and
                (s, code_size) uint8.
        """

    def nearest(self, rows: np.ndarray) -> np.ndarray:
        """The same as if each point was alone, which takes less time."""


class Codec(ABC):
    """A fitted quantizer of D-dimensional descriptors.

    Attributes:
        name: the name under which the codec is registered and stored in a map.
        dim: D, the dimension of the descriptors.
        code_size: bytes of one code.
        trains: whether ``fit`` takes a ``checkpoint`` to continue from.
        sharpens: whether a map's points get sharpened targets with it unless told otherwise.
    """

    name: ClassVar[str]
    trains: ClassVar[bool] = False
    sharpens: ClassVar[bool] = False
    dim: int
    code_size: int

    @classmethod
    @abstractmethod
    def fit(
        cls,
        observations: Observations,
        code_bytes: int,
        *,
        seed: int = 0,
        device: str = "cpu",
        progress: bool = False,
        **options: Any,
    ) -> "Codec":
        """Fit a codec on a map's observations.

        Args:
            observations: descriptors (N, D) float16 with the point and image of each.
            code_bytes: bytes of one code.
            seed: the same inputs and seed give the same codec on one machine.
            device: torch device of the codecs that train.
            progress: show a progress bar.
            options: of the codec; unknown ones are an error.

        Raises:
            InputError: the code size or an option is not possible for this codec.
        """

    @abstractmethod
    def encode(self, descriptors: np.ndarray) -> np.ndarray:
        """(N, D) descriptors to (N, code_size) uint8 codes."""

    @abstractmethod
    def decode(self, codes: np.ndarray) -> np.ndarray:
        """(N, code_size) uint8 codes to (N, D) float32, L2-normalised rows."""

    def sharpened(
        self, observations: Observations, seed: int = 0, progress: bool = False
    ) -> np.ndarray:
        """``training.sharpen.sharpened_descriptors`` for codes of this codec: (P, D) float16."""
        from ..training.sharpen import sharpened_descriptors

        return sharpened_descriptors(observations, seed, progress)

    def point_encoder(self, observations: Observations) -> "PointEncoder | None":
        """What gives the codes of points that are kept together, where these decide them.

        Args:
            observations: of all points of the map, with the targets of their codes.

        Returns:
            None for codecs that encode each point as if it was alone, by ``encode_points``.
        """
        return None

    def encode_points(self, observations: Observations) -> np.ndarray:
        """One code for each point: (P, code_size) uint8.

        By default the code of the point's target, which is the normalised mean of its observations
        where they come with no other.
        """
        parts = [np.zeros((0, self.code_size), np.uint8)]
        targets = observations.targets
        if targets is None:
            order = np.argsort(observations.point_index, kind="stable")
            points = observations.point_index[order]
        for first in range(0, observations.num_points, ENCODE_POINTS):
            last = min(first + ENCODE_POINTS, observations.num_points)
            if targets is not None:
                aims = targets[first:last]
            else:
                begin, end = np.searchsorted(points, [first, last])
                aims = mean_descriptors(
                    observations.subset(order[begin:end], points[begin:end] - first, last - first)
                )
            parts.append(self.encode(aims))
        return np.concatenate(parts)

    @abstractmethod
    def tensors(self) -> dict[str, np.ndarray]:
        """What must be stored to decode: names to arrays (float16, int8, uint8 ...)."""

    def config(self) -> dict[str, Any]:
        """JSON-able settings that ``from_tensors`` needs beside the tensors."""
        return {"dim": self.dim, "code_size": self.code_size}

    @classmethod
    @abstractmethod
    def from_tensors(cls: type[C], tensors: dict[str, np.ndarray], config: dict[str, Any]) -> C:
        """The codec that ``tensors`` and ``config`` describe.

        Raises:
            InputError: shapes, dtypes or values are not those of this codec.
        """

    def head(self, code_size: int) -> "Codec":
        """The codec of the first ``code_size`` bytes of each code.

        Raises:
            InputError: heads of its codes are no codes.
        """
        if code_size != self.code_size:
            raise InputError(
                f"--code_bytes {code_size}: {self.name} has codes of {self.code_size}, whose first "
                "bytes are none"
            )
        return self

    def whole(self) -> "Codec":
        """The codec that this one is a ``head`` of: what a codec file holds."""
        return self

    def stored(self: C) -> C:
        """This codec as it will be after a round trip through a file (float16 rounding)."""
        return type(self).from_tensors(self.tensors(), self.config())


class ArrayCodec(Codec):
    """A codec that is what its stored arrays say, kept as they are stored."""

    _arrays: dict[str, np.ndarray]

    def tensors(self) -> dict[str, np.ndarray]:
        return dict(self._arrays)

    @classmethod
    def stored_bits(cls, config: dict[str, Any]) -> int:
        """Bits of an index or a number, 4 or 8.

        Raises:
            InputError: the settings are not those of this codec.
        """
        bits = config.get("bits")
        if bits not in (4, 8):
            raise InputError(f"the codec's settings are not those of {cls.name}")
        return bits


class FixedCodec(Codec):
    """A codec with nothing to fit: the dimension says all."""

    def __init__(self, dim: int):
        self.dim = dim

    @classmethod
    def fit(
        cls: type[F],
        observations: Observations,
        code_bytes: int = 0,
        *,
        seed: int = 0,
        device: str = "cpu",
        progress: bool = False,
    ) -> F:
        """Nothing to fit; ``code_bytes`` is ignored."""
        return cls(observations.dim)

    def tensors(self) -> dict[str, np.ndarray]:
        return {}

    @classmethod
    def from_tensors(cls: type[F], tensors: dict[str, np.ndarray], config: dict[str, Any]) -> F:
        return cls(config["dim"])
