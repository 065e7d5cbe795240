"""Streams of queries, several at a time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from ..threads import get_num_threads, single_threaded, workers

Q = TypeVar("Q")
R = TypeVar("R")


def several_at_a_time(work: Callable[[Q], R], queries: Iterable[Q]) -> Iterator[R]:
    """``work`` of each query, in order, a query to each thread and two a thread in memory."""
    count = get_num_threads()
    if count == 1:  # a thread of its own would have a heap of its own
        with single_threaded():
            yield from map(work, queries)
        return
    pending: deque[Future[R]] = deque()
    with workers(count) as pool:
        try:
            for query in queries:
                pending.append(pool.submit(work, query))
                if len(pending) >= 2 * count:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
