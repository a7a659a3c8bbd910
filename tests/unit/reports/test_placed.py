from contextlib import ExitStack

import pytest
from made import answer, document, request

from rerank_cli.errors import InputError
from rerank_cli.formats import InputOptions, open_source
from rerank_cli.formats.runs.rank_comparison import compare_ranks
from rerank_cli.formats.runs.run_file import RunFile


@pytest.fixture
def placed(lines):
    def placed(answers, requests=None):
        with ExitStack() as stack:
            source = open_source(InputOptions((lines("in.jsonl", requests),))) if requests else None
            file = RunFile(lines("out.jsonl", answers))
            stack.callback(file.close)
            if source:
                stack.callback(source.close)
            return list(compare_ranks(file, source))

    return placed


def first_ranks(query):
    return [place.first_rank for place in query.results]


def test_the_first_order_is_that_of_the_input(placed):
    (query,) = placed([answer("a", [2, 0, 1])])
    assert first_ranks(query) == [3, 1, 2]
    assert [result.id for result in query.before] == ["d0", "d1", "d2"]


def test_of_an_output_that_was_cut_ranks_are_known_but_not_the_whole_order(placed):
    (query,) = placed([answer("a", [4, 1])])
    assert first_ranks(query) == [5, 2]
    assert query.before is None


def test_the_input_gives_the_whole_order_and_the_texts(placed):
    (query,) = placed([answer("a", [4, 1], documents=False)], [request("a")])
    assert (query.query, [result.id for result in query.before]) == ("query a", ["d0", "d1", "d2", "d3", "d4"])
    assert (query.results[0].result.title, query.results[0].result.text) == ("Title 4", "Text 4")


@pytest.mark.parametrize(
    ("scores", "ranks"),
    [([1, 3, 2], [2, 3, 1]), ([3, 2, 1], [3, 1, 2]), ([0.1, 0.2, 0.3], [3, 1, 2]), ([None, 3, 2], [3, 1, 2])],
)
def test_scores_of_a_list_in_no_order_are_the_first_order(placed, scores, ranks):
    given = {"id": "a", "query": "q", "documents": [document(i, score=score) for i, score in enumerate(scores)]}
    (query,) = placed([answer("a", [2, 0, 1])], [given])
    assert first_ranks(query) == ranks


def test_rows_without_an_index_are_ordered_by_their_first_scores(placed):
    rows = [{"query_id": "a", "docid": f"d{i}", "score": i, "relevance_score": 0.5 - i / 10} for i in range(3)]
    (query,) = placed(rows)
    assert first_ranks(query) == [3, 2, 1]


def test_rows_without_an_index_are_found_in_the_input_by_id(placed):
    rows = [{"query_id": "a", "docid": f"d{i}", "relevance_score": i / 10} for i in (3, 1)]
    (query,) = placed(rows, [request("x"), request("a")])
    assert first_ranks(query) == [4, 2]
    (unknown,) = placed(rows)
    assert (first_ranks(unknown), unknown.before) == ([None, None], None)


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ([request("b")], "got query `a`, which the input does not hold"),
        ([request("a", count=2)], "got candidate `d4` of query `a`"),
    ],
)
def test_an_input_of_another_run_is_one_line(placed, requests, message):
    with pytest.raises(InputError) as caught:
        placed([answer("a", [4])], requests)
    assert message in str(caught.value)
    assert "Fix: --input" in str(caught.value)


def test_rows_without_ids_are_found_in_the_input_by_their_texts(placed):
    given = [{"query": "q", "title": title, "text": text} for title, text in [("A", "x"), ("", "y"), ("B", "x")]]
    rows = [
        {**given[i], "relevance_score": score, "rank": rank}
        for i, score, rank in [(2, 0.9, 1), (0, 0.5, 2), (1, 0.1, 3)]
    ]
    (alone,) = placed(rows)
    assert [place.result.id for place in alone.results] == ["#1", "#2", "#3"]
    assert [alone.scores[name] for name in ("#1", "#2", "#3")] == sorted(alone.scores.values(), reverse=True)
    (query,) = placed(rows, given)
    assert first_ranks(query) == [3, 1, 2]
    with pytest.raises(InputError, match="was not made from this input"):
        placed([{**rows[0], "text": "z"}], given)
