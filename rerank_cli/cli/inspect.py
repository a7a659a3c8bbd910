"""`rerank inspect`: what a pair of a file becomes before a model reads it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import orjson

from rerank_cli.cli import bundles, by_id
from rerank_cli.cli import options as opt
from rerank_cli.cli.bundles import Gathered, gathers
from rerank_cli.cli.streams import claim_stdout, log_to_stderr, prepare_environment, say

if TYPE_CHECKING:
    from rerank_cli.inspection.pair import Inspection


@gathers(given=by_id.given, reading=bundles.reading)
def inspect(
    given: Gathered,
    reading: Gathered,
    record: Annotated[int, opt.flag("--record", metavar="N", min=1, help="Which record, the first is 1.")] = 1,
    candidate: Annotated[
        int, opt.flag("--candidate", metavar="N", min=0, help="Which of its candidates, the first is 0.")
    ] = 0,
    as_json: Annotated[bool, opt.flag("--json", help="One JSON object instead of a table.")] = False,
    debug: opt.Debug = False,  # noqa: ARG001 - read in main
) -> None:
    """Show the exact text, tokens and ids of one pair, where it is cut, and where its score is read.

    \b
      rerank inspect candidates.jsonl --record 12 --candidate 3 -m mini

    Loads the model's tokenizer, never its weights.
    """
    records = given()
    prepare_environment()
    log_to_stderr(quiet=False, verbose=False)
    from rerank_cli.engine.limits import open_tokenizer
    from rerank_cli.formats import open_source
    from rerank_cli.inspection.pair import find_record, inspect_pair, lines

    stdout = claim_stdout()
    source = open_source(records, say)
    try:
        request = find_record(source, record)
    finally:
        source.close()
    model = open_tokenizer(reading())
    found = inspect_pair(request, candidate, model)
    if as_json:
        text = orjson.dumps(_json(found, model.checkpoint.name), option=orjson.OPT_APPEND_NEWLINE)
    else:
        about = f"{request.position}, candidate {candidate}; {model.checkpoint.name} ({model.family})"
        limits = f"max_length {model.limits.max_length}, query {model.limits.query_max_length}"
        text = "\n".join([f"record   {about}, {limits}", *lines(found), ""]).encode()
    stdout.write(text)
    stdout.flush()


def _json(found: Inspection, model: str) -> dict[str, Any]:
    return {
        "record": str(found.record.position),
        "id": found.record.id,
        "index": found.index,
        "model": model,
        "query": {"text": found.query, **asdict(found.query_cut), "truncated": found.query_cut.truncated},
        "passage": {"text": found.passage, **asdict(found.passage_cut), "truncated": found.passage_cut.truncated},
        "ids": found.ids,
        "tokens": found.tokens,
        "parts": found.parts,
        "score_at": found.score_at,
    }
