"""SuperPoint's network, for whoever has its weights.

Source: DeTone, Malisiewicz and Rabinovich, "SuperPoint: Self-Supervised Interest Point Detection
and Description", CVPRW 2018; parameters are named as in the published state dict, and points are
chosen as hloc's configuration ``superpoint_aachen`` does.
"""

from itertools import pairwise

import torch
from torch import nn

CELL = 8  # pixels
NMS_RADIUS, THRESHOLD, BORDER = 3, 0.005, 4


class SuperPoint(nn.Module):
    """An image in, points out.

    Args:
        max_keypoints: of an image, the strongest.
    """

    def __init__(self, max_keypoints: int):
        super().__init__()
        self.max_keypoints = max_keypoints
        widths = [1, 64, 64, 64, 64, 128, 128, 128, 128]
        self._names = ["1a", "1b", "2a", "2b", "3a", "3b", "4a", "4b"]
        for name, (before, after) in zip(self._names, pairwise(widths), strict=True):
            setattr(self, f"conv{name}", nn.Conv2d(before, after, 3, padding=1))
        self.convPa = nn.Conv2d(128, 256, 3, padding=1)
        self.convPb = nn.Conv2d(256, CELL * CELL + 1, 1)  # one for no point
        self.convDa = nn.Conv2d(128, 256, 3, padding=1)
        self.convDb = nn.Conv2d(256, 256, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(1, 3, H, W) of 0 to 1: (N, 2) keypoints, pixel centres at integers, (N, 256) descriptors
        and (N,) scores."""
        weights = x.new_tensor([0.299, 0.587, 0.114])
        x = (x * weights[None, :, None, None]).sum(1, keepdim=True)
        for name in self._names:
            x = torch.relu(getattr(self, f"conv{name}")(x))
            if name in ("1b", "2b", "3b"):
                x = nn.functional.max_pool2d(x, 2)
        scores = self._scores(x)[0]
        rows, columns = torch.nonzero(scores > THRESHOLD, as_tuple=True)
        height, width = scores.shape
        inside = (rows >= BORDER) & (rows < height - BORDER)
        inside &= (columns >= BORDER) & (columns < width - BORDER)
        rows, columns = rows[inside], columns[inside]
        strength = scores[rows, columns]
        if len(strength) > self.max_keypoints:
            strength, best = strength.topk(self.max_keypoints)
            rows, columns = rows[best], columns[best]
        keypoints = torch.stack([columns, rows], 1).float()
        dense = nn.functional.normalize(self.convDb(torch.relu(self.convDa(x))), dim=1)
        return keypoints, _sampled(keypoints, dense), strength

    def _scores(self, x: torch.Tensor) -> torch.Tensor:
        """(1, H, W): the probability of a point at each pixel, of local maxima alone."""
        probabilities = torch.softmax(self.convPb(torch.relu(self.convPa(x))), 1)[:, :-1]
        return _local_maxima(nn.functional.pixel_shuffle(probabilities, CELL)[:, 0])


def _local_maxima(scores: torch.Tensor) -> torch.Tensor:
    """Scores less those within ``NMS_RADIUS`` of a higher one; what that uncovers counts too."""

    def highest(x: torch.Tensor) -> torch.Tensor:
        return nn.functional.max_pool2d(x, 2 * NMS_RADIUS + 1, 1, NMS_RADIUS)

    maxima = scores == highest(scores)
    for _ in range(2):
        near = highest(maxima.float()) > 0
        rest = torch.where(near, torch.zeros_like(scores), scores)
        maxima |= (rest == highest(rest)) & ~near
    return torch.where(maxima, scores, torch.zeros_like(scores))


def _sampled(keypoints: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
    """(N, D) unit descriptors between the cells of (1, D, h, w)."""
    height, width = dense.shape[2:]
    size = keypoints.new_tensor([width * CELL - CELL / 2 - 0.5, height * CELL - CELL / 2 - 0.5])
    places = (keypoints - CELL / 2 + 0.5) / size * 2 - 1
    found = nn.functional.grid_sample(dense, places[None, None], "bilinear", align_corners=True)
    return nn.functional.normalize(found[0, :, 0].T, dim=1)
