import numpy as np
import torch

from hloc_dpqed.training.tree import head_of, tree_order


def test_equal_lowest_bits_are_near():
    """Four groups of four: two bits tell the group, whatever the order of the centroids."""
    rng = np.random.default_rng(0)
    corners = np.array([[10, 3], [10, -3], [-10, 3], [-10, -3]], np.float32)
    centroids = (corners[:, None] + 0.1 * rng.normal(size=(4, 4, 2))).reshape(16, 2)
    centroids = rng.permutation(centroids).astype(np.float32)
    order = tree_order(centroids)
    assert sorted(order) == list(range(16))
    ordered = torch.from_numpy(centroids[order])
    heads = head_of(ordered, 2)
    found = {tuple(row) for row in np.round(heads.numpy()).astype(int).tolist()}
    assert found == {tuple(row) for row in corners.astype(int).tolist()}
    for low in range(4):
        members = ordered[torch.arange(16) % 4 == low]
        torch.testing.assert_close(heads[low], members.mean(0))


def test_all_bits_are_the_codebook_itself():
    book = torch.randn(8, 3)
    torch.testing.assert_close(head_of(book, 3), book)
    torch.testing.assert_close(head_of(book, 0), book.mean(0, keepdim=True))
