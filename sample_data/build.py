"""Cut the sample files out of SciFact (BEIR layout, with a BM25 run) and XQuAD; deterministic.

python sample_data/build.py --scifact DIR --xquad DIR
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
QUERIES, CANDIDATES = 10, 12
LANGUAGES = ("en", "de", "es", "ru", "ar", "hi", "zh", "th")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scifact", type=Path, required=True)
    parser.add_argument("--xquad", type=Path, required=True)
    args = parser.parse_args()
    records = scifact(args.scifact)
    write_jsonl("scifact.jsonl", records)
    write_qrels(args.scifact, {record["id"] for record in records})
    write_jsonl("scifact.score.jsonl", [score_record(record) for record in records[:4]])
    write_parquet("scifact.parquet", records)
    write_beir(args.scifact)
    write_jsonl("xquad.jsonl", xquad(args.xquad))


def scifact(folder: Path) -> list[dict[str, Any]]:
    """Test claims with their candidates in BM25 order."""
    corpus = {row["_id"]: row for row in read_jsonl(folder / "corpus.jsonl")}
    queries = {row["_id"]: row["text"] for row in read_jsonl(folder / "queries.jsonl")}
    found = bm25(folder, "test")
    return [
        {
            "id": query,
            "query": queries[query],
            "documents": [
                {"id": document, "title": corpus[document]["title"], "text": corpus[document]["text"]}
                for document, _ in candidates
            ],
        }
        for query, candidates in found.items()
    ]


def bm25(folder: Path, split: str) -> dict[str, list[tuple[str, str]]]:
    """Claims drawn from those whose relevant abstract is among the first BM25 candidates: ids and scores of these."""
    relevant = read_qrels(folder, split)
    found: dict[str, list[tuple[str, str]]] = {}
    for line in (folder / f"run.bm25.{split}.top100.trec").read_text().splitlines():
        query, _, document, _, score, _ = line.split()
        candidates = found.setdefault(query, [])
        if len(candidates) < CANDIDATES:
            candidates.append((document, score))
    usable = sorted(query for query, top in found.items() if relevant.get(query, set()) & {i for i, _ in top})
    return {query: found[query] for query in sorted(random.Random(7).sample(usable, QUERIES), key=int)}


def write_beir(folder: Path) -> None:
    """The same claims and as many of the training split in BEIR's layout, with a BM25 run beside each split."""
    target = HERE / "scifact"
    (target / "qrels").mkdir(parents=True, exist_ok=True)
    claims: set[str] = set()
    abstracts: set[str] = set()
    for split in ("train", "test"):
        found = bm25(folder, split)
        relevant = read_qrels(folder, split)
        judged = [(query, document) for query in found for document in sorted(relevant[query])]
        rows = ["query-id\tcorpus-id\tscore\n", *(f"{query}\t{document}\t1\n" for query, document in judged)]
        (target / "qrels" / f"{split}.tsv").write_text("".join(rows))
        run = [
            f"{query} Q0 {document} {rank} {score} bm25\n"
            for query, candidates in found.items()
            for rank, (document, score) in enumerate(candidates, 1)
        ]
        (target / f"bm25.{split}.trec").write_text("".join(run))
        claims |= found.keys()
        abstracts |= {document for candidates in found.values() for document, _ in candidates}
        abstracts |= {document for _, document in judged}
    for name, kept, fields in (("queries", claims, ("text",)), ("corpus", abstracts, ("title", "text"))):
        rows = [row for row in read_jsonl(folder / f"{name}.jsonl") if row["_id"] in kept]
        write_jsonl(f"scifact/{name}.jsonl", [{field: row[field] for field in ("_id", *fields)} for row in rows])


def xquad(folder: Path) -> list[dict[str, Any]]:
    """The same three questions in each language against ten paragraphs of that language, the answer among them."""
    records = []
    for language in LANGUAGES:
        articles = json.loads((folder / f"xquad.{language}.json").read_text(encoding="utf-8"))["data"]
        paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]][:10]
        for number in (0, 4, 8):
            question = paragraphs[number]["qas"][0]
            records.append(
                {
                    "id": f"{question['id']}-{language}",
                    "language": language,
                    "query": question["question"],
                    "documents": [paragraph["context"] for paragraph in paragraphs],
                    "top_n": 3,
                }
            )
    return records


def score_record(record: dict[str, Any]) -> dict[str, Any]:
    texts = [f"{document['title']} {document['text']}" for document in record["documents"][:5]]
    return {"id": record["id"], "text_1": record["query"], "text_2": texts}


def write_parquet(name: str, records: list[dict[str, Any]]) -> None:
    """A row a pair, rows of one query side by side."""
    rows = [
        {"query_id": record["id"], "query": record["query"], "docid": doc["id"]}
        | {"title": doc["title"], "text": doc["text"]}
        for record in records
        for doc in record["documents"]
    ]
    pq.write_table(pa.Table.from_pylist(rows), HERE / name, compression="zstd")


def write_qrels(folder: Path, queries: set[str]) -> None:
    lines = [f"{q} 0 {d} 1\n" for q, found in sorted(read_qrels(folder).items()) if q in queries for d in sorted(found)]
    (HERE / "scifact.qrels").write_text("".join(lines))


def read_qrels(folder: Path, split: str = "test") -> dict[str, set[str]]:
    relevant: dict[str, set[str]] = {}
    with (folder / "qrels" / f"{split}.tsv").open(newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if int(row["score"]) > 0:
                relevant.setdefault(row["query-id"], set()).add(row["corpus-id"])
    return relevant


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().split(b"\n") if line]


def write_jsonl(name: str, records: list[dict[str, Any]]) -> None:
    (HERE / name).write_bytes(b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records))


if __name__ == "__main__":
    main()
