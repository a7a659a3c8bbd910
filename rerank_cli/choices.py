"""The values of flags. Imports nothing slow, so that `--help` starts fast."""

from __future__ import annotations

from enum import StrEnum


class RunValues(StrEnum):
    """The third column of a three-column run. `auto`: ranks if the values of each query are 1, 2, 3, …, else scores."""

    AUTO = "auto"
    SCORES = "scores"
    RANKS = "ranks"


class FirstStage(StrEnum):
    """What finds the candidates of the queries, where no run names them."""

    BM25 = "bm25"


class Bm25Language(StrEnum):
    """Whose stop words are left out, and whose stems are compared. `none`: all words, as they are in lower case."""

    ENGLISH = "english"
    NONE = "none"
    ARABIC = "arabic"
    DANISH = "danish"
    DUTCH = "dutch"
    FINNISH = "finnish"
    FRENCH = "french"
    GERMAN = "german"
    HUNGARIAN = "hungarian"
    INDONESIAN = "indonesian"
    ITALIAN = "italian"
    NORWEGIAN = "norwegian"
    PORTUGUESE = "portuguese"
    ROMANIAN = "romanian"
    RUSSIAN = "russian"
    SPANISH = "spanish"
    SWEDISH = "swedish"
    TURKISH = "turkish"


class InputFormat(StrEnum):
    """The format of an input file. `json`: one array, or objects over several lines. `tsv` has no quotes, `csv` has."""

    AUTO = "auto"
    JSONL = "jsonl"
    JSON = "json"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"
    ARROW = "arrow"


class OutputFormat(StrEnum):
    """What is written per query: an API answer, one row per pair, or lines of a run file."""

    API = "api"
    PAIRS = "pairs"
    TREC = "trec"
    MSMARCO = "msmarco"
    BEIR = "beir"
    FLAGEMBEDDING = "flagembedding"
    OPENAI_BATCH = "openai-batch"

    @property
    def is_run(self) -> bool:
        """A run file has ids with scores or ranks only, without errors or extra fields."""
        return self in (OutputFormat.TREC, OutputFormat.MSMARCO) or self.is_one_object

    @property
    def is_one_object(self) -> bool:
        return self in (OutputFormat.BEIR, OutputFormat.FLAGEMBEDDING)


class RunFormat(StrEnum):
    """The formats of `OutputFormat` that are run files."""

    TREC = "trec"
    MSMARCO = "msmarco"
    BEIR = "beir"
    FLAGEMBEDDING = "flagembedding"


class ScoreKind(StrEnum):
    """The score that is written: the sigmoid of the logit, the logit, or both. AUTO: the sigmoid, unless files of the
    checkpoint state the logit.
    """

    AUTO = "auto"
    SIGMOID = "sigmoid"
    RAW = "raw"
    BOTH = "both"


class OnError(StrEnum):
    """A bad record ends the run, is left out, or is written as an error in place of its answer."""

    FAIL = "fail"
    SKIP = "skip"
    EMIT = "emit"


class Resume(StrEnum):
    """`auto`: continue an unfinished run if there is one. `require`: fail if there is none. `never`: start anew."""

    AUTO = "auto"
    REQUIRE = "require"
    NEVER = "never"


class OnChanged(StrEnum):
    """What to do if the input or the settings are not those of the unfinished run that left the checkpoint."""

    FAIL = "fail"
    RESTART = "restart"


class ProgressMode(StrEnum):
    """How progress is shown. `auto`: a bar on a terminal, else plain lines."""

    AUTO = "auto"
    BAR = "bar"
    PLAIN = "plain"
    JSON = "json"
    OFF = "off"


class Fuse(StrEnum):
    """How reranker and first stage are combined: by rank (reciprocal rank fusion) or by weighted score."""

    RRF = "rrf"
    WEIGHTED = "weighted"


class Normalize(StrEnum):
    """How the scores of a query are scaled before they are combined, see `ranking.normalized`."""

    NONE = "none"
    MINMAX = "minmax"
    ZSCORE = "zscore"


class Dtype(StrEnum):
    """Precision of weights and activations. `auto`: half precision on CUDA, else fp32."""

    AUTO = "auto"
    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"


class Quantize(StrEnum):
    """Precision of matrix products in the transformer layers, if lower than the dtype."""

    NONE = "none"
    INT8 = "int8"
    FP8 = "fp8"


class LongDocuments(StrEnum):
    """A document over the length limit is truncated, or split into passages whose scores are pooled."""

    TRUNCATE = "truncate"
    MAX = "max"
    FIRST = "first"
    MEAN_TOP3 = "mean-top3"


class TruncationRule(StrEnum):
    """Which tokens `--max-length` counts, and which text of a pair is cut.

    ALL: every token of the sequence. MODELCARD: first token, query, separator and passage, as in the code on the bge
    model cards, without the prompt. FLAGEMBEDDING: as MODELCARD, and the passage may be longer by the prompt's length.
    These three cut the passage. LONGEST_FIRST: as ALL, and the longer of both texts is cut, as by
    sentence-transformers.
    """

    ALL = "all"
    LONGEST_FIRST = "longest-first"
    MODELCARD = "modelcard"
    FLAGEMBEDDING = "flagembedding"


class LayerHeads(StrEnum):
    """The head of a lightweight checkpoint that scores a cutoff layer, see `models/decoders/lightweight.py`."""

    REFERENCE = "reference"
    TRAINED = "trained"


class TrainFormat(StrEnum):
    """Training data: query, pos, neg (FlagEmbedding) or anchor, positive, negative (sentence-transformers)."""

    TRAIN = "train"
    TRIPLETS = "triplets"
    N_TUPLES = "n-tuples"


class Sampling(StrEnum):
    """Which of the qualifying passages become negatives: the best ranked, or a random sample."""

    TOP = "top"
    RANDOM = "random"


class MarginFrom(StrEnum):
    """The positive of a query from whose score margins are measured."""

    LOWEST = "lowest"
    BEST = "best"


class Loss(StrEnum):
    """What training minimises. `ce`: cross-entropy with the positive. `distil`: that, and with a teacher's scores.

    `bce` and `mse`: of single passages with labels. `margin-mse`: differences of a teacher's scores. `listnet` and
    `lambdarank`: of groups with graded labels.
    """

    CE = "ce"
    DISTIL = "distil"
    BCE = "bce"
    MSE = "mse"
    MARGIN_MSE = "margin-mse"
    LISTNET = "listnet"
    LAMBDARANK = "lambdarank"


class LayerLoss(StrEnum):
    """How the layers of a layered model teach each other, beside the loss of each.

    `none`: not at all. `last`: the last layer the others, without a teacher. `final` and `fixed` need a teacher, and
    the last layer teaches by its scores without compression. `final`: the teacher the last layer, which the others.
    `fixed`: the teacher all layers; besides, every eighth layer from the last those below it.
    """

    NONE = "none"
    LAST = "last"
    FINAL = "final"
    FIXED = "fixed"


class Schedule(StrEnum):
    """How the learning rate goes on after the warm-up: it stays, or falls to 0 linearly or along half a cosine."""

    CONSTANT = "constant"
    LINEAR = "linear"
    COSINE = "cosine"


class TrainedLayers(StrEnum):
    """The layers of a layered model that are trained: all from `--start-layer` on, or the last alone."""

    ALL = "all"
    LAST = "last"


class OnBadGroup(StrEnum):
    """A bad record of training data ends the run, or is left out."""

    FAIL = "fail"
    SKIP = "skip"
