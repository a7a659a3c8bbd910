"""Flags that several commands share, as bundles: a function whose parameters are flags, and whose result is options.

A command names its bundles and gets each as a function without arguments, called once it wants the options; nothing is
imported or read before that.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from rerank_cli.cli import options as opt
from rerank_cli.errors import UsageError
from rerank_cli.models.options import FamilyOptions, LayerHeads, Quantize
from rerank_cli.models.prompts.profiles import TruncationRule, read_profile

R = TypeVar("R")
Gathered = Callable[[], Any]
"""A bundle as a command gets it: makes the options from the flags."""


def gathers(**bundles: Callable[..., Any]) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Put the flags of each bundle in the place of the command's parameter of that name."""

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        parts = {name: inspect.signature(make, eval_str=True).parameters for name, make in bundles.items()}
        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(command, eval_str=True).parameters.values():
            parameters += parts.get(parameter.name, {parameter.name: parameter}).values()

        @functools.wraps(command)
        def wrapper(**values: Any) -> R:
            for name, make in bundles.items():
                flags = {flag: values.pop(flag) for flag in parts[name]}
                values[name] = functools.partial(make, **flags)
            return command(**values)

        del wrapper.__wrapped__
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return wrapper

    return decorate


def reading(
    model: opt.Model = opt.DEFAULT_MODEL,
    revision: opt.Revision = None,
    max_length: opt.MaxLength = None,
    query_max_length: opt.QueryMaxLength = None,
    profile: Annotated[
        str | None,
        opt.flag("--profile", metavar="NAME", help="Prompt of a decoder: bge, qwen3, mxbai, or a TOML or JSON file."),
    ] = None,
    prompt: Annotated[
        str | None, opt.flag("--prompt", metavar="TEXT", help="What a decoder is asked about the pair.")
    ] = None,
    query_instruction: Annotated[
        str | None,
        opt.flag("--query-instruction", metavar="TEXT", help="Instruction of queries that bring none of their own."),
    ] = None,
    passage_instruction: Annotated[
        str | None, opt.flag("--passage-instruction", metavar="TEXT", help="Written before every passage.")
    ] = None,
    truncation_rule: Annotated[
        TruncationRule | None,
        opt.flag("--truncation-rule", help="What --max-length counts, for decoders with a prompt."),
    ] = None,
    adapter: Annotated[
        str | None,
        opt.flag("--adapter", metavar="PEFT", help="Adapter of a decoder, merged at load: folder or Hub id."),
    ] = None,
    cutoff_layers: Annotated[
        str | None,
        opt.flag("--cutoff-layers", metavar="N[,N]", help="Layers that give a score (layerwise, lightweight)."),
    ] = None,
    layer_heads: Annotated[
        LayerHeads | None,
        opt.flag("--layer-heads", help="Heads of a lightweight model: as the reference takes them, or as trained."),
    ] = None,
    compress_layers: Annotated[
        str | None,
        opt.flag("--compress-layers", metavar="N[,N]", help="Where a lightweight model merges passage tokens."),
    ] = None,
    compress_ratio: Annotated[
        int | None, opt.flag("--compress-ratio", metavar="N", min=1, help="How many tokens become one there.")
    ] = None,
    softcap: Annotated[
        bool | None,
        opt.flag(
            "--softcap/--no-softcap", help="Cap attention of a lightweight model, which the reference leaves out."
        ),
    ] = None,
    threads: opt.Threads = None,
) -> Any:
    """How a model reads pairs, as ModelOptions of a run on any place."""
    from rerank_cli.engine.contract import ModelOptions

    family = FamilyOptions(
        profile=None if profile is None else read_profile(profile),
        prompt=prompt,
        query_instruction=query_instruction,
        passage_instruction=passage_instruction,
        truncation_rule=truncation_rule,
        adapter=adapter,
        cutoff_layers=_numbers(cutoff_layers, "--cutoff-layers"),
        layer_heads=layer_heads,
        compress_layers=_numbers(compress_layers, "--compress-layers"),
        compress_ratio=compress_ratio,
        softcap=softcap,
    )
    return ModelOptions(
        model, revision, max_length=max_length, query_max_length=query_max_length, threads=threads, family=family
    )


def place(
    device: opt.Device = "auto",
    dtype: opt.Precision = opt.Dtype.AUTO,
    quantize: Annotated[
        Quantize,
        opt.flag("--quantize", help="Linear layers in fewer bits, a little off: int8 on a CPU, fp8 on CUDA."),
    ] = Quantize.NONE,
    batch_tokens: opt.BatchTokens = "auto",
    compile: Annotated[
        bool,
        opt.flag("--compile/--no-compile", help="Fuse what lies between matrix products, on CUDA: a minute first."),
    ] = False,
    share_prefix: Annotated[
        bool, opt.flag("--share-prefix/--no-share-prefix", help="Work out the start of a query's prompts once.")
    ] = True,
) -> dict[str, Any]:
    """Where a model runs, as fields of ModelOptions."""
    return {
        "device": device,
        "dtype": dtype.value,
        "quantize": quantize,
        "batch_tokens": _tokens(batch_tokens),
        "share_prefix": share_prefix,
        "compile": compile,
    }


def _tokens(text: str) -> int | None:
    if text == "auto":
        return None
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise UsageError(f"--batch-tokens {text}: expected auto or a number from 1 on")
    return int(text)


def _numbers(text: str | None, flag: str) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise UsageError(f"{flag} {text}: expected numbers with commas between them, like 8,28") from None
