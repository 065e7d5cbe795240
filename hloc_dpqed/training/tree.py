"""Centroids in the order of a binary tree, so that the first bits of an index mean something."""

import numpy as np


def tree_order(centroids: np.ndarray) -> np.ndarray:
    """The order in which equal lowest bits of an index mean near centroids.

    Balanced bisection: the lowest bit tells on which side of the median along the principal axis of
    all centroids one lies, the next bit the same within that half, and so on. The principal axis is
    found by power iteration.

    Args:
        centroids: (2^b, L).

    Returns:
        (2^b,) int64 permutation: row i of the ordered codebook is this row of ``centroids``.
    """
    import torch

    x = torch.from_numpy(np.asarray(centroids, np.float32))
    order = torch.arange(len(x))[None]
    while order.shape[1] > 1:
        groups = x[order]
        groups = groups - groups.mean(1, keepdim=True)
        widest = groups.square().sum(1).argmax(1)
        axis = torch.nn.functional.one_hot(widest, x.shape[1]).to(x.dtype)[..., None]
        for _ in range(8):
            axis = groups.transpose(1, 2) @ (groups @ axis)
            axis = axis / axis.norm(dim=1, keepdim=True).clamp_min(1e-12)
        along = torch.sort((groups @ axis)[..., 0], dim=1, stable=True)[1]
        lower, upper = order.gather(1, along).chunk(2, 1)
        order = torch.cat([lower, upper])
    return order[:, 0].numpy()


def head_of(book, bits: int):
    """(2^b, L) to (2^bits, L): the means of the centroids whose indices have equal lowest bits.

    Args:
        book: numpy array or torch tensor; the result is of the same kind.
    """
    return book.reshape(-1, 1 << bits, book.shape[1]).mean(0)


def used_bits(bits: list[int], code_size: int) -> list[int]:
    """How many bits of each index the first ``code_size`` bytes of a code hold, while any."""
    left, used = 8 * code_size, []
    for b in bits:
        if left <= 0:
            break
        used.append(min(b, left))
        left -= b
    return used
