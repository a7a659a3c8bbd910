"""Show a reranked file beside the order it came in: python show.py INPUT RERANKED QRELS."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import orjson


def main() -> None:
    given, reranked, qrels = (Path(argument) for argument in sys.argv[1:4])
    relevant = read_qrels(qrels)
    before = after = 0
    answers = list(zip(read(given), read(reranked), strict=True))
    for request, answer in answers:
        query, results = request["id"], answer["results"]
        before += (query, request["documents"][0]["id"]) in relevant
        after += (query, results[0]["document"]["id"]) in relevant
        print(f"\n{request['query']}")
        for rank, result in enumerate(results, 1):
            document, place, score = result["document"], result["index"] + 1, result["relevance_score"]
            mark = "*" if (query, document["id"]) in relevant else " "
            print(f" {mark} {rank}. {score:.3f}  was {place:>2}  {document['title'][:88]}")
    print(f"\n* judged relevant; first in {before} of {len(answers)} before, in {after} after")


def read(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().split(b"\n") if line]


def read_qrels(path: Path) -> set[tuple[str, str]]:
    rows = (line.split() for line in path.read_text().splitlines())
    return {(query, document) for query, _, document, _ in rows}


if __name__ == "__main__":
    main()
