"""Options of a record in whole runs: they come before the flags, and one that cannot be followed rejects the record."""

from dataclasses import replace

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from instant import InstantSession, config, go, kill

from rerank_cli.choices import Fuse, Normalize, OnError, OutputFormat, Resume, ScoreKind
from rerank_cli.errors import InputError, RefusedError
from rerank_cli.formats import AnswerOptions
from rerank_cli.ranking import Fusion, sigmoid

DOCUMENTS = [{"id": f"d{n}", "text": f"document {n}", "score": 5 - n} for n in range(4)]


class Truncating(InstantSession):
    """Truncates the passages that begin with "long"."""

    def prepare(self, pairs):
        prepared = super().prepare(pairs)
        prepared.truncated[:] = [passage.startswith("long") for passage in pairs.passages]
        return prepared


@pytest.fixture
def answers(tmp_path):
    """The answers to requests with these options, one request each."""

    def answers(*options, name="out.jsonl", session=None, **settings):
        given = tmp_path / "in.jsonl"
        records = [{"id": n, "query": "a", "documents": DOCUMENTS} | more for n, more in enumerate(options)]
        given.write_bytes(b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records))
        summary, _ = go(config(given, tmp_path / name, overwrite=True, **settings), session)
        if name.endswith("parquet"):
            return pq.read_table(tmp_path / name).to_pylist()
        text = (tmp_path / name).read_bytes()
        return [orjson.loads(line) for line in text.splitlines()] if name == "out.jsonl" else text.decode(), summary

    return answers


def logits(answer):
    return [result["logit"] for result in answer["results"]]


def scores(answer):
    return [result["relevance_score"] for result in answer["results"]]


@pytest.mark.parametrize("kind", ScoreKind)
def test_raw_scores_come_before_the_flag(answers, kind):
    both, _ = answers({}, answers=AnswerOptions("m", ScoreKind.BOTH))
    plain, raw = sigmoid(np.array(logits(both[0]), np.float32)), np.array(logits(both[0]), np.float32)
    found, _ = answers({"raw_scores": True}, {"raw_scores": False}, {}, answers=AnswerOptions("m", kind))
    assert scores(found[0]) == pytest.approx(raw.tolist())
    assert scores(found[1]) == pytest.approx(plain.tolist())
    assert scores(found[2]) == pytest.approx((raw if kind is ScoreKind.RAW else plain).tolist())
    assert ("logit" in found[0]["results"][0]) == (kind is ScoreKind.BOTH)


def test_raw_scores_of_a_score_request_are_logits(answers):
    request = {"text_1": "a", "text_2": ["x", "y"]}
    options = {"answers": AnswerOptions("m", ScoreKind.BOTH)}
    found, _ = answers({"query": None, "documents": None, **request, "use_activation": False}, **options)
    assert [item["score"] for item in found[0]["data"]] == [item["logit"] for item in found[0]["data"]]


def test_raw_scores_are_those_of_a_run_file_of_a_minimum_and_of_a_mix(answers):
    runs = [answers({"raw_scores": raw}, name="out.trec", format=OutputFormat.TREC)[0] for raw in (True, False)]
    written = [[float(line.split()[4]) for line in text.splitlines()] for text in runs]
    assert written[1] == pytest.approx([1 / (1 + np.exp(-value)) for value in written[0]])
    found, _ = answers({"raw_scores": True}, {}, fusion=Fusion(min_score=1.5))
    assert [bool(answer["results"]) for answer in found] == [True, False]
    mixed = {"fusion": Fusion(Fuse.WEIGHTED, normalize=Normalize.NONE), "answers": AnswerOptions("m", fused=True)}
    found, _ = answers({"raw_scores": True}, {}, **mixed)
    fused = [
        [result["fused_score"] for result in sorted(answer["results"], key=lambda r: r["index"])] for answer in found
    ]
    assert fused[0] != fused[1]


@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize("format", [OutputFormat.API, OutputFormat.PAIRS])
def test_documents_are_returned_as_the_record_says(answers, flag, format):
    options = [{"return_text": True}, {"return_input": False}, {}]
    rows, _ = answers(*options, format=format, answers=AnswerOptions("m", documents=flag))
    if format is OutputFormat.PAIRS:
        assert ["text" in row for row in rows] == [True] * 4 + [False] * 4 + [flag] * 4
    else:
        assert ["document" in answer["results"][0] for answer in rows] == [True, False, flag]


@pytest.mark.parametrize("format", [OutputFormat.API, OutputFormat.PAIRS])
def test_parquet_without_a_column_for_documents_refuses_a_record_that_wants_them(answers, format):
    options = {"name": "out.parquet", "format": format, "answers": AnswerOptions("m", documents=False)}
    assert answers({"return_documents": False}, **options)
    with pytest.raises(InputError, match=r"in\.jsonl:2: `return_documents` is true"):
        answers({}, {"return_documents": True}, **options)


def test_the_number_of_results_comes_before_the_flag(answers):
    found, _ = answers({"top_k": 1}, {"top_n": 3}, {"top_n": 0}, {}, top_n=2)
    assert [len(answer["results"]) for answer in found] == [1, 3, 2, 2]


LONG = [{"id": "d", "text": "short"}, {"id": "e", "text": "long text"}]


@pytest.mark.parametrize("option", [{"truncation": False}, {"truncate": "NONE"}])
@pytest.mark.parametrize("on_error", OnError)
def test_a_truncated_pair_rejects_a_record_that_forbids_it(answers, option, on_error):
    records = [{"documents": LONG}, {"documents": LONG} | option, {"documents": LONG[:1]} | option]
    settings = {"session": Truncating(), "on_error": on_error, "chunk_pairs": 2}
    if on_error is OnError.FAIL:
        with pytest.raises(InputError, match=r"in\.jsonl:2: document 1 and the query are longer than --max-length"):
            answers(*records, **settings)
        return
    found, summary = answers(*records, **settings)
    assert (summary.stats.records, summary.stats.rejected) == (3, 1)
    assert [answer["id"] for answer in found if "error" not in answer] == [0, 2]


def test_truncation_is_allowed_unless_a_record_says_otherwise(answers):
    found, _ = answers({"documents": LONG}, {"documents": LONG, "truncation": True}, session=Truncating())
    assert [len(answer["results"]) for answer in found] == [2, 2]


def test_a_changed_option_is_another_input(tmp_path):
    given = tmp_path / "in.jsonl"

    def write(**options):
        records = [{"id": n, "query": "a", "documents": DOCUMENTS, **options} for n in range(4)]
        given.write_bytes(b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records))

    plan = config(given, tmp_path / "out.jsonl", chunk_pairs=4)
    for before, after in (({}, {"raw_scores": True}), ({"truncation": True}, {}), ({}, {"rank_fields": ["text"]})):
        write(**before)
        kill(replace(plan, resume=Resume.NEVER), 2)
        write(**after)
        with pytest.raises(RefusedError, match="not those already processed"):
            go(plan)
