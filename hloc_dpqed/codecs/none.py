"""No quantization: float16 descriptors as 'codes', the reference for all codecs."""

import numpy as np

from .base import FixedCodec, unit_rows


class NoneCodec(FixedCodec):
    """Stores each descriptor as D little-endian float16 numbers."""

    name = "none"

    def __init__(self, dim: int):
        super().__init__(dim)
        self.code_size = 2 * dim

    def encode(self, descriptors: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(descriptors, "<f2").view(np.uint8)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        return unit_rows(np.ascontiguousarray(codes).view("<f2"))
