"""Gradient estimators for a choice among centroids. Small pure functions.

A hard choice has no gradient. Each estimator here returns the hard value in the forward pass and
lets the gradient reach the soft value, a softmax-weighted mean of centroids.
"""

import torch

ESTIMATORS = ("straight_through", "rotation", "soft")


def assignment_logits(x: torch.Tensor, centroids: torch.Tensor, temperature: float) -> torch.Tensor:
    """Negative squared distances over the temperature.

    Args:
        x: (B, M, d) sub-vectors.
        centroids: (M, K, d).
        temperature: in units of squared distance.

    Returns:
        (B, M, K).
    """
    products = torch.einsum("bmd,mkd->bmk", x, centroids)
    squared = (x**2).sum(-1)[:, :, None] - 2 * products + (centroids**2).sum(-1)[None]
    return -squared / temperature


def select_centroids(indices: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """(B, M) indices into (M, K, d) centroids: (B, M, d)."""
    return centroids[torch.arange(centroids.shape[0], device=indices.device), indices]


def straight_through(soft: torch.Tensor, hard: torch.Tensor) -> torch.Tensor:
    """``hard`` forward, the gradient goes to ``soft`` unchanged.

    Source: Bengio, Léonard, Courville, arXiv 1308.3432 (2013); for product quantization Klein and
    Wolf, "End-to-End Supervised Product Quantization", CVPR 2019.
    """
    return soft + (hard - soft).detach()


def rotation_trick(soft: torch.Tensor, hard: torch.Tensor) -> torch.Tensor:
    """``hard`` forward; the gradient goes to ``soft`` through the rotation and scale onto ``hard``.

    The last dimension holds the vectors. With unit vectors e of ``soft`` and q of ``hard`` and
    r = (e + q) / |e + q| the result is |hard| / |soft| (soft - 2 r r^T soft + 2 q e^T soft), where
    all factors but ``soft`` are constants.

    Source: Fifty et al., "Restructuring Vector Quantization with the Rotation Trick", ICLR 2025,
    equations 2 to 4.
    """
    tiny = 1e-12
    e = soft.detach()
    q = hard.detach()
    e_norm = e.norm(dim=-1, keepdim=True).clamp_min(tiny)
    q_norm = q.norm(dim=-1, keepdim=True)
    e, q = e / e_norm, q / q_norm.clamp_min(tiny)
    r = e + q
    r = r / r.norm(dim=-1, keepdim=True).clamp_min(tiny)
    along_r = (soft * r).sum(-1, keepdim=True)
    along_e = (soft * e).sum(-1, keepdim=True)
    rotated = q_norm / e_norm * (soft - 2 * along_r * r + 2 * along_e * q)
    # Vectors that cancel out have no such rotation; they get the straight-through gradient.
    return torch.where(r.norm(dim=-1, keepdim=True) > 0.5, rotated, straight_through(soft, hard))


def quantize(
    x: torch.Tensor, centroids: torch.Tensor, temperature: float, estimator: str
) -> torch.Tensor:
    """Replace each sub-vector by its nearest centroid, differentiably.

    Args:
        x: (B, M, d) sub-vectors.
        centroids: (M, K, d).
        temperature: of the softmax that gives the gradient, in units of squared distance.
        estimator: one of ``ESTIMATORS``; 'soft' returns the soft value in the forward pass too.

    Returns:
        (B, M, d).
    """
    logits = assignment_logits(x, centroids, temperature)
    soft = torch.einsum("bmk,mkd->bmd", logits.softmax(-1), centroids)
    if estimator == "soft":
        return soft
    hard = select_centroids(logits.argmax(-1), centroids)
    if estimator == "rotation":
        return rotation_trick(soft, hard)
    return straight_through(soft, hard)
