"""What stands in an answer: one run over a pipe, looked at from many sides."""

import math

import pytest
from shell import PANDA, TINY, Ended, run_tiny, write_lines

REQUESTS = [
    {"id": "a", "query": "what is panda?", "documents": ["hi", PANDA, "hi", "a bear"], "lang": "en"},
    {"id": 2, "query": "capital of France", "documents": ["Berlin", "Paris", "Rome"], "top_n": 1},
    {"query": "no id", "documents": [{"id": "d7", "text": "one", "url": "http://x"}, {"id": "d8", "text": "two"}]},
    {"id": 9007199254740993, "query": "big id", "documents": ["\u2028 line separator \r and return", "é 中文"]},
]


@pytest.fixture(scope="module")
def requests(tmp_path_factory):
    return write_lines(tmp_path_factory.mktemp("requests") / "requests.jsonl", REQUESTS)


@pytest.fixture(scope="module")
def ended(requests) -> Ended:
    with open(requests, "rb") as file:
        return run_tiny(stdin=file.read())


@pytest.fixture(scope="module")
def answers(ended):
    return ended.records


def test_a_good_run_ends_with_zero_and_not_a_byte_on_stderr(ended):
    assert (ended.code, ended.err) == (0, "")


def test_stdout_is_one_line_of_json_a_record(ended):
    assert len(ended.records) == len(REQUESTS)


def test_an_answer_has_the_fields_of_the_apis(answers):
    assert set(answers[1]) == {"id", "model", "usage", "results"}
    assert answers[1]["model"] == TINY
    assert set(answers[1]["usage"]) == {"total_tokens"}
    assert set(answers[1]["results"][0]) == {"index", "document", "relevance_score"}
    assert set(answers[1]["results"][0]["document"]) == {"text"}


def test_tokens_are_counted_over_all_pairs_of_a_request(answers):
    # [CLS] query [SEP] document [SEP]: at least five tokens a pair, and more for longer texts.
    assert answers[1]["usage"]["total_tokens"] >= 15
    assert answers[0]["usage"]["total_tokens"] > answers[1]["usage"]["total_tokens"]


def test_answers_come_in_the_order_of_their_requests_with_ids_unchanged(answers):
    assert [answer["id"] for answer in answers] == ["a", 2, "rerank-3", 9007199254740993]


def test_results_are_sorted_best_first(answers):
    for answer in answers:
        scores = [result["relevance_score"] for result in answer["results"]]
        assert scores == sorted(scores, reverse=True)


def test_an_index_names_the_document_it_stands_with(answers):
    given = REQUESTS[0]["documents"]
    found = {result["index"]: result["document"]["text"] for result in answers[0]["results"]}
    assert found == dict(enumerate(given))


def test_equal_documents_score_equal_and_stand_in_input_order(answers):
    twins = [result for result in answers[0]["results"] if result["document"]["text"] == "hi"]
    assert [result["index"] for result in twins] == [0, 2]
    assert twins[0]["relevance_score"] == twins[1]["relevance_score"]


def test_a_records_own_top_n_cuts_its_results(answers):
    assert len(answers[1]["results"]) == 1


def test_a_field_that_is_not_ours_is_carried_through(answers):
    assert answers[0]["lang"] == "en"


def test_an_object_comes_back_as_it_was_given(answers):
    found = {result["index"]: result["document"] for result in answers[2]["results"]}
    assert found == dict(enumerate(REQUESTS[2]["documents"]))


def test_strange_line_ends_inside_a_text_do_not_split_a_record(answers):
    found = {result["index"]: result["document"]["text"] for result in answers[3]["results"]}
    assert found == dict(enumerate(REQUESTS[3]["documents"]))


def test_both_scores_agree_with_one_another_and_with_the_default(requests, answers):
    both = run_tiny(requests, "--scores", "both").records
    for answer, usual in zip(both, answers, strict=True):
        for result, expected in zip(answer["results"], usual["results"], strict=True):
            assert result["relevance_score"] == expected["relevance_score"]
            assert math.isclose(result["relevance_score"], 1 / (1 + math.exp(-result["logit"])), rel_tol=1e-6)


def test_raw_scores_without_documents_are_logits_beside_index_and_id(requests, answers):
    raw = run_tiny(requests, "--scores", "raw", "--no-documents", "--limit", "3").records
    assert [set(answer["results"][0]) for answer in raw] == [
        {"index", "relevance_score"},
        {"index", "relevance_score"},
        {"index", "id", "relevance_score"},
    ]
    for answer, usual in zip(raw, answers, strict=False):
        for result, expected in zip(answer["results"], usual["results"], strict=True):
            assert result["index"] == expected["index"]
            sigmoid = 1 / (1 + math.exp(-result["relevance_score"]))
            assert math.isclose(sigmoid, expected["relevance_score"], rel_tol=1e-6)


def test_limit_and_top_n_cut_records_and_results(requests):
    cut = run_tiny(requests, "--limit", "2", "--top-n", "2").records
    assert [len(answer["results"]) for answer in cut] == [2, 1]
