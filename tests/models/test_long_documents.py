"""Documents read in passages by a real tokenizer and model."""

import numpy as np
import pytest
from tiny import PARITY

from rerank_cli.choices import LongDocuments
from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.rows.prepare import PairTexts
from rerank_cli.engine.session import open_session


def best_passage(name, text, pooling=LongDocuments.MAX):
    options = ModelOptions(str(PARITY / name), device="cpu", dtype="fp32", max_length=128, long_documents=pooling)
    session = open_session(options)
    prepared = session.prepare(PairTexts(["panda"], [text], [0]))
    scores, best = prepared.windows.pool(session.score(prepared))
    start, end = prepared.spans[best[0]].tolist()
    return float(scores[0]), start, end


@pytest.mark.parametrize("name", ["bert", "xlm-roberta", "gemma", "minicpm-layerwise", "gemma2-lightweight"])
def test_the_best_passage_alone_scores_as_its_document(name):
    """Every word is one token, whatever stands beside it, so that a passage of a text is the text of a passage."""
    tokens = {"bert": list("abcdefgh")}.get(name, ["the", "and", "of", "in", "a", "to"])
    text = " ".join(np.random.default_rng(3).choice(tokens, 600))
    score, start, end = best_passage(name, text)
    assert start > 0
    assert 100 < end - start < len(text)
    again, first, last = best_passage(name, text[start:end].strip())
    assert again == pytest.approx(score, abs=1e-5)
    assert (first, last) == (0, len(text[start:end].strip()))


def test_the_mean_of_the_best_is_below_the_best():
    text = " ".join(np.random.default_rng(3).choice(list("abcdefgh"), 600))
    assert best_passage("bert", text, LongDocuments.MEAN_TOP3)[0] < best_passage("bert", text)[0]
    assert np.isfinite(best_passage("bert", text, LongDocuments.FIRST)[0])
