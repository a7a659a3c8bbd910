"""Hard texts for new families: ids and scores of a checkpoint, packed and padded, to compare with a reference."""

from dataclasses import dataclass

import numpy as np
from test_prompts import PASSAGES, QUERIES

from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.rows.prepare import PairTexts
from rerank_cli.engine.session import open_session
from rerank_cli.models.options import FamilyOptions

TOLERANCE = 1e-5
# A query that fills the limit by itself is cut by a rule of our own, which test_prompts.py has.
PAIRS = [(query, passage) for query in QUERIES[:-1] for passage in PASSAGES]


@dataclass(frozen=True)
class Found:
    """What the program reads and computes: ids of each pair, and scores as the run and as `--verify` compute them."""

    session: object
    ids: list
    scores: np.ndarray
    plain: np.ndarray


def scored(folder, pairs=PAIRS, max_length=None, **family):
    options = ModelOptions(
        str(folder), device="cpu", dtype="fp32", max_length=max_length, family=FamilyOptions(**family)
    )
    session = open_session(options)
    texts = PairTexts(*zip(*pairs, strict=True), [0] * len(pairs))
    ready = session.prepare(texts)
    sequences = {}
    for planned in ready.rows:
        row = planned.row.unshared()
        for pair, start, length in zip(planned.pairs.tolist(), row.starts, row.lengths, strict=True):
            sequences[pair] = row.ids[start : start + length].tolist()
    ids = [sequences[pair] for pair in ready.distinct.tolist()]
    return Found(session, ids, session.score(ready), session.score_plainly(texts))


def expect(found, ids, scores, pairs=PAIRS):
    """Ids are equal, scores are within the tolerance both ways, and tell the pairs apart."""
    for pair, ours, theirs in zip(pairs, found.ids, ids, strict=True):
        assert ours == list(theirs), pair
    expected = np.array(scores, dtype=np.float64)
    assert np.ptp(expected) > 1000 * TOLERANCE
    packed, plain = (np.abs(ours - expected).max() for ours in (found.scores, found.plain))
    print(f"worst |Δ| {packed:.1e}, padded {plain:.1e}; scores {expected.min():.2f} to {expected.max():.2f}")
    assert max(packed, plain) <= TOLERANCE
