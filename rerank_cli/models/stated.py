"""What a checkpoint's own files state about how a pair is read and what its score is, besides `config.json`.

These are the files that sentence-transformers saves with a CrossEncoder. They are read as data; a setting that has no
counterpart here is reported. Source: sentence-transformers 6.2, `base/model.py`, `base/modules/transformer.py` and
`cross_encoder/model.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rerank_cli.choices import TruncationRule
from rerank_cli.errors import ModelError
from rerank_cli.models.checkpoint import Checkpoint, read_object

SAVED = "config_sentence_transformers.json"
INPUT = "sentence_bert_config.json"
TOKENIZER = "tokenizer_config.json"
LOGIT_SCORE = "LogitScore"
_UNLIMITED = 10**9  # tokenizers without a limit state 10^30
_TRUNCATION = {"longest_first": TruncationRule.LONGEST_FIRST, "only_second": TruncationRule.ALL}
# Arguments of transformers' tokenizers that change ids or templates; others are not passed on.
_OF_TOKENIZER = frozenset((
    "add_bos_token", "add_eos_token", "add_prefix_space", "chat_template", "do_lower_case", "legacy",
    "split_special_tokens", "strip_accents", "truncation_side",
))  # fmt: skip
# Settings of the same file that are read here, or that leave scores as they are.
_KNOWN = {
    "processor_kwargs": {"clean_up_tokenization_spaces", "model_max_length", "padding_side", "use_fast",
                         *_OF_TOKENIZER},
    "model_kwargs": {"attn_implementation", "device_map", "dtype", "low_cpu_mem_usage", "torch_dtype",
                     "use_safetensors"},
    "config_kwargs": {"num_labels", "use_cache"},
    "text": {"logits_to_keep", "max_length", "padding", "padding_side", "pad_to_multiple_of", "return_attention_mask",
             "return_tensors", "truncation"},
}  # fmt: skip
POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
# Older files have a switch for each, in the order in which the pooled vectors are concatenated.
_SWITCHES = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
_OLD_SWITCHES = {f"pooling_mode_{switch}": mode for switch, mode in zip(_SWITCHES, POOLINGS, strict=True)}
_HUB = frozenset(("cache_dir", "local_files_only", "revision", "subfolder", "token", "trust_remote_code"))
_OLD_NAMES = {"processor_kwargs": "tokenizer_args", "model_kwargs": "model_args", "config_kwargs": "config_args"}


@dataclass(frozen=True, slots=True)
class Stated:
    """Settings stated by files, None or empty where they are silent; `sources` has the file of each, by field.

    `by_modules` is whether sentence-transformers saved the checkpoint as a chain of modules. `prompt` is written before
    queries, or is the system message of a chat template. `max_length` counts all tokens of a pair, and may be more than
    the model's positions. `activation` is the name of a class of torch.nn. `answers` are the token ids whose logits
    give a causal model's score. `chat` has the arguments of the chat template, None if pairs are not written as one;
    its messages are lists of parts if `structured`, and None leaves that to the template. `tokenizer` has arguments of
    transformers' AutoTokenizer. `remarks` name settings that are not applied.
    """

    by_modules: bool = False
    prompt: str | None = None
    max_length: int | None = None
    activation: str | None = None
    truncation_rule: TruncationRule | None = None
    keeps_end: bool | None = None
    lower_case: bool = False
    answers: tuple[int, ...] = ()
    chat: Mapping[str, Any] | None = None
    structured: bool | None = None
    tokenizer: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def stated_by(checkpoint: Checkpoint) -> Stated:
    """Read the files. Raises ModelError for one that is not JSON, or whose settings contradict each other."""
    saved = read_object(checkpoint.folder / SAVED)
    # Without `model_type` a chain of modules is an embedding model, whose prompts are not those of pairs.
    if saved.get("model_type", "SentenceTransformer" if checkpoint.modules else "CrossEncoder") != "CrossEncoder":
        saved = {}
    given = _Files(checkpoint, saved)
    found: dict[str, tuple[Any, str] | None] = {
        "prompt": given.prompt(),
        "max_length": given.max_length(),
        "activation": given.activation(),
        "truncation_rule": given.truncation(),
        "keeps_end": given.keeps_end(),
        "lower_case": (True, INPUT) if given.input.get("do_lower_case") else None,
        "answers": given.answers(),
    }
    values: dict[str, Any] = {name: pair[0] for name, pair in found.items() if pair}
    sources = {name: pair[1] for name, pair in found.items() if pair}
    modality = _part(given.input, "modality_config", INPUT).get("message")
    chat = structured = None
    if isinstance(modality, Mapping):
        chat = {name: value for name, value in given.of_template.items() if name != "restore_suffix"}
        structured = {"structured": True, "flat": False}.get(str(modality.get("format")))
    return Stated(
        by_modules=given.by_modules,
        chat=chat,
        structured=structured,
        tokenizer={name: value for name, value in given.of_tokenizer.items() if name in _OF_TOKENIZER},
        sources=sources,
        remarks=tuple(given.remarks()),
        **values,
    )


class _Files:
    """The contents of the files; each method gives a setting with the name of the file that states it, or None."""

    def __init__(self, checkpoint: Checkpoint, saved: Mapping[str, Any]) -> None:
        self.checkpoint = checkpoint
        self.by_modules = bool(saved and checkpoint.modules)
        self.saved = saved
        self.input = read_object(checkpoint.folder / INPUT)
        self.tokenizer = read_object(checkpoint.folder / TOKENIZER)
        self.of_tokenizer = self._arguments("processor_kwargs")
        processing = _part(self.input, "processing_kwargs", INPUT)
        self.of_text = _part(processing, "common", INPUT) | _part(processing, "text", INPUT)
        of_template = _part(processing, "chat_template", INPUT)
        size = {"padding", "truncation", "max_length", "return_tensors"}
        self.of_text |= {name: value for name, value in of_template.items() if name in size}
        self.of_template = {name: value for name, value in of_template.items() if name not in size}

    def _arguments(self, name: str) -> dict[str, Any]:
        return _part(self.input, _OLD_NAMES[name], INPUT) | _part(self.input, name, INPUT)

    def prompt(self) -> tuple[str, str] | None:
        prompts, name = _part(self.saved, "prompts", SAVED), self.saved.get("default_prompt_name")
        if name is None:
            return None
        if not isinstance(text := prompts.get(name), str):
            known = ", ".join(prompts) or "none"
            raise ModelError(f"{self.checkpoint.name}: {SAVED} has no prompt {name!r}, its default (it has: {known})")
        return text, SAVED

    def max_length(self) -> tuple[int, str] | None:
        if self.of_text.get("truncation") in (False, "do_not_truncate"):
            return _UNLIMITED, INPUT
        stated = (
            (self.of_text.get("max_length"), INPUT),
            (self.of_tokenizer.get("model_max_length"), INPUT),
            (self.input.get("max_seq_length"), INPUT),
            (self.tokenizer.get("model_max_length"), TOKENIZER),
        )
        for value, file in stated:
            if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
                return (int(value), file) if value < _UNLIMITED else None
        return None

    def activation(self) -> tuple[str, str] | None:
        older = _part(self.checkpoint.config, "sentence_transformers", "config.json").get("activation_fn")
        oldest = self.checkpoint.config.get("sbert_ce_default_activation_function")
        for path, file in ((self.saved.get("activation_fn"), SAVED), (older or oldest, "config.json")):
            if isinstance(path, str) and path.startswith("torch."):
                return path.rpartition(".")[2], file
        return None

    def truncation(self) -> tuple[TruncationRule, str] | None:
        """sentence-transformers shortens the longer text of a pair first, unless the file names another strategy."""
        strategy = self.of_text.get("truncation", "longest_first")
        if isinstance(strategy, str) and strategy in _TRUNCATION and "truncation" in self.of_text:
            return _TRUNCATION[strategy], INPUT
        config = self.checkpoint.config
        if self.by_modules:
            return TruncationRule.LONGEST_FIRST, "modules.json"
        if "sentence_transformers" in config or "sbert_ce_default_activation_function" in config:
            return TruncationRule.LONGEST_FIRST, "config.json"
        return None

    def keeps_end(self) -> tuple[bool, str] | None:
        for settings, file in ((self.of_tokenizer, INPUT), (self.tokenizer, TOKENIZER)):
            if "truncation_side" in settings:
                return settings["truncation_side"] == "left", file
        return None

    def answers(self) -> tuple[tuple[int, ...], str] | None:
        for module in self.checkpoint.modules:
            if module.kind == LOGIT_SCORE:
                ids = [module.config.get(name) for name in ("true_token_id", "false_token_id")]
                file = f"{module.folder.name}/config.json"
                answers = [number for number in ids if isinstance(number, int) and number >= 0]
                if ids[0] not in answers or len(answers) < sum(number is not None for number in ids):
                    what = "names no token ids (expected true_token_id, and false_token_id or null)"
                    raise ModelError(f"{self.checkpoint.name}: {file} {what}")
                return tuple(answers), file
        return None

    def remarks(self) -> list[str]:
        """Settings that are not applied, one phrase a file."""
        given = {name: set(self._arguments(name)) for name in _OLD_NAMES} | {"text": set(self.of_text)}
        unknown = [name for part, names in given.items() for name in sorted(names - _KNOWN[part] - _HUB)]
        if self.of_template.get("restore_suffix") is False:
            unknown.append("restore_suffix")
        if self.of_text.get("truncation") == "only_first":
            unknown.append("truncation only_first")
        return [f"{INPUT} states {', '.join(unknown)}: not applied"] if unknown else []


def _part(settings: Mapping[str, Any], name: str, file: str) -> dict[str, Any]:
    """A setting that is an object, {} if it is missing or null. Raises ModelError for anything else."""
    value = settings.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise ModelError(f"{file}: {name} is not a table of settings (got {type(value).__name__})")
    return dict(value or {})


def pooling_modes(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The poolings whose vectors are concatenated, of an encoder with modules. Raises ModelError for unknown ones."""
    config = next(module.config for module in checkpoint.modules if module.kind == "Pooling")
    stated = config.get("pooling_mode")
    if stated is None:
        stated = [mode for switch, mode in _OLD_SWITCHES.items() if config.get(switch)] or ["mean"]
    modes = (stated,) if isinstance(stated, str) else tuple(stated)
    if not modes or not set(modes) <= set(POOLINGS):
        raise ModelError(f"{checkpoint.name}: pooling {stated!r} is not supported (expected {', '.join(POOLINGS)})")
    return modes
