"""Training records to groups: a query with its positives and negatives.

| form | fields |
|---|---|
| groups (FlagEmbedding) | query, pos and neg, lists; teacher scores in pos_scores and neg_scores |
| triplets, n-tuples (sentence-transformers) | anchor, positive, negative or negative_1 …; teacher scores in scores |
| labelled lists | query, documents, labels |
| labelled pairs | query, passage, label; without a label the passage is a positive |

Records with one positive or one pair are rows: adjacent rows of one query are one group.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from rerank_cli.display import kind, names, quoted, shown
from rerank_cli.errors import BadRecord
from rerank_cli.formats.shapes.documents import candidates_from
from rerank_cli.formats.shapes.fields import (
    DOCUMENTS,
    INSTRUCTION,
    QUERY,
    QUERY_ID,
    TEXT,
    Found,
    Names,
    an_id,
    first,
)
from rerank_cli.formats.shapes.requests import an_object
from rerank_cli.formats.shapes.texts import text_of
from rerank_cli.records import Json

_QUERY = (*QUERY, "anchor", "sentence1")
_PASSAGE = ("passage", "sentence2", "response", "answer", *TEXT, "document", "text_2")
_POSITIVE, _NEGATIVE = ("pos", "positive", "positives"), ("neg", "negative", "negatives")
_NUMBERED = re.compile(r"(?:neg|negative)_(\d+)")
TRAINING_PROMPT = "training_prompt"  # a prompt of the model that is trained, which a teacher does not read
_LABEL = ("label", "labels", "score", "scores", "relevance")
_LISTED_LABELS = ("labels",)
_SCORES = ("scores", "score", "labels", "label")
GROUP_FIELDS = frozenset((*_QUERY, *_PASSAGE, *_POSITIVE, *_NEGATIVE, *_LABEL, *DOCUMENTS))


@dataclass(frozen=True, slots=True)
class TrainingGroup:
    """A query and its passages, in file order.

    `scores` are the teacher's logits and `labels` the labels, of the positives and then of the negatives; None if the
    record has none. Passages with a label above 0 are positives. A prompt is None where the record has none.
    """

    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]
    scores: tuple[float, ...] | None = None
    labels: tuple[float, ...] | None = None
    id: str | int | float | None = None
    prompt: str | None = None
    query_prompt: str | None = None
    passage_prompt: str | None = None
    is_row: bool = False

    @property
    def passages(self) -> tuple[str, ...]:
        """The positives, then the negatives."""
        return self.positives + self.negatives

    @property
    def key(self) -> tuple[str | None, ...]:
        """What the rows of one group have in common."""
        return self.query, self.prompt, self.query_prompt, self.passage_prompt

    def as_record(self) -> dict[str, Json]:
        """The group as a record that `group_from` reads as the same group."""
        texts = {"query": self.query, "pos": self.positives, "neg": self.negatives, "id": self.id}
        prompts = {
            TRAINING_PROMPT: self.prompt,
            "query_prompt": self.query_prompt,
            "passage_prompt": self.passage_prompt,
        }
        cut = len(self.positives)
        scores = {"pos_scores": self.scores[:cut], "neg_scores": self.scores[cut:]} if self.scores else {}
        found = {**texts, **prompts, **scores, "labels": self.labels}
        return {name: value for name, value in found.items() if value or name in {"pos", "neg"}}


@dataclass(frozen=True, slots=True)
class GroupFields:
    """The field names of training records: one name if the user gives it, else the known ones."""

    query: tuple[str, ...] = _QUERY
    passage: tuple[str, ...] = _PASSAGE
    label: tuple[str, ...] = ()

    @property
    def known(self) -> frozenset[str]:
        """All names, by which a header is recognised."""
        return GROUP_FIELDS.union(self.query, self.passage, self.label)


def group_from(value: Json, fields: GroupFields) -> TrainingGroup:
    """The group in a record, or the part of a group in a row; see `checked`. Raises BadRecord."""
    record = an_object(value)
    query = _text(first(record, fields.query), record, fields.query, "query", "--query-field")
    if fields.label and first(record, fields.label).name is None:
        what = f"there is no `{shown(fields.label[0], 40)}` (got {names(record)})"
        raise BadRecord("missing_label", f"{what}. Fix: --label-field")
    positive = first(record, _POSITIVE)
    listed = first(record, DOCUMENTS) if positive.name is None else Found(None, None)
    if positive.name is None and any(name in record for name in (*_POSITIVE, *_NEGATIVE)):
        positive = Found(next((name for name in _POSITIVE if name in record), _POSITIVE[0]), [])
    if isinstance(listed.value, list):
        found = _labelled(query, listed, record, fields)
    elif positive.name is not None:
        found = _divided(query, positive, record, fields)
    else:
        text = _text(
            first(record, fields.passage), record, (*_POSITIVE[:2], *fields.passage), "passage", "--text-field"
        )
        label = first(record, fields.label or _LABEL)
        found = _split(query, [text], None if label.name is None else [_number(label.value, label.name)])
        found = replace(found, is_row=True)
    name = None if found.is_row else an_id(first(record, QUERY_ID).value, "id")
    return replace(
        found,
        id=name,
        prompt=_prompt(record, (TRAINING_PROMPT, *INSTRUCTION[::-1])),
        query_prompt=_prompt(record, ("query_prompt",)),
        passage_prompt=_prompt(record, ("passage_prompt",)),
    )


def joined(parts: Sequence[TrainingGroup]) -> TrainingGroup:
    """Rows of one query as one group. A text that several rows have is in it once, with the first row's values.

    Raises BadRecord if only some of the rows have labels: a row without one is no positive then.
    """
    if len(parts) == 1:
        return replace(parts[0], is_row=False)
    positives, negatives = _merged(parts, True), _merged(parts, False)
    values = [*positives.values(), *negatives.values()]
    scores = [score for score, _ in values if score is not None]
    labels = [label for _, label in values if label is not None]
    if 0 < len(labels) < len(values):
        got = f"got {len(labels)} labels for {len(values)} passages"
        raise BadRecord("missing_label", f"some rows of this query have a label and others have none ({got})")
    return replace(
        parts[0],
        positives=tuple(positives),
        negatives=tuple(negatives),
        scores=tuple(scores) if len(scores) == len(values) else None,
        labels=tuple(labels) if len(labels) == len(values) else None,
        is_row=False,
    )


def _divided(query: str, positive: Found, record: Mapping[str, Json], fields: GroupFields) -> TrainingGroup:
    """Positives and negatives in fields of their own: lists, or one text each."""
    negative = first(record, _NEGATIVE)
    numbered = sorted((int(match[1]), name) for name in record if (match := _NUMBERED.fullmatch(name)))
    positives = _texts(positive)
    negatives = _texts(negative) if negative.name else ()
    for _, field in numbered:
        negatives += _texts(Found(field, record[field])) if record[field] is not None else ()
    count = len(positives) + len(negatives)
    scores = _teacher(record, len(positives), len(negatives))
    if isinstance(positive.value, list):
        listed = first(record, fields.label or _LISTED_LABELS)
        labels = None if listed.name is None else _numbers(listed, count)
        return TrainingGroup(query, positives, negatives, scores, labels)
    name, value = first(record, fields.label or _SCORES)
    if scores is None and name:
        numbers = value if isinstance(value, list) else [value]
        if not isinstance(value, list) and len(negatives) == 1:
            numbers = [value, 0.0]  # a margin: it means the same as two scores that far apart
        scores = _numbers(Found(name, numbers), count)
    return TrainingGroup(query, positives, negatives, scores, is_row=True)


def _labelled(query: str, listed: Found, record: Mapping[str, Json], fields: GroupFields) -> TrainingGroup:
    """A list of documents with a list of labels."""
    texts = _texts(listed)
    labels = first(record, fields.label or _LABEL)
    if labels.name is None:
        got = f"got {names(record)}; expected {quoted(_LABEL[1:2])} beside `{listed.name}`"
        raise BadRecord("missing_label", f"there are no labels ({got}). Fix: --label-field")
    return _split(query, texts, _numbers(labels, len(texts)))


def _split(query: str, texts: Sequence[str], labels: Sequence[float] | None) -> TrainingGroup:
    """Texts to positives, whose label is above 0, and negatives; without labels all are positives."""
    if labels is None:
        return TrainingGroup(query, tuple(texts), ())
    both = list(zip(texts, labels, strict=True))
    positives, negatives = ([pair for pair in both if (pair[1] > 0) is wanted] for wanted in (True, False))
    return TrainingGroup(
        query,
        tuple(text for text, _ in positives),
        tuple(text for text, _ in negatives),
        labels=tuple(label for _, label in chain(positives, negatives)),
    )


def _merged(parts: Sequence[TrainingGroup], positive: bool) -> dict[str, tuple[float | None, float | None]]:
    """The positives or the negatives of all parts, each with its teacher score and its label."""
    found: dict[str, tuple[float | None, float | None]] = {}
    for part in parts:
        texts, begin = (part.positives, 0) if positive else (part.negatives, len(part.positives))
        for number, text in enumerate(texts, begin):
            score = part.scores[number] if part.scores else None
            found.setdefault(text, (score, part.labels[number] if part.labels else None))
    return found


def _text(found: Found, record: Mapping[str, Json], expected: Sequence[str], what: str, flag: str) -> str:
    """Raises BadRecord if the text is missing, null, empty or not a string."""
    name, value = first(found.value, ("text", "query")) if isinstance(found.value, dict) else found
    if isinstance(value, bytes):
        value = text_of(value, what)
    if name is None:
        got = f"got {names(record)}; expected {quoted(expected[:6])}"
        raise BadRecord(f"missing_{what}", f"there is no {what} ({got}). Fix: {flag}")
    if not isinstance(value, str):
        raise BadRecord(f"bad_{what}", f"`{shown(name, 40)}` is not a string (got {kind(value)})")
    if not value or value.isspace():
        raise BadRecord(f"empty_{what}", f"`{shown(name, 40)}` is empty")
    return value


def _texts(found: Found) -> tuple[str, ...]:
    """The texts of a list of documents, or of one document. Raises BadRecord."""
    items = found.value if isinstance(found.value, list) else [found.value]
    return tuple(candidate.text for candidate in candidates_from(items, Names(), str(found.name)))


def _teacher(record: Mapping[str, Json], positives: int, negatives: int) -> tuple[float, ...] | None:
    """`pos_scores` and `neg_scores`, None if the record has neither. Raises BadRecord unless there is one per text."""
    both = [(name, record.get(name)) for name in ("pos_scores", "neg_scores")]
    if all(value is None for _, value in both):
        return None
    counts = (positives, negatives)
    lists = [
        _numbers(Found(name, [] if value is None else value if isinstance(value, list) else [value]), count)
        for (name, value), count in zip(both, counts, strict=True)
    ]
    return lists[0] + lists[1]


def _numbers(found: Found, count: int) -> tuple[float, ...]:
    """A list of `count` numbers. Raises BadRecord."""
    name = shown(str(found.name), 40)
    if not isinstance(found.value, list) or len(found.value) != count:
        got = f"{len(found.value)}" if isinstance(found.value, list) else kind(found.value)
        raise BadRecord(
            "bad_scores", f"`{name}` does not have one number for each passage (got {got}, expected {count})"
        )
    return tuple(_number(value, name) for value in found.value)


def _number(value: Json, name: str) -> float:
    """A finite number, also true and false. Raises BadRecord."""
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    if isinstance(value, str):  # a cell of a table without types
        try:
            if math.isfinite(number := float(value)):
                return number
        except ValueError:
            pass
    got = shown(repr(value), 40) if isinstance(value, str | float) else kind(value)
    raise BadRecord("bad_label", f"`{shown(name, 40)}` is not a finite number (got {got})")


def _prompt(record: Mapping[str, Json], wanted: Sequence[str]) -> str | None:
    """The first of the prompts that the record has. Raises BadRecord if it is not a string."""
    name, value = first(record, wanted)
    if value is None or isinstance(value, str):
        return value
    raise BadRecord("bad_prompt", f"`{name}` is not a string (got {kind(value)})")
