"""What reranking does to BM25's order: nDCG@10 on SciFact test, MRR@10 on SQuAD dev; measured by ir_measures.

SciFact: the 300 test claims with the 100 best BM25 abstracts. SQuAD: questions of dev against the 20 best BM25
paragraphs of dev (bm25s, made here). Runs the command itself, as a user would. A table, then one JSON line.

    python benchmarks/quality.py --scifact path/to/scifact --squad path/to/dev-v1.1.json
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bm25s
import ir_measures
import orjson
from data import read_corpus, read_queries, read_run
from ir_measures import RR, nDCG

Qrels = dict[str, dict[str, int]]
Scores = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Task:
    """Queries with first-stage candidates, best first, what is relevant, and the measure to look at."""

    name: str
    requests: list[dict[str, Any]]
    qrels: Qrels
    measure: Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scifact", type=Path)
    parser.add_argument("--squad", type=Path, help="dev-v1.1.json")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--questions", type=int, default=1000, help="SQuAD questions, a fixed sample; 0 for all")
    parser.add_argument("--claims", type=int, default=0, help="SciFact claims, the first so many; 0 for all")
    args = parser.parse_args()
    tasks = []
    if args.scifact:
        tasks.append(scifact(args.scifact, args.claims))
    if args.squad:
        tasks.append(squad(args.squad, args.questions))
    figures = [evaluate(task, args.model) for task in tasks]
    print(f"\n{'task':<10}{'queries':>8}{'measure':>10}{'BM25':>9}{args.model[-24:]:>26}")
    for row in figures:
        print(f"{row['task']:<10}{row['queries']:>8}{row['measure']:>10}{row['bm25']:>9.4f}{row['reranked']:>26.4f}")
    print()
    print(orjson.dumps({"benchmark": "quality", "model": args.model, "tasks": figures}).decode())


def scifact(folder: Path, claims: int) -> Task:
    queries, corpus = read_queries(folder), read_corpus(folder)
    run = read_run(folder / "run.bm25.test.top100.trec", 100)
    qrels: Qrels = {}
    for line in (folder / "qrels" / "test.tsv").read_text().splitlines()[1:]:
        query, document, relevance = line.split("\t")
        qrels.setdefault(query, {})[document] = int(relevance)
    chosen = [query for query in qrels if query in run][: claims or None]
    requests = [
        {"id": query, "query": queries[query], "documents": [{"id": d, **corpus[d]} for d in run[query]]}
        for query in chosen
    ]
    return Task("SciFact", requests, {query: qrels[query] for query in chosen}, nDCG @ 10)


def squad(path: Path, questions: int, depth: int = 20) -> Task:
    """A question's own paragraph is the relevant one."""
    articles = json.loads(path.read_text(encoding="utf-8"))["data"]
    paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
    texts = [paragraph["context"] for paragraph in paragraphs]
    asked = [(qa["id"], qa["question"], str(n)) for n, paragraph in enumerate(paragraphs) for qa in paragraph["qas"]]
    if questions:
        asked = random.Random(1).sample(asked, questions)
    index = bm25s.BM25()
    index.index(bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)
    tokens = bm25s.tokenize([question for _, question, _ in asked], stopwords="en", show_progress=False)
    found, _ = index.retrieve(tokens, k=depth, show_progress=False)
    requests = [
        {"id": key, "query": question, "documents": [{"id": str(n), "text": texts[n]} for n in best]}
        for (key, question, _), best in zip(asked, found.tolist(), strict=True)
    ]
    return Task("SQuAD dev", requests, {key: {own: 1} for key, _, own in asked}, RR @ 10)


def evaluate(task: Task, model: str) -> dict[str, Any]:
    """Both orders measured; a relevant document that BM25 did not find counts against both."""
    with tempfile.TemporaryDirectory() as scratch:
        given, answered = Path(scratch, "in.jsonl"), Path(scratch, "out.jsonl")
        given.write_bytes(b"".join(orjson.dumps(r, option=orjson.OPT_APPEND_NEWLINE) for r in task.requests))
        command = [sys.executable, "-m", "rerank_cli", "run", str(given), "-o", str(answered), "-m", model]
        subprocess.run([*command, "--scores", "raw", "--no-documents"], check=True)
        reranked = dict(answers(answered))
    first = {r["id"]: {d["id"]: -float(rank) for rank, d in enumerate(r["documents"])} for r in task.requests}
    return {
        "task": task.name,
        "queries": len(task.requests),
        "pairs": sum(len(r["documents"]) for r in task.requests),
        "measure": str(task.measure),
        "bm25": mean(task, first),
        "reranked": mean(task, reranked),
    }


def answers(path: Path) -> Iterator[tuple[str, dict[str, float]]]:
    for line in path.read_bytes().splitlines():
        answer = orjson.loads(line)
        yield answer["id"], {result["id"]: result["relevance_score"] for result in answer["results"]}


def mean(task: Task, scores: Scores) -> float:
    return float(ir_measures.calc_aggregate([task.measure], task.qrels, flat(scores))[task.measure])


def flat(scores: Scores) -> Iterable[ir_measures.ScoredDoc]:
    return (ir_measures.ScoredDoc(q, d, score) for q, found in scores.items() for d, score in found.items())


if __name__ == "__main__":
    main()
