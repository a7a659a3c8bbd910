"""Published scores of real checkpoints, where a model hub answers. FlagEmbedding gave them in fp32 or fp16."""

import numpy as np
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from rerank_cli.engine.contract import ModelOptions
from rerank_cli.engine.prepare import PairTexts
from rerank_cli.engine.session import open_session

pytestmark = pytest.mark.hub

PANDA = (
    "The giant panda (Ailuropoda melanoleuca), sometimes called a panda bear or simply panda, is a bear species "
    "endemic to China."
)
PAIRS = [("query", "passage"), ("what is panda?", "hi"), ("what is panda?", PANDA)]
# fp32 figures agree to rounding, fp16 ones to the steps of a half-precision logit.
GOLDEN = {
    "BAAI/bge-reranker-base": ([0.44749, -8.15439, 6.18211], 2e-3),
    "BAAI/bge-reranker-large": ([-1.52637, -5.60547, 5.76172], 0.05),
    "BAAI/bge-reranker-v2-m3": ([-5.65234, -8.1875, 5.26172], 0.05),
}


@pytest.fixture(scope="module", autouse=True)
def _hub():
    try:
        HfApi().model_info("BAAI/bge-reranker-base", timeout=5)
    except (OSError, HfHubHTTPError.__mro__[1]) as error:  # the network, and nothing else, is a reason to skip
        pytest.skip(f"no model hub answers here ({type(error).__name__})")


@pytest.mark.parametrize("name", GOLDEN)
def test_scores_are_the_published_ones(name):
    expected, tolerance = GOLDEN[name]
    session = open_session(ModelOptions(name, device="cpu", dtype="fp32"))
    scores = session.score(session.prepare(PairTexts(*zip(*PAIRS, strict=True), [0] * len(PAIRS))))
    assert np.abs(scores - np.array(expected)).max() <= tolerance
