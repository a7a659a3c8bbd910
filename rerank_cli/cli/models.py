"""`rerank models`: known checkpoints, which of them are on disk, and how a model reads a pair."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import orjson
import typer

from rerank_cli.cli.flags import declare, model
from rerank_cli.cli.flags.declare import flag
from rerank_cli.cli.terminal import completion
from rerank_cli.cli.terminal.streams import prepare
from rerank_cli.errors import UsageError

if TYPE_CHECKING:
    from rerank_cli.engine.limits import TokenizerOnly
    from rerank_cli.models.prompts.lists import ListRule

_NAME = 42  # columns of a model's name in the list


@declare.command
def models(
    context: typer.Context,
    name: str | None = typer.Argument(
        None,
        metavar="[NAME]",
        help="A model to show: Hub id, folder or mini.",
        autocompletion=completion.models,
    ),
    how: Callable[[], Any] = model.how,
    as_json: bool = flag(False, "Print one JSON object a line instead of a table.", long="--json"),
) -> None:
    """List known models: family, size, length, licence, and whether they are on disk.

    \b
      rerank models
      rerank models BAAI/bge-reranker-v2-gemma

    With NAME: its family, prompt, limits and the options that apply to it, and where each setting comes from: a flag, a
    file of the checkpoint, its family, or built in. Fetches its tokenizer, never its weights. Other cross-encoders and
    causal language models work too, by Hub id or folder.
    """
    prepare()
    if name is not None:
        from rerank_cli.engine.limits import open_tokenizer

        opened = open_tokenizer(replace(how(), name=name))
        found = _facts(opened)
        if as_json:
            typer.echo(orjson.dumps(found | {"sources": opened.sources, "remarks": opened.remarks}).decode())
            return
        for key, value in found.items():
            typer.echo(_row(key, value, opened.sources.get(key)))
        for remark in opened.remarks:
            typer.echo(_row("note", remark, None))
        return
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE" and parameter.name not in ("as_json", "debug"):
            raise UsageError(f"{parameter.opts[0]}: needs the NAME of a model")
    from rerank_cli.models.checkpoint import on_disk
    from rerank_cli.models.known import KNOWN

    rows = [(known, on_disk(known.name)) for known in KNOWN]
    if as_json:
        for known, here in rows:
            typer.echo(orjson.dumps(asdict(known) | {"on_disk": here}).decode())
        return
    # Two lines a model, each of at most 80 columns; a third for a long name.
    typer.echo(f"{'model':<{_NAME}}  disk {'family':<18} licence\n  params  length  note")
    for known, here in rows:
        name = known.name if len(known.name) <= _NAME else f"{known.name}\n{'':<{_NAME}}"
        typer.echo(f"{name:<{_NAME}}  {'yes' if here else '-':<4} {known.family:<18} {known.licence}")
        typer.echo(f"  {known.parameters:>6}  {known.max_length:>6}  {known.note}")


def _row(key: str, value: Any, source: str | None) -> str:
    """A setting on lines of at most 80 columns where its words allow, and where it comes from."""
    text = " ".join(value) if isinstance(value, list) else str(value or "-").replace("\n", "\\n")
    text += f"  ({source})" if source else ""
    return textwrap.fill(
        text, 80, initial_indent=f"{key.replace('_', ' '):<20} ", subsequent_indent=" " * 21, break_long_words=False,
        break_on_hyphens=False, replace_whitespace=False, drop_whitespace=True,
    )  # fmt: skip


def _answers(model: TokenizerOnly) -> str:
    """The tokens that give the score, as a formula: `yes − no`, or `log Σ exp(yes, Yes) − no`."""
    answers = model.reading.answers
    if answers is None:
        return ""
    sides = (model.tokenizer.tokens(side) for side in (answers.yes, answers.no) if side)
    return " − ".join(side[0] if len(side) == 1 else f"log Σ exp({', '.join(side)})" for side in sides)


def _list(rule: ListRule) -> str:
    window = f"{rule.passages} passages and {rule.window:,} tokens a window"
    return f"{window}; max_length is that of a passage; a score depends on the other passages and their order"


def _facts(model: TokenizerOnly) -> dict[str, Any]:
    from rerank_cli.models.known import BIDIRECTIONAL, KNOWN, MODULAR
    from rerank_cli.models.options import flag_of
    from rerank_cli.models.registry import half_precision
    from rerank_cli.models.stated import pooling_modes

    config, profile, limits = model.checkpoint.config, model.reading.profile, model.limits
    known = next((known for known in KNOWN if known.name == model.checkpoint.name), None)
    mean = ("mean",) if model.family == BIDIRECTIONAL else ()
    pooling = pooling_modes(model.checkpoint) if model.family == MODULAR else mean
    written = ["".join(pieces) for pieces in (profile.prefix, profile.middle, profile.suffix)]
    return {
        "model": model.checkpoint.name,
        "revision": model.checkpoint.revision,
        "family": model.family,
        "architecture": ", ".join(config.get("architectures") or []),
        "profile": profile.name,
        "prompt": "" if model.reading.joined else profile.written,
        "prefix": written[0],
        "query": profile.query,
        "query_instruction": profile.query_instruction,
        "middle": written[1],
        "passage": profile.passage,
        "passage_instruction": profile.passage_instruction,
        "suffix": written[2].replace("{prompt}", profile.prompt),
        "answers": _answers(model),
        "label": model.reading.label.name if model.reading.label else "",
        "pooling": ", ".join(pooling),
        "activation": model.reading.stated.activation or "Sigmoid",
        "positions": config.get("max_position_embeddings"),
        "max_length": limits.max_length,
        "query_max_length": limits.query_max_length,
        **({"list": _list(model.reading.lists)} if model.reading.lists else {}),
        "truncation_rule": profile.truncation_rule.value,
        "truncation_side": "left" if model.reading.rule.template.keeps_end else "right",
        "lower_case": "yes" if model.reading.stated.lower_case else "",
        "stored_dtype": str(config.get("torch_dtype") or config.get("dtype") or ""),
        "dtype": f"{half_precision(model.checkpoint, model.family)} on CUDA, fp32 elsewhere",
        "parameters": known.parameters if known else "",
        "licence": known.licence if known else "",
        "options": [flag_of(option) for option in sorted(model.reading.options)],
    }
