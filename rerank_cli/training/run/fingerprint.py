"""The settings that the weights of a training run depend on, by readable names, so that a difference can be named.

Device, threads, parts of a batch and how often is saved are not included: they do not change what is computed, but for
rounding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import orjson

from rerank_cli.choices import InputFormat, RunValues
from rerank_cli.errors import InputError
from rerank_cli.storage.opening import stamp_of
from rerank_cli.training.data.open import named_files
from rerank_cli.training.options import TrainConfig


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """The part that is known from the flags alone."""
    model, held_out, given = config.model, config.held_out, config.data.input
    family = {name.replace("_", " "): _plain(value) for name, value in model.family.given().items()}
    if model.family.profile:  # identified by its content, not by its name or path
        profile = model.family.profile.identity
        family["profile"] = hashlib.blake2b(orjson.dumps(profile), digest_size=8).hexdigest()
    return {
        "model": model.name,
        **family,
        "max length": model.max_length,
        "query max length": model.query_max_length,
        "passage max length": config.passage_max_length,
        "dtype": None if model.dtype == "auto" else model.dtype,
        "group size": config.group_size,
        "batch groups": config.batch_groups,
        "epochs": config.epochs,
        "max steps": config.max_steps,
        "seed": config.seed,
        "shuffle": config.shuffle,
        **{f"loss {name}".replace("_", " "): _plain(value) for name, value in _values(config.loss).items()},
        **{f"lora {name}": _plain(value) for name, value in _values(config.lora).items()},
        **{name.replace("_", " "): _plain(value) for name, value in _values(config.rates).items()},
        "dropout": config.dropout,
        "attention dropout": config.attention_dropout,
        "start layer": config.start_layer,
        "layers": config.layers.value,
        "freeze": list(config.freeze) or None,
        "merge": config.merge,
        "teacher": config.teacher,
        "query field": given.query_field,
        "text field": given.text_field,
        "label field": config.data.label_field,
        "id field": given.id_field,
        "doc id field": given.doc_id_field,
        "input format": None if given.format is InputFormat.AUTO else given.format.value,
        "sort": given.sort or None,
        "min relevance": config.data.min_relevance,
        "depth": given.by_id.depth if given.by_id else None,
        "run values": given.by_id.values.value if given.by_id and given.by_id.values is not RunValues.AUTO else None,
        "evaluation": None if held_out is None else [held_out.measures, held_out.every, held_out.patience],
        "evaluation depth": held_out.input.by_id.depth if held_out and held_out.input.by_id else None,
    }


def inputs_of(config: TrainConfig) -> list[str]:
    """The files of the training data and of the held-out set. Raises InputError for a pattern without a match."""
    files, held_out = named_files(config.data.input, config.data.qrels), config.held_out
    return files + (named_files(held_out.input, held_out.qrels) if held_out else [])


def stamps_of(paths: Sequence[str]) -> dict[str, Any]:
    """Size, time and first bytes of files, by which they are recognised without reading all of them."""
    found: dict[str, Any] = {}
    for path in paths:
        with suppress(InputError):
            found[path] = (stamp := stamp_of(path)) and asdict(stamp)
    return found


def _values(options: Any) -> dict[str, Any]:
    return {name: getattr(options, name) for name in options.__slots__}


def _plain(value: Any) -> Any:
    """The value as JSON gives it back."""
    if isinstance(value, tuple):
        return list(value)
    return getattr(value, "value", value)


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The settings that differ, one phrase each: `lr 2e-05 → 3e-05`."""
    names = dict.fromkeys((*now, *before))
    return [f"{name} {before.get(name)} → {now.get(name)}" for name in names if before.get(name) != now.get(name)]
