"""Do all evaluators read the same figures out of every format that holds a run?

SciFact claims with BM25 candidates and their scores are reranked once for each format, as a user would. `rerank eval`,
ir_measures, pytrec_eval and ranx (skipped, and said so, where it is not installed: pip install '.[ranx]') then measure
the same file. A table, then one JSON line; exit 1 if a figure differs in its last printed digit.

    python benchmarks/agreement.py --scifact path/to/scifact --claims 30 --depth 20
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import ir_measures
import orjson
import pytrec_eval
from data import read_corpus, read_queries

Qrels = dict[str, dict[str, int]]
Scores = dict[str, dict[str, float]]
Figures = dict[str, float]

MEASURES = ("nDCG@10", "RR@10", "AP", "R@100", "P@10")
IN_RANX = ("ndcg@10", "mrr@10", "map", "recall@100", "precision@10")
IN_TREC_EVAL = {"nDCG@10": "ndcg_cut_10", "AP": "map", "R@100": "recall_100", "P@10": "P_10"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scifact", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--claims", type=int, default=30, help="the first so many; 0 for all")
    parser.add_argument("--depth", type=int, default=20, help="candidates of each")
    args = parser.parse_args()
    tools: dict[str, Callable[[Qrels, Scores], Figures]] = {"ir_measures": by_ir_measures, "pytrec_eval": by_trec_eval}
    try:
        import ranx  # noqa: F401 - only to see whether it is there

        tools["ranx"] = by_ranx
    except ImportError:
        print("ranx is not installed: skipped. pip install '.[ranx]' brings it", file=sys.stderr)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        qrels = prepare(args.scifact, args.claims, args.depth, folder)
        for format in ("trec", "msmarco", "beir", "flagembedding", "api", "pairs"):
            output = folder / f"out.{format}"
            said, ours = measured(folder, output, format, args.model)
            rows.append({"format": format, "tool": "rerank run", "figures": said})
            rows.append({"format": format, "tool": "rerank eval", "figures": ours})
            if format in READERS:
                scores = READERS[format](output)
                rows += [
                    {"format": format, "tool": name, "figures": tool(qrels, scores)} for name, tool in tools.items()
                ]
    print(f"\n{'format':<15}{'tool':<13}" + "".join(f"{name:>9}" for name in MEASURES))
    for row in rows:
        figures = [f"{row['figures'][name]:>9.4f}" if name in row["figures"] else f"{'':>9}" for name in MEASURES]
        print(f"{row['format']:<15}{row['tool']:<13}" + "".join(figures))
    printed = {(name, f"{value:.4f}") for row in rows for name, value in row["figures"].items()}
    agree = len(printed) == len(MEASURES)
    print()
    print(orjson.dumps({"benchmark": "agreement", "model": args.model, "agree": agree, "rows": rows}).decode())
    sys.exit(0 if agree else 1)


def prepare(scifact: Path, claims: int, depth: int, folder: Path) -> Qrels:
    """Candidates with BM25's scores, and the judgements of the claims that were taken."""
    queries, corpus = read_queries(scifact), read_corpus(scifact)
    found: Scores = {}
    for line in (scifact / "run.bm25.test.top100.trec").read_text().splitlines():
        query, _, document, _, score, _ = line.split()
        found.setdefault(query, {})[document] = float(score)
    chosen = list(found)[: claims or None]
    with (folder / "in.jsonl").open("wb") as file:
        for query in chosen:
            best = list(found[query].items())[:depth]
            documents = [{"id": name, **corpus[name], "score": score} for name, score in best]
            file.write(orjson.dumps({"id": query, "query": queries[query], "documents": documents}) + b"\n")
    qrels: Qrels = {}
    for line in (scifact / "qrels" / "test.tsv").read_text().splitlines()[1:]:
        query, document, relevance = line.split("\t")
        if query in chosen:
            qrels.setdefault(query, {})[document] = int(relevance)
    (folder / "qrels.json").write_bytes(orjson.dumps(qrels))
    return qrels


def measured(folder: Path, output: Path, format: str, model: str) -> tuple[Figures, Figures]:
    """What the run says of itself, and what `rerank eval` says of its output."""
    rerank, judged = [sys.executable, "-m", "rerank_cli"], ["--qrels", str(folder / "qrels.json")]
    summary = folder / "summary.json"
    command = [*rerank, "run", str(folder / "in.jsonl"), "-o", str(output), "-m", model, "--format", format, "-q"]
    subprocess.run([*command, *judged, "--summary", str(summary)], check=True)
    found = subprocess.run([*rerank, "eval", str(output), *judged, "--json"], check=True, capture_output=True).stdout
    return json.loads(summary.read_bytes())["evaluation"]["means"], json.loads(found)["means"]


def trec_scores(path: Path) -> Scores:
    with path.open() as file:
        return dict(pytrec_eval.parse_run(file))


def msmarco_scores(path: Path) -> Scores:
    found: Scores = {}
    for line in path.read_text().splitlines():
        query, document, rank = line.split("\t")
        found.setdefault(query, {})[document] = 1 / int(rank)
    return found


READERS: dict[str, Callable[[Path], Scores]] = {
    "trec": trec_scores,
    "msmarco": msmarco_scores,
    "beir": lambda path: dict(json.loads(path.read_bytes())),
    "flagembedding": lambda path: dict(json.loads(path.read_bytes())["search_results"]),
}


def by_ir_measures(qrels: Qrels, scores: Scores) -> Figures:
    measures = [ir_measures.parse_measure(name) for name in MEASURES]
    return {str(name): float(value) for name, value in ir_measures.calc_aggregate(measures, qrels, scores).items()}


def by_trec_eval(qrels: Qrels, scores: Scores) -> Figures:
    """RR@10 is not among trec_eval's measures."""
    found = pytrec_eval.RelevanceEvaluator(qrels, set(IN_TREC_EVAL.values())).evaluate(scores)
    return {ours: sum(values[name] for values in found.values()) / len(qrels) for ours, name in IN_TREC_EVAL.items()}


def by_ranx(qrels: Qrels, scores: Scores) -> Figures:
    from ranx import Qrels as LoadedQrels
    from ranx import Run, evaluate

    found = evaluate(LoadedQrels(qrels), Run(scores), list(IN_RANX), make_comparable=True)
    return {ours: float(found[name]) for ours, name in zip(MEASURES, IN_RANX, strict=True)}


if __name__ == "__main__":
    main()
