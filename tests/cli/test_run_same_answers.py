"""The same input gives the same answers, however the work is cut."""

import random

import pytest
from shell import PANDA, run_tiny, write_lines

WORDS = f"{PANDA} Paris is the capital of France".split()


@pytest.fixture(scope="module")
def requests(tmp_path_factory):
    chance = random.Random(7)

    def text(longest):
        return " ".join(chance.choices(WORDS, k=chance.randint(3, longest)))

    records = [
        {"id": i, "query": text(8), "documents": [text(60) for _ in range(chance.randint(1, 9))]} for i in range(12)
    ]
    return write_lines(tmp_path_factory.mktemp("same") / "requests.jsonl", records)


@pytest.fixture(scope="module")
def usual(requests):
    return run_tiny(requests)


def test_two_runs_of_one_command_write_the_same_bytes(requests, usual):
    assert usual.out
    assert run_tiny(requests).out == usual.out


@pytest.mark.parametrize("flag", ["--chunk-pairs=1", "--batch-tokens=48", "--threads=1"])
def test_order_and_scores_do_not_depend_on_how_the_work_is_cut(requests, usual, flag):
    for answer, expected in zip(run_tiny(requests, flag).records, usual.records, strict=True):
        assert answer["id"] == expected["id"]
        assert answer["usage"] == expected["usage"]
        assert [r["index"] for r in answer["results"]] == [r["index"] for r in expected["results"]]
        scores = [result["relevance_score"] for result in answer["results"]]
        assert scores == pytest.approx([result["relevance_score"] for result in expected["results"]], abs=1e-5)


def test_equal_documents_score_equal_even_where_a_request_is_larger_than_a_chunk(tmp_path):
    documents = ["panda bear", *(" ".join(WORDS[:length]) for length in range(3, 12)), "panda bear", "panda bear"]
    path = write_lines(tmp_path / "twins.jsonl", [{"query": "panda", "documents": documents}])
    (answer,) = run_tiny(path, "--scores", "raw", "--chunk-pairs", "1").records
    twins = [result for result in answer["results"] if result["document"]["text"] == "panda bear"]
    assert len({result["relevance_score"] for result in twins}) == 1
    assert [result["index"] for result in twins] == [0, 10, 11]
