"""Published scores of real checkpoints, where a model hub answers; each row says who gave them, and in what precision.

The larger checkpoints run in bf16 here, so that they fit into common machines, and are compared with room for that.
"""

import os
from dataclasses import dataclass, field

import numpy as np
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.rows.prepare import PairTexts
from rerank_cli.engine.session import open_session
from rerank_cli.models.options import FamilyOptions

pytestmark = pytest.mark.hub

WORDS = [("query", "passage")]
PANDA = [
    ("what is panda?", "hi"),
    (
        "what is panda?",
        "The giant panda (Ailuropoda melanoleuca), sometimes called a panda bear or simply panda, is a bear species "
        "endemic to China.",
    ),
]
FRANCE = [
    (query, passage)
    for query in ("What is the capital of France?", "What is the population of China?")
    for passage in ("Paris is the capital of France.", "The population of China is over 1.4 billion people.")
]
PLANETS = [
    ("Which planet is known as the Red Planet?", passage)
    for passage in (
        "Venus is often called Earth's twin because of its similar size and proximity.",
        "Mars, known for its reddish appearance, is often referred to as the Red Planet.",
        "Jupiter, the largest planet in our solar system, has a prominent red spot.",
        "Saturn, famous for its rings, is sometimes mistaken for the Red Planet.",
    )
]
BERLIN = [
    ("How many people live in Berlin?", passage)
    for passage in (
        "Berlin had a population of 3,520,031 registered inhabitants in an area of 891.82 square kilometers.",
        "Berlin is well known for its museums.",
    )
]
SORTING = [
    ("what is the capital of China?", "Beijing"),
    ("how to implement quick sort in python?", "Introduction of quick sort"),
    ("how to implement quick sort in python?", "The weather is nice today"),
]


@dataclass(frozen=True)
class Golden:
    """Logits that others published, how near ours must be, and gigabytes of weights as they are loaded here."""

    model: str
    pairs: list[tuple[str, str]]
    expected: list[float]
    tolerance: float
    dtype: str = "fp32"
    family: FamilyOptions = field(default_factory=FamilyOptions)
    gigabytes: float = 3


# fp32 figures agree to rounding, fp16 ones to the steps of a half-precision logit; bf16 has eight times wider steps.
FP32, FP16, BF16 = 2e-3, 0.05, 0.5
QWEN = [-3.109297752380371, 7.120389938354492, -0.3787546157836914, 3.541637420654297]
LAYER_28 = FamilyOptions(cutoff_layers=(28,))
COMPRESSED = FamilyOptions(cutoff_layers=(28,), compress_layers=(24, 40), compress_ratio=2)

GOLDEN = [
    # FlagEmbedding, fp32
    Golden("BAAI/bge-reranker-base", WORDS + PANDA, [0.44749, -8.15439, 6.18211], FP32),
    # FlagEmbedding, fp16 on a GPU
    Golden("BAAI/bge-reranker-large", WORDS + PANDA, [-1.52637, -5.60547, 5.76172], FP16),
    Golden("BAAI/bge-reranker-large", FRANCE, [7.97656, -6.84375, -7.15625, 5.45313], FP16),
    Golden("BAAI/bge-reranker-v2-m3", WORDS + PANDA, [-5.65234, -8.1875, 5.26172], FP16),
    Golden(
        "BAAI/bge-reranker-v2-gemma",
        WORDS + FRANCE,
        [1.97461, 9.17188, -4.49609, -5.52344, 10.21094],
        BF16,
        dtype="bf16",
        gigabytes=5.1,
    ),
    Golden(
        "BAAI/bge-reranker-v2-minicpm-layerwise",
        WORDS + FRANCE,
        [-7.06641, 1.93945, -12.71875, -11.78125, 2.18945],
        BF16,
        dtype="bf16",
        family=LAYER_28,
        gigabytes=4,
    ),
    # These also show which heads and which attention the published scores came from.
    Golden(
        "BAAI/bge-reranker-v2.5-gemma2-lightweight",
        WORDS + FRANCE,
        [14.73438, 25.375, 8.73438, 9.83594, 26.15625],
        2 * BF16,
        dtype="bf16",
        family=COMPRESSED,
        gigabytes=13,
    ),
    # The tests of sentence-transformers, fp32 on a GPU: the same figures for both checkpoints
    Golden("Qwen/Qwen3-Reranker-0.6B", PLANETS, QWEN, FP32),
    Golden("tomaarsen/Qwen3-Reranker-0.6B-seq-cls", PLANETS, QWEN, FP32),
    # Model cards, fp32
    Golden("cross-encoder/ms-marco-MiniLM-L6-v2", BERLIN, [8.607138, -4.320078], FP32),
    Golden("cross-encoder/ms-marco-MiniLM-L12-v2", BERLIN, [9.218911, -4.0780287], FP32),
    # A blog post of the authors, two decimals, precision not said
    Golden("cross-encoder/ettin-reranker-32m-v1", PLANETS, [6.21, 10.82, 8.55, 9.86], FP16),
    # Model card, ONNX in fp32
    Golden("Alibaba-NLP/gte-reranker-modernbert-base", SORTING, [2.138258, 2.460963, -1.677545], FP32),
]


@pytest.fixture(scope="module", autouse=True)
def _hub():
    try:
        HfApi().model_info("BAAI/bge-reranker-base", timeout=5)
    except (OSError, HfHubHTTPError.__mro__[1]) as error:  # the network, and nothing else, is a reason to skip
        pytest.skip(f"no model hub answers here ({type(error).__name__})")


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: f"{golden.model} {len(golden.pairs)} pairs")
def test_scores_are_the_published_ones(golden):
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    if memory < 1.5 * golden.gigabytes:
        # Loading would swap or be killed, which says nothing about scores. Only machines with a hub come here.
        pytest.skip(f"{golden.gigabytes} GB of weights and {memory:.0f} GB of memory")
    session = open_session(ModelOptions(golden.model, device="cpu", dtype=golden.dtype, family=golden.family))
    queries, passages = zip(*golden.pairs, strict=True)
    scores = session.score(session.prepare(PairTexts(queries, passages, [0] * len(queries))))
    worst = np.abs(scores - np.array(golden.expected)).max()
    print(f"worst |Δ| {worst:.2g}")
    assert worst <= golden.tolerance
