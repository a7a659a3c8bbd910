"""The keywords of `Reranker` and `run_file` with their types: the flags of the command, dashes as underscores.

`tests/unit/api/test_keywords.py` compares them with the flags.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any, Literal, TypedDict, TypeVar, get_type_hints

from rerank_cli.errors import RerankError

F = TypeVar("F", bound=Callable[..., Any])

_FLAG = re.compile(r"(?<![\w./-])(?:--([a-z]+(?:-[a-z]+)*)|-o\b)")

StrPath = str | PathLike[str]


class ModelSettings(TypedDict, total=False):
    """How a model is loaded and reads a pair; what is left out has the command's default. See docs/cli.md."""

    revision: str | None
    device: str
    dtype: Literal["auto", "fp32", "fp16", "bf16"]
    quantize: Literal["none", "int8", "fp8"]
    max_length: int | None
    query_max_length: int | None
    batch_tokens: int | Literal["auto"]
    threads: int | None
    compile: bool
    share_prefix: bool
    long_documents: Literal["truncate", "max", "first", "mean-top3"]
    stride: int | None
    profile: StrPath | None
    prompt: str | None
    query_instruction: str | None
    passage_instruction: str | None
    truncation_rule: Literal["all", "longest-first", "modelcard", "flagembedding"] | None
    adapter: StrPath | None
    label: str | int | None
    cutoff_layers: Sequence[int] | str | None
    layer_heads: Literal["reference", "trained"] | None
    compress_layers: Sequence[int] | str | None
    compress_ratio: int | None
    softcap: bool | None


class RunSettings(ModelSettings, total=False):
    """Everything that `rerank run` takes besides input and output; what is left out has the command's default."""

    model: StrPath
    shape: Literal["rerank", "score", "pairs", "candidates", "hits", "batch", "train"] | None
    query_field: str | None
    documents_field: str | None
    text_field: str | Sequence[str] | None
    text_template: str | None
    title_field: str | None
    score_field: str | None
    id_field: str | None
    doc_id_field: str | None
    input_format: Literal["auto", "jsonl", "json", "csv", "tsv", "parquet", "arrow"]
    query: str | None
    require_candidates: bool
    sort: bool
    run: StrPath | Sequence[StrPath] | None
    queries: StrPath | None
    corpus: StrPath | None
    beir: StrPath | None
    split: str | None
    first_stage: Literal["bm25"] | None
    bm25_k1: float | None
    bm25_b: float | None
    bm25_language: (
        Literal[
            "english", "none", "arabic", "danish", "dutch", "finnish", "french", "german", "hungarian", "indonesian",
            "italian", "norwegian", "portuguese", "romanian", "russian", "spanish", "swedish", "turkish",
        ]
        | None
    )  # fmt: skip
    dataset: str | None
    depth: int | None
    skip_unlisted: bool
    run_values: Literal["auto", "scores", "ranks"] | None
    index_dir: StrPath | None
    top_n: int | None
    fuse: Literal["rrf", "weighted"] | None
    fuse_k: int | None
    fuse_weight: float | None
    normalize: Literal["none", "minmax", "zscore"] | None
    min_score: float | None
    qrels: StrPath | None
    measures: str | Sequence[str] | None
    devices: str | Sequence[str] | None
    ray: str | None
    workers: int | str | None
    cache: StrPath | None
    cascade: str | None
    cascade_sample: int | None
    chunk_pairs: int | None
    overwrite: bool
    format: Literal["api", "pairs", "trec", "msmarco", "beir", "flagembedding", "openai-batch"]
    scores: Literal["auto", "sigmoid", "raw", "both"]
    documents: bool
    echo_query: bool
    mark_truncated: bool
    summary: StrPath | None
    metrics: StrPath | None
    limit: int | None
    shard: str | None
    on_error: Literal["fail", "skip", "emit"]
    errors: StrPath | None
    max_errors: int | None
    resume: Literal["auto", "require", "never"]
    restart: bool
    on_changed: Literal["fail", "restart"]
    checkpoint: StrPath | None
    commit_interval: float | None
    max_duration: str | float | None
    verify: int | None
    verify_tolerance: float | None
    progress: Literal["auto", "bar", "plain", "json", "off"]
    progress_interval: float


class _Default:
    def __repr__(self) -> str:
        return "<default>"


def spelled_out(settings: type) -> Callable[[F], F]:
    """Give a function with `**settings` a signature that names each of them, for `help` and for notebooks."""

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        named = [
            parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD
        ]
        more = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_Default(), annotation=kind)
            for name, kind in get_type_hints(settings).items()
        ]
        function.__signature__ = signature.replace(parameters=[*named, *more])  # type: ignore[attr-defined]
        return function

    return decorate


def as_keywords(message: str) -> str:
    """The message with keywords in place of flags: `max_length 9000: …` for `--max-length 9000: …`."""
    return _FLAG.sub(lambda flag: (flag[1] or "output").replace("-", "_"), message)


@contextmanager
def named_as_keywords() -> Iterator[None]:
    """Let messages of errors name keywords, not flags."""
    try:
        yield
    except RerankError as error:
        error.args = (as_keywords(str(error)), *error.args[1:])
        raise
