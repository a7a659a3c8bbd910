"""Writes the run that `--tune-weight` chose: all queries of an output, both scores mixed with the best weight.

The bytes are those of `rerank run --fuse weighted` with that weight, in the same format.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from itertools import chain, islice

from rerank_cli.display import shown
from rerank_cli.errors import InputError, UsageError
from rerank_cli.evaluation.tuning import Mixable, Tuning, check_mixable
from rerank_cli.formats import OutputOptions, check_output, open_sink, refuse_existing
from rerank_cli.formats.runs.results import QueryResults, check_documents
from rerank_cli.formats.runs.run_file import RunFile
from rerank_cli.formats.shapes.fields import Names
from rerank_cli.formats.writing.sinks import published
from rerank_cli.records import Candidate, Ranking, Request
from rerank_cli.storage.paths import STREAM

_BATCH = 1000


def check_mixed(path: str, qrels: str, output: OutputOptions) -> None:
    """Raise if the run cannot be written, before anything is read."""
    if output.path == STREAM:
        raise UsageError("--output cannot be - (stdout has the figures). Fix: name a file")
    if path == STREAM:
        raise UsageError("--output reads RUN twice (got -, which can be read once). Fix: name a file")
    check_output(output, [path, qrels])
    refuse_existing(output)


def write_mixed(path: str, fields: Names, tuning: Tuning, output: OutputOptions) -> int:
    """Write the run; returns the number of queries. The rows of a query must be adjacent. Raises InputError."""
    written: set[str] = set()
    with closing(RunFile(path, fields, scored=False)) as file:
        items = iter(file)
        head = list(islice(items, 1))
        answers = replace(output.answers, model=head[0].model or "" if head else "")
        sink = open_sink(replace(output, answers=answers), columns=None)
        rankings = (_ranking(file.name, item, tuning, written) for item in chain(head, items))
        with published(sink, output.path):
            while batch := list(islice(rankings, _BATCH)):
                sink.write(batch)
    return len(written)


def _ranking(name: str, item: QueryResults, tuning: Tuning, written: set[str]) -> Ranking:
    """The mixed ranking of a query. Raises InputError if it was `written`, or if its scores or candidates miss."""
    if item.id in written:
        what = f"query {shown(item.id)} occurs again (expected its rows to be adjacent). Fix: sort RUN by query"
        raise InputError(f"{item.position}: {what}")
    written.add(item.id)
    check_documents(item, name)
    check_mixable(name, item.id, item.results)
    mixed = list(Mixable(item.results).mixed(tuning.best, tuning.normalize))
    candidates = tuple(Candidate("", None, result.id) for result, _ in mixed)
    scores = [score for _, score in mixed]
    request = Request("", candidates, item.position, item.id)
    return Ranking(request, scores, range(len(scores)), 0, fused=scores)
