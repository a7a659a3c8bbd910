"""One pair as the model reads it: texts, tokens, ids, truncation, and the position where the score is read."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from rerank_cli.engine.limits import TokenizerOnly
from rerank_cli.engine.rows.prepare import PairTokenizer, tokenize_pairs
from rerank_cli.errors import InputError, UsageError
from rerank_cli.models.known import BIDIRECTIONAL, ENCODER, MODULAR, SEQ2SEQ
from rerank_cli.models.prompts.pairs import Ids, PairTemplate
from rerank_cli.models.stated import pooling_modes
from rerank_cli.records import Record, Rejection, Request
from rerank_cli.run.stages import pair_texts

_WIDTH = 96


@dataclass(frozen=True, slots=True)
class Cut:
    """The part of a text that is read: `kept` of its `tokens`, and the characters where reading starts and ends."""

    kept: int
    tokens: int
    starts_at: int
    ends_at: int

    @property
    def truncated(self) -> bool:
        return self.kept < self.tokens


@dataclass(frozen=True, slots=True)
class Inspection:
    """A pair of a record. `query` and `passage` are the texts as tokenized, with instructions and prompt around them.

    `ids`, `tokens` and `parts` (prefix, query, middle, passage or suffix) have one entry per token. The score is read
    at token `score_at`, or from all tokens if that is None.
    """

    record: Request
    index: int
    query: str
    passage: str
    query_cut: Cut
    passage_cut: Cut
    ids: list[int]
    tokens: list[str]
    parts: list[str]
    score_at: int | None


def find_record(records: Iterable[Record], number: int) -> Request:
    """The record with this number, from 1. InputError if it does not exist or is bad."""
    found = next(itertools.islice(records, number - 1, None), None)
    if found is None:
        raise InputError(f"--record {number}: the input has fewer records")
    if isinstance(found, Rejection):
        raise InputError(str(found))
    return found


def inspect_pair(record: Request, index: int, model: TokenizerOnly) -> Inspection:
    """The pair of the record's query and its candidate with this index, from 0. InputError if it does not exist.

    UsageError for a model that reads no pairs, but whole lists.
    """
    if model.reading.lists is not None:
        what = f"{model.checkpoint.name} reads all candidates of a record in one prompt, and no pair alone"
        raise UsageError(f"{what}. Fix: rerank models {model.checkpoint.name} shows the prompt")
    if index >= len(record.candidates):
        raise InputError(f"{record.position}: no candidate {index} (it has {len(record.candidates)}, from 0)")
    texts = pair_texts([record]).part(index, index + 1)
    rule = model.reading.rule
    found = tokenize_pairs(texts, PairTokenizer(model.tokenizer, rule, model.limits), whole=True)
    query_ids, passage_ids = found.query_ids[0], found.passage_ids[0]
    kept_query, kept_passage = int(found.kept.query[0]), int(found.kept.passage[0])
    template = rule.template
    first, second = template.in_order(
        ("query", template.clip_query(query_ids, kept_query)),
        ("passage", template.part_of_passage(passage_ids, *_kept(passage_ids, kept_passage, template))),
    )
    pieces = (("prefix", template.prefix), first, ("middle", template.middle), second, ("suffix", template.suffix))
    ids = np.concatenate([piece for _, piece in pieces]).tolist()
    parts = [name for name, piece in pieces for _ in piece]
    query = rule.query_text(texts.queries[0], texts.instructions[0])
    passage = rule.passage_text(texts.passages[0])
    cuts = _cut(query, query_ids, kept_query, model), _cut(passage, passage_ids, kept_passage, model)
    tokens, score_at = model.tokenizer.tokens(ids), _score_at(model, len(ids))
    return Inspection(record, index, query, passage, *cuts, ids, tokens, parts, score_at)


def _kept(ids: Ids, kept: int, template: PairTemplate) -> tuple[int, int]:
    """Where the kept ids of a text begin and end."""
    return (len(ids) - kept, len(ids)) if template.keeps_end else (0, kept)


def _cut(text: str, ids: Ids, kept: int, model: TokenizerOnly) -> Cut:
    if kept >= len(ids):
        return Cut(kept, len(ids), 0, len(text))
    first, last = _kept(ids, kept, model.reading.rule.template)
    offsets = model.tokenizer.offsets(text)
    return Cut(
        kept, len(ids), *((int(offsets[first, 0]) if first else 0, int(offsets[last - 1, 1])) if kept else (0, 0))
    )


def _score_at(model: TokenizerOnly, length: int) -> int | None:
    """Causal models are read at the last token, encoders at the first one, or from all tokens."""
    if model.family in {BIDIRECTIONAL, SEQ2SEQ}:
        return None
    if model.family not in {ENCODER, MODULAR}:
        return length - 1
    modes = pooling_modes(model.checkpoint) if model.family == MODULAR else ("cls",)
    if modes == ("lasttoken",):
        return length - 1
    return 0 if modes == ("cls",) and model.checkpoint.config.get("classifier_pooling") != "mean" else None


def lines(found: Inspection) -> Iterator[str]:
    """The text report: both texts with the place where they are cut, then one token per line."""
    for name, text, cut in (("query", found.query, found.query_cut), ("passage", found.passage, found.passage_cut)):
        where = ""
        if cut.truncated:
            at = cut.starts_at or cut.ends_at
            before, after = text[:at][-24:], text[at:][:24]
            where = f", cut at character {at:,}: …{visible(before)} ✂ {visible(after)}…"
        seen = visible(text)
        yield f"{name:<8} {cut.kept:,} of {cut.tokens:,} tokens read{where}"
        yield f"         {seen if len(seen) <= _WIDTH else f'{seen[: _WIDTH // 2]} … {seen[-_WIDTH // 2 :]}'}"
    yield f"sequence {len(found.ids):,} tokens"
    yield ""
    yield f"{'#':>6} {'id':>8}  {'part':<8} token"
    for number, (token, identity, part) in enumerate(zip(found.tokens, found.ids, found.parts, strict=True)):
        mark = "  ← the score is read here" if number == found.score_at else ""
        yield f"{number:>6} {identity:>8}  {part:<8} {visible(token)}{mark}"
    if found.score_at is None:
        yield "the score is read from all tokens"


def visible(text: str) -> str:
    """Control characters are escaped, so that the text stays on one line."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
