"""How a checkpoint reads a pair: by flags, else as its own files state, else by the rule of its family.

The result is the rule that turns a pair into token ids, and where each setting comes from. Loads no weights.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from rerank_cli.choices import TruncationRule
from rerank_cli.errors import ModelError, UsageError
from rerank_cli.models.checkpoint import Checkpoint, read_object
from rerank_cli.models.known import (
    BIDIRECTIONAL,
    CLASSIFIER,
    DECODER,
    ENCODER,
    LISTWISE,
    MODULAR,
    SEQ2SEQ,
)
from rerank_cli.models.options import FamilyOptions
from rerank_cli.models.prompts import profiles
from rerank_cli.models.prompts.chat import ChatPrompt
from rerank_cli.models.prompts.joining import splits_at_pieces
from rerank_cli.models.prompts.lists import PROFILE, ListRule, list_rule
from rerank_cli.models.prompts.pairs import Cut, Ids, PairRule, PairTemplate
from rerank_cli.models.prompts.profiles import Profile, fill, pieces_of
from rerank_cli.models.prompts.tokens import TextTokenizer, load_tokenizer
from rerank_cli.models.reading.answers import Answers, answers_of
from rerank_cli.models.reading.choosing import FAMILIES, FAMILY, FLAG, OF_FILE, Choice, choose
from rerank_cli.models.reading.labels import Label, choose_label, labels_of
from rerank_cli.models.stated import Stated, stated_by

log = logging.getLogger(__name__)

_OVERRIDES = {"prompt", "query_instruction", "passage_instruction", "truncation_rule"}
_FIRST_TOKENS = {"Llama": "<s>", "Gemma": "<bos>"}
BUILT_IN = "built in"


@dataclass(frozen=True, slots=True)
class Reading:
    """How a checkpoint reads a pair. `answers` are the tokens whose logits give the score, None for other heads.

    `label` is the label that gives the score, None for heads with one output. `options` are the names of options that
    have an effect; `sources` say where settings come from, by name. `skip` is the number of tokens at the start of a
    sequence that the pooling leaves out. `remarks` are lines for the user. `joined` is whether the tokenizer's own
    template joins the texts, without a prompt. `lists` is how whole lists are read, None for models of pairs.
    """

    profile: Profile
    rule: PairRule
    answers: Answers | None = None
    label: Label | None = None
    stated: Stated = field(default_factory=Stated)
    options: frozenset[str] = frozenset()
    sources: Mapping[str, str] = field(default_factory=dict)
    skip: int = 0
    remarks: tuple[str, ...] = ()
    joined: bool = False
    lists: ListRule | None = None

    @property
    def by_files(self) -> tuple[str, ...]:
        """The settings of texts and tokens, other than the length, that files of the checkpoint state."""
        names = ("answers", "lower_case", "profile", "query_instruction", "truncation_rule", "truncation_side")
        return tuple(name for name in names if self.sources.get(name, "").startswith(OF_FILE))


def read_pairs(family: str, checkpoint: Checkpoint, options: FamilyOptions) -> tuple[TextTokenizer, Reading]:
    """The tokenizer of a checkpoint and how it reads a pair. Raises ModelError, and what `read_as` raises."""
    stated = stated_by(checkpoint)
    arguments = stated.tokenizer if stated.by_modules else None
    tokenizer = load_tokenizer(checkpoint.folder, arguments, lower_case=stated.lower_case)
    config: Any = checkpoint.config
    rows = config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size")
    if isinstance(rows, int):
        tokenizer.refuse_without_embeddings(rows)
    reading = read_as(family, checkpoint, tokenizer, options)
    if not reading.joined:
        where = f"{checkpoint.name}: prompt of profile {reading.profile.name} ({reading.sources['profile']})"
        log.debug("%s: %r", where, reading.profile.written)
    return tokenizer, reading


def read_as(family: str, checkpoint: Checkpoint, tokenizer: TextTokenizer, options: FamilyOptions) -> Reading:
    """The reading of a checkpoint with this tokenizer.

    Raises UsageError for an option that would have no effect, ModelError for files that cannot be followed.
    """
    if family == LISTWISE:
        return _lists(checkpoint, tokenizer, options)
    stated = stated_by(checkpoint)
    choice = choose(family, checkpoint, tokenizer, options, stated)
    several = family in {ENCODER, CLASSIFIER} and len(labels_of(checkpoint)) > 1
    usable = _options_of(family, choice) | ({"label"} if several else set())
    options.refuse_foreign(usable, family, checkpoint.name)
    label = choose_label(checkpoint, options.label) if several else None
    by_files = _stated_settings(choice, stated) if options.profile is None else {}
    given = {name: value for name, value in options.given().items() if name in _OVERRIDES}
    profile = replace(choice.profile, **(by_files | given))
    sources = dict.fromkeys(("profile", *sorted(_OVERRIDES)), choice.source)
    sources |= {name: OF_FILE + stated.sources[_STATED_AS.get(name, name)] for name in by_files if name in _OVERRIDES}
    sources |= dict.fromkeys(given, FLAG)
    sources |= {name: OF_FILE + file for name, file in stated.sources.items() if name in {"activation", "lower_case"}}
    keeps_end = tokenizer.keeps_end if stated.keeps_end is None else stated.keeps_end
    remarks = list(stated.remarks)
    if choice.pair:
        rule = _pair_rule(profile, tokenizer, checkpoint.name, keeps_end=keeps_end)
        rule = replace(rule, shares_prefix=family == DECODER)
        sources |= {"truncation_side": OF_FILE + stated.sources.get("keeps_end", "tokenizer.json")} if keeps_end else {}
    else:
        rule = _rule(profile, checkpoint, tokenizer, choice.chat)
        rule = replace(rule, shares_prefix=family not in {ENCODER, MODULAR, BIDIRECTIONAL, SEQ2SEQ})
        remarks += ["the tokenizer states truncation_side left: not applied to a prompt"] if keeps_end else []
    usual = rule.max_length == profiles.ENCODER.max_length and not choice.source.endswith(profiles.SAVED_PROFILE)
    sources["max_length"] = BUILT_IN if usual else choice.source
    if stated.max_length is not None and stated.max_length < rule.max_length:
        rule = replace(rule, max_length=stated.max_length)
        sources["max_length"] = OF_FILE + stated.sources["max_length"]
    answers: Answers | None = None
    if family == DECODER and stated.answers and profile.yes is None:
        answers, sources["answers"] = (
            Answers(stated.answers[:1], stated.answers[1:]),
            OF_FILE + stated.sources["answers"],
        )
    elif family in {DECODER, SEQ2SEQ}:
        whole = family == SEQ2SEQ
        answers, sources["answers"] = answers_of(profile, tokenizer, whole=whole), choice.source
    if label is not None:
        sources["label"] = {"flag": FLAG, "file": OF_FILE + "config.json"}.get(label.source, "guess")
        if label.source == "guess":
            what = f"the names of the two labels do not say which is the relevant one: {label.name} is taken (--label)"
            remarks.append(what)
    skip = _skipped(profile, rule, tokenizer, checkpoint) if family == MODULAR else 0
    if family == MODULAR:
        sources["pooling"] = OF_FILE + f"{checkpoint.modules[1].folder.name}/config.json"
    # A space at the end of the lead is tokenized together with the word after it.
    head = tokenizer.ids("" if rule.template.keeps_end else rule.passage_lead.rstrip())
    rule = replace(rule, template=replace(rule.template, passage_head=head), own_instructions=not skip)
    return Reading(profile, rule, answers, label, stated, usable, sources, skip, tuple(remarks), choice.pair)


def _lists(checkpoint: Checkpoint, tokenizer: TextTokenizer, options: FamilyOptions) -> Reading:
    """The reading of a listwise model, whose prompt is fixed. Its scores are cosines, which are written as they are."""
    options.refuse_foreign(frozenset(), LISTWISE, checkpoint.name)
    nothing = np.zeros(0, np.int32)
    rule = PairRule(PairTemplate(nothing, nothing, nothing), max_length=PROFILE.max_length)
    names = ("profile", *sorted(_OVERRIDES), "max_length", "activation")
    return Reading(
        PROFILE,
        rule,
        stated=Stated(activation="Identity"),
        sources=dict.fromkeys(names, FAMILY),
        lists=list_rule(checkpoint, tokenizer),
    )


_STATED_AS = {"query_instruction": "prompt"}


def _stated_settings(choice: Choice, stated: Stated) -> dict[str, Any]:
    """Settings of a profile that files state."""
    found: dict[str, Any] = {}
    if stated.prompt is not None and "query_instruction" in choice.profile.slots:
        found["query_instruction"] = stated.prompt
    if stated.truncation_rule is not None and choice.pair:
        found |= {"truncation_rule": stated.truncation_rule, "query_share": 1.0}
    return found


def _options_of(family: str, choice: Choice) -> frozenset[str]:
    """Names of the options that have an effect."""
    profile = choice.profile
    prompted = family == DECODER and profile.truncation_rule is not TruncationRule.ALL
    truncated = {"truncation_rule"} if prompted or choice.pair or choice.chat else set()
    return frozenset(FAMILIES[family][1] | profile.slots | truncated)


def _pair_rule(profile: Profile, tokenizer: TextTokenizer, where: str, *, keeps_end: bool) -> PairRule:
    """The rule of texts that the tokenizer's own template joins. Raises UsageError for a rule about a prompt."""
    by_rule = {TruncationRule.ALL: Cut.PASSAGE, TruncationRule.LONGEST_FIRST: Cut.LONGEST}
    if profile.truncation_rule not in by_rule:
        what = f"--truncation-rule {profile.truncation_rule.value}: {where} has no prompt"
        raise UsageError(f"{what} (expected {' or '.join(rule.value for rule in by_rule)})")
    return PairRule(
        replace(tokenizer.pair_template(), keeps_end=keeps_end),
        profile.query_instruction,
        profile.passage_instruction,
        max_length=profile.max_length,
        query_share=profile.query_share,
        cut=by_rule[profile.truncation_rule],
    )


def _rule(profile: Profile, checkpoint: Checkpoint, tokenizer: TextTokenizer, chat: ChatPrompt | None) -> PairRule:
    """The rule of a prompt. Raises UsageError for a control token that the tokenizer does not have.

    Such a token would be split into ordinary ones, and the scores would be meaningless; in the checkpoint's own chat
    template it is meant that way.
    """
    pieces = () if chat else (*profile.prefix, profile.query, *profile.middle, profile.passage, *profile.suffix)
    for piece in pieces:
        for token in re.findall(r"<\|\w+\|>", piece):
            if tokenizer.token_id(token) is None:
                raise UsageError(f"profile {profile.name}: the model's tokenizer has no token {token}. Fix: --profile")

    def ids(pieces: tuple[str, ...]) -> Ids:
        found = [tokenizer.ids(fill(piece, prompt=profile.prompt)) for piece in pieces]
        return np.concatenate([np.zeros(0, np.int32), *found])

    if profile.one_string and not splits_at_pieces(profile, tokenizer):
        what = f"the tokenizer joins words of the prompt of profile {profile.name} with those of the texts"
        raise ModelError(f"{checkpoint.name}: {what}, which is not supported. Fix: --profile FILE")
    prefix, suffix = ids(profile.prefix), ids(profile.suffix)
    if profile.bos == "tokenizer":
        first, last = tokenizer.around_text()
        suffix = np.concatenate((suffix, last))
    else:
        first = np.array(_first_token(profile, checkpoint, tokenizer), dtype=np.int32)
    template = PairTemplate(
        np.concatenate((first, prefix)), ids(profile.middle), suffix, passage_first=profile.passage_first
    )
    cut = Cut.LONGEST if profile.truncation_rule is TruncationRule.LONGEST_FIRST else Cut.PASSAGE
    if chat and profile.truncation_rule is chat.profile.truncation_rule and not profile.passage_first:
        cut, template = Cut.END, replace(template, passage_tail=chat.passage_tail)
    else:
        query_tail, passage_tail = (
            tokenizer.ids(_after(text, slot)) for text, slot in ((profile.query, "query"), (profile.passage, "passage"))
        )
        template = replace(template, query_tail=query_tail, passage_tail=passage_tail)
    granted = {
        TruncationRule.MODELCARD: len(prefix) + len(suffix),
        TruncationRule.FLAGEMBEDDING: len(prefix) + 2 * len(suffix),
    }
    return PairRule(
        template,
        query=profile.query,
        instructed_query=profile.instructed_query,
        passage=profile.passage,
        query_instruction=profile.query_instruction,
        passage_instruction=profile.passage_instruction,
        granted=granted.get(profile.truncation_rule, 0),
        max_length=profile.max_length,
        query_share=profile.query_share,
        cut=cut,
        strips=profile.strips,
    )


def _after(template: str, slot: str) -> str:
    """The literal words after a text."""
    pieces = pieces_of(template)
    return "".join(literal for literal, _ in pieces[[name for _, name in pieces].index(slot) + 1 :])


def _skipped(profile: Profile, rule: PairRule, tokenizer: TextTokenizer, checkpoint: Checkpoint) -> int:
    """Tokens of the prompt, if the pooling leaves it out: those of the prompt alone, and the special ones before it."""
    if not profile.query_instruction or checkpoint.modules[1].config.get("include_prompt", True):
        return 0
    return len(rule.template.prefix) + len(tokenizer.ids(profile.query_instruction))


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
