"""The light decoder: a quantized vector back to a descriptor."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..errors import InputError

DECODERS = ("none", "linear", "mlp")


class Decoder(nn.Module):
    """A correction of the quantized vector, then L2 normalisation.

    'none' adds nothing, 'linear' an affine map, 'mlp' a 2-layer perceptron with ReLU. The
    correction starts at zero, so that training starts from plain quantization.
    """

    def __init__(self, kind: str, dim: int, hidden: int):
        super().__init__()
        if kind not in DECODERS:
            raise InputError(f"decoder {kind!r}: expected one of {', '.join(DECODERS)}")
        self.kind = kind
        widths = {"none": [], "linear": [(dim, dim)], "mlp": [(dim, hidden), (hidden, dim)]}
        layers = [nn.Linear(*width) for width in widths[kind]]
        if layers:
            nn.init.zeros_(layers[-1].weight)
            nn.init.zeros_(layers[-1].bias)
        self.layers = nn.ModuleList(layers)

    def forward(self, quantized: torch.Tensor) -> torch.Tensor:
        """(B, D) quantized vectors to (B, D) L2-normalised descriptors."""
        correction = quantized
        for position, layer in enumerate(self.layers.children()):
            correction = layer(F.relu(correction) if position else correction)
        return F.normalize(quantized + correction if self.layers else quantized, dim=1)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Weights and biases as float16, named ``decoder.<layer>.<weight or bias>``."""
        return {
            f"decoder.{i}.{key}": value.detach().cpu().numpy().astype(np.float16)
            for i, layer in enumerate(self.layers)
            for key, value in layer.named_parameters()
        }

    @staticmethod
    def from_arrays(arrays: dict[str, np.ndarray], kind: str, dim: int) -> "Decoder":
        """The inverse of ``to_arrays``.

        Raises:
            InputError: an array is missing or has a wrong shape, or is not finite.
        """
        hidden = 1
        if kind == "mlp":
            first = arrays.get("decoder.0.bias")
            if first is None or first.ndim != 1:
                raise InputError("the codec's decoder is missing or has a wrong shape")
            hidden = len(first)
        decoder = Decoder(kind, dim, hidden).requires_grad_(False)
        for i, layer in enumerate(decoder.layers):
            for key, parameter in layer.named_parameters():
                array = arrays.get(f"decoder.{i}.{key}")
                if array is None or array.shape != tuple(parameter.shape):
                    raise InputError("the codec's decoder is missing or has a wrong shape")
                if not np.isfinite(array).all():
                    raise InputError("the codec's decoder is not finite")
                parameter.copy_(torch.from_numpy(array.astype(np.float32)))
        return decoder
