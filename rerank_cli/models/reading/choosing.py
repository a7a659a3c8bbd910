"""Which profile a checkpoint is read by: a flag's, one that its files state, else that of its name or family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rerank_cli.models.checkpoint import Checkpoint
from rerank_cli.models.known import (
    BIDIRECTIONAL,
    CLASSIFIER,
    DECODER,
    ENCODER,
    LAYERWISE,
    LIGHTWEIGHT,
    LISTWISE,
    MODULAR,
    SEQ2SEQ,
)
from rerank_cli.models.options import FamilyOptions
from rerank_cli.models.prompts import profiles
from rerank_cli.models.prompts.chat import ChatPrompt, chat_prompt
from rerank_cli.models.prompts.lists import PROFILE
from rerank_cli.models.prompts.profile_files import read_profile
from rerank_cli.models.prompts.profiles import Profile
from rerank_cli.models.prompts.tokens import TextTokenizer
from rerank_cli.models.stated import INPUT, Stated, stated_by

FLAG, FAMILY, OF_FILE = "flag", "family", "file "
_LAYERED = {"adapter", "cutoff_layers", "truncation_rule"}
# The fixed profile of a family, if it has one, and its options beyond those of the profile.
FAMILIES: Mapping[str, tuple[Profile | None, set[str]]] = {
    ENCODER: (profiles.ENCODER, {"adapter"}),
    MODULAR: (profiles.ENCODER, set()),
    DECODER: (None, {"profile", "adapter"}),
    CLASSIFIER: (None, {"profile", "adapter"}),
    BIDIRECTIONAL: (profiles.NEMOTRON, set()),
    SEQ2SEQ: (None, {"profile"}),
    LISTWISE: (PROFILE, set()),
    LAYERWISE: (profiles.LAYERWISE, _LAYERED),
    LIGHTWEIGHT: (profiles.LIGHTWEIGHT, _LAYERED | {"layer_heads", "compress_layers", "compress_ratio", "softcap"}),
}
# Parts of names of checkpoints that have a built-in profile.
_BY_NAME = {
    "mxbai-rerank": profiles.MXBAI,
    "qwen3-reranker": profiles.QWEN3,
    "zerank": profiles.ZERANK,
    "ctxl-rerank": profiles.CTXL,
}


def is_guess(family: str, checkpoint: Checkpoint, options: FamilyOptions) -> bool:
    """Whether the profile is chosen without `--profile`, a known checkpoint name, or files that state the prompt."""
    name = Path(checkpoint.name).name.lower()
    known = any(part in name for part in ("bge-reranker", "monot5", "ptt5", *_BY_NAME))
    known |= family == SEQ2SEQ and "mt5-" in name and "marco" in name
    guessed = family in {DECODER, CLASSIFIER, SEQ2SEQ} and options.profile is None and not known
    return guessed and _saved_profile(checkpoint) is None and not _is_told(stated_by(checkpoint))


def _saved_profile(checkpoint: Checkpoint) -> Path | None:
    """The file with the profile that the adapter or the model was trained with, if there is one."""
    folders = [folder for folder in (checkpoint.adapter, checkpoint.folder) if folder is not None]
    return next((path for folder in folders if (path := folder / profiles.SAVED_PROFILE).is_file()), None)


def _is_told(stated: Stated) -> bool:
    """Whether files state how the texts of a pair are joined."""
    return stated.by_modules or stated.chat is not None or bool(stated.answers)


def _profile_of(family: str, checkpoint: Checkpoint, options: FamilyOptions) -> Profile:
    """The family's fixed profile, else the requested one, else the one that fits the checkpoint's name and type."""
    chosen = FAMILIES[family][0] or options.profile
    if chosen is not None:
        return chosen
    if family == SEQ2SEQ:
        return _answers_of_t5(checkpoint)
    by_name = _profile_by_name(checkpoint)
    if by_name is not None:
        return by_name
    if checkpoint.config.get("model_type") == "qwen3":
        return profiles.QWEN3
    return profiles.BGE if family == DECODER else profiles.ENCODER


def _profile_by_name(checkpoint: Checkpoint) -> Profile | None:
    name = Path(checkpoint.name).name.lower()
    return next((profile for part, profile in _BY_NAME.items() if part in name), None)


def _answers_of_t5(checkpoint: Checkpoint) -> Profile:
    """The profile with the answers that pygaggle has for the name, else for the type."""
    name = Path(checkpoint.name).name.lower()
    if "ptt5" in name:
        return profiles.PTT5
    if name.startswith("mt5-3b-"):
        return profiles.MT5_3B
    own = checkpoint.config.get("model_type") == "mt5" and "monot5" not in name and not name.startswith("mt5-13b-")
    return profiles.MT5 if own else profiles.MONOT5


@dataclass(frozen=True, slots=True)
class Choice:
    """A profile and its source. A `pair` is joined by the tokenizer's own template, `chat` is a template's prompt."""

    profile: Profile
    source: str
    pair: bool = False
    chat: ChatPrompt | None = None


def choose(
    family: str, checkpoint: Checkpoint, tokenizer: TextTokenizer, options: FamilyOptions, stated: Stated
) -> Choice:
    """`--profile`, else what the files state, else the profile of the family."""
    saved = _saved_profile(checkpoint)
    if options.profile is None and saved is not None:
        profile = read_profile(str(saved))
        return Choice(profile, OF_FILE + saved.name, pair=profile.name == profiles.ENCODER.name)
    if options.profile is not None or not _is_told(stated):
        profile = _profile_of(family, checkpoint, options)
        return Choice(profile, FAMILY if options.profile is None else FLAG, pair=profile is profiles.ENCODER)
    if stated.chat is None:
        return Choice(profiles.ENCODER, OF_FILE + stated.sources.get("answers", INPUT), pair=True)
    chat = chat_prompt(tokenizer, stated, str(checkpoint.config.get("model_type")), checkpoint.name)
    usual = _profile_by_name(checkpoint) or profiles.ENCODER
    return Choice(replace(chat.profile, max_length=usual.max_length), OF_FILE + "chat_template", chat=chat)
