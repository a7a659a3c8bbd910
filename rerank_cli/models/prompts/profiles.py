"""Prompt profiles: the text around a pair, and the answers whose logits give the score.

A profile is a few strings. The pieces around the texts are tokenized one by one, as in the reference implementations,
so that their ids do not depend on the neighbouring text; the words directly before a text are tokenized with it. Users
can write their own profile as a TOML or JSON file (see docs/models.md).
"""

from __future__ import annotations

import string
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from rerank_cli.choices import TruncationRule
from rerank_cli.errors import UsageError

# The profile of a model that `rerank train` wrote, in its folder.
SAVED_PROFILE = "rerank_profile.json"
_SLOTS = {
    "prefix": {"prompt"},
    "query": {"query", "instruction"},
    "instructed_query": {"query", "instruction"},
    "middle": {"prompt"},
    "passage": {"passage", "instruction"},
    "suffix": {"prompt"},
}
# Settings newer than the first release, left out of the identity of a profile where they have their defaults.
_NEWER = ("first", "strips", "one_string")
_FIRST = ("query", "passage")
Answer = str | int


@dataclass(frozen=True, slots=True)
class Profile:
    """A prompt and the definition of the score.

    `prefix`, `middle` and `suffix` are pieces of text, each tokenized alone. `query` is the template of a query
    (`instructed_query`, if set, when there is an instruction), `passage` that of a passage. `{instruction}` is the
    query's (or passage's) instruction, `{prompt}` is `prompt`.
    `first` is the text that comes first, `query` or `passage`. The score is the logit of the answer `yes`, minus that
    of `no` if set, divided by `divide_by`. An answer is a word, or a token id; the logit of several is log Σ exp of
    theirs. `bos` controls the tokenizer's first token: `always`, `never`, or `auto`: present unless it is also the
    padding token; `tokenizer` puts the special tokens around the sequence that the tokenizer puts around a text.
    `max_length` is the default limit, `query_share` the query's share of it. With `strips`, white space around texts is
    dropped. With `one_string`, a tokenizer that would join a piece with its neighbour is refused: the model's authors
    tokenize the whole prompt.
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
    yes: Answer | tuple[Answer, ...] | None = None
    no: Answer | tuple[Answer, ...] | None = None
    divide_by: float = 1.0
    truncation_rule: TruncationRule = TruncationRule.ALL
    max_length: int = 512
    query_share: float = 0.75
    first: str = "query"
    strips: bool = False
    one_string: bool = False

    def __post_init__(self) -> None:
        for name, slots in _SLOTS.items():
            value = getattr(self, name)
            for piece in (value,) if isinstance(value, str) else value or ():
                _check_slots(self.name, name, piece, slots)
        for name in ("query", "instructed_query", "passage"):
            text = name.removeprefix("instructed_")
            if [slot for _, slot in pieces_of(getattr(self, name) or "{query}")].count(text) != 1:
                raise UsageError(f"profile {self.name}: `{name}` must contain {{{text}}} exactly once")
        if self.bos not in {"never", "always", "auto", "tokenizer"}:
            raise UsageError(f"profile {self.name}: bos is {self.bos!r} (expected never, always, auto or tokenizer)")
        if self.first not in _FIRST:
            raise UsageError(f"profile {self.name}: first is {self.first!r} (expected {' or '.join(_FIRST)})")
        if self.no is not None and self.yes is None:
            raise UsageError(f"profile {self.name}: an answer `no` needs an answer `yes`")
        if not (self.divide_by > 0 and 0 < self.query_share <= 1 and self.max_length > 0):
            raise UsageError(f"profile {self.name}: divide_by, query_share (at most 1) and max_length must be positive")

    @property
    def slots(self) -> set[str]:
        """Names of the options with an effect: of `prompt`, `query_instruction`, `passage_instruction`."""
        written = (
            ("prompt", "prompt", "".join((*self.prefix, *self.middle, *self.suffix))),
            ("query_instruction", "instruction", self.query + (self.instructed_query or "")),
            ("passage_instruction", "instruction", self.passage),
        )
        return {name for name, slot, text in written if any(used == slot for _, used in pieces_of(text))}

    @property
    def passage_first(self) -> bool:
        return self.first == "passage"

    @property
    def written(self) -> str:
        """The whole prompt, with the texts as `{query}` and `{passage}`."""
        query = self.instructed_query if self.query_instruction and self.instructed_query else self.query
        texts = (
            fill(query, query="{query}", instruction=self.query_instruction),
            fill(self.passage, passage="{passage}", instruction=self.passage_instruction),
        )
        before, between, after = (
            "".join(fill(piece, prompt=self.prompt) for piece in pieces)
            for pieces in (self.prefix, self.middle, self.suffix)
        )
        first, second = texts[::-1] if self.passage_first else texts
        return f"{before}{first}{between}{second}{after}"

    @property
    def identity(self) -> dict[str, Any]:
        """All settings that change a score, by name, as in checkpoints of runs."""
        kept = {
            field.name
            for field in fields(self)
            if field.name not in _NEWER or getattr(self, field.name) != field.default
        }
        return {name: value for name, value in asdict(self).items() if name in kept} | {"name": None}


def pieces_of(template: str) -> list[tuple[str, str | None]]:
    """A template as (literal text, slot after it or None)."""
    return [(literal, slot) for literal, slot, _, _ in string.Formatter().parse(template)]


def fill(template: str, **values: str) -> str:
    """The template with its slots filled; braces in the values are kept as text."""
    return "".join(literal + (values[slot] if slot else "") for literal, slot in pieces_of(template))


def _check_slots(profile: str, name: str, template: str, slots: set[str]) -> None:
    try:
        if any(spec or conversion for _, _, spec, conversion in string.Formatter().parse(template)):
            raise ValueError("a slot holds only a name")
        used = [slot for _, slot in pieces_of(template) if slot is not None]
    except ValueError as error:
        raise UsageError(f"profile {profile}: `{name}` is not a template ({error}; write a brace as {{{{)") from error
    for slot in used:
        if slot not in slots:
            known = ", ".join(f"{{{known}}}" for known in sorted(slots))
            raise UsageError(f"profile {profile}: `{name}` contains {{{slot}}} (expected {known})")


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
# Source: zerank's modeling_zeranker.py, and chat_template.jinja since May 2026: the query is the system message, the
# document that of the user. Its tokenizer, Qwen's, always splits before and after control tokens, and after the line
# end before a text without white space at its start. The score is that of its first version; since then its authors
# return the logit before the division, and their files say so.
ZERANK = Profile(
    "zerank",
    prefix=("<|im_start|>system\n",),
    query="{query}",
    middle=("<|im_end|>\n<|im_start|>user\n",),
    passage="{passage}",
    suffix=("<|im_end|>\n<|im_start|>assistant\n",),
    yes="Yes",
    divide_by=5,
    max_length=8192,
    strips=True,
    one_string=True,
)
# Source: the model cards of ctxl-rerank-v2, `format_prompts` and `infer_w_hf`: the logit of token id 0.
CTXL = Profile(
    "ctxl",
    prefix=(
        "Check whether a given document contains information helpful to answer the query.\n",
        "<Document>",
    ),
    passage=" {passage}\n",
    middle=("<Query>",),
    query=" {query}",
    instructed_query=" {query} {instruction}",
    suffix=(" ??",),
    bos="tokenizer",
    yes=0,
    max_length=8192,
    query_share=1.0,
    first="passage",
    one_string=True,
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
# The card of llama-nemotron-rerank-1b-v2 tokenizes "question:{query} \n \n passage:{passage}" as one string. Llama 3's
# tokenizer always splits after the last of several line ends, so that cutting there changes no id.
NEMOTRON = Profile(
    "nemotron",
    query="question:{query} \n \n",
    passage=" passage:{passage}",
    bos="tokenizer",
    max_length=512,
)

# Source: pygaggle, `T5BatchTokenizer` and `prediction_tokens`. The pieces are cut at spaces, where the tokenizers of T5
# always split. An answer is one entry of the vocabulary; `mt5-3B` answers with a lone space instead of "false".
MONOT5 = Profile(
    "monot5",
    query="Query: {query}",
    passage="Document: {passage}",
    suffix=("Relevant:",),
    bos="tokenizer",
    yes="true",
    no="false",
)
MT5 = replace(MONOT5, name="mt5", yes="yes", no="no")
MT5_3B = replace(MONOT5, name="mt5-3b", no="▁")
PTT5 = replace(MONOT5, name="ptt5", yes="sim", no="não")

BUILT_IN = {profile.name: profile for profile in (BGE, QWEN3, MXBAI, ZERANK, CTXL, MONOT5, MT5, MT5_3B, PTT5)}
