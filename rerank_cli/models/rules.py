"""From a checkpoint's family and profile to the rule that turns a pair into token ids. Loads no weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rerank_cli.choices import TruncationRule
from rerank_cli.errors import UsageError
from rerank_cli.models.checkpoint import Checkpoint, read_object
from rerank_cli.models.options import FamilyOptions
from rerank_cli.models.prompts import profiles
from rerank_cli.models.prompts.pairs import Ids, PairRule, PairTemplate
from rerank_cli.models.prompts.profiles import Profile, fill, pieces_of
from rerank_cli.models.prompts.tokens import TextTokenizer
from rerank_cli.models.registry import CLASSIFIER, DECODER, ENCODER, LAYERWISE, LIGHTWEIGHT, MODULAR

_LAYERED = {"cutoff_layers", "truncation_rule"}
# The fixed profile of a family, if it has one, and its options beyond those of the profile.
_FAMILIES: Mapping[str, tuple[Profile | None, set[str]]] = {
    ENCODER: (profiles.ENCODER, set()),
    MODULAR: (profiles.ENCODER, set()),
    DECODER: (None, {"profile", "adapter"}),
    CLASSIFIER: (None, {"profile"}),
    LAYERWISE: (profiles.LAYERWISE, _LAYERED),
    LIGHTWEIGHT: (profiles.LIGHTWEIGHT, _LAYERED | {"layer_heads", "compress_layers", "compress_ratio", "softcap"}),
}
_OVERRIDES = {"prompt", "query_instruction", "passage_instruction", "truncation_rule"}
_FIRST_TOKENS = {"Llama": "<s>", "Gemma": "<bos>"}


@dataclass(frozen=True, slots=True)
class Reading:
    """How a checkpoint reads a pair. `answers` are the token ids whose logits give the score, empty for other heads."""

    profile: Profile
    rule: PairRule
    answers: tuple[int, ...] = ()


def is_guess(family: str, checkpoint: Checkpoint, options: FamilyOptions) -> bool:
    """Whether the profile is chosen without `--profile` and without a known checkpoint name."""
    name = Path(checkpoint.name).name.lower()
    known = any(part in name for part in ("bge-reranker", "qwen3-reranker", "mxbai-rerank"))
    return family in {DECODER, CLASSIFIER} and options.profile is None and not known


def _profile_of(family: str, checkpoint: Checkpoint, options: FamilyOptions) -> Profile:
    """The family's fixed profile, else the requested one, else the one that fits the checkpoint's name and type."""
    chosen = _FAMILIES[family][0] or options.profile
    if chosen is not None:
        return chosen
    name, kind = Path(checkpoint.name).name.lower(), checkpoint.config.get("model_type")
    if "mxbai-rerank" in name:
        return profiles.MXBAI
    if "qwen3-reranker" in name or kind == "qwen3":
        return profiles.QWEN3
    return profiles.BGE if family == DECODER else profiles.ENCODER


def options_of(family: str, profile: Profile) -> frozenset[str]:
    """Names of the options that have an effect for this family and profile."""
    truncated = family == DECODER and profile.truncation_rule is not TruncationRule.ALL
    return frozenset(_FAMILIES[family][1] | profile.slots | ({"truncation_rule"} if truncated else set()))


def read_as(family: str, checkpoint: Checkpoint, tokenizer: TextTokenizer, options: FamilyOptions) -> Reading:
    """The reading of a checkpoint. Raises UsageError for an option that would have no effect."""
    chosen = _profile_of(family, checkpoint, options)
    options.refuse_foreign(options_of(family, chosen), family, checkpoint.name)
    profile = replace(chosen, **{name: value for name, value in options.given().items() if name in _OVERRIDES})
    answers: tuple[int, ...] = ()
    if chosen is profiles.ENCODER:
        rule = PairRule(tokenizer.pair_template(), profile.query_instruction, profile.passage_instruction)
    else:
        rule = _rule(profile, checkpoint, tokenizer)
        answers = _answers(profile, tokenizer) if family == DECODER else ()
    # A space at the end of the lead is tokenized together with the word after it.
    head = tokenizer.ids(rule.passage_lead.rstrip())
    return Reading(profile, replace(rule, template=replace(rule.template, passage_head=head)), answers)


def _rule(profile: Profile, checkpoint: Checkpoint, tokenizer: TextTokenizer) -> PairRule:
    """The rule of a prompt. Raises UsageError for a control token that the tokenizer does not have.

    Such a token would be split into ordinary ones, and the scores would be meaningless.
    """
    for piece in (*profile.prefix, profile.query, *profile.middle, profile.passage, *profile.suffix):
        for token in re.findall(r"<\|\w+\|>", piece):
            if tokenizer.token_id(token) is None:
                raise UsageError(f"profile {profile.name}: the model's tokenizer has no token {token}. Fix: --profile")

    def ids(pieces: tuple[str, ...]) -> Ids:
        found = [tokenizer.ids(fill(piece, prompt=profile.prompt)) for piece in pieces]
        return np.concatenate([np.zeros(0, np.int32), *found])

    first = np.array(_first_token(profile, checkpoint, tokenizer), dtype=np.int32)
    prefix, suffix = ids(profile.prefix), ids(profile.suffix)
    pieces = pieces_of(profile.query)
    query_at = [slot for _, slot in pieces].index("query")
    query_tail = tokenizer.ids("".join(literal for literal, _ in pieces[query_at + 1 :]))
    granted = {
        TruncationRule.ALL: 0,
        TruncationRule.MODELCARD: len(prefix) + len(suffix),
        TruncationRule.FLAGEMBEDDING: len(prefix) + 2 * len(suffix),
    }
    return PairRule(
        PairTemplate(np.concatenate((first, prefix)), ids(profile.middle), suffix, query_tail=query_tail),
        query=profile.query,
        instructed_query=profile.instructed_query,
        passage=profile.passage,
        query_instruction=profile.query_instruction,
        passage_instruction=profile.passage_instruction,
        granted=granted[profile.truncation_rule],
        max_length=profile.max_length,
        query_share=profile.query_share,
        shares_prefix=True,
    )


def _answers(profile: Profile, tokenizer: TextTokenizer) -> tuple[int, ...]:
    """The first token of each answer, as in the reference implementation."""
    if profile.yes is None:
        raise UsageError(f"profile {profile.name}: a causal language model needs an answer (expected `yes`)")
    found = []
    for answer in (profile.yes, profile.no):
        if answer is not None:
            ids = tokenizer.ids(answer)
            if not len(ids):
                raise UsageError(f"profile {profile.name}: the tokenizer has no tokens for the answer {answer!r}")
            found.append(int(ids[0]))
    return tuple(found)


def _first_token(profile: Profile, checkpoint: Checkpoint, tokenizer: TextTokenizer) -> list[int]:
    """The id at the start of every sequence, if the profile uses one and the tokenizer has one."""
    if profile.bos == "never":
        return []
    config: dict[str, Any] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):  # the second takes precedence
        config |= read_object(checkpoint.folder / file, UsageError)

    def token_id(token: Any) -> int | None:
        text = token.get("content") if isinstance(token, dict) else token
        return tokenizer.token_id(text) if isinstance(text, str) else None

    kind = str(config.get("tokenizer_class", ""))
    default = next((token for name, token in _FIRST_TOKENS.items() if kind.startswith(name)), None)
    bos = token_id(config.get("bos_token", default))
    if bos is None and profile.bos == "always":
        number = checkpoint.config.get("bos_token_id")
        if number is None:
            raise UsageError(f"{checkpoint.name}: the tokenizer has no first token, profile {profile.name} needs one")
        return [int(number)]
    if bos is None or (profile.bos == "auto" and bos == token_id(config.get("pad_token"))):
        return []
    return [bos]
