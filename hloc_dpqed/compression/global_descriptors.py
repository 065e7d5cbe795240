"""Global image descriptors as codes."""

import numpy as np

from ..codecs import fit_codec
from ..maps.compressed import GlobalDescriptors
from ..scene.reference import Observations


def global_code_bytes(count: int, dim: int) -> tuple[int, int]:
    """How (``count``, ``dim``) global descriptors are stored in the fewest bytes.

    Codebooks of 256 centroids cost more than they save in a map of few images; such a map keeps
    float16. Ours.

    Returns:
        Bytes of a product-quantization code, 0 for float16, and those of codes and codec together.
    """
    code_bytes = max((m for m in range(1, dim // 4 + 1) if dim % m == 0), default=0)
    plain, quantized = 2 * count * dim, 2 * 256 * dim + count * code_bytes
    if code_bytes and quantized < plain:
        return code_bytes, quantized
    return 0, plain


def encode_global_descriptors(described: np.ndarray, seed: int) -> GlobalDescriptors:
    """Codes of (I, Dg) float32 global descriptors, as ``global_code_bytes`` says."""
    count, dim = described.shape
    observations = Observations(
        described.astype(np.float16),
        np.ones(count, np.float32),
        np.zeros((count, 2), np.float32),
        np.arange(count, dtype=np.int32),
        np.arange(count, dtype=np.int32),
        count,
    )
    code_bytes, _ = global_code_bytes(count, dim)
    codec = fit_codec("pq" if code_bytes else "none", observations, code_bytes, seed=seed)
    return GlobalDescriptors(codec, codec.encode(described))
