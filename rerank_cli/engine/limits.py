"""Token limits of a pair for a model, and what its tokenizer alone tells about the model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from rerank_cli.engine.options import ModelOptions
from rerank_cli.errors import UsageError
from rerank_cli.models.checkpoint import Checkpoint, resolve
from rerank_cli.models.prompts.lists import QUERY_TOKENS, ListRule
from rerank_cli.models.prompts.pairs import Limits, PairRule
from rerank_cli.models.prompts.tokens import TextTokenizer
from rerank_cli.models.reading.choosing import FLAG
from rerank_cli.models.reading.rules import BUILT_IN, Reading, read_pairs
from rerank_cli.models.registry import identify


def limits_of(options: ModelOptions, positions: int, reading: Reading) -> Limits:
    """The limits of a pair, or of a query and its passages in a list. Raises UsageError."""
    if reading.lists is not None:
        return list_limits(options, reading.lists, reading.rule.max_length)
    return choose_limits(options, positions, reading.rule)


def choose_limits(options: ModelOptions, positions: int, rule: PairRule) -> Limits:
    """`--max-length` (by default the rule's, or less if the model has fewer positions) and the query's share of it.

    Raises UsageError for limits that the model's `positions` do not allow, or that leave no room for a pair.
    """
    asked, granted = options.max_length, rule.granted
    most = positions - granted
    if asked is not None and asked > most:
        prompt = f", {granted} of them for the prompt" if granted else ""
        raise UsageError(
            f"--max-length {asked}: this model has {positions} positions{prompt}. Fix: --max-length {most}"
        )
    max_length = min(rule.max_length, most) if asked is None else asked
    room = max_length + granted - rule.template.specials
    if room < 2:
        raise UsageError(f"--max-length {max_length}: too short for a pair (expected at least {max_length - room + 2})")
    query = options.query_max_length
    if query is not None and not 1 <= query <= max_length:
        raise UsageError(f"--query-max-length {query}: expected 1 to {max_length}")
    query = int(max_length * rule.query_share) if query is None else query
    return Limits(max_length, query, room, rule.cut, len(rule.template.passage_tail))


def list_limits(options: ModelOptions, rule: ListRule, usual: int) -> Limits:
    """Limits of a passage (`--max-length`, by default `usual`) and of the query, each cut alone, in a window of a list.

    Raises UsageError for limits that leave no room for the query, which is read twice, with one passage.
    """
    passage = min(usual, rule.window // 2) if options.max_length is None else options.max_length
    query = min(QUERY_TOKENS, rule.window // 8) if options.query_max_length is None else options.query_max_length
    if passage + 2 * query > rule.window:
        what = f"--max-length {passage} and twice --query-max-length {query} are more than the model's {rule.window:,}"
        raise UsageError(f"{what} tokens. Fix: --max-length {max(1, rule.window - 2 * query)}")
    return Limits(passage, query, passage + query)


def refuse_for_lists(options: ModelOptions) -> None:
    """Raise UsageError for an option that has no effect on a model that scores whole lists."""
    given = {
        "--batch-tokens": options.batch_tokens is not None,
        "--compile": options.compile,
        "--long-documents": options.in_passages,
        "--no-share-prefix": not options.share_prefix,
    }
    for flag, is_given in given.items():
        if is_given:
            what = f"{flag}: {options.name} scores whole lists, to which it does not apply"
            raise UsageError(f"{what}. Fix: remove {flag}")


def remarks_of(options: ModelOptions, reading: Reading, limits: Limits, positions: int) -> tuple[str, ...]:
    """One line for each setting of the checkpoint's files that is not taken up."""
    found, stated = list(reading.remarks), reading.stated
    longest = min(stated.max_length or positions, positions - reading.rule.granted)
    if options.max_length is None and reading.lists is None and limits.max_length < longest < _UNLIMITED:
        found.append(f"max length {limits.max_length:,}, the model could read {longest:,} (--max-length)")
    if stated.activation not in {None, "Identity", "Sigmoid"}:
        where = stated.sources["activation"]
        found.append(f"{where} states the activation {stated.activation}: not applied, scores are sigmoids")
    return tuple(found)


def scores_of(reading: Reading) -> str:
    """The kind of score that is written unless a flag says otherwise: `raw` or `sigmoid`, see `choices.ScoreKind`."""
    return "raw" if reading.stated.activation == "Identity" else "sigmoid"


def find(options: ModelOptions) -> Checkpoint:
    """The checkpoint with its weights, downloaded if necessary. Needs no torch."""
    return resolve(options.name, options.revision, options.family.adapter)


_UNLIMITED = 1 << 20  # positions of models that have no limit


@dataclass(frozen=True, slots=True)
class TokenizerOnly:
    """A model without its weights: how it reads a pair, and its limits. `sources` are where settings come from."""

    checkpoint: Checkpoint
    family: str
    tokenizer: TextTokenizer
    reading: Reading
    limits: Limits
    sources: Mapping[str, str]
    remarks: tuple[str, ...]


def open_tokenizer(options: ModelOptions) -> TokenizerOnly:
    """The tokenizer of a model and its limits; neither downloads nor reads weights."""
    if options.threads is not None:
        os.environ["RAYON_NUM_THREADS"] = str(options.threads)
    checkpoint = resolve(options.name, options.revision, options.family.adapter, weights=False)
    family = identify(checkpoint)
    tokenizer, reading = read_pairs(family, checkpoint, options.family)
    positions = int(checkpoint.config.get("max_position_embeddings") or _UNLIMITED)
    if checkpoint.config.get("model_type") in {"roberta", "xlm-roberta", "camembert"}:
        positions -= int(checkpoint.config.get("pad_token_id", 1)) + 1
    limits = limits_of(options, positions, reading)
    remarks = remarks_of(options, reading, limits, positions)
    return TokenizerOnly(checkpoint, family, tokenizer, reading, limits, _sources(options, reading, limits), remarks)


def _sources(options: ModelOptions, reading: Reading, limits: Limits) -> dict[str, str]:
    """Where each setting comes from, by its name: a flag, a file of the checkpoint, its family, or the program."""
    found = dict(reading.sources)
    found["max_length"] = FLAG if options.max_length is not None else found["max_length"]
    if options.max_length is None and limits.max_length < reading.rule.max_length:
        found["max_length"] = "file config.json"
    found["query_max_length"] = FLAG if options.query_max_length is not None else found["truncation_rule"]
    found["activation"] = found.get("activation", BUILT_IN)
    return found
