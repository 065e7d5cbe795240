"""Codecs that quantize each dimension by itself: scalars, scalars of principal axes, RaBitQ.

Sources: faiss's ScalarQuantizer; Gao and Long, "RaBitQ", SIGMOD 2024, as in faiss's RaBitQuantizer.
"""

from typing import Any

import faiss
import numpy as np

from ..errors import InputError
from ..scene.reference import Observations, normalise_rows
from ..threads import steady_products
from ..training.kmeans import latent_basis
from .base import ArrayCodec, Codec, project
from .entries import entries_from_arrays, entries_to_arrays
from .pq import training_rows


class PCACodec(ArrayCodec):
    """Principal axes, then faiss's uniform scalar quantizer with a range for each axis.

    Attributes:
        basis: (D, L) float32 axes, as stored; not centred.
        ranges: (2, L) float32, lower end and extent on each axis, as stored.
        bits: of each number, 8 or 4.
    """

    name = "pca"

    def __init__(self, arrays: dict[str, np.ndarray], bits: int):
        self._arrays, self.bits = arrays, bits
        self.basis = entries_from_arrays("basis", arrays, 2)
        self.ranges = entries_from_arrays("ranges", arrays, 2)
        self.dim, latent = self.basis.shape
        if self.ranges.shape != (2, latent):
            raise InputError("the codec's ranges are missing or have a wrong shape")
        kind = {8: faiss.ScalarQuantizer.QT_8bit, 4: faiss.ScalarQuantizer.QT_4bit}[bits]
        self._quantizer = faiss.ScalarQuantizer(latent, kind)
        faiss.copy_array_to_vector(self.ranges.ravel(), self._quantizer.trained)
        self.code_size = int(self._quantizer.code_size)

    @classmethod
    def fit(
        cls,
        observations: Observations,
        code_bytes: int,
        *,
        seed: int = 0,
        device: str = "cpu",
        progress: bool = False,
        bits: int = 4,
    ) -> "PCACodec":
        """As many axes as the code has numbers of ``bits`` bits."""
        latent = code_bytes * 8 // bits if bits in (4, 8) else 0
        if not 1 <= latent <= observations.dim:
            raise InputError(
                f"--code_bytes {code_bytes}: {cls.name} needs 4 or 8 bits and 1 to "
                f"{observations.dim} axes"
            )
        rows = training_rows(observations, seed, 1)
        basis = cls._basis(rows, latent).astype(np.float16)
        projected = rows @ basis.astype(np.float32)
        low = projected.min(0)
        extent = np.maximum(projected.max(0) - low, 1e-4)
        return cls({"basis": basis, "ranges": np.stack([low, extent]).astype(np.float16)}, bits)

    @staticmethod
    def _basis(rows: np.ndarray, latent: int) -> np.ndarray:
        return latent_basis(rows, latent)

    def encode(self, descriptors: np.ndarray) -> np.ndarray:
        x = project(descriptors, self.basis)
        return self._quantizer.compute_codes(np.ascontiguousarray(x))

    def decode(self, codes: np.ndarray) -> np.ndarray:
        x = self._quantizer.decode(np.ascontiguousarray(codes, np.uint8))
        return normalise_rows(project(x, self.basis.T))

    def config(self) -> dict[str, Any]:
        return {**super().config(), "bits": self.bits}

    @classmethod
    def from_tensors(cls, tensors: dict[str, np.ndarray], config: dict[str, Any]) -> "PCACodec":
        return cls(dict(tensors), cls.stored_bits(config))


class SQ8Codec(ArrayCodec):
    """faiss's 8-bit scalar quantizer: a byte for each dimension.

    Attributes:
        ranges: (2, D) float32, lower end and extent of each dimension, as stored.
    """

    name = "sq8"

    def __init__(self, arrays: dict[str, np.ndarray]):
        self._arrays = arrays
        self.ranges = entries_from_arrays("ranges", arrays, 2)
        if len(self.ranges) != 2:
            raise InputError("the codec's ranges are missing or have a wrong shape")
        self.dim = self.code_size = self.ranges.shape[1]
        self._quantizer = faiss.ScalarQuantizer(self.dim, faiss.ScalarQuantizer.QT_8bit)
        faiss.copy_array_to_vector(self.ranges.ravel(), self._quantizer.trained)

    @classmethod
    def fit(
        cls,
        observations: Observations,
        code_bytes: int = 0,
        *,
        seed: int = 0,
        device: str = "cpu",
        progress: bool = False,
    ) -> "SQ8Codec":
        """Ranges of the dimensions; ``code_bytes`` is ignored, a code has D bytes."""
        rows = training_rows(observations, seed, 1)
        low = rows.min(0)
        extent = np.maximum(rows.max(0) - low, 1e-4)
        return cls(entries_to_arrays("ranges", np.stack([low, extent]), "float16"))

    def encode(self, descriptors: np.ndarray) -> np.ndarray:
        return self._quantizer.compute_codes(np.ascontiguousarray(descriptors, np.float32))

    def decode(self, codes: np.ndarray) -> np.ndarray:
        return normalise_rows(self._quantizer.decode(np.ascontiguousarray(codes, np.uint8)))

    @classmethod
    def from_tensors(cls, tensors: dict[str, np.ndarray], config: dict[str, Any]) -> "SQ8Codec":
        return cls(dict(tensors))


class RaBitQCodec(Codec):
    """A fixed random rotation, then faiss's RaBitQ around the mean: D / 8 + 8 bytes.

    Attributes:
        mean: (D,) float32 in the rotated space, as stored.
        seed: of the rotation, which is computed and not stored.
    """

    name = "rabitq"

    def __init__(self, mean: np.ndarray, seed: int):
        self.mean, self.seed, self.dim = mean.astype(np.float32), seed, len(mean)
        self.rotation = _hadamard_rotation(self.dim, seed)
        self._quantizer = faiss.RaBitQuantizer(self.dim, faiss.METRIC_L2)
        self.code_size = int(self._quantizer.code_size)

    @classmethod
    def fit(
        cls,
        observations: Observations,
        code_bytes: int = 0,
        *,
        seed: int = 0,
        device: str = "cpu",
        progress: bool = False,
    ) -> "RaBitQCodec":
        """The mean of the observations; ``code_bytes`` is ignored."""
        rows = training_rows(observations, seed, 1)
        rotated = rows.mean(0) @ _hadamard_rotation(observations.dim, seed).T
        return cls(rotated.astype(np.float16), seed)

    def encode(self, descriptors: np.ndarray) -> np.ndarray:
        x = project(descriptors, self.rotation.T)
        codes = np.zeros((len(x), self.code_size), np.uint8)
        self._quantizer.compute_codes_core(
            faiss.swig_ptr(x), faiss.swig_ptr(codes), len(x), faiss.swig_ptr(self.mean)
        )
        return codes

    def decode(self, codes: np.ndarray) -> np.ndarray:
        codes = np.ascontiguousarray(codes, np.uint8)
        x = np.zeros((len(codes), self.dim), np.float32)
        self._quantizer.decode_core(
            faiss.swig_ptr(codes), faiss.swig_ptr(x), len(codes), faiss.swig_ptr(self.mean)
        )
        return normalise_rows(project(x, self.rotation))

    def tensors(self) -> dict[str, np.ndarray]:
        return {"mean": self.mean.astype(np.float16)}

    def config(self) -> dict[str, Any]:
        return {**super().config(), "seed": self.seed}

    @classmethod
    def from_tensors(cls, tensors: dict[str, np.ndarray], config: dict[str, Any]) -> "RaBitQCodec":
        seed = config.get("seed")
        if type(seed) is not int or seed < 0:
            raise InputError("the codec's settings are not those of rabitq")
        return cls(entries_from_arrays("mean", tensors, 1), seed)


@steady_products()
def _hadamard_rotation(dim: int, seed: int) -> np.ndarray:
    """A random orthogonal (D, D) matrix that any machine computes alike: no decomposition.

    Two rounds of random signs and a Walsh-Hadamard transform. Where D is no power of two, the
    transform acts on the leading and then on the trailing power of two.
    """
    signs = np.random.default_rng(seed).integers(0, 2, (4, dim)) * 2 - 1
    size = 1 << (dim.bit_length() - 1)
    hadamard = np.ones((1, 1))
    while len(hadamard) < size:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    hadamard = hadamard / np.sqrt(size)
    rotation = np.eye(dim)
    for i, row in enumerate(signs):
        rotation = rotation * row[:, None]
        part = slice(0, size) if i % 2 == 0 else slice(dim - size, dim)
        rotation[part] = hadamard @ rotation[part]
    return rotation.astype(np.float32)
