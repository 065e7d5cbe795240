"""The one place that sets threads, and checks of what the work runs with.

torch, faiss, numpy and pycolmap each bring a pool of their own; left alone they each take every
core and, running together, slow one another down. What the environment (``OMP_NUM_THREADS``,
``OPENBLAS_NUM_THREADS``, ``MKL_NUM_THREADS``) tells them must not decide a result.
"""

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

from .errors import InputError
from .libraries import faiss, torch

T = TypeVar("T")
R = TypeVar("R")

MAX_THREADS = 1024  # more is a mistake, and the pools fail in ways of their own

SHARES = 2  # of work for each thread: one that was interrupted leaves some to others

_num_threads = os.cpu_count() or 1


def set_num_threads(count: int | None) -> int:
    """Let torch and faiss use ``count`` threads (all cores where None); returns the number.

    Raises:
        InputError: ``count`` is below 1 or above ``MAX_THREADS``.
    """
    global _num_threads
    if count is None:
        # Not on every platform; it counts the cores that this process may use.
        affinity = getattr(os, "sched_getaffinity", None)
        count = len(affinity(0)) if affinity else os.cpu_count() or 1
    if not 1 <= count <= MAX_THREADS:
        raise InputError(f"--threads {count}: expected 1 to {MAX_THREADS}")
    _num_threads = count
    _set_torch_threads(_num_threads)
    _set_faiss_threads(_num_threads)
    return _num_threads


def _torch_threads() -> int:
    if torch is not None:
        return torch.get_num_threads()
    return 1 if _depth else _num_threads


def _set_torch_threads(count: int) -> None:
    if torch is not None:
        torch.set_num_threads(count)


def _faiss_threads() -> int:
    return 1 if faiss is None else faiss.omp_get_max_threads()


def _set_faiss_threads(count: int) -> None:
    if faiss is not None:
        faiss.omp_set_num_threads(count)


def get_num_threads() -> int:
    """The number of threads that the package may use."""
    return _num_threads


class _Local(threading.local):
    """What a thread knows of the work around it."""

    is_worker = False  # of a pool
    pool: ThreadPoolExecutor | None = None  # that it shares its work with
    size = 1  # of that pool


_local = _Local()
_lock = threading.Lock()
_depth = 0  # blocks of ``single_threaded`` that threads are in
_before = 1  # torch's threads outside of them
_products = contextlib.ExitStack()  # holds the pools of BLAS to one thread
_product_depth = 0  # blocks of ``steady_products`` that threads are in


@functools.cache
def _blas_pools() -> ThreadpoolController:
    # Once: finding them looks through all loaded libraries. numpy's is among them.
    return ThreadpoolController().select(user_api="blas")


@contextlib.contextmanager
def steady_products() -> Iterator[None]:
    """Let numpy's BLAS use one thread inside the block; also a decorator.

    It divides products and decompositions by as many threads as the environment names, whatever
    ``set_num_threads`` was told, and with each number it rounds otherwise. All work whose result
    is kept belongs into such a block. Blocks may be nested, and several threads be in one; where
    the last to leave is not the first that came, threadpoolctl leaves the limit in place. faiss's
    own BLAS has as many threads as faiss; where it decides, the block is ``single_threaded``.
    """
    global _product_depth
    with _lock:
        if _product_depth == 0:
            with _kept_faiss_threads():
                _products.enter_context(_blas_pools().limit(limits=1))
        _product_depth += 1
    try:
        yield
    finally:
        with _lock:
            _product_depth -= 1
            if _product_depth == 0:
                with _kept_faiss_threads():
                    _products.close()


@contextlib.contextmanager
def _kept_faiss_threads() -> Iterator[None]:
    # faiss's BLAS, which is found too, would pass what it is told on to faiss's loops.
    threads = _faiss_threads()
    yield
    _set_faiss_threads(threads)


@contextlib.contextmanager
def single_threaded() -> Iterator[None]:
    """Let torch, faiss and BLAS use the calling thread only, inside the block.

    For work that is itself spread over threads, a whole query each. And for forked processes: they
    inherit OpenMP pools whose threads do not exist in them, and hang in the first parallel region.
    With one thread no pool is entered. Threads may be in such blocks at the same time.
    """
    global _depth, _before
    faiss_threads = _faiss_threads()
    with _lock:
        if _depth == 0:
            _before = _torch_threads()
        own = _torch_threads() if _local.is_worker or _depth == 0 else _before
        _depth += 1
        _set_torch_threads(1)
    _set_faiss_threads(1)
    try:
        with steady_products():
            yield
    finally:
        _set_faiss_threads(faiss_threads)
        with _lock:
            _depth -= 1
            _set_torch_threads(own)  # of this thread, of new ones and of MKL
            others = 1 if _depth else _before
            if others != own:  # the latter two alone
                aside = threading.Thread(target=_set_torch_threads, args=(others,))
                aside.start()
                aside.join()


def _begin_worker() -> None:
    # What OpenMP was told in one thread does not hold in others.
    _set_faiss_threads(1)
    _local.is_worker = True


@contextlib.contextmanager
def workers(count: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of ``count`` threads; in each, and in the calling one, torch and faiss use it only."""
    with single_threaded(), ThreadPoolExecutor(count, initializer=_begin_worker) as pool:
        yield pool


@contextlib.contextmanager
def team() -> Iterator[None]:
    """One pool for all that is spread inside the block; everything else runs on this thread.

    OpenMP's threads wait for one another after every step, and lose much where the cores have other
    work; a pool's do not.
    """
    count = num_workers()
    if count == 1 or _local.pool is not None:
        yield
        return
    with workers(count) as pool:
        _local.pool, _local.size = pool, count
        try:
            yield
        finally:
            _local.pool, _local.size = None, 1


def num_workers() -> int:
    """Threads that ``spread`` has here: 1 within work that is already spread."""
    if _local.pool is not None:
        return _local.size
    return 1 if _local.is_worker else _torch_threads()


def spread(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """``work`` of each item, in order, on as many threads as torch may use here.

    Each thread computes on its own: what comes out does not depend on their number where the items
    do not.
    """
    if num_workers() == 1:
        return [work(item) for item in items]
    if len(items) <= 1:
        with single_threaded():
            return [work(item) for item in items]
    with team():
        assert _local.pool is not None
        return list(_local.pool.map(work, items))


def spread_rows(work: Callable[[slice], None], count: int, step: int) -> None:
    """``work`` of each ``step`` of ``count`` rows; each thread takes runs of them."""
    starts = range(0, count, step)
    share = max(1, -(-len(starts) // (SHARES * num_workers())))

    def run(part: range) -> None:
        for start in part:
            work(slice(start, min(start + step, count)))

    spread(run, [starts[k : k + share] for k in range(0, len(starts), share)])


def check_device(name: str) -> Any:
    """The torch device called ``name``; None for 'cpu' where torch is not installed.

    Raises:
        InputError: torch knows no such device, or this machine has none.
    """
    if torch is None:
        if name != "cpu":
            raise InputError(f"--device {name}: needs torch, which is not installed")
        return None
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first_line = str(error).splitlines()[0][:120]
        raise InputError(f"--device {name}: cannot be used ({first_line})") from error
    return device


def check_seed(seed: int) -> None:
    """Check that every library takes ``seed``.

    Raises:
        InputError: it is negative or has more than 31 bits.
    """
    if not 0 <= seed < 2**31 - 1:
        raise InputError(f"--seed {seed}: expected 0 to {2**31 - 2}")
