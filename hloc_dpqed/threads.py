"""The one place that sets threads.

torch, faiss, numpy and pycolmap each bring a pool of their own; left alone they each take every
core and, running together, slow one another down.
"""

import contextlib
import os
from collections.abc import Iterator

import faiss
import torch

_num_threads = os.cpu_count() or 1


def set_num_threads(count: int | None) -> int:
    """Let torch and faiss use ``count`` threads (all cores where None); returns the number."""
    global _num_threads
    _num_threads = max(1, count or len(os.sched_getaffinity(0)))
    torch.set_num_threads(_num_threads)
    faiss.omp_set_num_threads(_num_threads)
    return _num_threads


def get_num_threads() -> int:
    """The number of threads that the package may use."""
    return _num_threads


@contextlib.contextmanager
def single_threaded() -> Iterator[None]:
    """Let torch and faiss use the calling thread only, inside the block.

    For work that is itself spread over threads, a whole query each. And for forked processes: they
    inherit OpenMP pools whose threads do not exist in them, and hang in the first parallel region.
    With one thread no pool is entered.
    """
    torch_threads, faiss_threads = torch.get_num_threads(), faiss.omp_get_max_threads()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(torch_threads)
        faiss.omp_set_num_threads(faiss_threads)
