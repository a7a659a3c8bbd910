"""The values that a flag may take. Imports nothing, so that `--help` starts fast."""

from __future__ import annotations

from enum import StrEnum


class RunValues(StrEnum):
    """Meaning of the third column of a three-column run. `auto`: ranks if every query counts from 1 up, else scores."""

    AUTO = "auto"
    SCORES = "scores"
    RANKS = "ranks"


class OutputFormat(StrEnum):
    """What is written for each query: an API answer, a row for each pair, or lines of a run file."""

    API = "api"
    PAIRS = "pairs"
    TREC = "trec"
    MSMARCO = "msmarco"
    BEIR = "beir"
    FLAGEMBEDDING = "flagembedding"
    OPENAI_BATCH = "openai-batch"

    @property
    def is_run(self) -> bool:
        """A run file: ids with scores or ranks only, no room for errors or extra fields."""
        return self in (OutputFormat.TREC, OutputFormat.MSMARCO) or self.is_one_object

    @property
    def is_one_object(self) -> bool:
        """The whole file is one JSON object."""
        return self in (OutputFormat.BEIR, OutputFormat.FLAGEMBEDDING)


class ScoreKind(StrEnum):
    """Which score is written: the sigmoid of the logit, the logit, or both."""

    SIGMOID = "sigmoid"
    RAW = "raw"
    BOTH = "both"


class OnError(StrEnum):
    """What to do with a bad record: stop the run, leave it out, or write an error in place of its answer."""

    FAIL = "fail"
    SKIP = "skip"
    EMIT = "emit"


class Resume(StrEnum):
    """Whether to continue an earlier run: if there is one, only if there is one, or never."""

    AUTO = "auto"
    REQUIRE = "require"
    NEVER = "never"


class ProgressMode(StrEnum):
    """How progress is shown. `auto`: a bar on a terminal, plain lines elsewhere."""

    AUTO = "auto"
    BAR = "bar"
    PLAIN = "plain"
    JSON = "json"
    OFF = "off"


class Fuse(StrEnum):
    """How reranker and first stage are combined: by ranks (reciprocal rank fusion) or by scores."""

    RRF = "rrf"
    WEIGHTED = "weighted"


class Normalize(StrEnum):
    """How the scores of a query are scaled before they are combined."""

    NONE = "none"
    MINMAX = "minmax"
    ZSCORE = "zscore"


class Dtype(StrEnum):
    """Precision of weights and activations. `auto`: half precision on CUDA, fp32 elsewhere."""

    AUTO = "auto"
    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"


class Quantize(StrEnum):
    """Precision of the matrix products in the transformer layers, if lower than the dtype."""

    NONE = "none"
    INT8 = "int8"
    FP8 = "fp8"


class LongDocuments(StrEnum):
    """What happens to a document that does not fit: truncated, or split into passages whose scores are pooled."""

    TRUNCATE = "truncate"
    MAX = "max"
    FIRST = "first"
    MEAN_TOP3 = "mean-top3"


class TruncationRule(StrEnum):
    """Which tokens `--max-length` counts for decoders with a prompt.

    ALL: every token of the sequence. MODELCARD: first token, query, separator and passage, as in the code on the bge
    model cards; the prompt is not counted. FLAGEMBEDDING: as MODELCARD, and the passage may use the prompt's length
    once more.
    """

    ALL = "all"
    MODELCARD = "modelcard"
    FLAGEMBEDDING = "flagembedding"


class LayerHeads(StrEnum):
    """Which head of a lightweight checkpoint scores a cutoff layer, see `models/decoders/lightweight.py`."""

    REFERENCE = "reference"
    TRAINED = "trained"


class TrainFormat(StrEnum):
    """Training data: FlagEmbedding's query, pos, neg; or anchor, positive, negative of sentence-transformers."""

    TRAIN = "train"
    TRIPLETS = "triplets"
    N_TUPLES = "n-tuples"


class Sampling(StrEnum):
    """Which of the passages that qualify become negatives: the best ranked, or a random sample."""

    TOP = "top"
    RANDOM = "random"


class MarginFrom(StrEnum):
    """Which positive of a query score margins are measured from."""

    LOWEST = "lowest"
    BEST = "best"
