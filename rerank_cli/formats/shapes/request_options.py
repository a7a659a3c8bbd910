"""The options of a rerank request, under the names that the APIs give them.

An option does what its API says, or the record is an error: no option is passed over. Fields that do not change an
answer, such as `user` or `priority`, are not options and are carried to the answer like other unused fields; `model` is
dropped, because the model of the run scores. Sources: the references of Cohere (v1, v2), Jina, Voyage, Mixedbread,
Together, Pinecone, SiliconFlow and DashScope, the schemas of Text Embeddings Inference, vLLM and Infinity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rerank_cli.display import kind, shown
from rerank_cli.errors import BadRecord
from rerank_cli.formats.shapes.fields import INSTRUCTION, first
from rerank_cli.formats.shapes.texts import TextFields
from rerank_cli.records import Json

_TOP = ("top_n", "top_k")
_RETURNED = ("return_documents", "return_text", "return_input")
_RAW = ("raw_scores",)
_ACTIVATED = ("use_activation", "activation", "softmax")
_TRUNCATED = ("truncation", "truncate")
_SIDE = ("truncation_direction", "truncation_side")
_INSTRUCTIONS = (*INSTRUCTION, "instruct")
_PARAMETERS = "parameters"
_PASSAGES = "long documents are scored in passages by --long-documents, for all records alike"
# What is not done here, and the values with which nothing is asked for.
_REFUSED: Mapping[str, tuple[tuple[Json, ...], str]] = {
    "max_chunks_per_doc": ((), _PASSAGES),
    "overlap_tokens": ((), _PASSAGES),
    "truncate_prompt_tokens": ((-1,), "--max-length sets the tokens of a pair, max_tokens_per_doc those of a document"),
    "max_tokens_per_query": ((0,), "--query-max-length sets the tokens of a query"),
    "rewrite_query": ((False,), "queries are scored as they are"),
    "return_embeddings": ((False,), "there are no embeddings"),
}
NAMES = frozenset((
    "model", "max_tokens_per_doc", "rank_fields",
    *_TOP, *_RETURNED, *_RAW, *_ACTIVATED, *_TRUNCATED, *_SIDE, *_INSTRUCTIONS, *_REFUSED,
))  # fmt: skip
# Options whose values, not only their types, decide whether a record can be used.
BY_VALUE = NAMES - {"model", "top_n", "max_tokens_per_doc", "return_documents", *INSTRUCTION}


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """What a record asks for; None where it says nothing. `text` are its rank fields."""

    top_n: int | None = None
    max_tokens_per_doc: int | None = None
    instruction: str | None = None
    return_documents: bool | None = None
    raw_scores: bool | None = None
    truncation: bool | None = None
    text: TextFields | None = None


NONE = RequestOptions()


def options_of(record: dict[str, Json], in_order: bool) -> RequestOptions:
    """The options of a record, also those in its `parameters`. `in_order`: the answer has all texts in input order.

    Raises BadRecord for an option that cannot be used, that is not supported, or that two names set differently.
    """
    if NAMES.isdisjoint(record) and _PARAMETERS not in record:
        return NONE
    if _has_parameters(record):
        record = _with_parameters(record, record[_PARAMETERS])
    for name, (harmless, why) in _REFUSED.items():
        value = record.get(name)
        if value is not None and value not in harmless:
            raise BadRecord("unsupported_option", f"`{name}` is not supported: {why}. Fix: remove it from the record")
    side = _one(record, _SIDE, _a_string)
    if side is not None and side.lower() != "right":
        raise BadRecord("unsupported_option", f"texts are truncated at their end only (got `{shown(side, 40)}`)")
    top_n, returned = _one(record, _TOP, _a_count), _one(record, _RETURNED, _a_switch)
    if in_order and (top_n is not None or returned):
        got = f"got {_quoted(name for name in (*_TOP, *_RETURNED) if record.get(name))}"
        raise BadRecord("unsupported_option", f"a score request is answered with the scores of all texts ({got})")
    raw, activated = _one(record, _RAW, _a_switch), _one(record, _ACTIVATED, _a_switch)
    if raw is not None and activated is not None and raw is activated:
        raise BadRecord("bad_raw_scores", "`raw_scores` and `use_activation` contradict each other")
    return RequestOptions(
        top_n,
        token_limit(record),
        instruction_of(record, _INSTRUCTIONS),
        returned,
        not activated if raw is None and activated is not None else raw,
        _one(record, _TRUNCATED, _a_truncation),
        _one(record, ("rank_fields",), _field_names),
    )


def option_names(record: Mapping[str, Json]) -> frozenset[str]:
    """The names of options, with `parameters` if the record has options in it."""
    return NAMES | {_PARAMETERS} if _has_parameters(record) else NAMES


def token_limit(record: Mapping[str, Json]) -> int | None:
    """`max_tokens_per_doc`, None if missing. Raises BadRecord if it is not a whole number from 1."""
    found: int | None = _one(record, ("max_tokens_per_doc",), _a_count)
    return found


def _has_parameters(record: Mapping[str, Json]) -> bool:
    """Whether there are options in an object `parameters`, as in Pinecone's and DashScope's requests."""
    parameters = record.get(_PARAMETERS)
    return isinstance(parameters, dict) and not NAMES.isdisjoint(parameters)


def _with_parameters(record: dict[str, Json], parameters: dict[str, Json]) -> dict[str, Json]:
    for name, value in parameters.items():
        if name not in NAMES:
            raise BadRecord("unsupported_option", f"`parameters` has an unknown option (got `{shown(name, 40)}`)")
        if record.get(name, value) != value:
            raise BadRecord(f"bad_{name}", f"`{name}` and `parameters.{name}` differ")
    return {**record, **parameters}


def instruction_of(record: Mapping[str, Json], names: tuple[str, ...] = INSTRUCTION) -> str | None:
    """The first of the names that has a value. Raises BadRecord if that is not a string."""
    name, value = first(record, names)
    return None if name is None else _a_string(name, value)


def _one(record: Mapping[str, Json], names: tuple[str, ...], read: Callable[[str, Json], Any]) -> Any:
    """The value under any of the names, None if all are missing or null. Raises BadRecord if two differ."""
    found = {name: read(name, value) for name in names if (value := record.get(name)) is not None}
    values = list(found.values())
    if any(value != values[0] for value in values):
        raise BadRecord(f"bad_{names[0]}", f"{_quoted(found)} are names of one option and differ")
    return values[0] if values else None


def _quoted(names: Iterable[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)


def _a_count(name: str, value: Json) -> int | None:
    """A whole number from 1; a `top_n` of 0 is all."""
    if name == "top_n" and value == 0 and type(value) is int:
        return None
    if type(value) is not int or value < 1:
        got = str(value) if type(value) is int else kind(value)
        raise BadRecord(f"bad_{name}", f"`{name}` cannot be used (got {got}, expected a whole number from 1)")
    return value


def _a_string(name: str, value: Json) -> str:
    if type(value) is not str:
        raise BadRecord(f"bad_{name}", f"`{name}` cannot be used (got {kind(value)}, expected a string)")
    return value


def _a_switch(name: str, value: Json) -> bool:
    if type(value) is not bool:
        raise BadRecord(f"bad_{name}", f"`{name}` cannot be used (got {kind(value)}, expected true or false)")
    return value


def _a_truncation(name: str, value: Json) -> bool:
    """True or false, or "END" or "NONE"."""
    known = {"END": True, "NONE": False}
    if type(value) is str and value.upper() in known:
        return known[value.upper()]
    if type(value) is not bool:
        got = f"`{shown(value, 40)}`" if type(value) is str else kind(value)
        raise BadRecord(f"bad_{name}", f"`{name}` cannot be used (got {got}, expected true, false, END or NONE)")
    return value


def _field_names(name: str, value: Json) -> TextFields:
    if not isinstance(value, list) or not value or not all(type(item) is str and item for item in value):
        got = "an empty list" if value == [] else kind(value)
        raise BadRecord(f"bad_{name}", f"`{name}` cannot be used (got {got}, expected a list of field names)")
    return TextFields(tuple(value))
