"""One pair as the model reads it: texts, tokens, ids, where it was cut, where the score is read."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from rerank_cli.engine.limits import TokenizerOnly
from rerank_cli.engine.prepare import PairReader, PairTexts, measure
from rerank_cli.errors import InputError
from rerank_cli.models.prompts.pairs import Ids
from rerank_cli.models.registry import ENCODER, MODULAR
from rerank_cli.records import Record, Rejection, Request
from rerank_cli.run.stages import pair_texts


@dataclass(frozen=True, slots=True)
class Cut:
    """How much of a text is read: tokens kept of all there are, and the characters of it where reading ends."""

    kept: int
    tokens: int
    ends_at: int

    @property
    def truncated(self) -> bool:
        return self.kept < self.tokens


@dataclass(frozen=True, slots=True)
class Inspection:
    """A pair of a record: `query` and `passage` as they are tokenized, instructions and words around them included.

    `ids`, `tokens` and `parts` (prefix, query, middle, passage or suffix) have one entry a token; the score is read at
    number `score_at`, from all of them where that is None.
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
    """The record of this number, from 1; InputError where there is none, or a bad one."""
    found = next(itertools.islice(records, number - 1, None), None)
    if found is None:
        raise InputError(f"--record {number}: the input has fewer records")
    if isinstance(found, Rejection):
        raise InputError(str(found))
    return found


def inspect_pair(record: Request, index: int, model: TokenizerOnly) -> Inspection:
    """What becomes of the record's candidate with this index, from 0."""
    if index >= len(record.candidates):
        raise InputError(f"{record.position}: no candidate {index} (it has {len(record.candidates)}, from 0)")
    texts = pair_texts([record]).part(index, index + 1)
    rule = model.reading.rule
    measured = measure(texts, PairReader(model.tokenizer, rule, model.limits), whole=True)
    kept_query, kept_passage = int(measured.kept.query[0]), int(measured.kept.passage[0])
    template = rule.template
    pieces: dict[str, Ids] = {
        "prefix": template.prefix,
        "query": template.clip_query(measured.query_ids[0], kept_query),
        "middle": template.middle,
        "passage": measured.passage_ids[0][:kept_passage],
        "suffix": template.suffix,
    }
    ids = np.concatenate(list(pieces.values())).tolist()
    query, passage = _written(texts, model)
    return Inspection(
        record,
        index,
        query,
        passage,
        _cut(query, measured.query_ids[0], kept_query, model),
        _cut(passage, measured.passage_ids[0], kept_passage, model),
        ids,
        model.tokenizer.tokens(ids),
        [name for name, piece in pieces.items() for _ in piece],
        _score_at(model, len(ids)),
    )


def _written(texts: PairTexts, model: TokenizerOnly) -> tuple[str, str]:
    rule = model.reading.rule
    return rule.query_text(texts.queries[0], texts.instructions[0]), rule.passage_text(texts.passages[0])


def _cut(text: str, ids: Ids, kept: int, model: TokenizerOnly) -> Cut:
    ends_at = len(text) if kept >= len(ids) else int(model.tokenizer.offsets(text)[kept - 1, 1]) if kept else 0
    return Cut(kept, len(ids), ends_at)


def _score_at(model: TokenizerOnly, length: int) -> int | None:
    """An encoder is read at its first token, or at the mean of all; everything causal at its last one."""
    if model.family not in {ENCODER, MODULAR}:
        return length - 1
    pooling = [module.config for module in model.checkpoint.modules if module.kind == "Pooling"]
    mean = [config.get("pooling_mode") == "mean" or config.get("pooling_mode_mean_tokens") for config in pooling]
    return None if any(mean) or model.checkpoint.config.get("classifier_pooling") == "mean" else 0


def lines(found: Inspection, width: int = 96) -> Iterator[str]:
    """For a person: the two texts with the place where they end, then a token a line."""
    for name, text, cut in (("query", found.query, found.query_cut), ("passage", found.passage, found.passage_cut)):
        yield f"{name:<8} {cut.kept:,} of {cut.tokens:,} tokens read{_where(text, cut)}"
        yield f"         {_shown(text, width)}"
    yield f"sequence {len(found.ids):,} tokens"
    yield ""
    yield f"{'#':>6} {'id':>8}  {'part':<8} token"
    for number, (token, identity, part) in enumerate(zip(found.tokens, found.ids, found.parts, strict=True)):
        mark = "  ← the score is read here" if number == found.score_at else ""
        yield f"{number:>6} {identity:>8}  {part:<8} {_visible(token)}{mark}"
    if found.score_at is None:
        yield "the score is read from the mean of all tokens"


def _where(text: str, cut: Cut) -> str:
    if not cut.truncated:
        return ""
    before, after = text[: cut.ends_at][-24:], text[cut.ends_at :][:24]
    return f", cut at character {cut.ends_at:,}: …{_visible(before)} ✂ {_visible(after)}…"


def _shown(text: str, width: int) -> str:
    seen = _visible(text)
    return seen if len(seen) <= width else f"{seen[: width // 2]} … {seen[-width // 2 :]}"


def _visible(text: str) -> str:
    """Control characters written out, so that a line stays a line."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
