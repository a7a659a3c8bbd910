"""From a checkpoint's family and profile to the rule by which a pair becomes token ids, without loading weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from rerank_cli.choices import TruncationRule
from rerank_cli.errors import UsageError
from rerank_cli.models.checkpoint import Checkpoint
from rerank_cli.models.options import FamilyOptions
from rerank_cli.models.prompts import profiles
from rerank_cli.models.prompts.pairs import Ids, PairRule, PairTemplate
from rerank_cli.models.prompts.profiles import Profile, fill, pieces_of
from rerank_cli.models.prompts.tokens import TextTokenizer
from rerank_cli.models.registry import CLASSIFIER, DECODER, ENCODER, LAYERWISE, LIGHTWEIGHT, MODULAR

_LAYERED = {"cutoff_layers", "truncation_rule"}
_OWN: Mapping[str, set[str]] = {
    ENCODER: set(),
    MODULAR: set(),
    DECODER: {"profile", "adapter"},
    CLASSIFIER: {"profile"},
    LAYERWISE: _LAYERED,
    LIGHTWEIGHT: _LAYERED | {"layer_heads", "compress_layers", "compress_ratio", "softcap"},
}
_FIRST_TOKENS = {"Llama": "<s>", "Gemma": "<bos>"}


@dataclass(frozen=True, slots=True)
class Reading:
    """How a checkpoint reads a pair. `answers` are token ids whose logits are the score, empty for other heads."""

    profile: Profile
    rule: PairRule
    answers: tuple[int, ...] = ()


def is_guess(family: str, checkpoint: Checkpoint, options: FamilyOptions) -> bool:
    """Whether nothing but a causal model's type, or nothing at all, speaks for the profile taken."""
    if family not in {DECODER, CLASSIFIER} or options.profile is not None:
        return False
    name = Path(checkpoint.name).name.lower()
    return not any(known in name for known in ("bge-reranker", "qwen3-reranker", "mxbai-rerank"))


def profile_of(family: str, checkpoint: Checkpoint, options: FamilyOptions) -> Profile:
    """The profile asked for, else the family's, else what the checkpoint's name and type speak for."""
    fixed = {
        ENCODER: profiles.ENCODER,
        MODULAR: profiles.ENCODER,
        LAYERWISE: profiles.LAYERWISE,
        LIGHTWEIGHT: profiles.LIGHTWEIGHT,
    }
    if family in fixed:
        return fixed[family]
    if options.profile is not None:
        return options.profile
    name, kind = Path(checkpoint.name).name.lower(), checkpoint.config.get("model_type")
    if "mxbai-rerank" in name:
        return profiles.MXBAI
    if "qwen3-reranker" in name or kind == "qwen3":
        return profiles.QWEN3
    return profiles.BGE if family == DECODER else profiles.ENCODER


def options_of(family: str, profile: Profile) -> frozenset[str]:
    """Names of the options that change something for this family and profile."""
    counted_otherwise = family == DECODER and profile.truncation_rule is not TruncationRule.ALL
    return frozenset(_OWN[family] | profile.slots | ({"truncation_rule"} if counted_otherwise else set()))


def read_as(family: str, checkpoint: Checkpoint, tokenizer: TextTokenizer, options: FamilyOptions) -> Reading:
    """The reading of a checkpoint; UsageError at an option that it would have to ignore."""
    chosen = profile_of(family, checkpoint, options)
    options.refuse_foreign(options_of(family, chosen), family, checkpoint.name)
    profile = _adjusted(chosen, options)
    if chosen is profiles.ENCODER:
        instructions = (profile.query_instruction, profile.passage_instruction)
        return Reading(profile, _with_head(PairRule(tokenizer.pair_template(), *instructions), tokenizer))
    _refuse_unknown_tokens(profile, tokenizer)
    rule = _compiled(profile, checkpoint, tokenizer)
    return Reading(profile, _with_head(rule, tokenizer), _answers(profile, tokenizer) if family == DECODER else ())


def _with_head(rule: PairRule, tokenizer: TextTokenizer) -> PairRule:
    """The rule with the ids of the words before a passage; a space at their end goes with the word behind it."""
    head = tokenizer.ids(rule.passage_lead.rstrip())
    return replace(rule, template=replace(rule.template, passage_head=head))


def _refuse_unknown_tokens(profile: Profile, tokenizer: TextTokenizer) -> None:
    """A control token that the tokenizer lacks would be spelled out, and scores would be nonsense."""
    for piece in (*profile.prefix, profile.query, *profile.middle, profile.passage, *profile.suffix):
        for token in re.findall(r"<\|\w+\|>", piece):
            if tokenizer.token_id(token) is None:
                raise UsageError(f"profile {profile.name}: the model's tokenizer has no token {token}. Fix: --profile")


def _adjusted(profile: Profile, options: FamilyOptions) -> Profile:
    given = {
        name: value
        for name in ("prompt", "query_instruction", "passage_instruction", "truncation_rule")
        if (value := getattr(options, name)) is not None
    }
    return replace(profile, **given)


def _compiled(profile: Profile, checkpoint: Checkpoint, tokenizer: TextTokenizer) -> PairRule:
    def ids(pieces: tuple[str, ...]) -> Ids:
        found = [tokenizer.ids(fill(piece, prompt=profile.prompt)) for piece in pieces]
        return np.concatenate([np.zeros(0, np.int32), *found])

    first = _first_token(profile, checkpoint, tokenizer)
    prefix = np.concatenate((np.array(first, dtype=np.int32), ids(profile.prefix)))
    suffix = ids(profile.suffix)
    tail = tokenizer.ids(_words_after_query(profile))
    around = len(suffix) + len(prefix) - len(first)
    granted = {
        TruncationRule.ALL: 0,
        TruncationRule.MODELCARD: around,
        TruncationRule.FLAGEMBEDDING: around + len(suffix),
    }
    return PairRule(
        PairTemplate(prefix, ids(profile.middle), suffix, query_tail=tail),
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


def _words_after_query(profile: Profile) -> str:
    pieces = pieces_of(profile.query)
    place = [slot for _, slot in pieces].index("query")
    return "".join(literal for literal, _ in pieces[place + 1 :])


def _answers(profile: Profile, tokenizer: TextTokenizer) -> tuple[int, ...]:
    """The first token of each answer, as the reference takes it."""
    if profile.yes is None:
        raise UsageError(f"profile {profile.name}: a causal language model needs an answer (expected `yes`)")
    found = []
    for answer in (profile.yes, profile.no):
        if answer is None:
            continue
        ids = tokenizer.ids(answer)
        if not len(ids):
            raise UsageError(f"profile {profile.name}: the tokenizer makes nothing of the answer {answer!r}")
        found.append(int(ids[0]))
    return tuple(found)


def _first_token(profile: Profile, checkpoint: Checkpoint, tokenizer: TextTokenizer) -> list[int]:
    """The id that opens every sequence, if the profile wants one and the tokenizer has one."""
    if profile.bos == "never":
        return []
    said = _special_tokens(checkpoint.folder)
    kind = str(said.get("tokenizer_class", ""))
    default = next((token for name, token in _FIRST_TOKENS.items() if kind.startswith(name)), None)
    bos = _token(said.get("bos_token", default), tokenizer)
    if bos is None and profile.bos == "always":
        number = checkpoint.config.get("bos_token_id")
        if number is None:
            raise UsageError(f"{checkpoint.name}: the tokenizer has no first token, profile {profile.name} needs one")
        return [int(number)]
    if bos is None or (profile.bos == "auto" and bos == _token(said.get("pad_token"), tokenizer)):
        return []
    return [bos]


def _special_tokens(folder: Path) -> dict[str, Any]:
    """What the tokenizer's files say of special tokens; the configuration's word counts more than the map's."""
    found: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / name
        if path.is_file():
            try:
                content = orjson.loads(path.read_bytes())
            except orjson.JSONDecodeError as error:
                raise UsageError(f"{path}: unreadable ({error})") from error
            found |= content if isinstance(content, dict) else {}
    return found


def _token(said: Any, tokenizer: TextTokenizer) -> int | None:
    text = said.get("content") if isinstance(said, dict) else said
    return tokenizer.token_id(text) if isinstance(text, str) else None
