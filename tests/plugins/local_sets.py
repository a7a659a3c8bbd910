"""Registers sets of ir_datasets made of files in the folder `LOCAL_SETS`, in place of downloaded ones."""

import os
from pathlib import Path
from typing import NamedTuple

import ir_datasets
import requests
from ir_datasets.datasets.base import Dataset
from ir_datasets.formats import BaseDocs, BaseQueries, GenericDoc, GenericQuery, TrecQrels, TrecScoredDocs
from ir_datasets.indices import PickleLz4FullStore
from ir_datasets.util import LocalDownload


class Titled(NamedTuple):
    doc_id: str
    title: str
    text: str

    def default_text(self):
        return f"{self.title} {self.text}"


class Report(NamedTuple):
    """A document whose text is in fields that have no known names."""

    doc_id: str
    title: str
    findings: str
    advice: str
    raw: bytes

    def default_text(self):
        return f"{self.title} {self.findings} {self.advice}"


class Topic(NamedTuple):
    query_id: str
    title: str
    narrative: str

    def default_text(self):
        return self.title


class Docs(BaseDocs):
    """Documents read from tab-separated lines, looked up in a store as those of downloaded sets are."""

    def __init__(self, path, kind):
        self._path, self._kind = path, kind

    def docs_cls(self):
        return self._kind

    def _read(self):
        for line in self._path.read_text().splitlines():
            cells = line.split("\t")
            yield self._kind(*cells, *([b"\0"] if self._kind is Report else []))

    def docs_iter(self):
        return iter(self.docs_store())

    def docs_count(self):
        return sum(1 for _ in self._read())

    def docs_store(self):
        store = str(self._path.with_suffix(".pklz4"))
        return PickleLz4FullStore(store, self._read, self._kind, "doc_id", ["doc_id"], count_hint=None)


class Queries(BaseQueries):
    def __init__(self, path, kind):
        self._path, self._kind = path, kind

    def queries_cls(self):
        return self._kind

    def queries_iter(self):
        return (self._kind(*line.split("\t")) for line in self._path.read_text().splitlines())


class Unreachable(Queries):
    def queries_iter(self):
        raise requests.ConnectionError("no route to\nthe server")


def register(folder):
    docs, reports = Docs(folder / "docs.tsv", Titled), Docs(folder / "reports.tsv", Report)
    queries = Queries(folder / "queries.tsv", GenericQuery)
    qrels = TrecQrels(LocalDownload(folder / "qrels.txt"), {0: "no", 1: "yes"})
    scored = TrecScoredDocs(LocalDownload(folder / "scored.trec"))
    sets = {
        "pandas": (docs,),
        "pandas/test": (docs, queries, qrels, scored),
        "pandas/unranked": (docs, queries, qrels),
        "pandas/unjudged": (docs, queries, scored),
        "pandas/queries": (queries,),
        "pandas/away": (docs, Unreachable(folder / "queries.tsv", GenericQuery), qrels, scored),
        "reports": (reports, Queries(folder / "topics.tsv", Topic), scored),
        "generic": (Docs(folder / "plain.tsv", GenericDoc), queries, scored),
    }
    for name, parts in sets.items():
        ir_datasets.registry.register(name, Dataset(*parts))


register(Path(os.environ["LOCAL_SETS"]))
