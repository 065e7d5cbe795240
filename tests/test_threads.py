"""How many threads torch and faiss use, in and around work that is spread over threads."""

import threading

import faiss
import pytest
import torch
from threadpoolctl import ThreadpoolController, threadpool_limits

from hloc_dpqed.threads import (
    num_workers,
    set_num_threads,
    single_threaded,
    spread,
    spread_rows,
    steady_products,
    team,
)


@pytest.fixture(autouse=True)
def three_threads():
    before = torch.get_num_threads()
    set_num_threads(3)
    yield
    set_num_threads(before)


def told() -> tuple[int, int]:
    return torch.get_num_threads(), faiss.omp_get_max_threads()


def in_a_new_thread(work):
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


def test_each_worker_is_on_its_own():
    assert num_workers() == 3
    assert spread(lambda _: (*told(), num_workers()), range(6)) == [(1, 1, 1)] * 6
    nested = spread(lambda k: spread(lambda i: (k, i), range(3)), range(2))
    assert nested == [[(k, i) for i in range(3)] for k in range(2)]
    assert told() == (3, 3) and in_a_new_thread(torch.get_num_threads) == 3


def test_a_team_shares_one_pool():
    with team():
        assert told() == (1, 1) and num_workers() == 3
        names = {*spread(lambda _: threading.current_thread().name, range(50))}
        with team():
            names |= {*spread(lambda _: threading.current_thread().name, range(50))}
        assert len(names) <= 3 and threading.current_thread().name not in names
        assert num_workers() == 3
    assert told() == (3, 3) and num_workers() == 3


def test_an_error_reaches_the_caller_and_nothing_is_left():
    with pytest.raises(ZeroDivisionError):
        spread(lambda k: 1 // k, [1, 2, 0, 3])
    assert told() == (3, 3) and num_workers() == 3


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 100])
def test_rows_come_once_each(count):
    seen = torch.zeros(count, dtype=torch.int64)

    def work(rows: slice) -> None:
        assert rows.stop - rows.start <= 10
        seen[rows] += 1

    spread_rows(work, count, 10)
    assert (seen == 1).all()


def test_blocks_of_several_threads_may_overlap():
    entered, leave = threading.Event(), threading.Event()
    found = {}

    def other() -> None:
        with single_threaded():
            entered.set()
            leave.wait()
            found["inside"] = told()
        found["after"] = told()

    with single_threaded():
        thread = threading.Thread(target=other)
        thread.start()
        entered.wait()
    assert told() == (3, 3)
    assert in_a_new_thread(torch.get_num_threads) == 1  # the other is still inside
    leave.set()
    thread.join()
    assert found["inside"] == (1, 1) and found["after"][0] == 3
    assert told() == (3, 3) and in_a_new_thread(torch.get_num_threads) == 3


def blas() -> set[int]:
    """Threads of numpy's products."""
    pools = ThreadpoolController().select(user_api="blas").lib_controllers
    # Not faiss's: asked for its threads, it sets those of faiss.
    return {pool.num_threads for pool in pools if "faiss" not in pool.filepath}


@steady_products()
def decorated() -> set[int]:
    return blas()


def test_products_use_one_thread_inside_and_those_of_before_after():
    with threadpool_limits(2, "blas"):
        set_num_threads(3)  # faiss's were set along with its BLAS
        assert blas() == {2}
        with steady_products():
            assert blas() == {1} and told() == (3, 3)
            with steady_products():
                assert blas() == {1}
            with single_threaded():
                assert blas() == {1} and told() == (1, 1)
            assert blas() == {1} and told() == (3, 3)
        assert blas() == {2} and decorated() == {1} and blas() == {2}
        with pytest.raises(ZeroDivisionError), steady_products():
            assert blas() == {1}
            _ = 1 // 0
        assert blas() == {2}
        with single_threaded():
            assert blas() == {1}
        assert blas() == {2}
        assert set().union(*spread(lambda _: blas(), range(6))) == {1}
        assert blas() == {2}


@pytest.mark.parametrize("first", ["other", "own"])
def test_products_of_several_threads_may_overlap(first):
    """While any of them is inside, products keep to one thread."""
    entered, leave = threading.Event(), threading.Event()
    found = {}

    def other() -> None:
        with steady_products():
            entered.set()
            leave.wait()
            found["inside"] = blas()

    with threadpool_limits(2, "blas"):
        set_num_threads(3)  # faiss's were set along with its BLAS
        thread = threading.Thread(target=other)
        with steady_products():
            thread.start()
            entered.wait()
            if first == "other":
                leave.set()
                thread.join()
            inside = blas()
        after = blas()
        leave.set()
        thread.join()
        assert inside == found["inside"] == {1} and told() == (3, 3)
        assert after == ({2} if first == "other" else {1})


def test_a_single_item_is_computed_as_one_of_many():
    assert spread(lambda _: told(), range(1)) == [(1, 1)]
    seen = []
    spread_rows(lambda rows: seen.append(told()), 5, 10)
    assert seen == [(1, 1)] and told() == (3, 3)
