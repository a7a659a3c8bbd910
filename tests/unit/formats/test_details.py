from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rerank_cli.choices import ScoreKind
from rerank_cli.formats import AnswerOptions, InputOptions, open_source
from rerank_cli.formats.writing.answers import details, names_of
from rerank_cli.formats.writing.parquet_layout import columns_of
from rerank_cli.records import Ranking, Shape

ALL = {"layers": (2, 6), "truncated": True, "passages": True}
SIGMOID = {-2: 0.11920292, 0: 0.5, 1: 0.7310586, 3: 0.95257413}
SCORES = pa.struct([("2", pa.float32()), ("6", pa.float32())])
PASSAGE = pa.struct([("start", pa.int64()), ("end", pa.int64())])
EARLIER = pa.table(
    {
        "qid": pa.array([7, 7], pa.int64()),
        "query": ["q", "q"],
        "docid": ["a", "b"],
        "text": ["one", "two"],
        "truncated": ["no", "yes"],
        "scores": pa.array([[1.5], [2.5, 3.5]], pa.list_(pa.float64())),
        "passage": pa.array([1, 2], pa.int16()),
        "lang": ["de", "en"],
    }
)


def detailed(ranking):
    """The first of two candidates: layers 2 and 6 at -2 and 1, whole; the second at 3 and 0, cut off."""
    return replace(ranking, layers=[[-2, 1], [3, 0]], truncated=[False, True], passages=[(0, 6), (4, 4000000000)])


def detailed_one(request):
    return Ranking(request, [1.0], [0], 5, [[0.0, 1.0]], [False], [(0, 3)])


def of(ranking, order=(0, 1), **wanted):
    return details(ranking, order, AnswerOptions("m", **wanted))


@pytest.fixture
def two(ranking):
    return detailed(ranking([1, 0]))


@pytest.fixture
def score_request(ranking):
    return detailed(ranking([1, 0], shape=Shape.SCORE))


@pytest.fixture
def table(save):
    """The Parquet table that a ranking becomes."""

    def table(outcome, **options):
        return pq.read_table(save([outcome], name="out.parquet", **options))

    return table


@pytest.fixture
def earlier(tmp_path):
    """One request of a Parquet table of pairs that has columns of our names, and the table's columns."""
    path = tmp_path / "pairs.parquet"
    pq.write_table(EARLIER, path)
    source = open_source(InputOptions((str(path),)))
    (request,) = source
    yield request, source.columns
    source.close()


def test_nothing_is_said_unless_it_is_asked_for(two):
    assert of(two) is None
    assert names_of(AnswerOptions("m")) == ()
    assert columns_of(AnswerOptions("m")) == []


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (ScoreKind.SIGMOID, [{"2": SIGMOID[-2], "6": SIGMOID[1]}, {"2": SIGMOID[3], "6": SIGMOID[0]}]),
        (ScoreKind.BOTH, [{"2": SIGMOID[-2], "6": SIGMOID[1]}, {"2": SIGMOID[3], "6": SIGMOID[0]}]),
        (ScoreKind.RAW, [{"2": -2, "6": 1}, {"2": 3, "6": 0}]),
    ],
)
def test_scores_of_layers_are_written_as_the_score_itself(two, kind, expected):
    found = [entry["scores"] for entry in of(two, layers=(2, 6), scores=kind)]
    assert [list(scores) for scores in found] == [["2", "6"], ["2", "6"]]
    for scores, wanted in zip(found, expected, strict=True):
        assert {name: np.float32(value) for name, value in wanted.items()} == scores


def test_details_follow_the_order_of_the_results_and_its_cut(two):
    assert [entry["passage"]["end"] for entry in of(two, order=[1, 0], passages=True)] == [4000000000, 6]
    (only,) = of(two, order=[1], scores=ScoreKind.RAW, **ALL)
    assert only == {"scores": {"2": 3, "6": 0}, "truncated": True, "passage": {"start": 4, "end": 4000000000}}


def test_each_detail_comes_alone_if_it_is_asked_for_alone(two):
    assert of(two, truncated=True) == [{"truncated": False}, {"truncated": True}]
    assert [list(entry) for entry in of(two, passages=True)] == [["passage"], ["passage"]]


def test_what_a_ranking_does_not_know_is_left_out(ranking):
    assert of(ranking([1, 0]), **ALL) == [{}, {}]


def test_columns_are_of_fixed_types_and_in_the_order_of_the_fields(two):
    options = AnswerOptions("m", **ALL)
    assert columns_of(options) == [("scores", SCORES), ("truncated", pa.bool_()), ("passage", PASSAGE)]
    assert [name for name, _ in columns_of(options)] == list(of(two, **ALL)[0]) == list(names_of(options))


def test_results_have_details_after_their_scores(saved, two):
    (answer,) = saved([two], scores=ScoreKind.BOTH, **ALL)
    first, second = answer["results"]
    assert list(first) == ["index", "document", "relevance_score", "logit", "scores", "truncated", "passage"]
    assert first["scores"] == {"2": SIGMOID[-2], "6": first["relevance_score"]}
    assert (second["truncated"], second["passage"]) == (True, {"start": 4, "end": 4000000000})


def test_best_first_moves_details_with_their_results(saved, ranking):
    (answer,) = saved([detailed(ranking([0, 1]))], documents=False, **ALL)
    assert [(result["index"], result["truncated"]) for result in answer["results"]] == [(1, True), (0, False)]


def test_data_of_a_score_request_has_details(saved, score_request):
    (answer,) = saved([score_request], scores=ScoreKind.RAW, **ALL)
    assert answer["data"][0] == {
        "index": 0,
        "object": "score",
        "score": 1.0,
        "scores": {"2": -2.0, "6": 1.0},
        "truncated": False,
        "passage": {"start": 0, "end": 6},
    }
    assert answer["data"][1]["truncated"] is True


def test_rows_of_pairs_have_details_before_the_rank(saved, two):
    first, second = saved([two], format="pairs", scores=ScoreKind.BOTH, **ALL)
    assert list(first)[-6:] == ["relevance_score", "logit", "scores", "truncated", "passage", "rank"]
    assert (second["scores"], second["truncated"], second["rank"]) == ({"2": SIGMOID[3], "6": 0.5}, True, 2)


def test_pairs_of_a_score_request_have_details_best_first(saved, ranking):
    rows = saved([detailed(ranking([0, 1], shape=Shape.SCORE))], format="pairs", truncated=True)
    assert [(row["index"], row["truncated"]) for row in rows] == [(1, True), (0, False)]


def test_details_of_an_earlier_run_make_way_in_rows_of_pairs(saved, read, write):
    row = {"query": "q", "text": "one", "truncated": "perhaps", "scores": [9], "passage": None}
    (request,) = read(write(row))
    outcome = replace(detailed_one(request), truncated=[True])
    (found,) = saved([outcome], format="pairs", scores=ScoreKind.RAW, **ALL)
    assert (found["truncated"], found["scores"]) == (True, {"2": 0.0, "6": 1.0})
    assert found["passage"] == {"start": 0, "end": 3}
    (kept,) = saved([outcome], name="kept.jsonl", format="pairs")
    assert (kept["truncated"], kept["scores"], kept["passage"]) == ("perhaps", [9], None)


def test_answers_in_parquet_have_details_of_fixed_types(table, two):
    found = table(two, scores=ScoreKind.BOTH, **ALL)
    result = found.schema.field("results").type.value_type
    assert [field.name for field in result][-5:] == ["relevance_score", "logit", "scores", "truncated", "passage"]
    assert [result.field(name).type for name in ("scores", "truncated", "passage")] == [SCORES, pa.bool_(), PASSAGE]
    first, second = found["results"][0].as_py()
    assert first["scores"] == pytest.approx({"2": SIGMOID[-2], "6": SIGMOID[1]})
    assert [first["truncated"], second["truncated"]] == [False, True]
    assert second["passage"] == {"start": 4, "end": 4000000000}


def test_answers_to_score_requests_in_parquet_have_details(table, score_request):
    found = table(score_request, shape=Shape.SCORE, scores=ScoreKind.RAW, **ALL)
    item = found.schema.field("data").type.value_type
    assert [item.field(name).type for name in ("scores", "truncated", "passage")] == [SCORES, pa.bool_(), PASSAGE]
    first, second = found["data"][0].as_py()
    assert (first["scores"], second["scores"]) == ({"2": -2.0, "6": 1.0}, {"2": 3.0, "6": 0.0})
    assert (first["truncated"], second["passage"]["end"]) == (False, 4000000000)


def test_pairs_in_parquet_have_details_as_columns(table, two):
    found = table(two, format="pairs", scores=ScoreKind.RAW, **ALL)
    assert [found.schema.field(name).type for name in ("scores", "truncated", "passage")] == [
        SCORES,
        pa.bool_(),
        PASSAGE,
    ]
    assert found["scores"].to_pylist() == [{"2": -2.0, "6": 1.0}, {"2": 3.0, "6": 0.0}]
    assert found["truncated"].to_pylist() == [False, True]
    assert found["passage"].to_pylist() == [{"start": 0, "end": 6}, {"start": 4, "end": 4000000000}]
    assert found["extra"].null_count == 2


def test_columns_of_an_earlier_run_make_way_for_ours(table, earlier):
    request, columns = earlier
    outcome = replace(detailed_one(request), logits=[1.0, 0.0], order=[0, 1], layers=[[-2, 1], [3, 0]])
    outcome = replace(outcome, truncated=[False, True], passages=[(0, 3), (1, 3)])
    found = table(outcome, format="pairs", columns=columns, shape=Shape.PAIRS, scores=ScoreKind.RAW, **ALL)
    ours = ["relevance_score", "scores", "truncated", "passage", "rank"]
    assert found.schema.names == ["qid", "query", "docid", "text", "lang", *ours]
    assert found.schema.field("scores").type == SCORES
    assert found["truncated"].to_pylist() == [False, True]
    assert found["passage"].to_pylist() == [{"start": 0, "end": 3}, {"start": 1, "end": 3}]


def test_columns_of_our_names_are_kept_where_nothing_is_asked_for(table, earlier):
    request, columns = earlier
    outcome = replace(detailed_one(request), logits=[1.0, 0.0], order=[0, 1])
    found = table(outcome, format="pairs", columns=columns, shape=Shape.PAIRS)
    assert found.select(EARLIER.schema.names).to_pylist() == EARLIER.to_pylist()


def test_a_document_of_an_answer_keeps_its_own_fields_of_our_names(table, earlier):
    request, columns = earlier
    outcome = replace(detailed_one(request), logits=[1.0, 0.0], order=[0, 1], truncated=[False, True])
    found = table(outcome, columns=columns, shape=Shape.PAIRS, truncated=True)
    results = found["results"][0].as_py()
    assert [(result["truncated"], result["document"]["truncated"]) for result in results] == [
        (False, "no"),
        (True, "yes"),
    ]
    assert results[1]["document"]["scores"] == [2.5, 3.5]
