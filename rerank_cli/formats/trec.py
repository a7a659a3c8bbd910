"""A ranking as lines of a TREC run: `qid Q0 docid rank score tag`.

`trec_eval` ignores the rank, sorts by score and breaks ties by docid downwards: scores strictly decrease within a
query, so that it sees our order. Numbers are float32, printed so that they read back exactly.
"""

from __future__ import annotations

from rerank_cli.errors import BadRecord
from rerank_cli.formats.options import AnswerOptions
from rerank_cli.formats.scores import scores_of, strictly_decreasing
from rerank_cli.formats.wording import shown
from rerank_cli.records import Json, Position, Ranking

TAG = "rerank"


def trec_lines(ranking: Ranking, options: AnswerOptions) -> bytes:
    """One line a candidate, best first. Raises BadRecord for an id that a run cannot hold."""
    request = ranking.request
    query = _id(request.id, "query id", request.position)
    scores = scores_of(ranking, options.scores, best_first=True)
    lines = []
    for rank, (index, value) in enumerate(zip(scores.order, strictly_decreasing(scores.values), strict=True), 1):
        name = request.candidates[index].id
        document = str(index) if name is None else _id(name, "document id", request.position)
        lines.append(f"{query} Q0 {document} {rank} {value!s} {TAG}\n")
    return "".join(lines).encode()


def _id(value: Json, what: str, position: Position) -> str:
    name = str(value)
    if name and len(name.split()) == 1 and name == name.strip() and "\0" not in name:
        return name
    got = f"got `{shown(name)}`, expected one without white space"
    raise BadRecord("bad_trec_id", f"{position}: the {what} cannot stand in a TREC run ({got}). Fix: --format pairs")
