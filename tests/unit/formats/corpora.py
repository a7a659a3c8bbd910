"""Small runs, queries and corpora for tests, in the forms that they have in the world."""

import gzip

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from rerank_cli.formats import ById, InputOptions, open_source
from rerank_cli.records import Rejection

QUERIES = {"q1": "what is a panda?", "2": "où est la gare ?", "q3": "third"}
DOCUMENTS = {
    "d1": ("Panda", "The giant panda is a bear."),
    "d2": ("", 'A "quoted" text\\ of [brackets].'),
    "日本-3": ("Tōkyō", "The capital of Japan."),
    "44": ("Numbers", "An id of digits."),
}
TREC = ["q1 Q0 d2 1 2.5 bm25", "q1 Q0 d1 2 1.5 bm25", "2 Q0 日本-3 1 9 bm25", "2 Q0 44 2 8 bm25"]


def lines(*values):
    return b"".join(v + b"\n" if isinstance(v, bytes) else orjson.dumps(v) + b"\n" for v in values)


def beir_corpus(documents=None):
    return [{"_id": key, "title": t, "text": text} for key, (t, text) in (documents or DOCUMENTS).items()]


def beir_queries():
    return [{"_id": key, "text": text, "metadata": {"n": n}} for n, (key, text) in enumerate(QUERIES.items())]


def placed(folder, run=None, queries=None, corpus=None):
    """Files of a run, queries and a corpus; values are written as lines."""
    run = TREC if run is None else run
    path = folder / "run.trec"
    path.write_bytes(run if isinstance(run, bytes) else "".join(f"{line}\n" for line in run).encode())
    (folder / "queries.jsonl").write_bytes(lines(*(beir_queries() if queries is None else queries)))
    (folder / "corpus.jsonl").write_bytes(lines(*(beir_corpus() if corpus is None else corpus)))
    return path


def options(folder, run="run.trec", queries="queries.jsonl", corpus="corpus.jsonl", **more):
    names = ("depth", "values", "index_folder", "answer_unlisted", "judged")
    by_id = {key: more.pop(key) for key in names if key in more}
    runs = [run] if isinstance(run, str) else run
    paths = tuple(name if name == "-" else str(folder / name) for name in runs)
    return InputOptions(paths, by_id=ById(str(folder / queries), str(folder / corpus), **by_id), **more)


def read(folder, notify=lambda _: None, **more):
    source = open_source(options(folder, **more), notify)
    try:
        return list(source)
    finally:
        source.close()


def summary(records):
    """Query id and candidate ids of requests, code and line of rejections."""
    return [
        (r.code, r.position.line) if isinstance(r, Rejection) else (r.id, [c.id for c in r.candidates]) for r in records
    ]


def save(path, rows):
    """Rows as a file of the kind that its suffixes name."""
    kind, _, packing = path.name.partition(".")[2].partition(".")
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
        return
    cells = ("\t".join(map(str, row.values())).encode() for row in rows)
    data = lines(*(cells if kind == "tsv" else rows))
    pack = {"": bytes, "gz": gzip.compress, "zst": zstandard.ZstdCompressor().compress}[packing]
    path.write_bytes(pack(data))
