import numpy as np
import pytest
from fakes import FakeModel, reader
from hypothesis import given
from hypothesis import strategies as st

from rerank_cli.choices import LongDocuments
from rerank_cli.engine.rows.prepare import PairTexts, prepare
from rerank_cli.engine.rows.windows import PassageRule
from rerank_cli.engine.scorer import Scorer
from rerank_cli.models.prompts.pairs import Limits

POOLED = [LongDocuments.MAX, LongDocuments.MEAN_TOP3]
documents = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 60)), min_size=1, max_size=12)


@given(documents, st.sampled_from(POOLED), st.none() | st.integers(1, 80))
def test_passages_cover_every_token_and_none_is_too_long(found, pooling, stride):
    lengths, room = (np.array(values) for values in zip(*found, strict=True))
    windows = PassageRule(pooling, stride).cut(lengths, room)
    for document, length in enumerate(lengths):
        mine = windows.document == document
        starts, ends = windows.start[mine], (windows.start + windows.length)[mine]
        covered = np.concatenate([np.arange(start, end) for start, end in zip(starts, ends, strict=True)])
        assert sorted(set(covered.tolist())) == list(range(length))
        assert (windows.length[mine] <= room[document]).all()
        assert (windows.length[mine] > 0).all() or length == 0
    assert windows.document.tolist() == sorted(windows.document.tolist())


@pytest.mark.parametrize("pooling", LongDocuments)
def test_a_document_that_fits_is_one_passage(pooling):
    windows = PassageRule(pooling).cut(np.array([5, 0]), np.array([5, 9]))
    assert (windows.start.tolist(), windows.length.tolist()) == ([0, 0], [5, 0])


def test_scores_are_pooled_document_by_document():
    lengths, room = np.array([30, 10]), np.array([10, 10])
    scores = np.array([1, 4, 3, 2, 9], np.float32)
    for pooling, expected, best in (
        (LongDocuments.MAX, [4, 9], [1, 4]),
        (LongDocuments.MEAN_TOP3, [3, 9], [1, 4]),
    ):
        windows = PassageRule(pooling, stride=7).cut(lengths, room)
        assert windows.start.tolist() == [0, 7, 14, 21, 0]
        assert windows.length.tolist() == [10, 10, 10, 9, 10]
        found, places = windows.pool(scores)
        assert (found.tolist(), places.tolist()) == (expected, best)


def test_every_layer_is_pooled_by_itself_and_the_last_names_the_best():
    windows = PassageRule(LongDocuments.MAX, stride=10).cut(np.array([20]), np.array([10]))
    found, best = windows.pool(np.array([[5, 1], [0, 2]], np.float32))
    assert (found.tolist(), best.tolist()) == ([[5, 2]], [1])


def words(numbers):
    return " ".join(f"w{number}" for number in numbers)


def test_a_long_document_gets_its_best_passages_score_and_place():
    limits = Limits(16, 8, 13)
    text, query = words(range(10, 60)), "w1 w2 w3"
    pairs = PairTexts([query, query], [text, "w5"], [0, 0])
    cutting = PassageRule(LongDocuments.MAX, stride=5)
    ready = prepare(pairs, reader(limits, cutting), 1000)
    scores, best = ready.windows.pool(Scorer(FakeModel()).score(ready))
    starts = [0, 5, 10, 15, 20, 25, 30, 35, 40]
    alone = PairTexts([query] * len(starts), [words(range(10 + s, min(20 + s, 60))) for s in starts], [0] * len(starts))
    each = Scorer(FakeModel()).score(prepare(alone, reader(limits), 1000))
    assert scores[0] == each.max()
    start, end = ready.spans[best[0]]
    assert text[start:end] == alone.passages[int(each.argmax())]
    assert ready.spans[best[1]].tolist() == [0, 2]
    assert ready.truncated.tolist() == [False, False]


def test_first_reads_what_truncation_reads_and_says_where():
    limits = Limits(16, 8, 13)
    pairs = PairTexts(["w1"], [words(range(10, 60))], [0])
    first, cut = (
        prepare(pairs, reader(limits, PassageRule(p)), 1000) for p in (LongDocuments.FIRST, LongDocuments.TRUNCATE)
    )
    assert Scorer(FakeModel()).score(first).tolist() == Scorer(FakeModel()).score(cut).tolist()
    assert first.spans.tolist() == [[0, len(words(range(10, 22)))]]
    assert first.truncated.tolist() == cut.truncated.tolist() == [True]


def test_a_documents_own_cap_holds_for_its_passages_together():
    pairs = PairTexts(["w1"], [words(range(10, 60))], [25])
    ready = prepare(pairs, reader(Limits(16, 8, 13), PassageRule(LongDocuments.MAX, stride=12)), 1000)
    assert (ready.windows.start + ready.windows.length).max() == 25
    assert ready.truncated.tolist() == [True]
