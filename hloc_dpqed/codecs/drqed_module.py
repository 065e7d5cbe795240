"""The parameters of drqed as torch trains them."""

import functools

import numpy as np
import torch
import torch.nn.functional as F

from .shrink import Parameters


class DRQEDModule(torch.nn.Module):
    """The codec's parameters while they are trained: codes to L2-normalised descriptors."""

    def __init__(self, books: list[np.ndarray], basis: np.ndarray):
        super().__init__()
        self.books = torch.nn.ParameterList([torch.from_numpy(book) for book in books])
        self.basis = torch.nn.Parameter(torch.from_numpy(basis))

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        # embedding's gradient is summed in a fixed order, unlike that of indexing.
        parts = [F.embedding(codes[:, m], book) for m, book in enumerate(self.books)]
        return F.normalize(functools.reduce(torch.add, parts) @ self.basis.T, dim=1)

    def parameters_as_arrays(self) -> Parameters:
        return Parameters(
            [book.detach().cpu().numpy() for book in self.books], self.basis.detach().cpu().numpy()
        )
