import threading
import time

import pytest

from rerank_cli.run.threads import Ahead, Behind


def test_items_worked_ahead_come_in_order():
    assert list(Ahead(range(100), depth=3)) == list(range(100))


def test_an_error_in_the_stage_comes_out_after_the_items_before_it():
    def stage():
        yield 1
        raise ValueError("broken")

    found = []
    with pytest.raises(ValueError, match="broken"):
        for item in Ahead(stage()):
            found.append(item)
    assert found == [1]


def test_no_more_is_worked_ahead_than_asked_for():
    made = []
    ahead = Ahead((made.append(i) or i for i in range(50)), depth=2)
    time.sleep(0.3)
    assert len(made) <= 4
    assert list(ahead) == list(range(50))


def test_iteration_ends_when_asked_even_while_the_input_hangs():
    never = threading.Event()
    stop = threading.Event()
    ahead = Ahead((never.wait() for _ in range(1)), until=stop.is_set)
    threading.Timer(0.2, stop.set).start()
    assert list(ahead) == []
    never.set()


def test_closing_ends_the_thread():
    ahead = Ahead(iter(int, 1))
    ahead.close()
    assert not ahead._thread.is_alive()


def test_everything_put_is_consumed_in_order_before_close_returns():
    done = []
    behind = Behind(done.append)
    for item in range(20):
        behind.put(item)
    behind.close()
    assert done == list(range(20))


def test_an_error_of_the_consumer_is_raised_and_nothing_is_consumed_after_it():
    done = []

    def consume(item):
        if item == 2:
            raise OSError("full")
        done.append(item)

    behind = Behind(consume, depth=10)
    for item in range(2):
        behind.put(item)
    with pytest.raises(OSError, match="full"):
        for item in range(2, 1000):
            behind.put(item)
            time.sleep(0.001)
    with pytest.raises(OSError, match="full"):
        behind.close()
    assert done == [0, 1]
    assert behind.failed
