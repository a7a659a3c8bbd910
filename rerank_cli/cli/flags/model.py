"""Flags of the model: which one, how it reads a pair, and where it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from rerank_cli.choices import Dtype, LayerHeads, LongDocuments, Quantize, TruncationRule
from rerank_cli.cli.flags import declare
from rerank_cli.cli.flags.declare import flag
from rerank_cli.cli.flags.values import whole_numbers
from rerank_cli.cli.terminal import completion
from rerank_cli.errors import UsageError

if TYPE_CHECKING:
    from rerank_cli.engine.options import ModelOptions

DEFAULT_MODEL = "BAAI/bge-reranker-v2-m3"
more = partial(flag, panel=declare.MODEL)
prompts = partial(flag, panel=declare.PROMPT)
layers = partial(flag, panel=declare.LAYERS)
device_flag = partial(flag, panel=declare.DEVICE)


def how(
    max_length: int | None = flag(None, "Tokens of query, passage and special tokens [default: 512].", "N", min=1),
    revision: str | None = more(None, "Branch, tag or commit on the Hub.", "REV"),
    query_max_length: int | None = more(None, "Tokens of the query [default: 3/4 of --max-length].", "N", min=1),
    profile: str | None = prompts(
        None,
        "Prompt profile: bge, qwen3, mxbai, zerank, ctxl, monot5, mt5, mt5-3b, ptt5, or a TOML or JSON file.",
        "NAME",
    ),
    prompt: str | None = prompts(None, "Question to the model about the pair.", "TEXT"),
    query_instruction: str | None = prompts(None, "Instruction for queries that have none of their own.", "TEXT"),
    passage_instruction: str | None = prompts(None, "Text written before every passage.", "TEXT"),
    truncation_rule: TruncationRule | None = prompts(None, "Which tokens --max-length counts."),
    adapter: str | None = prompts(
        None, "PEFT adapter, merged when the model is loaded: folder or Hub id.", "PEFT", local=True
    ),
    label: str | None = more(None, "Label that gives the score, of a classifier with several: name or index.", "LABEL"),
    cutoff_layers: str | None = layers(None, "Layers that give a score.", "N[,N]"),
    layer_heads: LayerHeads | None = layers(None, "Which heads score (lightweight): the reference's, or as trained."),
    compress_layers: str | None = layers(None, "Layers before which passage tokens are merged.", "N[,N]"),
    compress_ratio: int | None = layers(None, "How many neighbouring tokens are merged into one.", "N", min=1),
    softcap: bool | None = layers(
        None, "Apply the attention softcap, which the reference leaves out.", long="--softcap/--no-softcap"
    ),
    threads: int | None = device_flag(None, "CPU threads [default: all physical cores].", "N", min=1),
) -> ModelOptions:
    """How a model without a name reads pairs, as ModelOptions for any device."""
    from rerank_cli.engine.options import ModelOptions
    from rerank_cli.models.options import FamilyOptions
    from rerank_cli.models.prompts.profile_files import read_profile
    from rerank_cli.storage.opening import read_whole

    family = FamilyOptions(
        None if profile is None else read_profile(profile, read_whole),
        prompt,
        query_instruction,
        passage_instruction,
        truncation_rule,
        adapter,
        label,
        whole_numbers(cutoff_layers, "--cutoff-layers"),
        layer_heads,
        whole_numbers(compress_layers, "--compress-layers"),
        compress_ratio,
        softcap,
    )
    return ModelOptions(
        "", revision, max_length=max_length, query_max_length=query_max_length, threads=threads, family=family
    )


def reading(
    model: str = flag(
        DEFAULT_MODEL,
        "Hub id, folder, or the built-in 'mini'.",
        "MODEL",
        short="-m",
        local=True,
        autocompletion=completion.models,
    ),
    how: Callable[[], ModelOptions] = how,
) -> ModelOptions:
    """The model and how it reads pairs."""
    return replace(how(), name=model)


def place(
    device: str = flag("auto", "auto, cpu, cuda, cuda:N or mps.", "DEVICE", autocompletion=completion.device),
    dtype: Dtype = device_flag(Dtype.AUTO, "auto: fp16 or bf16 (as stored) on CUDA, fp32 elsewhere."),
    quantize: Quantize = device_flag(Quantize.NONE, "Multiply in fewer bits, less exactly: int8 (CPU), fp8 (CUDA)."),
    batch_tokens: str = device_flag("auto", "Tokens in a packed row; auto: by device, model and free memory.", "N"),
    compile: bool = device_flag(
        False, "Compile the model with torch (CUDA); takes about a minute.", long="--compile/--no-compile"
    ),
    share_prefix: bool = device_flag(True, "Compute the common start of a query's prompts once."),
) -> dict[str, Any]:
    """Device and speed, as fields of ModelOptions."""
    is_number = batch_tokens.isascii() and batch_tokens.isdigit() and int(batch_tokens) > 0
    if batch_tokens != "auto" and not is_number:
        raise UsageError(f"--batch-tokens {batch_tokens}: expected auto or a whole number from 1")
    return {
        "device": device,
        "dtype": dtype.value,
        "quantize": quantize,
        "batch_tokens": int(batch_tokens) if is_number else None,
        "share_prefix": share_prefix,
        "compile": compile,
    }


def long_documents(
    long_documents: LongDocuments = more(
        LongDocuments.TRUNCATE, "Documents that do not fit: truncated, or scored in passages."
    ),
    stride: int | None = more(None, "Tokens from passage to passage [default: 3/4 of a passage].", "N", min=1),
) -> dict[str, Any]:
    """How long documents are scored, as fields of ModelOptions."""
    return {"long_documents": long_documents, "stride": stride}


def model_of(reading: Callable[[], ModelOptions], *others: Callable[[], dict[str, Any]]) -> ModelOptions:
    """The options of `reading` with the fields of the other bundles."""
    found = reading()
    for part in others:
        found = replace(found, **part())
    return found
