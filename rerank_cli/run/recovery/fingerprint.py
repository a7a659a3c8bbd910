"""What the bytes of an output depend on, so that two runs are never mixed in one file.

Settings are flat and readable: a difference is told by its name. Device, batch size, threads and progress are not among
them. The input is known by the content of the records that are done, not by name, size or time.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, fields
from typing import Any

import orjson

from rerank_cli.choices import Quantize
from rerank_cli.engine.contract import ModelFacts
from rerank_cli.run.options import RunConfig

_ON_ERROR = "on error"
_CASCADE = "cascade"
_OF_ANSWERS = frozenset(
    (
        "model",  # the revision stands for what it holds
        "mark truncated",
        "scores",
        "documents",
        "output format",
        "top n",
        _ON_ERROR,
        "errors file",
        "shape",
        "query field",
        "documents field",
        "text field",
        "id field",
        "doc id field",
        "sort",
        "by id",
        "depth",
        "run values",
        "fuse",
        "fuse k",
        "fuse weight",
        "normalize",
        "min score",
        "chunk pairs",
    )
)

Fingerprint = dict[str, Any]


def settings(config: RunConfig) -> Fingerprint:
    """What is known before the model is loaded."""
    answers, given = config.output.answers, config.input
    return {
        "model": config.model.name,
        **_family(config),
        "quantize": _quantize(config),
        "long documents": config.model.long_documents.value,
        "stride": config.model.stride,
        "mark truncated": answers.truncated,
        "scores": answers.scores.value,
        "documents": answers.documents,
        "output format": config.output.format.value,
        "top n": config.top_n,
        _CASCADE: config.cascade.mark if config.cascade else None,
        **config.fusion.settings(),
        _ON_ERROR: config.on_error.value,
        "errors file": config.errors,
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
    }


def _quantize(config: RunConfig) -> str | None:
    """None where nothing is quantized, as in checkpoints from before there was a choice."""
    return None if config.model.quantize is Quantize.NONE else config.model.quantize.value


def _family(config: RunConfig) -> Fingerprint:
    """Options of the model's family; a profile counts by what it says, not by where it lies."""
    given = config.model.family.given()
    if config.model.family.profile:
        said = asdict(config.model.family.profile) | {"name": None}
        given["profile"] = hashlib.blake2b(orjson.dumps(said), digest_size=8).hexdigest()
    return {
        field.name.replace("_", " "): list(value) if isinstance(value := given.get(field.name), tuple) else value
        for field in fields(config.model.family)
    }


def fingerprint(config: RunConfig, facts: ModelFacts, chunk_pairs: int) -> Fingerprint:
    """Everything but the input that decides what is written."""
    return settings(config) | {
        "model revision": facts.revision,
        "dtype": facts.dtype,
        "max length": facts.max_length,
        "query max length": facts.query_max_length,
        "chunk pairs": chunk_pairs,
    }


def score_settings(mark: Fingerprint) -> Fingerprint:
    """What of a fingerprint decides the score of a pair of texts; a setting that is new here counts among it."""
    names = [name for name in mark if name not in _OF_ANSWERS and not name.startswith(_CASCADE)]
    return {name: mark[name] for name in names if mark[name] is not None}


def cascade_settings(facts: ModelFacts) -> Fingerprint:
    """What of the small model decides which candidates are kept."""
    return {
        f"{_CASCADE} revision": facts.revision,
        f"{_CASCADE} dtype": facts.dtype,
        f"{_CASCADE} max length": facts.max_length,
        f"{_CASCADE} query max length": facts.query_max_length,
    }


def differences(before: Fingerprint, now: Fingerprint) -> list[str]:
    """What differs, one phrase each: `max length 512 → 1024`. Only what stands in `now` is compared.

    A run that had stopped at its first bad record may go on in another way: there was none before that point.
    """
    harmless = {_ON_ERROR, "errors file"} if before.get(_ON_ERROR) == "fail" else set()
    names = [name for name in now if name not in harmless]
    return [f"{name} {before.get(name)} → {now[name]}" for name in names if before.get(name) != now[name]]
