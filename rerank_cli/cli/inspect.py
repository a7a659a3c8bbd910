"""`rerank inspect`: how the model reads one pair of a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import orjson

from rerank_cli.cli.flags import common, declare, inputs, model
from rerank_cli.cli.flags.declare import flag
from rerank_cli.cli.streams import claim_stdout, log_to_stderr, prepare_environment, say

if TYPE_CHECKING:
    from rerank_cli.inspection.pair import Inspection


@declare.command(given=inputs.given, reading=model.reading)
def inspect(
    given: Callable[[], Any],
    reading: Callable[[], Any],
    record: int = flag(1, "Number of the record; the first is 1.", "N", min=1),
    candidate: int = flag(0, "Number of the candidate; the first is 0.", "N", min=0),
    as_json: bool = common.AS_JSON,
    debug: bool = common.DEBUG,  # noqa: ARG001 - read in main
) -> None:
    """Show text, tokens and ids of one pair as the model reads it, where it is truncated, and where its score is read.

    \b
      rerank inspect candidates.jsonl --record 2 --candidate 3 -m mini

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
    known = open_tokenizer(reading())
    found = inspect_pair(request, candidate, known)
    if as_json:
        text = orjson.dumps(_json(found, known.checkpoint.name), option=orjson.OPT_APPEND_NEWLINE)
    else:
        about = f"{request.position}, candidate {candidate}; {known.checkpoint.name} ({known.family})"
        limits = f"max_length {known.limits.max_length}, query {known.limits.query_max_length}"
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
