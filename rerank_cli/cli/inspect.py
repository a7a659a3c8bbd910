"""`rerank inspect`: how the model reads one pair of a file."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from typing import Any

from rerank_cli.cli.flags import common, declare, inputs, model
from rerank_cli.cli.flags.declare import flag
from rerank_cli.cli.terminal.streams import claim_stdout, prepare, say, write


@declare.command
def inspect(
    given: Callable[[], Any] = inputs.given,
    reading: Callable[[], Any] = model.reading,
    record: int = flag(1, "Number of the record; the first is 1.", "N", min=1),
    candidate: int = flag(0, "Number of the candidate; the first is 0.", "N", min=0),
    as_json: bool = common.AS_JSON,
) -> None:
    """Show text, tokens and ids of one pair as the model reads it, where it is truncated, and where its score is read.

    \b
      rerank inspect candidates.jsonl --record 2 --candidate 3 -m mini

    Loads the model's tokenizer, never its weights.
    """
    records = given()
    prepare()
    from rerank_cli.engine.limits import open_tokenizer
    from rerank_cli.formats import open_source
    from rerank_cli.inspection.pair import find_record, inspect_pair, lines, visible

    stdout = claim_stdout()
    with closing(open_source(records, say)) as source:
        request = find_record(source, record)
    known = open_tokenizer(reading())
    found = inspect_pair(request, candidate, known)
    prompt = "" if known.reading.joined else known.reading.profile.written
    if not as_json:
        about = f"{request.position}, candidate {candidate}; {known.checkpoint.name} ({known.family})"
        limits = f"max_length {known.limits.max_length}, query {known.limits.query_max_length}"
        origin = f"profile {known.reading.profile.name}, {known.sources['profile']}"
        shown = [f"prompt   {visible(prompt)}  ({origin})"] if prompt else []
        write(stdout, "\n".join([f"record   {about}, {limits}", *shown, *lines(found), ""]))
        return
    fields = {
        "record": str(found.record.position),
        "id": found.record.id,
        "index": found.index,
        "model": known.checkpoint.name,
        "prompt": prompt,
        "query": {"text": found.query, **asdict(found.query_cut), "truncated": found.query_cut.truncated},
        "passage": {"text": found.passage, **asdict(found.passage_cut), "truncated": found.passage_cut.truncated},
        "ids": found.ids,
        "tokens": found.tokens,
        "parts": found.parts,
        "score_at": found.score_at,
    }
    write(stdout, fields)
