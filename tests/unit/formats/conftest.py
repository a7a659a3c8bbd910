from contextlib import ExitStack
from pathlib import Path

import numpy as np
import orjson
import pytest

from rerank_cli.choices import OutputFormat
from rerank_cli.formats import AnswerOptions, InputOptions, OutputOptions, open_sink, open_source
from rerank_cli.records import Candidate, Position, Ranking, Rejection, Request, Shape


@pytest.fixture
def write(tmp_path):
    """Write records as JSON lines, or bytes as they are, and return the path."""

    def write(*records, name="input.jsonl"):
        path = tmp_path / name
        path.write_bytes(b"".join(r if isinstance(r, bytes) else orjson.dumps(r) + b"\n" for r in records))
        return str(path)

    return write


@pytest.fixture
def read():
    """All records of some files."""

    def read(*paths, **options):
        source = open_source(InputOptions(tuple(paths), **options))
        try:
            return list(source)
        finally:
            source.close()

    return read


@pytest.fixture
def open_files():
    """Open files as a source, which is closed after the test."""
    with ExitStack() as stack:

        def open_files(*paths, **options):
            source = open_source(InputOptions(tuple(map(str, paths)), **options))
            stack.callback(source.close)
            return source

        yield open_files


@pytest.fixture
def only(read, write):
    """The single record made of one JSON value."""

    def only(record, **options):
        (found,) = read(write(record), **options)
        return found

    return only


def make_ranking(logits, candidates=None, order=None, **request):
    made = tuple(candidates or (Candidate(f"text {i}", f"text {i}") for i in range(len(logits))))
    fields = {"query": "a query", "id": "q1"} | request
    values = np.asarray(logits, dtype=np.float32)
    score = fields.get("shape") is Shape.SCORE
    best = list(range(len(values))) if score else np.argsort(-values, kind="stable").tolist()
    found = Request(candidates=made, position=Position("in.jsonl", 1), **fields)
    return Ranking(found, values.tolist(), best if order is None else order, 42)


@pytest.fixture
def ranking():
    return make_ranking


@pytest.fixture
def rejection():
    return Rejection(Position("in.jsonl", 7), "bad_json", "broken JSON", "q7", "{")


@pytest.fixture
def save(tmp_path):
    """Write outcomes to a file, publish it, and return its path."""

    def save(outcomes, name="out.jsonl", format="api", columns=None, shape=None, keep_errors=False, **answers):
        path = tmp_path / name
        options = OutputOptions(str(path), OutputFormat(format), AnswerOptions("m", **answers), keep_errors=keep_errors)
        sink = open_sink(options, columns=columns, shape=shape)
        try:
            sink.write(outcomes)
            sink.commit()
            sink.publish()
        finally:
            sink.abandon()
        return path

    return save


@pytest.fixture
def saved(save):
    """The JSON lines that outcomes become."""

    def saved(outcomes, **options):
        return [orjson.loads(line) for line in Path(save(outcomes, **options)).read_bytes().splitlines()]

    return saved
