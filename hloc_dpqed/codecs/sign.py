"""The sign of each dimension."""

import numpy as np

from .base import FixedCodec


class SignCodec(FixedCodec):
    """One bit a dimension, no parameter at all: ceil(D / 8) bytes."""

    name = "sign"

    def __init__(self, dim: int):
        super().__init__(dim)
        self.code_size = -(-dim // 8)

    def encode(self, descriptors: np.ndarray) -> np.ndarray:
        return np.packbits(np.asarray(descriptors) > 0, axis=1)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        bits = np.unpackbits(np.asarray(codes, np.uint8), axis=1, count=self.dim)
        return (bits.astype(np.float32) * 2 - 1) / np.float32(np.sqrt(self.dim))
