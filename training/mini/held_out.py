"""Write the held-out set as `rerank train --eval-run` and `rerank run --run` read it: a folder in BEIR's layout.

Short passages: the windows of the held-out SQuAD train articles, asked by a question or by its keywords in turn, with
the windows that BM25 ranks highest among all of them. A query's own window is the relevant one. With `--scifact`, the
held-out SciFact train claims are beside them, as `scifact.tsv`, which goes with SciFact's own run and texts.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from texts import Lexical, keywords, sentences
from world import answer_windows, articles, claims, cut

_DEPTH = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--squad", type=Path, required=True, help="train-v1.1.json")
    parser.add_argument("--scifact", type=Path, help="SciFact folder in BEIR's layout")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=400)
    parser.add_argument("--seed", type=int, default=13)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    windows: list[str] = []
    asked: list[tuple[str, int]] = []
    for article in articles(args.squad)[1]:
        for paragraph in article:
            parts = cut(sentences(paragraph["context"]), rng)
            for question in paragraph["qas"]:
                own = len(windows) + answer_windows(paragraph["context"], parts, question)
                asked.append((question["question"].strip(), own))
            windows += [" ".join(part) for part in parts]
    chosen = rng.sample(asked, args.queries)
    queries = [(text if place % 2 else keywords(text), own) for place, (text, own) in enumerate(chosen)]
    lexical = Lexical(windows)
    scores = (lexical.queries([text for text, _ in queries]) @ lexical.matrix.T).toarray()
    found = np.argsort(-scores, axis=1, kind="stable")[:, :_DEPTH]
    (args.out / "qrels").mkdir(parents=True, exist_ok=True)
    _lines(args.out / "corpus.jsonl", ({"_id": f"w{n}", "title": "", "text": text} for n, text in enumerate(windows)))
    _lines(args.out / "queries.jsonl", ({"_id": f"q{n}", "text": text} for n, (text, _) in enumerate(queries)))
    _qrels(args.out / "qrels" / "dev.tsv", {f"q{n}": [f"w{own}"] for n, (_, own) in enumerate(queries)})
    with (args.out / "run.trec").open("w", encoding="utf-8") as out:
        for number, places in enumerate(found):
            for rank, place in enumerate(places):
                out.write(f"q{number} Q0 w{place} {rank + 1} {scores[number, place]:.6f} bm25\n")
    if args.scifact:
        _qrels(args.out / "scifact.tsv", claims(args.scifact, held=True))


def _lines(path: Path, records: Iterable[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _qrels(path: Path, judged: dict[str, list[str]]) -> None:
    rows = [f"{query}\t{document}\t1\n" for query, documents in judged.items() for document in documents]
    path.write_text("query-id\tcorpus-id\tscore\n" + "".join(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
