from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.records import Candidate, Position, Rejection, Request
from rerank_cli.run.chunks import ChunkCutter, InputHash


def record(number, size):
    position = Position("in", number + 1)
    if size == 0:
        return Rejection(position, "code", "message")
    return Request("query", (Candidate("text", "text"),) * size, position)


records = st.lists(st.integers(0, 30), max_size=40).map(lambda sizes: [record(i, s) for i, s in enumerate(sizes)])


@given(records, st.integers(1, 50))
def test_chunks_hold_every_record_once_and_in_order(records, size):
    assert [found for chunk in ChunkCutter(records, size, lambda: 0, InputHash()) for found in chunk.records] == records


@given(records, st.integers(1, 50))
def test_a_chunk_is_over_its_size_only_when_it_holds_one_record(records, size):
    for chunk in ChunkCutter(records, size, lambda: 0, InputHash()):
        assert chunk.pairs <= size or len(chunk.records) == 1


@given(records, st.integers(1, 50), st.integers(0, 40))
def test_boundaries_after_a_boundary_do_not_depend_on_what_came_before_it(records, size, skip):
    chunks = list(ChunkCutter(records, size, lambda: 0, InputHash()))
    skip = min(skip, len(chunks))
    done = sum(len(chunk.records) for chunk in chunks[:skip])
    again = ChunkCutter(records[done:], size, lambda: 0, InputHash())
    assert [chunk.records for chunk in again] == [chunk.records for chunk in chunks[skip:]]


def test_a_file_of_nothing_but_bad_records_is_cut_too():
    chunks = list(ChunkCutter([record(i, 0) for i in range(10)], 4, lambda: 0, InputHash()))
    assert [len(chunk.records) for chunk in chunks] == [4, 4, 2]
