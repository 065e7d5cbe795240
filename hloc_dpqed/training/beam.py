"""Beam search for the code of a vector under additive codebooks."""

from collections.abc import Sequence

import torch


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
    # |x - sum c|^2 = |x|^2 + sum (|c|^2 - 2 x c) + sum of 2 c c' over pairs.
    cost = (x**2).sum(1)[:, None]
    codes = torch.zeros(len(x), 1, 0, dtype=torch.int64, device=x.device)
    for level, book in enumerate(codebooks):
        alone = (book**2).sum(1) - 2 * x @ book.T
        total = cost[:, :, None] + alone[:, None]
        for before in range(level):
            pairs = 2 * codebooks[before] @ book.T
            total = total + pairs[codes[:, :, before]]
        wanted = keep if level == len(codebooks) - 1 else beam
        # What comes first from each beam is enough to find the best over all beams.
        best, within = total.topk(min(wanted, len(book)), 2, largest=False)
        count = min(wanted, best.shape[1] * best.shape[2])
        cost, rank = best.flatten(1).topk(count, 1, largest=False)
        parent = torch.div(rank, best.shape[2], rounding_mode="floor")
        index = within.flatten(1).gather(1, rank)
        codes = torch.cat(
            [codes.gather(1, parent[:, :, None].expand(-1, -1, level)), index[:, :, None]], 2
        )
    return cost.clamp_min(0), codes
