"""Published checkpoints, as `rerank models` lists them, and the one that a short or mistyped name means."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

ENCODER = "encoder"
MODULAR = "encoder-modules"
DECODER = "decoder"
CLASSIFIER = "decoder-classifier"
BIDIRECTIONAL = "decoder-mean"
SEQ2SEQ = "encoder-decoder"
LAYERWISE = "layerwise"
LIGHTWEIGHT = "lightweight"
LISTWISE = "listwise"
# Types of one layout, with the names of their classes: scored without transformers' classes, where nothing is unusual.
BERT_TYPES = {"bert": "Bert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta", "camembert": "Camembert"}


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A published checkpoint, as `rerank models` lists it."""

    name: str
    family: str
    parameters: str
    max_length: int
    licence: str
    note: str


KNOWN: tuple[KnownModel, ...] = (
    KnownModel("mini", ENCODER, "14 M", 512, "CC-BY-SA-4.0", "built in, English, for a first look and for tests"),
    KnownModel("BAAI/bge-reranker-v2-m3", ENCODER, "568 M", 8192, "Apache-2.0", "the default; 100+ languages"),
    KnownModel("BAAI/bge-reranker-large", ENCODER, "560 M", 512, "MIT", "English and Chinese"),
    KnownModel("BAAI/bge-reranker-base", ENCODER, "278 M", 512, "MIT", "English and Chinese"),
    KnownModel("BAAI/bge-reranker-v2-gemma", DECODER, "2.51 B", 8192, "Apache-2.0", "many languages"),
    KnownModel("BAAI/bge-reranker-v2-minicpm-layerwise", LAYERWISE, "2.72 B", 2048, "Apache-2.0", "--cutoff-layers 28"),
    KnownModel(
        "BAAI/bge-reranker-v2.5-gemma2-lightweight",
        LIGHTWEIGHT,
        "9.24 B",
        8192,
        "Gemma",
        "--cutoff-layers 28 --compress-layers 24,40 --compress-ratio 2",
    ),
    KnownModel("Qwen/Qwen3-Reranker-0.6B", DECODER, "596 M", 32768, "Apache-2.0", "100+ languages, instructions"),
    KnownModel("Qwen/Qwen3-Reranker-4B", DECODER, "4.0 B", 32768, "Apache-2.0", "100+ languages, instructions"),
    KnownModel("Qwen/Qwen3-Reranker-8B", DECODER, "8.2 B", 32768, "Apache-2.0", "100+ languages, instructions"),
    KnownModel(
        "tomaarsen/Qwen3-Reranker-0.6B-seq-cls", CLASSIFIER, "596 M", 32768, "Apache-2.0", "the same, one label"
    ),
    KnownModel("mixedbread-ai/mxbai-rerank-base-v2", DECODER, "494 M", 32768, "Apache-2.0", "100+ languages"),
    KnownModel("mixedbread-ai/mxbai-rerank-large-v2", DECODER, "1.54 B", 32768, "Apache-2.0", "100+ languages"),
    KnownModel("zeroentropy/zerank-2", DECODER, "4.0 B", 32768, "CC-BY-NC-4.0", "multilingual; logits"),
    KnownModel(
        "ContextualAI/ctxl-rerank-v2-instruct-multilingual-1b",
        DECODER,
        "1 B",
        32768,
        "CC-BY-NC-SA",
        "100+ languages, instructions",
    ),
    KnownModel(
        "nvidia/llama-nemotron-rerank-1b-v2", BIDIRECTIONAL, "1.24 B", 8192, "NVIDIA Open", "26 languages, long"
    ),
    KnownModel("castorini/monot5-base-msmarco-10k", SEQ2SEQ, "223 M", 512, "not stated", "English; padded"),
    KnownModel("castorini/monot5-3b-msmarco-10k", SEQ2SEQ, "2.85 B", 512, "not stated", "English; padded"),
    KnownModel("unicamp-dl/mt5-base-mmarco-v2", SEQ2SEQ, "582 M", 512, "not found", "13 languages; padded"),
    KnownModel("cross-encoder/ms-marco-MiniLM-L6-v2", ENCODER, "23 M", 512, "Apache-2.0", "English, fast"),
    KnownModel("cross-encoder/ms-marco-MiniLM-L12-v2", ENCODER, "33 M", 512, "Apache-2.0", "English"),
    KnownModel("cross-encoder/ms-marco-electra-base", ENCODER, "109 M", 512, "Apache-2.0", "English"),
    KnownModel("Alibaba-NLP/gte-reranker-modernbert-base", ENCODER, "150 M", 8192, "Apache-2.0", "English, long"),
    KnownModel("Alibaba-NLP/gte-multilingual-reranker-base", ENCODER, "306 M", 8192, "Apache-2.0", "70+ languages"),
    KnownModel(
        "jinaai/jina-reranker-v2-base-multilingual", ENCODER, "278 M", 1024, "CC-BY-NC-4.0", "100+ languages, code"
    ),
    KnownModel(
        "jinaai/jina-reranker-v3",
        LISTWISE,
        "597 M",
        131072,
        "CC-BY-NC-4.0",
        "multilingual; scores whole lists in order",
    ),
    KnownModel("mixedbread-ai/mxbai-rerank-base-v1", ENCODER, "184 M", 512, "Apache-2.0", "English; padded (DeBERTa)"),
    KnownModel("cross-encoder/ettin-reranker-32m-v1", MODULAR, "32 M", 7999, "Apache-2.0", "English, long, fast"),
    KnownModel("cross-encoder/ettin-reranker-150m-v1", MODULAR, "150 M", 7999, "Apache-2.0", "English, long"),
    KnownModel("maidalun1020/bce-reranker-base_v1", ENCODER, "278 M", 512, "Apache-2.0", "four languages"),
    KnownModel(
        "amberoad/bert-multilingual-passage-reranking-msmarco",
        ENCODER,
        "167 M",
        512,
        "Apache-2.0",
        "100+ languages; two labels, --label 1",
    ),
    KnownModel("castorini/monobert-large-msmarco", ENCODER, "335 M", 512, "not stated", "English; two labels"),
)


def meant_by(name: str) -> str | None:
    """The known model that a name without its owner, or with a few wrong letters, probably means; None for others."""
    full = {known.name.lower(): known.name for known in KNOWN}
    short = {known.rpartition("/")[2]: known for known in full}
    asked = name.lower().rstrip("/")
    if asked in full:
        return None if name == full[asked] else full[asked]
    found = short.get(asked.rpartition("/")[2])
    close = difflib.get_close_matches(asked, [*full, *short], 1, cutoff=0.85)
    found = found or (short.get(close[0], close[0]) if close else None)
    return None if found is None else full[found]
