"""A profile from a checkpoint's chat template, if that writes a query and a document as messages of these roles.

The template is rendered, in transformers' sandbox, with stand-ins for the texts, and the result is cut at them. Every
piece is tokenized alone, so the boundaries between pieces are put where the tokenizer splits whatever the texts are.
Source: sentence-transformers 6.2, `base/modality.py` and `base/modules/transformer.py`, which renders each pair.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rerank_cli.errors import ModelError
from rerank_cli.models.checkpoint import one_line
from rerank_cli.models.prompts.pairs import Ids
from rerank_cli.models.prompts.profiles import Profile
from rerank_cli.models.prompts.tokens import TextTokenizer
from rerank_cli.models.stated import Stated

NAME = "chat-template"
_QUERY, _DOCUMENT, _SYSTEM = "xquery7411", "xdocument7412", "xsystem7413"
_OTHER_SYSTEM = "Find {all} 'texts' that <answer>."
_STRUCTURED = ("content[0]", ".type", "'type'", '"type"', "item.type", "message.content[")
_FLAT_TYPES = frozenset(("apertus", "deepseek_v3", "gpt_oss", "seed_oss"))
# Ends and beginnings of texts that merge with their neighbours in one tokenizer or another.
_ENDS = ("a", "1", "?", "a.", "a ", "a\n", "a\n\n", "a:", "é", "中", "<", "'", "")
_BEGINNINGS = ("a", "1", "?", " a", "  a", "\na", "\n\n a", ":a", "é", "中", ">a", "'s", "")
_PROBES = (("what is it?", "A text."), (' {a} %s <b>&amp;</b> "x"\n', "\tone\n\ntwo {{ c }} 'y' \\n "), ("é中", "🐼 ½"))


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A profile; whether the template drops white space around texts; and the tokens after the passage in a pair's text
    that a truncated passage ends with as well.
    """

    profile: Profile
    strips: bool
    passage_tail: Ids


@dataclass(frozen=True, slots=True)
class _Pieces:
    """A rendered template: the text before the query, between query and document, and after the document."""

    before: str
    between: str
    after: str

    def fill(self, query: str, document: str) -> str:
        return f"{self.before}{query}{self.between}{document}{self.after}"


def chat_prompt(tokenizer: TextTokenizer, stated: Stated, model_type: str, where: str) -> ChatPrompt:
    """The prompt. Raises ModelError, one line, for a template that does not write a query and then a document."""
    render = _renderer(tokenizer, stated, model_type, where)
    pieces = _cut(render(_QUERY, _DOCUMENT, None), where)
    guided = _guided(render, pieces)
    prompt = stated.prompt or ""
    if guided is None and prompt:  # a constant: there is no place where another instruction could be written
        pieces, prompt = _cut(render(_QUERY, _DOCUMENT, prompt), where), ""
    system = None if guided is not None else stated.prompt or None
    strips = render(f" {_QUERY}\n", f"\n{_DOCUMENT} ", system) == pieces.fill(_QUERY, _DOCUMENT)
    for texts in _PROBES:
        if render(*texts, system) != pieces.fill(*(text.strip() if strips else text for text in texts)):
            raise ModelError(f"{where}: the chat template changes the texts of a pair. Fix: --profile FILE")
    return _prompt(pieces, guided, prompt, strips, tokenizer, where)


def _renderer(
    tokenizer: TextTokenizer, stated: Stated, model_type: str, where: str
) -> Callable[[str, str, str | None], str]:
    """A function: the text of a query, a document, and the system message or None."""
    template = getattr(tokenizer.stock, "chat_template", None)
    if not template:
        raise ModelError(
            f"{where}: reads pairs as chat messages, and has no chat template (expected chat_template.jinja)"
        )
    structured = stated.structured
    if structured is None:
        marked = not isinstance(template, str) or any(mark in template for mark in _STRUCTURED)
        structured = marked and model_type not in _FLAT_TYPES

    def render(query: str, document: str, system: str | None) -> str:
        texts = {"system": system, "query": query, "document": document}
        messages = [
            {"role": role, "content": [{"type": "text", "text": text}] if structured else text}
            for role, text in texts.items()
            if text is not None
        ]
        try:
            return str(tokenizer.stock.apply_chat_template(messages, tokenize=False, **(stated.chat or {})))
        except Exception as error:  # of Jinja, of the template itself, or of unsuitable arguments
            raise ModelError(f"{where}: the chat template cannot write a pair ({one_line(error)})") from error

    return render


def _cut(text: str, where: str) -> _Pieces:
    before, _, rest = text.partition(_QUERY)
    between, _, after = rest.partition(_DOCUMENT)
    pieces = _Pieces(before, between, after)
    if text != pieces.fill(_QUERY, _DOCUMENT) or any(one in before + between + after for one in (_QUERY, _DOCUMENT)):
        what = "the chat template does not write a pair as one query and then one document, by messages of these roles"
        raise ModelError(f"{where}: {what}. Fix: --profile FILE")
    return pieces


def _guided(render: Callable[[str, str, str | None], str], plain: _Pieces) -> tuple[str, str] | None:
    """The texts before and after an instruction, up to the query; None if a system message is not written there."""
    try:
        before, _, rest = render(_QUERY, _DOCUMENT, _SYSTEM).partition(_QUERY)
        start, found, end = before.partition(_SYSTEM)
        other = render(_QUERY, _DOCUMENT, _OTHER_SYSTEM)
    except ModelError:
        return None
    unchanged = (
        rest == f"{plain.between}{_DOCUMENT}{plain.after}" and other == f"{start}{_OTHER_SYSTEM}{end}{_QUERY}{rest}"
    )
    return (start, end) if found and unchanged else None


def _prompt(
    pieces: _Pieces, guided: tuple[str, str] | None, prompt: str, strips: bool, tokenizer: TextTokenizer, where: str
) -> ChatPrompt:
    before, between, after = pieces.before, pieces.between, pieces.after
    ids = tokenizer.ids
    # The prefix is what all queries begin with, whether they have an instruction or not.
    common = os.path.commonprefix([before, guided[0]]) if guided else before  # noqa: RUF071
    following = [
        text[len(common) :] + start for text in ((before, guided[0]) if guided else (before,)) for start in _BEGINNINGS
    ]
    head = _boundary(common, [""], following, ids, latest=True) or 0
    middle = _boundary(
        between, [before + end for end in _ENDS], [start + after for start in _BEGINNINGS], ids, latest=True
    )
    tail = _boundary(after, [between + end for end in _ENDS], [""], ids, latest=False)
    if middle is None or tail is None:
        what = "the tokenizer joins the words of the chat template with those of the texts"
        raise ModelError(f"{where}: {what}, which is not supported. Fix: --profile FILE")
    ends = _literal(between[:middle])
    passage = f"{_literal(between[middle:])}{{passage}}{_literal(after[:tail])}"
    profile = Profile(
        NAME,
        prefix=(common[:head],) if head else (),
        query=f"{_literal(before[head:])}{{query}}{ends}",
        instructed_query=f"{_literal(guided[0][head:])}{{instruction}}{_literal(guided[1])}{{query}}{ends}"
        if guided
        else None,
        passage=passage,
        suffix=(after[tail:],) if after[tail:] else (),
        query_instruction=prompt,
        query_share=1.0,
    )
    closed = [ids(f"{between[middle:]}{text}{after[:tail]}") for text in ("0", "1 2 3 4")]
    same = [a == b for a, b in zip(*(piece[::-1] for piece in closed), strict=False)]
    shared = same.index(False) if False in same else 0
    return ChatPrompt(profile, strips, closed[0][len(closed[0]) - shared :])


def _literal(text: str) -> str:
    """The text as a part of a template, whose braces are doubled."""
    return text.replace("{", "{{").replace("}", "}}")


def _boundary(
    literal: str, lefts: Sequence[str], rights: Sequence[str], ids: Callable[[str], Ids], *, latest: bool
) -> int | None:
    """The place in `literal` where the tokenizer splits between any of these texts, the latest or earliest; or None."""
    whole = [[ids(left + literal + right).tolist() for right in rights] for left in lefts]
    places = range(len(literal) + 1)
    for place in reversed(places) if latest else iter(places):
        starts = [ids(left + literal[:place]).tolist() for left in lefts]
        ends = [ids(literal[place:] + right).tolist() for right in rights]
        if all(start + end == whole[n][m] for n, start in enumerate(starts) for m, end in enumerate(ends)):
            return place
    return None
