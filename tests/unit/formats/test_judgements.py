"""Relevance judgements, and the best of a baseline run."""

import pytest

from rerank_cli.errors import InputError
from rerank_cli.formats.runs.qrels import read_qrels
from rerank_cli.formats.runs.results import trec_order
from rerank_cli.formats.runs.run_file import best_of_run

EXPECTED = {"1": {"d1": 2, "d2": 0}, "q": {"7": 1}}


@pytest.mark.parametrize(
    "content",
    [
        b"1 0 d1 2\n1 0 d2 0\nq 0 7 1\n",
        b"1\t0\td1\t2\n1\t0\td2\t0\nq\t0\t7\t1\n",
        b"query-id\tcorpus-id\tscore\n1\td1\t2\n1\td2\t0\nq\t7\t1\n",
        b'{"qid": 1, "docid": "d1", "relevance": 2}\n{"qid": 1, "docid": "d2", "relevance": 0}\n'
        b'{"query-id": "q", "corpus-id": 7, "score": 1}\n',
    ],
)
def test_judgements_are_read_in_every_form(write, content):
    assert read_qrels(write(content)) == EXPECTED


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1 0 d1 2\n1 0 d2\n1 0\n", ":2: not a relevance judgement"),
        (b"1 0 d1 x\n2 0 d1 y\n", ":1: the relevance is not a whole number"),
        (b"query-id\tcorpus-id\tscore\n", "judgements"),
        (b'{"qid": 1}\n', ":1: not a relevance judgement"),
        (b'{"qid": 1, "docid": 2, "relevance": []}\n', ":1: the relevance is not a whole number"),
        (b'{"qid"\n', ":1: "),
    ],
)
def test_what_is_no_judgement_is_one_line(write, content, message):
    with pytest.raises(InputError) as caught:
        read_qrels(write(content))
    assert message in str(caught.value)


def test_the_best_of_a_run_are_those_with_the_highest_scores_whatever_the_order(write):
    run = b"a Q0 d1 1 0.5 t\nb Q0 d9 1 1 t\na Q0 d2 2 0.7 t\na Q0 d3 3 0.7 t\na Q0 d4 4 0.1 t\n"
    assert best_of_run(write(run), 3) == {"a": {"d1": 0.5, "d2": 0.7, "d3": 0.7}, "b": {"d9": 1}}


def test_the_best_of_a_run_of_equal_scores_are_few_and_first_both_ways(write):
    run = "".join(f"a Q0 d{n:03} 1 1 t\n" for n in range(500)).encode()
    assert list(best_of_run(write(run), 2)["a"]) == ["d000", "d001", "d498", "d499"]


@pytest.mark.parametrize(
    ("run", "order"),
    [
        (b"a d3 1\na d1 2\na d2 3\n", ["d3", "d1", "d2"]),
        (b"query_id\tdocid\na\td2\na\td1\n", ["d2", "d1"]),
        (b"query_id\tdocid\tscore\na\td2\t1\na\td1\t2\n", ["d1", "d2"]),
        (b'{"id":"a","results":[{"index":0,"id":"d2"},{"index":1,"id":"d1"}]}\n', ["d2", "d1"]),
    ],
)
def test_the_best_of_a_run_follow_the_order_it_states(write, run, order):
    assert trec_order(best_of_run(write(run), 3)["a"]) == order


def test_what_is_no_run_is_one_line(write):
    with pytest.raises(InputError, match=":1: the score is not a number \\(got high"):
        best_of_run(write(b"a Q0 d1 1 high t\n"), 3)
