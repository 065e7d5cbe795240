"""Losses on descriptors. Pure functions; each returns a dictionary of (B,) tensors with 'total'."""

import torch
import torch.nn.functional as F


def squared_distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Squared Euclidean distances of (B, D) and (N, D): (B, N), not negative."""
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return squared.clamp_min(0)


def reconstruction_loss(decoded: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
    """Squared error |decoded - target|^2 of each row.

    Source: the L2 reconstruction loss of Laskar et al., ECCV 2024.
    """
    error = ((decoded - target) ** 2).sum(1)
    return {"total": error, "reconstruction": error}


def triplet_loss(
    anchor: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor, margin: float
) -> dict[str, torch.Tensor]:
    """Hinge max(0, margin + |a - p| - |a - n|) with Euclidean distances, row by row.

    Source: Mishchuk et al., "Working hard to know your neighbor's margins", NeurIPS 2017,
    equation 1, with the margin as a parameter.
    """
    to_positive = _distance(anchor, positive)
    to_negative = _distance(anchor, negative)
    hinge = F.relu(margin + to_positive - to_negative)
    return {"total": hinge, "positive": to_positive, "negative": to_negative}


def _distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    # The offset keeps the gradient finite where two vectors coincide.
    return ((a - b) ** 2).sum(1).add(1e-12).sqrt()


def hardest_negatives(
    anchor: torch.Tensor, keys: torch.Tensor, anchor_labels: torch.Tensor, key_labels: torch.Tensor
) -> torch.Tensor:
    """For each anchor the nearest key of another label: (B,) int64 rows of ``keys``.

    Source: hardest-in-batch mining, Mishchuk et al., NeurIPS 2017. The choice has no gradient.
    """
    with torch.no_grad():
        distances = squared_distances(anchor, keys)
        distances.masked_fill_(anchor_labels[:, None] == key_labels[None], torch.inf)
        return distances.argmin(1)


def contrastive_loss(
    anchor: torch.Tensor,
    keys: torch.Tensor,
    anchor_labels: torch.Tensor,
    key_labels: torch.Tensor,
    temperature: float,
    both_ways: bool = False,
    alike: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """Cross-entropy of the right key under a softmax over all keys' cosine similarities.

    Rows must be L2-normalised. ``key_labels`` are distinct and hold every anchor's label. With
    ``both_ways`` the cross-entropy of the anchor under a softmax over all anchors is added, as in
    Radford et al., ICML 2021, figure 3; the anchors' labels must then be distinct. ``alike`` (B, N)
    bool marks keys that are neither right nor wrong for an anchor, and are left out: other codes of
    its own 3D point.

    Source: InfoNCE, van den Oord et al., arXiv 1807.03748, equation 4, with the temperature of Wu
    et al., CVPR 2018, equation 2.
    """
    logits = anchor @ keys.T / temperature
    order = torch.argsort(key_labels)
    target = order[torch.searchsorted(key_labels[order], anchor_labels)]
    if alike is not None:
        logits = logits.masked_fill(alike, -torch.inf)
    loss = F.cross_entropy(logits, target, reduction="none")
    if both_ways:
        own = torch.arange(len(anchor), device=anchor.device)
        loss = loss + F.cross_entropy(logits.T[target], own, reduction="none")
    return {"total": loss, "correct": (logits.argmax(1) == target).float()}


def rate_loss(values: torch.Tensor, step: float = 0.7) -> dict[str, torch.Tensor]:
    """About the bits that each value takes when it is rounded to multiples of a step and coded.

    log2(1 + (v / s)^2) / 2 with s = ``step`` root mean squares of ``values``: small values, which
    cost little, are drawn to zero, large ones hardly. The gradient does not pass through s. Source:
    the idea of training for the bytes of the stored parameters is that of Oktay et al., ICLR 2020;
    the form, ours, is that of a density with tails as heavy as Cauchy's.

    Returns:
        'total' of the shape of ``values``.
    """
    scale = step * values.detach().square().mean().sqrt().clamp_min(1e-12)
    return {"total": torch.log2(1 + (values / scale) ** 2) / 2}
