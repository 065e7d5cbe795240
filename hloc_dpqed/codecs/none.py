"""No quantization: float16 descriptors as 'codes', the reference for all codecs."""

from typing import Any

import numpy as np

from ..scene.reference import Observations, normalise_rows
from .base import Codec


class NoneCodec(Codec):
    """Stores each descriptor as D little-endian float16 numbers."""

    name = "none"

    def __init__(self, dim: int):
        self.dim = dim
        self.code_size = 2 * dim

    @classmethod
    def fit(
        cls,
        observations: Observations,
        code_bytes: int = 0,
        *,
        seed: int = 0,
        device: str = "cpu",
        progress: bool = False,
    ) -> "NoneCodec":
        """Nothing to fit; ``code_bytes`` is ignored, a code has 2 D bytes."""
        return cls(observations.dim)

    def encode(self, descriptors: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(descriptors, "<f2").view(np.uint8)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        return normalise_rows(np.ascontiguousarray(codes).view("<f2"))

    def tensors(self) -> dict[str, np.ndarray]:
        return {}

    @classmethod
    def from_tensors(cls, tensors: dict[str, np.ndarray], config: dict[str, Any]) -> "NoneCodec":
        return cls(config["dim"])
