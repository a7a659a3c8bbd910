"""Training data in: `{"query", "pos": [...], "neg": [...]}`, whose candidates are the positives, then the negatives."""

from __future__ import annotations

from rerank_cli.display import kind, names
from rerank_cli.errors import BadRecord
from rerank_cli.records import Json

LISTS = ("pos", "neg")
SCORES = ("pos_scores", "neg_scores")


def train_lists(record: dict[str, Json]) -> list[Json]:
    """The documents of both lists, either of which may be empty. Raises BadRecord if one is no list."""
    both = []
    for name in LISTS:
        if name not in record:
            raise BadRecord("no_candidates", f"there is no `{name}` (got {names(record)}; expected `pos` and `neg`)")
        documents = record[name]
        if not isinstance(documents, list):
            raise BadRecord("bad_documents", f"`{name}` is not a list (got {kind(documents)})")
        both += documents
    return both
