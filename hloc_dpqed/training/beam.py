"""Beam search for the code of a vector under additive codebooks."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F


def beam_search(
    x: torch.Tensor, codebooks: Sequence[torch.Tensor], beam: int, keep: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes whose sum of centroids is near each row, one codebook after the other.

    Source: Babenko and Lempitsky, "Additive Quantization for Extreme Vector Compression", CVPR
    2014, section 3.2, with the codebooks in a fixed order as in faiss's ResidualQuantizer.

    Args:
        x: (B, D) vectors.
        codebooks: M tensors (K_m, D).
        beam: partial codes kept after each codebook.
        keep: codes returned for each row. There are fewer where the codebooks allow no more.

    Returns:
        (B, keep) squared errors, increasing, and (B, keep, M) int64 codes.
    """
    rows = len(x)
    residual = x[:, None]
    cost = (x**2).sum(1)[:, None]
    codes = torch.zeros(rows, 1, 0, dtype=torch.int64, device=x.device)
    for level, book in enumerate(codebooks):
        wanted = keep if level == len(codebooks) - 1 else beam
        # |r - c|^2 - |r|^2 of each centroid. What comes first from each partial code is enough to
        # find the best over all of them.
        added = torch.addmm((book**2).sum(1), residual.flatten(0, 1), book.T, alpha=-2)
        best, within = added.topk(min(wanted, len(book)), 1, largest=False)
        each = best.shape[1]
        total = (best.view(rows, -1, each) + cost[:, :, None]).flatten(1)
        cost, rank = total.topk(min(wanted, total.shape[1]), 1, largest=False)
        parent = torch.div(rank, each, rounding_mode="floor")
        index = within.view(rows, -1).gather(1, rank)
        codes = torch.cat(
            [codes.gather(1, parent[:, :, None].expand(-1, -1, level)), index[:, :, None]], 2
        )
        if level < len(codebooks) - 1:
            chosen = parent[:, :, None].expand(-1, -1, x.shape[1])
            residual = residual.gather(1, chosen) - F.embedding(index, book)
    return cost.clamp_min(0), codes


def orthogonal_codebooks(
    codebooks: Sequence[torch.Tensor], basis: torch.Tensor
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Codebooks and a projection for a beam search in L instead of D dimensions.

    With basis^T basis = R^T R, |x - basis z|^2 is |R^-T basis^T x - R z|^2 plus what no z changes.

    Args:
        codebooks: M tensors (K_m, L).
        basis: (D, L), of full rank.

    Returns:
        M tensors (K_m, L), the centroids R z, and (D, L): x times it is R^-T basis^T x.
    """
    # Double precision: a basis may be nearly singular.
    wide = basis.double()
    gram = wide.T @ wide
    gram = gram + 1e-9 * gram.diagonal().mean() * torch.eye(len(gram), device=basis.device)
    lower = torch.linalg.cholesky(gram)
    projection = torch.linalg.solve_triangular(lower, wide.T, upper=False).T
    return [book @ lower.to(book.dtype) for book in codebooks], projection.to(basis.dtype)
