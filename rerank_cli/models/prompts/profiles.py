"""What a decoder is told about a pair, and which of its answers is the score.

A profile is a handful of strings. Pieces around the texts are tokenized one by one, as the reference implementations
do, so that ids do not depend on what stands beside them; the words written directly before a text are tokenized with
it. People write their own as a TOML or JSON file (see docs/models.md).
"""

from __future__ import annotations

import string
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import orjson

from rerank_cli.choices import TruncationRule
from rerank_cli.errors import UsageError

_SLOTS = {
    "prefix": {"prompt"},
    "query": {"query", "instruction"},
    "instructed_query": {"query", "instruction"},
    "middle": {"prompt"},
    "passage": {"passage", "instruction"},
    "suffix": {"prompt"},
}


@dataclass(frozen=True, slots=True)
class Profile:
    """A prompt and a rule of scoring.

    `prefix`, `middle` and `suffix` are pieces of text, each tokenized alone; a query is written as `query` says (as
    `instructed_query` if that is there and an instruction too), a passage as `passage`. `{instruction}` stands for the
    query's (or passage's) instruction, `{prompt}` for `prompt`.
    The score is the logit of the answer `yes`, less that of `no` if there is one, divided by `divide_by`. `bos` puts
    the tokenizer's first token in front: `auto` does so unless it is the padding token too. `max_length` is the default
    limit, `query_share` the query's share of it.
    """

    name: str
    prefix: tuple[str, ...] = ()
    query: str = "{instruction}{query}"
    instructed_query: str | None = None
    middle: tuple[str, ...] = ()
    passage: str = "{instruction}{passage}"
    suffix: tuple[str, ...] = ()
    prompt: str = ""
    query_instruction: str = ""
    passage_instruction: str = ""
    bos: str = "never"
    yes: str | None = None
    no: str | None = None
    divide_by: float = 1.0
    truncation_rule: TruncationRule = TruncationRule.ALL
    max_length: int = 512
    query_share: float = 0.75

    def __post_init__(self) -> None:
        for name, slots in _SLOTS.items():
            value = getattr(self, name)
            for piece in (value,) if isinstance(value, str) else value or ():
                _check_slots(self.name, name, piece, slots)
        for name in ("query", "instructed_query", "passage"):
            text = name.removeprefix("instructed_")
            if [slot for _, slot in pieces_of(getattr(self, name) or "{query}")].count(text) != 1:
                raise UsageError(f"profile {self.name}: `{name}` must hold {{{text}}} once")
        if self.bos not in {"never", "always", "auto"}:
            raise UsageError(f"profile {self.name}: bos is {self.bos!r} (expected never, always or auto)")
        if self.no is not None and self.yes is None:
            raise UsageError(f"profile {self.name}: an answer `no` needs an answer `yes`")
        if not (self.divide_by > 0 and 0 < self.query_share <= 1 and self.max_length > 0):
            raise UsageError(f"profile {self.name}: divide_by, query_share (at most 1) and max_length are positive")

    @property
    def slots(self) -> set[str]:
        """Names of options that change something: `prompt`, `query_instruction`, `passage_instruction`."""
        pieces = (*self.prefix, *self.middle, *self.suffix)
        found = {"prompt"} if any(slot == "prompt" for piece in pieces for _, slot in pieces_of(piece)) else set()
        for name in ("query", "passage"):
            written = getattr(self, name) + (self.instructed_query or "" if name == "query" else "")
            if any(slot == "instruction" for _, slot in pieces_of(written)):
                found.add(f"{name}_instruction")
        return found


def pieces_of(template: str) -> list[tuple[str, str | None]]:
    """A template as (literal text, slot after it or None)."""
    return [(literal, slot) for literal, slot, _, _ in string.Formatter().parse(template)]


def fill(template: str, **values: str) -> str:
    """The template with its slots filled; braces inside the values mean nothing."""
    return "".join(literal + (values[slot] if slot else "") for literal, slot in pieces_of(template))


def _check_slots(profile: str, name: str, template: str, slots: set[str]) -> None:
    try:
        if any(spec or conversion for _, _, spec, conversion in string.Formatter().parse(template)):
            raise ValueError("a slot is a name alone")
        used = [slot for _, slot in pieces_of(template) if slot is not None]
    except ValueError as error:
        raise UsageError(f"profile {profile}: `{name}` is no template ({error}; write a brace as {{{{)") from error
    for slot in used:
        if slot not in slots:
            known = ", ".join(f"{{{known}}}" for known in sorted(slots))
            raise UsageError(f"profile {profile}: `{name}` holds {{{slot}}} (expected {known})")


_LONG_PROMPT = (
    "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a "
    "prediction of either 'Yes' or 'No'."
)
_SHORT_PROMPT = "Predict whether passage B contains an answer to query A."

BGE = Profile(
    "bge",
    middle=("\n",),
    suffix=("\n", "{prompt}"),
    prompt=_LONG_PROMPT,
    query_instruction="A: ",
    passage_instruction="B: ",
    bos="auto",
    yes="Yes",
    truncation_rule=TruncationRule.FLAGEMBEDDING,
)
LAYERWISE = replace(BGE, name="bge-layerwise", bos="always", yes=None)
LIGHTWEIGHT = replace(LAYERWISE, name="bge-lightweight", prompt=_SHORT_PROMPT)
ENCODER = Profile("encoder")

# The Qwen3-Reranker model card tokenizes "<Instruct>: …\n<Query>: …\n<Document>: …" as one string. Its tokenizer always
# splits before the space that follows "<Document>:", so that cutting there changes no id.
QWEN3 = Profile(
    "qwen3",
    prefix=(
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n',
    ),
    query="<Instruct>: {instruction}\n<Query>: {query}\n<Document>:",
    passage=" {passage}",
    suffix=("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",),
    query_instruction="Given a web search query, retrieve relevant passages that answer the query",
    yes="yes",
    no="no",
    max_length=8192,
    query_share=1.0,
)
# Source: mxbai-rerank 0.1.6, mxbai_rerank_v2.py.
MXBAI = Profile(
    "mxbai",
    prefix=(
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n",
    ),
    query="query: {query}",
    instructed_query="instruction: {instruction}\nquery: {query}",
    middle=("\n",),
    passage="document: {passage}",
    suffix=("\n", "{prompt}", "<|im_end|>\n<|im_start|>assistant\n"),
    prompt=(
        "You are a search relevance expert who evaluates how well documents match search queries. For each "
        "query-document pair, carefully analyze the semantic relationship between them, then provide your binary "
        "relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
    ),
    yes="1",
    no="0",
    truncation_rule=TruncationRule.MODELCARD,
    max_length=8192,
)

BUILT_IN = {profile.name: profile for profile in (BGE, QWEN3, MXBAI)}


def read_profile(name: str) -> Profile:
    """A built-in profile by name, or a file's. UsageError with one line for everything that is wrong with it."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    path = Path(name).expanduser()
    if not path.suffix and not path.exists():
        raise UsageError(f"--profile {name}: no such profile (expected a TOML or JSON file, or {_names()})")
    try:
        data = path.read_bytes()
        content = orjson.loads(data) if path.suffix == ".json" else tomllib.loads(data.decode())
    except OSError as error:
        raise UsageError(f"--profile {name}: {error.strerror}") from error
    except (orjson.JSONDecodeError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--profile {name}: unreadable ({error})") from error
    return _profile(content, path)


def _names() -> str:
    return ", ".join(sorted(BUILT_IN))


def _profile(content: Any, path: Path) -> Profile:
    if not isinstance(content, dict):
        raise UsageError(f"--profile {path}: expected a table of settings")
    base = content.pop("base", None)
    if base is not None and not (isinstance(base, str) and base in BUILT_IN):
        raise UsageError(f"--profile {path}: no profile {base!r} to build on (expected {_names()})")
    values: dict[str, Any] = {"name": path.stem} | (asdict(BUILT_IN[base]) | {"name": path.stem} if base else {})
    known = {field.name: field for field in fields(Profile)}
    for name, value in content.items():
        if name not in known:
            raise UsageError(f"--profile {path}: unknown setting {name!r} (expected {', '.join(known)})")
        values[name] = _typed(path, name, value)
    return Profile(**values)


def _typed(path: Path, name: str, value: Any) -> Any:
    if name in {"prefix", "middle", "suffix"}:
        pieces = (value,) if isinstance(value, str) else value
        if isinstance(pieces, (list, tuple)) and all(isinstance(piece, str) for piece in pieces):
            return tuple(piece for piece in pieces if piece)
    elif name == "truncation_rule":
        if isinstance(value, str) and value in set(TruncationRule):
            return TruncationRule(value)
    elif name in {"divide_by", "query_share"}:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif name == "max_length":
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif isinstance(value, str):
        return value
    raise UsageError(f"--profile {path}: {name} cannot be {value!r}")
