import gzip
import math

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rerank_cli.choices import MarginFrom, Sampling, TrainFormat
from rerank_cli.errors import InputError, RefusedError, UsageError
from rerank_cli.formats.runs.rank_comparison import RankComparison, RankedResult
from rerank_cli.formats.runs.results import Result
from rerank_cli.mining.mine import MineOptions, mine_file
from rerank_cli.mining.negatives import Mined, Reason, Rules, mine

SCORES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)


def query(scores=SCORES, name="q", texts=None):
    """Documents a, b, c, … ranked by falling scores."""
    texts = texts or [f"text {index}" for index in range(len(scores))]
    results = [Result(chr(97 + n), score, text=text) for n, (score, text) in enumerate(zip(scores, texts, strict=True))]
    ranked = tuple(RankedResult(result, n, None) for n, result in enumerate(results, 1))
    return RankComparison(name, "query", ranked, None)


def mined(judged, found=None, **rules):
    """The ids of the negatives, or why there are none."""
    one = mine(found or query(), judged, Rules(**rules))
    return "".join(result.id for result in one.negatives) if isinstance(one, Mined) else one


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({}, "acdef"),
        ({"negatives": 2}, "ac"),
        ({"first_rank": 3, "last_rank": 4}, "cd"),
        ({"first_rank": 4}, "def"),
        ({"max_score": 0.7}, "cdef"),
        ({"min_score": 0.55}, "acd"),
        ({"margin": 0.15}, "def"),
        ({"margin": 0.0}, "cdef"),
        ({"max_relative": 0.75}, "def"),
        ({"max_relative": 0.75, "max_score": 0.5}, "ef"),
        ({"last_rank": 99}, "acdef"),
    ],
)
def test_negatives_rank_well_and_are_not_relevant(rules, expected):
    assert mined({"b": 1}, **rules) == expected


def test_margins_count_from_the_lowest_positive_or_from_the_best():
    judged = {"a": 1, "d": 1}
    assert mined(judged, margin=0.05) == "ef"
    assert mined(judged, margin=0.05, margin_from=MarginFrom.BEST) == "bcef"


def test_what_is_judged_not_relevant_needs_no_margin():
    assert mined({"c": 1, "a": 0}, margin=0.05) == "adef"


def test_what_is_judged_a_little_relevant_is_neither():
    assert mined({"a": 2, "b": 1}, min_relevance=2) == "cdef"


def test_a_copy_of_a_positive_or_of_a_negative_is_no_negative():
    assert mined({"a": 1}, query((0.9, 0.8, 0.7, 0.6), texts=["same", "same", "other", "other"])) == "c"


def test_those_that_are_drawn_depend_on_seed_and_query_alone():
    drawn = mined({"a": 1}, negatives=2, sampling=Sampling.RANDOM)
    assert drawn == mined({"a": 1}, negatives=2, sampling=Sampling.RANDOM)
    assert list(drawn) == sorted(drawn)
    others = {mined({"a": 1}, query(name=str(n)), negatives=2, sampling=Sampling.RANDOM, seed=n % 2) for n in range(20)}
    assert len(others) > 3


@pytest.mark.parametrize(
    ("judged", "rules", "reason"),
    [
        ({}, {}, Reason.NO_POSITIVE),
        ({"a": 0}, {}, Reason.NO_POSITIVE),
        ({"a": 1}, {"min_relevance": 2}, Reason.NO_POSITIVE),
        ({"zzz": 1}, {"margin": 0.1}, Reason.NO_SCORED_POSITIVE),
        ({"zzz": 1}, {"max_score": 0.1}, Reason.NO_NEGATIVE),
    ],
)
def test_a_query_that_gives_nothing_says_why(judged, rules, reason):
    assert mined(judged, **rules) is reason


def test_a_relative_margin_needs_probabilities():
    with pytest.raises(InputError, match="--max-relative needs scores from 0 to 1"):
        mined({"b": 1}, query((-1.0, -2.0, -3.0)), max_relative=0.9)


def test_a_positive_that_was_not_ranked_has_no_score():
    (positive,) = mine(query(), {"zzz": 1}, Rules()).positives
    assert math.isnan(positive.score)


@pytest.fixture
def files(tmp_path):
    """Three queries of four documents each, with judgements; a document that was not ranked is in a corpus."""

    def lines(name, rows):
        (tmp_path / name).write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
        return str(tmp_path / name)

    documents = [{"id": f"d{n}", "title": "T", "text": f"text {n}"} for n in range(4)]
    results = [
        {"index": n, "document": documents[n], "relevance_score": 0.9 - n / 10, "logit": 3.0 - n} for n in (1, 0, 2)
    ]
    bare = [{"index": r["index"], "id": r["document"]["id"], "relevance_score": r["relevance_score"]} for r in results]
    (tmp_path / "qrels.txt").write_text("1 0 d0 1\n1 0 d9 1\n2 0 d9 1\n")
    return {
        "qrels": str(tmp_path / "qrels.txt"),
        "output": str(tmp_path / "train.jsonl"),
        "whole": lines("whole.jsonl", [{"id": n, "results": results} for n in (1, 2, 3)]),
        "bare": lines("bare.jsonl", [{"id": n, "results": bare} for n in (1, 2, 3)]),
        "input": lines("in.jsonl", [{"id": n, "query": f"query {n}", "documents": documents} for n in (1, 2, 3)]),
        "queries": lines("queries.jsonl", [{"_id": str(n), "text": f"query {n}"} for n in (1, 2, 3)]),
        "corpus": lines("corpus.jsonl", [{"_id": f"d{n}", "title": "T", "text": f"text {n}"} for n in (0, 1, 2, 9)]),
    }


def written(files, name, **options):
    """What mining writes, and its counts."""
    inputs = {"inputs": (files["input"],)} if options.pop("with_input", True) else {}
    rules = options.pop("rules", Rules())
    counts = mine_file(MineOptions(files[name], files["qrels"], files["output"], rules, **inputs, **options), None)
    with open(files["output"], "rb") as file:
        return [orjson.loads(line) for line in file], counts


def test_training_objects_of_flagembedding(files):
    rows, counts = written(files, "whole")
    assert rows == [{"query": "query 1", "pos": ["T text 0"], "neg": ["T text 1", "T text 2"]}]
    assert counts.line() == (
        "1 of 3 queries, 1 positive, 2 negatives, 1 whose positives have no text (--corpus FILE), "
        "1 without a judged positive, 1 with fewer negatives than asked for, "
        "2 positives left out for want of a text or of a score"
    )


@pytest.mark.parametrize("name", ["whole", "bare"])
def test_a_corpus_gives_the_texts_that_are_missing(files, name):
    rows, _ = written(files, name, queries=files["queries"], corpora=(files["corpus"],), with_input=False)
    assert [row["query"] for row in rows] == ["query 1", "query 2"]
    assert rows[0]["pos"] == ["T text 0", "T text 9"]
    assert rows[1]["neg"] == ["T text 1", "T text 0", "T text 2"]


def test_a_corpus_may_be_a_table_of_either_kind(files, tmp_path):
    (tmp_path / "c.tsv").write_text("d9\ttext nine\n")
    pq.write_table(pa.table({"docid": ["d0", "d1", "d2"], "text": ["a", "b", "c"]}), tmp_path / "c.parquet")
    corpora = (str(tmp_path / "c.tsv"), str(tmp_path / "c.parquet"))
    rows, _ = written(files, "bare", queries=files["queries"], corpora=corpora, with_input=False)
    assert rows[0] == {"query": "query 1", "pos": ["a", "text nine"], "neg": ["b", "c"]}


def test_a_corpus_may_be_a_folder(files, tmp_path):
    (tmp_path / "parts").mkdir()
    for n in (0, 1, 2, 9):
        (tmp_path / "parts" / f"{n}.tsv").write_text(f"d{n}\ttext {n}\n")
    corpora = (str(tmp_path / "parts"),)
    rows, _ = written(files, "bare", queries=files["queries"], corpora=corpora, with_input=False)
    assert rows[0]["pos"] == ["text 0", "text 9"]


def test_scores_are_logits_where_there_are_any(files):
    rows, counts = written(files, "whole", scores=True)
    assert (rows[0]["pos_scores"], rows[0]["neg_scores"], counts.probabilities) == ([3.0], [2.0, 1.0], False)
    bare, counts = written(files, "bare", scores=True, overwrite=True)
    assert (bare[0]["pos_scores"], bare[0]["neg_scores"], counts.probabilities) == ([0.9], [0.8, 0.7], True)


def test_triplets_of_sentence_transformers(files):
    rows, _ = written(files, "whole", format=TrainFormat.TRIPLETS)
    assert rows == [
        {"anchor": "query 1", "positive": "T text 0", "negative": "T text 1"},
        {"anchor": "query 1", "positive": "T text 0", "negative": "T text 2"},
    ]


def test_n_tuples_have_all_their_columns_or_are_left_out(files):
    rows, _ = written(files, "whole", format=TrainFormat.N_TUPLES, rules=Rules(negatives=2))
    assert rows == [
        {"anchor": "query 1", "positive": "T text 0", "negative_1": "T text 1", "negative_2": "T text 2"},
    ]
    rows, counts = written(files, "whole", format=TrainFormat.N_TUPLES, rules=Rules(negatives=3), overwrite=True)
    assert (rows, counts.skipped[Reason.TOO_FEW]) == ([], 1)


def test_an_output_is_compressed_by_its_suffix(files):
    files["output"] += ".gz"
    mine_file(MineOptions(files["whole"], files["qrels"], files["output"], Rules(), (files["input"],)), None)
    with gzip.open(files["output"]) as file:
        assert orjson.loads(file.read())["query"] == "query 1"


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("inputs", "the text of query `1` is not in the output. Fix: --input"),
        ("queries", "query '1' of"),
        ("corpora", "none of the documents without a text was found (looked up 1)"),
    ],
)
def test_what_is_missing_is_one_line_and_leaves_nothing(files, tmp_path, flag, message):
    given = {"inputs": {}, "queries": {"queries": files["bare"]}, "corpora": {"corpora": (files["whole"],)}}[flag]
    with pytest.raises(InputError) as caught:
        written(files, "whole", with_input=flag == "corpora", **given)
    assert message in str(caught.value)
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith("train")]


def test_a_document_without_a_text_names_the_ways_out(files, tmp_path):
    results = [
        {"index": 0, "document": {"id": "d0", "text": "text 0"}, "relevance_score": 0.9},
        {"index": 1, "id": "d1", "relevance_score": 0.8},
    ]
    files["mixed"] = str(tmp_path / "mixed.jsonl")
    (tmp_path / "mixed.jsonl").write_bytes(orjson.dumps({"id": "1", "results": results}))
    with pytest.raises(InputError, match=r"text of document `d1` is not in the output. Fix: --input CANDIDATES, or"):
        written(files, "mixed", queries=files["queries"], with_input=False)


def test_nobodys_work_is_overwritten(files, tmp_path):
    written(files, "whole")
    with pytest.raises(RefusedError, match="exists already"):
        written(files, "whole")
    (tmp_path / "train.jsonl").unlink()
    (tmp_path / "train.jsonl.checkpoint").write_text("{}")
    (tmp_path / "train.jsonl.partial").write_text("half")
    with pytest.raises(RefusedError, match="an unfinished run writes to"):
        written(files, "whole")
    assert (tmp_path / "train.jsonl.partial").read_text() == "half"


def test_an_output_in_parquet_is_refused(files):
    with pytest.raises(UsageError, match="is written as JSON lines"):
        mine_file(MineOptions(files["whole"], files["qrels"], "train.parquet", Rules()), None)
