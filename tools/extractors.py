"""Local features of a photo, by each extractor that a codec ships for."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from hloc_dpqed.matching.hloc_models import hloc_module, weights_of_user

KEYPOINTS = 1024  # the strongest of a photo


class Features(NamedTuple):
    """Keypoints of an image.

    Attributes:
        keypoints: (N, 2) float32 (x, y), pixel centres at integers.
        descriptors: (N, D) float32, L2-normalised.
    """

    keypoints: np.ndarray
    descriptors: np.ndarray


def superpoint(weights: Path | None) -> Callable[[Image.Image], Features]:
    """hloc's SuperPoint as in its ``superpoint_aachen``; needs hloc."""
    with weights_of_user("superpoint", weights, "--weights"):
        model = hloc_module("extractors.superpoint").SuperPoint(
            {"nms_radius": 3, "max_keypoints": KEYPOINTS}
        )
    model = model.eval()

    def extract(photo: Image.Image) -> Features:
        grey = torch.from_numpy(np.asarray(photo.convert("L"), np.float32) / 255)
        # bfloat16 changes a descriptor by 0.01 degrees and halves the time of a CPU that has it.
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            found = model({"image": grey[None, None]})
        descriptors = torch.nn.functional.normalize(found["descriptors"][0].float().T, dim=1)
        return Features(found["keypoints"][0].float().numpy(), descriptors.numpy())

    return extract


EXTRACTORS = {"superpoint": superpoint}
