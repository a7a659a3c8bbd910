import json
from pathlib import Path

import numpy as np
import pytest

from rerank_cli.engine.contract import ModelOptions
from rerank_cli.engine.prepare import PairTexts
from rerank_cli.engine.session import open_session

PARITY = Path(__file__).parent / "parity"
CASES = json.loads((PARITY / "expected.json").read_text())["cases"]
TOLERANCE = 2e-5


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['checkpoint']} {case['options']}")
def test_scores_are_those_of_the_reference_implementation(case):
    options = case["options"]
    session = open_session(
        ModelOptions(
            str(PARITY / case["checkpoint"]),
            device="cpu",
            dtype="fp32",
            max_length=options.get("max_length"),
            query_max_length=options.get("query_max_length"),
        )
    )
    queries, passages = zip(*case["pairs"], strict=True)
    scores = session.score(session.prepare(PairTexts(queries, passages, [0] * len(queries)))).astype(np.float64)
    if options.get("normalize"):
        scores = 1 / (1 + np.exp(-scores))
    worst = np.abs(scores - np.array(case["scores"][0])).max()
    print(f"worst |Δ| {worst:.1e}")
    assert worst <= TOLERANCE
