import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.engine.rows.plan import pack_causal, plan_shared
from rerank_cli.models.packed_row import TokenRow
from rerank_cli.models.prompts.pairs import PairTemplate

PREFIX, MIDDLE, SUFFIX = (np.array(ids, np.int32) for ids in ([1], [2, 2], [3, 3, 3]))
TEMPLATE = PairTemplate(PREFIX, MIDDLE, SUFFIX)
groups = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=14)


def query_of(group):
    return np.arange(100 * (group + 1), 100 * (group + 1) + 2 * group + 1, dtype=np.int32)


def sequences(found):
    return [
        (query_of(group), np.arange(1000 + 10 * n, 1000 + 10 * n + length)) for n, (group, length) in enumerate(found)
    ]


def whole(query, passage):
    return [*PREFIX, *query, *MIDDLE, *passage, *SUFFIX]


def read_back(row):
    """Every scored sequence as the ids that a causal model has before it, in order."""
    alone = row.unshared()
    return [
        alone.ids[start : start + length].tolist() for start, length in zip(alone.starts, alone.lengths, strict=True)
    ]


@given(groups)
def test_a_shared_row_holds_every_sequence_whole(found):
    found = sorted(found)
    row = pack_causal(sequences(found), TEMPLATE, np.array([group for group, _ in found]))
    expected = [whole(query, passage) for query, passage in sequences(found)]
    assert read_back(row) == expected
    assert row.sequences == len(found)
    assert row.sequence_lengths.tolist() == [len(ids) for ids in expected]
    assert row.tokens == row.lengths.sum()


@given(groups)
def test_a_beginning_is_there_once_and_positions_go_on_from_it(found):
    found = sorted(found)
    numbers = [group for group, _ in found]
    row = pack_causal(sequences(found), TEMPLATE, np.array(numbers))
    for group in set(numbers):
        assert row.ids.tolist().count(query_of(group)[0]) == 1
    for segment in row.scored:
        start, length = row.starts[segment], row.lengths[segment]
        first = row.prefixes[segment]
        assert row.positions[start : start + length].tolist() == list(range(first, first + length))


@given(groups, st.data())
def test_any_part_of_a_row_is_a_row_of_those_sequences(found, data):
    found = sorted(found)
    row = pack_causal(sequences(found), TEMPLATE, np.array([group for group, _ in found]))
    chosen = data.draw(st.lists(st.integers(0, len(found) - 1), min_size=1, unique=True))
    everything = read_back(row)
    part = row.take(np.array(sorted(chosen)))
    assert read_back(part) == [everything[number] for number in sorted(chosen)]
    assert part.tokens <= row.tokens


@given(groups)
def test_runs_name_every_scored_sequence_and_what_it_begins_with(found):
    found = sorted(found)
    row = pack_causal(sequences(found), TEMPLATE, np.array([group for group, _ in found]))
    numbers = []
    for run in row.runs():
        if run.sequence is None:
            continue
        for place in range(run.count):
            number = run.sequence + place
            numbers.append(number)
            own = row.ids[run.token + place * run.length : run.token + (place + 1) * run.length].tolist()
            before = [] if run.before is None else row.ids[run.before[0] : sum(run.before)].tolist()
            assert before + own == read_back(row)[number]
    assert numbers == list(range(row.sequences))


@given(groups)
def test_passages_lie_where_the_row_says(found):
    found = sorted(found)
    row = pack_causal(sequences(found), TEMPLATE, np.array([group for group, _ in found]))
    for number, segment in enumerate(row.scored):
        start = row.starts[segment] + row.passage_at[segment]
        end = row.starts[segment] + row.lengths[segment] - row.closing
        assert row.ids[start:end].tolist() == sequences(found)[number][1].tolist()


lengths = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 90)), min_size=1, max_size=60)


@given(lengths, st.integers(1, 400))
def test_a_plan_holds_every_pair_once_and_keeps_to_the_budget(found, budget):
    number = np.array([group for group, _ in found])
    beginnings = 5 + number
    total = beginnings + np.array([own for _, own in found])
    rows = plan_shared(total, number, beginnings, budget)
    assert sorted(np.concatenate(rows).tolist()) == list(range(len(found)))
    for row in rows:
        cost = total[row].sum() - sum(
            (np.count_nonzero(number[row] == g) - 1) * (5 + g) for g in set(number[row].tolist())
        )
        assert cost <= budget or len(row) == 1
        assert len(np.flatnonzero(np.diff(number[row]))) == len(set(number[row].tolist())) - 1


def test_no_pairs_make_no_rows():
    nothing = np.array([], dtype=np.int64)
    assert plan_shared(nothing, nothing, nothing, 100) == []


@pytest.mark.parametrize(("tokens", "extra"), [(12, []), (13, [1]), (22, [5, 5]), (24, [5, 5, 2])])
@pytest.mark.parametrize("parents", [None, np.array([-1, 0, 0])])
def test_a_row_is_filled_with_sequences_of_zeros_behind_those_that_are_scored(tokens, extra, parents):
    ids, lengths = np.arange(1, 13, dtype=np.int32), np.array([6, 3, 3])
    row = TokenRow(ids, np.ones_like(ids), lengths, parents, None if parents is None else np.array([6, 0, 0]))
    filled = row.filled(tokens, 5)
    assert filled.tokens == tokens
    assert filled.lengths.tolist() == [6, 3, 3, *extra]
    assert filled.ids.tolist() == [*range(1, 13), *[0] * (tokens - 12)]
    assert filled.scored[: row.sequences].tolist() == row.scored.tolist()
    assert filled.positions[:12].tolist() == row.positions.tolist()
    assert filled.sequence_lengths[row.sequences :].tolist() == extra
