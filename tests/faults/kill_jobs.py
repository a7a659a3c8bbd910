"""The jobs that are killed: what each reads, how it is called, and the rows that must come out of it.

Texts are short and queries many, so that a run has some 200 chunks and spends its time between commits.
"""

import gzip
import json
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SKIPPED, EMITTED = "skip", "emit"
_TEXT = "the giant panda is a bear that lives in china"
_BAD_EACH = 9  # one record of so many is bad, in the inputs that have such


@dataclass(frozen=True, slots=True)
class Job:
    """One way to use the command. `given` names its inputs, the output's suffix its container."""

    name: str
    given: str
    output: str
    format: str = "api"
    on_error: str | None = None
    piped: bool = False
    workers: int = 0
    by_id: bool = False
    sort: bool = False

    @property
    def code(self):
        """The exit code of a run to the end."""
        return 3 if self.on_error else 0

    @property
    def code_when_done(self):
        """The exit code of one more run after that; nobody can tell whether a stream is the same again."""
        return 6 if self.piped else self.code

    @property
    def errors(self):
        """The file of bad records, where the job writes one."""
        return "errors.jsonl" if self.on_error == SKIPPED else None

    def command(self, program, model, inputs, folder, interval):
        """The whole command line for an output in this folder."""
        paths = [] if self.piped else list(map(str, inputs.paths))
        if self.by_id:
            paths = [word for pair in zip(("--run", "--queries", "--corpus"), paths, strict=True) for word in pair]
        sort = ["--sort"] if self.sort else []
        flags = [*sort, "--format", self.format, "--chunk-pairs", "40", "--commit-interval", str(interval)]
        if self.on_error:
            flags += ["--on-error", self.on_error]
        if self.errors:
            flags += ["--errors", str(folder / self.errors)]
        place = ["--devices", ",".join(["cpu"] * self.workers)] if self.workers else ["--device", "cpu"]
        engine = ["-m", model, *place, "--threads", "1", "--progress", "off"]
        return [program, "run", *paths, "-o", str(folder / self.output), *flags, *engine]


JOBS = (
    Job("jsonl", "requests", "out.jsonl"),
    Job("jsonl to gzip", "requests", "out.jsonl.gz"),
    Job("jsonl to zstd", "requests", "out.jsonl.zst"),
    Job("several files", "several", "out.jsonl"),
    Job("gzip input", "gzipped", "out.jsonl"),
    Job("pairs", "pairs", "out.jsonl", format="pairs"),
    Job("jsonl to parquet", "requests", "out.parquet"),
    Job("parquet pairs", "table", "out.parquet", format="pairs"),
    Job("bad ones skipped", "mixed", "out.jsonl", on_error=SKIPPED),
    Job("bad ones emitted", "mixed", "out.jsonl", on_error=EMITTED),
    Job("stdin", "requests", "out.jsonl", piped=True),
    Job("two workers", "requests", "out.jsonl", workers=2),
    Job("by id", "by id", "out.jsonl", by_id=True),
    Job("pairs sorted", "shuffled", "out.jsonl", format="pairs", sort=True),
)


@dataclass(frozen=True, slots=True)
class Inputs:
    """Files of one input. `records` are as many as a checkpoint counts at the end."""

    paths: tuple[Path, ...]
    records: int
    answered: Counter
    pairs: Counter
    refused: Counter

    def expected(self, job):
        """The keys of all rows that the job's output must hold, each as often as it must."""
        rows = self.pairs if job.format == "pairs" else self.answered
        return rows + self.refused if job.on_error == EMITTED else rows


def key_of(row):
    """What tells a row of any output: its id, or its query's and its document's."""
    return row.get("id"), row.get("query_id"), row.get("docid")


def make_inputs(folder, records):
    """Write every input that a job names, of so many records each."""
    folder.mkdir(parents=True)
    requests = [_request(random.Random(number), number) for number in range(records)]
    lines = [_line(request) for request in requests]
    pairs = [pair for request in requests for pair in _pairs(request)]
    third = len(lines) // 3
    parts = [lines[:third], lines[third : 2 * third], lines[2 * third :]]
    answered = Counter(key_of(request) for request in requests)
    found = Counter(map(key_of, pairs))

    def whole(*paths):
        return Inputs(paths, records, answered, found, Counter())

    return {
        "requests": whole(_written(folder / "requests.jsonl", lines)),
        "several": whole(*(_written(folder / f"part-{n}.jsonl", part) for n, part in enumerate(parts))),
        "gzipped": whole(_written(folder / "requests.jsonl.gz", lines)),
        "pairs": whole(_written(folder / "pairs.jsonl", map(_line, pairs))),
        "table": whole(_tabled(folder / "pairs.parquet", pairs)),
        "by id": whole(*_by_id(folder, requests)),
        "shuffled": whole(_written(folder / "shuffled.jsonl", _shuffled(map(_line, pairs)))),
        "mixed": _mixed(folder / "mixed.jsonl", requests),
    }


def _request(rng, number):
    documents = [{"id": f"d{n}", "text": f"{number} {n} {_TEXT}"} for n in range(rng.randint(1, 20))]
    return {"id": f"q{number}", "query": f"panda {rng.randint(0, 99)}", "documents": documents}


def _pairs(request):
    for document in request["documents"]:
        about = {"query_id": request["id"], "query": request["query"]}
        yield {**about, "docid": document["id"], "text": document["text"], "price": len(document["text"]) / 8}


def _by_id(folder, requests):
    """A run, its queries, and a corpus in another order."""
    both = [(request, document) for request in requests for document in request["documents"]]
    named = [(request, f"{request['id']}-{document['id']}", document) for request, document in both]
    run = [f"{request['id']} Q0 {name} 1 {-number} t\n".encode() for number, (request, name, _) in enumerate(named)]
    queries = [_line({"_id": request["id"], "text": request["query"]}) for request in requests]
    corpus = _shuffled(_line({"_id": name, "text": document["text"]}) for _, name, document in named)
    parts = {"run.trec": run, "queries.jsonl": queries, "corpus.jsonl": corpus}
    return [_written(folder / name, lines) for name, lines in parts.items()]


def _shuffled(lines):
    lines = list(lines)
    random.Random(1).shuffle(lines)
    return lines


def _mixed(path, requests):
    """Requests among which some have an empty query, and some are torn and so have no id but a number."""
    bad = range(4, len(requests), _BAD_EACH)
    empty, torn = bad[::2], bad[1::2]
    lines = [_line(request) for request in requests]
    for number in empty:
        lines[number] = _line({**requests[number], "query": " "})
    for number in torn:
        lines[number] = lines[number][:-9] + b"\n"
    answered = Counter(key_of(request) for number, request in enumerate(requests) if number not in bad)
    refused = Counter(key_of(requests[number]) for number in empty)
    refused.update(key_of({"id": f"rerank-{number + 1}"}) for number in torn)
    return Inputs((_written(path, lines),), len(requests), answered, Counter(), refused)


def _line(record):
    return json.dumps(record).encode() + b"\n"


def _written(path, lines):
    data = b"".join(lines)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def _tabled(path, pairs):
    pq.write_table(pa.Table.from_pylist(pairs), path, row_group_size=1000)
    return path
