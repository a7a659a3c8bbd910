"""The fingerprint of a run: every setting that the output bytes depend on, so that one file never mixes two runs.

Keys are readable, so that a difference can be named in a message. Device, batch size, threads and progress are not
included. The input is identified by a hash of its processed records (`chunks.InputHash`), not by name, size or time.
"""

from __future__ import annotations

import hashlib
from dataclasses import fields
from typing import Any

import orjson

from rerank_cli.choices import InputFormat, Quantize, ScoreKind
from rerank_cli.engine.contract import ModelFacts
from rerank_cli.formats.writing.containers import container_setting
from rerank_cli.run.options import RunConfig

_ON_ERROR, _ERRORS, _CASCADE = "on error", "errors file", "cascade"
_ECHO_QUERY, _INPUT_FORMAT, _CONTAINER = "echo query", "input format", "container"
_SCORES_GIVEN, _STATED, _STATED_SCORES = "scores given", "stated", "stated scores"
_SHARD, _FIRST_STAGE = "shard", "first stage"
_INPUT_WHEN_SET = ("text_template", "title_field", "score_field", "query", "require_candidates")
_LABEL = "label"
# Settings that are stored only when they are set, so that fingerprints of older versions stay valid.
_WHEN_SET = frozenset((
    _LABEL,
    _ECHO_QUERY, _INPUT_FORMAT, _CONTAINER, _SCORES_GIVEN, _SHARD, _FIRST_STAGE,
    *(name.replace("_", " ") for name in _INPUT_WHEN_SET),
))  # fmt: skip
# Settings that do not change the score of a pair. "model" is among them: the model revision identifies the weights.
_NOT_OF_SCORES = frozenset((
    "model", "mark truncated", "scores", "documents", "output format", "top n", _ON_ERROR, _ERRORS, "shape",
    "query field", "documents field", "text field", "id field", "doc id field", "sort", "by id", "depth", "run values",
    "fuse", "fuse k", "fuse weight", "normalize", "min score", "chunk pairs", _STATED_SCORES, *(_WHEN_SET - {_LABEL}),
))  # fmt: skip

Fingerprint = dict[str, Any]


def settings(config: RunConfig) -> Fingerprint:
    """The part that is known before the model is loaded. Key order is part of a receipt: see `receipt`."""
    answers, given, family = config.output.answers, config.input, config.model.family.given()
    if config.model.family.profile:  # identified by its content, not by its name or path
        profile = config.model.family.profile.identity
        family["profile"] = hashlib.blake2b(orjson.dumps(profile), digest_size=8).hexdigest()
    container = container_setting(config.output.path, config.output.format)
    found: Fingerprint = {"model": config.model.name}
    for field in fields(config.model.family):
        value = family.get(field.name)
        if value is None and field.name in _WHEN_SET:
            continue
        found[field.name.replace("_", " ")] = list(value) if isinstance(value, tuple) else value
    return found | {
        # None as in checkpoints that are older than the option
        "quantize": None if config.model.quantize is Quantize.NONE else config.model.quantize.value,
        "long documents": config.model.long_documents.value,
        "stride": config.model.stride,
        "mark truncated": answers.truncated,
        "scores": (ScoreKind.SIGMOID if answers.scores is ScoreKind.AUTO else answers.scores).value,
        "documents": answers.documents,
        "output format": config.output.format.value,
        "top n": config.top_n,
        _CASCADE: config.cascade.mark if config.cascade else None,
        **config.fusion.settings(),
        _ON_ERROR: config.on_error.value,
        _ERRORS: config.errors,
        "shape": given.shape.value if given.shape else None,
        "query field": given.query_field,
        "documents field": given.documents_field,
        "text field": given.text_field,
        "id field": given.id_field,
        "doc id field": given.doc_id_field,
        "sort": given.sort or None,
        "by id": True if given.by_id else None,
        "depth": given.by_id.depth if given.by_id else None,
        "run values": given.by_id.values.value if given.by_id else None,
        # Not the same as AUTO, whose entry above is that of its older name, for a checkpoint that states logits
        **({_SCORES_GIVEN: "sigmoid"} if answers.scores is ScoreKind.SIGMOID else {}),
        **({_ECHO_QUERY: True} if answers.query else {}),
        **({} if given.format is InputFormat.AUTO else {_INPUT_FORMAT: given.format.value}),
        **({_CONTAINER: container} if container else {}),
        **({_SHARD: str(config.shard)} if config.shard else {}),
        **({_FIRST_STAGE: given.by_id.first_stage.mark} if given.by_id and given.by_id.first_stage else {}),
        **{name.replace("_", " "): value for name in _INPUT_WHEN_SET if (value := getattr(given, name))},
    }


def fingerprint(config: RunConfig, facts: ModelFacts, chunk_pairs: int) -> Fingerprint:
    """All settings of a run with the loaded model, but for `cascade_settings`."""
    found = settings(config) | {
        "model revision": facts.revision,
        "dtype": facts.dtype,
        "max length": facts.max_length,
        "query max length": facts.query_max_length,
        "chunk pairs": chunk_pairs,
    }
    # Older versions did not apply settings that the checkpoint's files state. The revision identifies their values.
    if facts.by_files:
        found[_STATED] = list(facts.by_files)
    if facts.scores == ScoreKind.RAW and config.output.answers.scores is ScoreKind.AUTO:
        found[_STATED_SCORES] = facts.scores
    return found


def cascade_settings(facts: ModelFacts) -> Fingerprint:
    """The part that identifies a cascade's small model, which decides the candidates that are kept."""
    return {
        f"{_CASCADE} revision": facts.revision,
        f"{_CASCADE} dtype": facts.dtype,
        f"{_CASCADE} max length": facts.max_length,
        f"{_CASCADE} query max length": facts.query_max_length,
        **({f"{_CASCADE} {_STATED}": list(facts.by_files)} if facts.by_files else {}),
    }


def score_settings(mark: Fingerprint) -> Fingerprint:
    """The part of a fingerprint that decides the score of a pair. New settings count as part of it by default."""
    names = [name for name in mark if name not in _NOT_OF_SCORES and not name.startswith(_CASCADE)]
    return {name: mark[name] for name in names if mark[name] is not None}


def differences(before: Fingerprint, now: Fingerprint) -> list[str]:
    """The settings in `now` that differ, one phrase each: `max length 512 → 1024`. `now` has all of `settings`.

    A run with `--on-error fail` stopped at its first bad record, so the settings for bad records may change after it.
    `--scores sigmoid` is what `auto` means unless the checkpoint states logits.
    """
    ignored = {_ON_ERROR, _ERRORS} if before.get(_ON_ERROR) == "fail" else set()
    if _STATED_SCORES not in before and _STATED_SCORES not in now:
        ignored.add(_SCORES_GIVEN)
    names = [*now, *(name for name in before if name in _WHEN_SET and name not in now)]
    changed = (name for name in names if name not in ignored and before.get(name) != now.get(name))
    return [f"{name} {before.get(name)} → {now.get(name)}" for name in changed]
