"""The best documents of each query of a TREC run, the others forgotten as they are read."""

from __future__ import annotations

import heapq

from rerank_cli.errors import InputError
from rerank_cli.formats.reading.lines import numbered_lines
from rerank_cli.records import Rejection
from rerank_cli.storage.opening import open_bytes, stamp_of


def best_of_run(path: str, depth: int) -> dict[str, list[str]]:
    """Query id to its `depth` best document ids, best first, as `trec_eval` orders them: score, then id, downwards."""
    stamp_of(path)
    best: dict[str, list[tuple[float, str]]] = {}
    opened = open_bytes(path)
    with opened.content as content:
        for item in numbered_lines(content, opened.name):
            if isinstance(item, Rejection):
                raise InputError(str(item))
            position, line = item
            try:
                query, _, document, _, score, _ = line.decode("utf-8").split()
                entry = float(score), document
            except ValueError:
                raise InputError(
                    f"{position}: is no line of a TREC run (expected `qid Q0 docid rank score tag`)"
                ) from None
            heap = best.setdefault(query, [])
            (heapq.heappush if len(heap) < depth else heapq.heappushpop)(heap, entry)
    return {query: [document for _, document in sorted(heap, reverse=True)] for query, heap in best.items()}
