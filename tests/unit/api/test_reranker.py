"""`Reranker` on tiny checkpoints: results, refusals, threads, and what it leaves alone in the process."""

import gc
import logging as standard_logging
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from processes import TINY, environment

from rerank_cli import RankedDocument, Reranker
from rerank_cli.errors import BadRecord, ModelError, UsageError

PANDA = "The giant panda is a bear that lives in China and eats bamboo."
DOCUMENTS = ["hi", PANDA, "Paris is the capital of France.", "", "hi"]


@pytest.fixture(scope="module")
def tiny():
    with Reranker(TINY, device="cpu") as reranker:
        yield reranker


def test_scores_are_float32_in_the_order_of_the_pairs(tiny):
    pairs = [("what is a panda?", "hi"), ("what is a panda?", PANDA), ("capital", "Paris"), ("what is a panda?", "hi")]
    found, raw = tiny.score(pairs), tiny.score(pairs, scores="raw")
    assert (found.dtype, found.shape) == (np.float32, (4,))
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-raw.astype(np.float64))), rtol=1e-6)
    assert abs(found[0] - found[3]) < 1e-6
    one = tiny.score([list(pairs[1])])
    assert abs(one[0] - found[1]) < 1e-6
    assert tiny.score([]).shape == (0,)
    np.testing.assert_array_equal(tiny.score(np.array(pairs)), found)


def test_documents_are_ranked_best_first_and_ties_keep_their_order(tiny):
    ranked = tiny.rank("what is a panda?", DOCUMENTS)
    assert sorted(one.index for one in ranked) == [0, 1, 2, 3, 4]
    assert [one.logit for one in ranked] == sorted((one.logit for one in ranked), reverse=True)
    order = [one.index for one in ranked]
    assert order.index(0) + 1 == order.index(4)
    assert all(one.document == DOCUMENTS[one.index] for one in ranked)
    assert tiny.rank("what is a panda?", DOCUMENTS, top_n=2) == ranked[:2]
    raw = tiny.score([("what is a panda?", text) for text in DOCUMENTS], scores="raw")
    assert [one.logit for one in ranked] == [float(str(raw[one.index])) for one in ranked]


def test_a_document_may_be_an_object_with_a_title_and_is_returned_as_it_came(tiny):
    document = {"id": 7, "title": "Panda", "text": "A bear.", "source": "zoo"}
    (found,) = tiny.rank("panda", [document])
    assert found.document == document
    assert found.logit == tiny.rank("panda", ["Panda A bear."])[0].logit
    assert tiny.rank("panda", (text for text in np.array(["a", "b"])), top_n=1)[0].document in ("a", "b")


def test_no_documents_are_an_empty_ranking(tiny):
    assert tiny.rank("panda", []) == []
    assert list(tiny.rank_many([])) == []
    assert [len(found) for found in tiny.rank_many([("a", ["b"]), ("a", []), ("a", ["b", "c"])])] == [1, 0, 2]


def test_long_documents_name_the_passage_and_truncation_is_marked():
    long = "bamboo " * 200 + PANDA
    with Reranker(TINY, device="cpu", max_length=64, long_documents="max") as reranker:
        whole, short = sorted(reranker.rank("giant panda", [long, "hi"]), key=lambda one: one.index)
    assert (short.passage, short.truncated) == ((0, 2), False)
    assert 0 <= whole.passage[0] < whole.passage[1] <= len(long)
    with Reranker(TINY, device="cpu", max_length=64) as reranker:
        assert [one.truncated for one in sorted(reranker.rank("q", [long, "hi"]), key=lambda one: one.index)] == [
            True,
            False,
        ]


def test_requests_are_read_in_the_callers_thread_and_no_more_than_a_chunk_ahead(tiny):
    taken, threads = [], set()

    def requests():
        for number in range(40):
            taken.append(number)
            threads.add(threading.get_ident())
            yield f"query {number}", [f"text {n}" for n in range(100)]

    found = tiny.rank_many(requests())
    assert taken == []
    assert len(next(found)) == 100
    assert len(taken) < 40
    assert sum(1 for _ in found) == 39
    assert threads == {threading.get_ident()}


def test_a_request_may_be_an_object_with_its_own_options(tiny):
    asked = [
        {"query": "panda", "documents": ["a", "b", "c"], "top_n": 1},
        {"query": "panda", "documents": ["a", "b", "c"]},
        {"query": "panda", "documents": [{"text": "a b c d e f"}], "max_tokens_per_doc": 2},
    ]
    one, two, cut = tiny.rank_many(asked, top_n=2)
    assert (len(one), len(two)) == (1, 2)
    assert cut[0].truncated


@pytest.mark.parametrize(
    ("ask", "code", "message"),
    [
        (lambda r: r.rank(" ", ["a"]), "empty_query", "`query` is empty"),
        (lambda r: r.rank("q", "text"), "bad_documents", "`documents` is not a list (got a string)"),
        (lambda r: r.rank("q", ["a", None]), "null_text", "document 1 is null (expected a string or an object)"),
        (lambda r: r.rank("q", [{"name": "x"}]), "missing_text", "document 0: there is no text"),
        (lambda r: r.rank("q", ["a", "\ud800"]), "bad_utf8", "document 1: not valid Unicode"),
        (lambda r: list(r.rank_many([("q", ["a"]), ("", ["b"])])), "empty_query", "request 2: `query` is empty"),
        (lambda r: r.score([("q", "a"), ("", "b")]), "empty_query", "pair 1: the query is empty"),
        (lambda r: r.score(("ab", "cd")), "bad_pair", "pair 0 is a string (expected a query and a passage)"),
        (lambda r: r.score([("a", "b", "c")]), "bad_pair", "pair 0 is 3 items (expected a query and a passage)"),
        (lambda r: r.score([("a", None)]), "bad_text", "pair 0: expected two strings (got null)"),
        (lambda r: r.score([("a", "\udfff")]), "bad_utf8", "pair 0: not valid Unicode"),
    ],
)
def test_what_cannot_be_scored_is_a_bad_record_that_names_its_place(tiny, ask, code, message):
    with pytest.raises(BadRecord) as caught:
        ask(tiny)
    assert caught.value.code == code
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_length": 0}, "max_length=0: expected a whole number from 1"),
        ({"max_length": 9000}, "max_length 9000: this model has"),
        ({"device": "cuda:99"}, "device cuda:99: "),
        ({"dtype": "half"}, "dtype='half': expected auto, fp32, fp16 or bf16"),
        ({"stride": 3}, "stride needs long_documents max, first or mean-top3"),
        ({"cutoff_layers": (1,)}, "cutoff_layers: "),
    ],
)
def test_settings_that_do_not_work_are_usage_errors_that_name_the_keyword(settings, message):
    with pytest.raises(UsageError) as caught:
        Reranker(TINY, **settings)
    assert str(caught.value).startswith(message)


def test_a_model_that_is_not_there_is_a_model_error():
    with pytest.raises(ModelError, match="no such model folder"):
        Reranker("./nothing/here")


def test_another_kind_of_scores_is_refused(tiny):
    with pytest.raises(UsageError, match="scores='both': expected sigmoid or raw"):
        tiny.score([("a", "b")], scores="both")


def test_threads_get_the_scores_that_one_thread_gets(tiny):
    requests = [(f"query {n}", [f"{word} {n}" * (1 + n % 7) for word in ("panda", "bear", "Paris")]) for n in range(60)]
    alone = [tiny.rank(*request) for request in requests]
    pairs = [(query, text) for query, texts in requests for text in texts]
    scored = tiny.score(pairs)
    with ThreadPoolExecutor(8) as pool:
        ranked = [pool.submit(tiny.rank, *request) for request in requests]
        many = [pool.submit(lambda: list(tiny.rank_many(requests))) for _ in range(2)]
        scores = [pool.submit(tiny.score, pairs) for _ in range(4)]
        assert [one.result() for one in ranked] == alone
        for one in scores:
            np.testing.assert_array_equal(one.result(), scored)
        for one in many:
            assert [[document.index for document in found] for found in one.result()] == [
                [document.index for document in found] for found in alone
            ]


def test_a_closed_reranker_says_so():
    reranker = Reranker(TINY, device="cpu")
    assert repr(reranker) == f"<Reranker {TINY} on cpu in fp32>"
    reranker.close()
    reranker.close()
    with pytest.raises(UsageError, match="this Reranker is closed"):
        reranker.rank("a", ["b"])
    assert repr(reranker) == f"<Reranker {TINY}, closed>"


def test_a_reranker_of_the_parent_process_is_refused(tiny, monkeypatch):
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    with pytest.raises(UsageError, match=r"opened before a fork\. Fix: open a Reranker in each process"):
        tiny.rank("a", ["b"])


def test_a_pickled_reranker_loads_its_model_again():
    with Reranker(TINY, device="cpu", max_length=32) as reranker:
        data = pickle.dumps(reranker)
        expected = reranker.rank("panda", DOCUMENTS)
    assert len(data) < 2000
    with pickle.loads(data) as again:
        assert again.facts.max_length == 32
        assert again.rank("panda", DOCUMENTS) == expected


def test_facts_say_what_was_loaded(tiny):
    assert (tiny.facts.name, tiny.facts.device, tiny.facts.dtype) == (TINY, "cpu", "fp32")


def test_loading_leaves_the_process_as_it_was():
    from transformers.utils import logging

    logging.set_verbosity_warning()
    logging.enable_progress_bar()
    frozen, handlers = gc.get_freeze_count(), list(standard_logging.getLogger("rerank_cli").handlers)
    Reranker(TINY.replace("bert", "gemma"), device="cpu").close()  # of transformers' classes
    assert logging.get_verbosity() == logging.WARNING
    assert logging.is_progress_bar_enabled()
    assert gc.get_freeze_count() == frozen
    assert standard_logging.getLogger("rerank_cli").handlers == handlers


@pytest.mark.parametrize(
    "statement", ["import rerank_cli", "from rerank_cli import Reranker, run_file, RankedDocument"]
)
def test_importing_imports_nothing_heavy(statement):
    heavy = ["torch", "transformers", "pyarrow"] + ([] if "from" in statement else ["numpy", "typer"])
    code = f"import sys; {statement}; sys.exit(str([n for n in {heavy} if n in sys.modules] or ''))"
    ended = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False)
    assert ended.stderr == "\n"


def test_the_package_lists_its_names():
    import rerank_cli

    assert {"Reranker", "run_file", "RankedDocument"} <= set(dir(rerank_cli))
    assert rerank_cli.RankedDocument is RankedDocument
    with pytest.raises(AttributeError, match="has no attribute 'Rerankers'"):
        _ = rerank_cli.Rerankers
