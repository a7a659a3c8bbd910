"""Options of a model: which one, where it runs, how it reads a pair. Plain data; imports neither numpy nor torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from rerank_cli.choices import LongDocuments, Quantize
from rerank_cli.errors import UsageError
from rerank_cli.models.options import FamilyOptions


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """None is the default of the device or the model.

    `max_length` and `query_max_length` are in tokens, `batch_tokens` is the size of a packed row in tokens, `stride`
    the tokens between the starts of two passages of a long document (None: 3/4 of a passage). With `share_prefix`, the
    tokens that all prompts of a query begin with are computed once.
    """

    name: str
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    quantize: Quantize = Quantize.NONE
    max_length: int | None = None
    query_max_length: int | None = None
    batch_tokens: int | None = None
    threads: int | None = None
    family: FamilyOptions = field(default_factory=FamilyOptions)
    share_prefix: bool = True
    compile: bool = False
    long_documents: LongDocuments = LongDocuments.TRUNCATE
    stride: int | None = None

    def __post_init__(self) -> None:
        if self.stride is not None and not self.in_passages:
            raise UsageError("--stride needs --long-documents max, first or mean-top3")

    @property
    def in_passages(self) -> bool:
        """Whether long documents are scored in passages."""
        return self.long_documents is not LongDocuments.TRUNCATE
