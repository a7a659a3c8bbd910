import time

import numpy as np
import pytest

from rerank_cli.engine.results import PairScores
from rerank_cli.engine.rows.prepare import PairTexts
from rerank_cli.errors import InputError
from rerank_cli.records import Position, Rejection
from rerank_cli.run.chunks import Chunk, InputPosition
from rerank_cli.run.recovery.journal import Journal
from rerank_cli.run.scoring.workers.task_queue import TaskQueue
from rerank_cli.run.stages import Slice
from rerank_cli.run.threads import Ahead

SCORES = PairScores(np.zeros(0, np.float32), np.zeros(0, np.int64), np.zeros(0, bool), None, 0)


def parts(count, fails=False):
    for number in range(count):
        records = [Rejection(Position("in.jsonl", 2 * number + line), "bad", "is bad") for line in (1, 2)]
        yield Slice(Chunk(number, records, 0, 0, 0, InputPosition(f"{number:032x}")), PairTexts([], [], []), 0, True)
    if fails:
        raise InputError("torn")


def task_queue(slices, window=4):
    return TaskQueue(Ahead(slices), Journal(None, {}, lambda: 0), lambda: window)


def take(hand):
    """The next slice, once the thread that reads has it."""
    end = time.monotonic() + 10
    while not (found := hand.take()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def numbers(finished):
    return [part.chunk.number for part, _ in finished]


def test_slices_leave_in_order_whichever_is_scored_first():
    hand = task_queue(parts(3))
    tasks = [take(hand) for _ in range(3)]
    left = []
    for number in (2, 0, 1):
        tasks[number].scores = SCORES
        left.append(numbers(hand.finished()))
    assert left == [[], [0], [1, 2]]


def test_no_more_is_handed_out_than_the_window_holds():
    hand = task_queue(parts(10))
    first, *others = [take(hand) for _ in range(4)]
    for task in others:
        task.scores = SCORES
    assert numbers(hand.finished()) == []
    assert not hand.has_room
    assert hand.take() is None
    first.scores = SCORES
    assert numbers(hand.finished()) == [0, 1, 2, 3]
    assert hand.has_room
    assert take(hand).part.chunk.number == 4


def test_what_comes_back_goes_out_again_before_anything_new_though_the_window_is_full():
    hand = task_queue(parts(10))
    tasks = [take(hand) for _ in range(4)]
    hand.give_back(tasks[1:3])
    assert hand.has_room
    assert [hand.take(), hand.take(), hand.take()] == [tasks[1], tasks[2], None]
    assert hand.first is tasks[0]


def test_an_error_of_the_input_waits_for_the_slices_before_it():
    hand = task_queue(parts(2, fails=True))
    tasks = [take(hand), take(hand)]
    time.sleep(0.2)
    assert hand.take() is None
    assert not hand.over()
    for task in tasks:
        task.scores = SCORES
    assert numbers(hand.finished()) == [0, 1]
    with pytest.raises(InputError, match="torn"):
        hand.over()


def test_it_is_over_when_the_input_is_and_all_is_passed_on():
    hand = task_queue(parts(1))
    take(hand).scores = SCORES
    assert not hand.over()
    assert numbers(hand.finished()) == [0]
    time.sleep(0.2)
    assert hand.take() is None
    assert hand.over()


def test_the_place_of_a_slice_is_named_by_its_first_and_last_line():
    assert take(task_queue(parts(1))).place == "in.jsonl:1 to 2"
