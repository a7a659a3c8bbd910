"""`rerank models`: known checkpoints, which of them are on disk, and how a model reads a pair."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import orjson
import typer

from rerank_cli.cli.flags import declare
from rerank_cli.cli.flags.declare import flag
from rerank_cli.cli.streams import prepare

if TYPE_CHECKING:
    from rerank_cli.engine.limits import TokenizerOnly


@declare.command
def models(
    name: str | None = typer.Argument(None, metavar="[NAME]", help="A model to show: Hub id, folder or mini."),
    as_json: bool = flag(False, "Print one JSON object a line instead of a table.", long="--json"),
) -> None:
    """List known models: family, size, length, licence, and whether they are on disk.

    \b
      rerank models
      rerank models BAAI/bge-reranker-v2-gemma

    With NAME: its family, prompt, limits and the options that apply to it; fetches its tokenizer, never its weights.
    Other cross-encoders with one label and causal language models work too, by Hub id or folder.
    """
    prepare()
    if name is not None:
        from rerank_cli.engine.limits import open_tokenizer
        from rerank_cli.engine.options import ModelOptions

        found = _facts(open_tokenizer(ModelOptions(name)))
        if as_json:
            typer.echo(orjson.dumps(found).decode())
            return
        for key, value in found.items():
            text = " ".join(value) if isinstance(value, list) else str(value or "-").replace("\n", "\\n")
            typer.echo(f"{key.replace('_', ' '):<20} {text}")
        return
    from rerank_cli.models.checkpoint import on_disk
    from rerank_cli.models.registry import KNOWN

    rows = [(known, on_disk(known.name)) for known in KNOWN]
    if as_json:
        for known, here in rows:
            typer.echo(orjson.dumps(asdict(known) | {"on_disk": here}).decode())
        return
    # Two lines a model, each of at most 80 columns.
    width = max(len(known.name) for known, _ in rows)
    typer.echo(f"{'model':<{width}}  disk {'family':<18}  licence\n  params  length  note")
    for known, here in rows:
        typer.echo(f"{known.name:<{width}}  {'yes' if here else '-':<4} {known.family:<18}  {known.licence}")
        typer.echo(f"  {known.parameters:>6}  {known.max_length:>6}  {known.note}")


def _facts(model: TokenizerOnly) -> dict[str, Any]:
    from rerank_cli.models.options import flag_of
    from rerank_cli.models.registry import KNOWN, half_precision
    from rerank_cli.models.rules import options_of

    config, profile, limits = model.checkpoint.config, model.reading.profile, model.limits
    known = next((known for known in KNOWN if known.name == model.checkpoint.name), None)
    written = ["".join(pieces) for pieces in (profile.prefix, profile.middle, profile.suffix)]
    answers = [answer for answer in (profile.yes, profile.no) if answer is not None]
    return {
        "model": model.checkpoint.name,
        "revision": model.checkpoint.revision,
        "family": model.family,
        "architecture": ", ".join(config.get("architectures") or []),
        "profile": profile.name,
        "prefix": written[0],
        "query": profile.query,
        "query_instruction": profile.query_instruction,
        "middle": written[1],
        "passage": profile.passage,
        "passage_instruction": profile.passage_instruction,
        "suffix": written[2].replace("{prompt}", profile.prompt),
        "answers": " − ".join(answers) if model.reading.answers else "",
        "positions": config.get("max_position_embeddings"),
        "max_length": limits.max_length,
        "query_max_length": limits.query_max_length,
        "truncation_rule": profile.truncation_rule.value,
        "stored_dtype": str(config.get("torch_dtype") or config.get("dtype") or ""),
        "dtype": f"{half_precision(model.checkpoint, model.family)} on CUDA, fp32 elsewhere",
        "parameters": known.parameters if known else "",
        "licence": known.licence if known else "",
        "options": [flag_of(option) for option in sorted(options_of(model.family, profile))],
    }
