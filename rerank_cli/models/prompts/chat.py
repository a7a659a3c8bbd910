"""A profile from a checkpoint's chat template, if that writes a query and a document as messages of these roles.

The template is rendered with stand-ins for the texts, and the result is cut at them. Every piece is tokenized alone, so
the boundaries between pieces are put where the tokenizer splits whatever the texts are.
Source: sentence-transformers 6.2, `base/modality.py` and `base/modules/transformer.py`, which renders each pair.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rerank_cli.errors import ModelError
from rerank_cli.models.prompts.joining import BEGINNINGS, ENDS, splits_at_pieces
from rerank_cli.models.prompts.pairs import Ids
from rerank_cli.models.prompts.profiles import Profile, fill
from rerank_cli.models.prompts.rendering import Render, renderer
from rerank_cli.models.prompts.tokens import TextTokenizer
from rerank_cli.models.stated import Stated

NAME = "chat-template"
_QUERY, _DOCUMENT, _SYSTEM = "xquery7411", "xdocument7412", "xsystem7413"
_OTHER_SYSTEM = "Find {all} 'texts' that <answer>."
_PROBES = (("what is it?", "A text."), (' {a} %s <b>&amp;</b> "x"\n', "\tone\n\ntwo {{ c }} 'y' \\n "), ("é中", "🐼 ½"))
_LONG = "One of many words. " * 2000  # a template may cut texts, as code of some rerankers does


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A profile; and the tokens after the passage in a pair's text that a truncated passage ends with as well.

    These are of a template with the query first. One with the document first is cut by the rule of profiles.
    """

    profile: Profile
    passage_tail: Ids


@dataclass(frozen=True, slots=True)
class _Pieces:
    """A rendered template: the text before the first of the two texts, between them, and after the second."""

    before: str
    between: str
    after: str
    passage_first: bool

    def fill(self, query: str, document: str) -> str:
        first, second = (document, query) if self.passage_first else (query, document)
        return f"{self.before}{first}{self.between}{second}{self.after}"

    @property
    def literals(self) -> tuple[str, str, str]:
        return self.before, self.between, self.after


def chat_prompt(tokenizer: TextTokenizer, stated: Stated, model_type: str, where: str) -> ChatPrompt:
    """The prompt. Raises ModelError, one line, for a template that does not write both texts once and unchanged."""
    render = renderer(tokenizer, stated, model_type, where)
    pieces = _cut(render(_QUERY, _DOCUMENT, None), where)
    guided = _guided(render, pieces, where)
    prompt = stated.prompt or ""
    if guided is None and prompt:  # a constant: there is no place where another instruction could be written
        pieces, prompt = _cut(render(_QUERY, _DOCUMENT, prompt), where), ""
    system = None if guided is not None else stated.prompt or None
    strips = render(f" {_QUERY}\n", f"\n{_DOCUMENT} ", system) == pieces.fill(_QUERY, _DOCUMENT)
    for texts in (*_PROBES, (_LONG, _LONG)):
        if render(*texts, system) != pieces.fill(*(text.strip() if strips else text for text in texts)):
            raise ModelError(f"{where}: the chat template changes the texts of a pair. Fix: --profile FILE")
    profile = _profile(pieces, guided, tokenizer.ids, prompt=prompt, strips=strips)
    if profile is None or not splits_at_pieces(profile, tokenizer):
        what = "the tokenizer joins the words of the chat template with those of the texts"
        raise ModelError(f"{where}: {what}, which is not supported. Fix: --profile FILE")
    return ChatPrompt(profile, _passage_tail(profile, tokenizer.ids))


def _cut(text: str, where: str) -> _Pieces:
    places = text.find(_QUERY), text.find(_DOCUMENT)
    passage_first = places[1] < places[0]
    first, second = (_DOCUMENT, _QUERY) if passage_first else (_QUERY, _DOCUMENT)
    before, _, rest = text.partition(first)
    between, _, after = rest.partition(second)
    pieces = _Pieces(before, between, after, passage_first)
    if min(places) < 0 or any(one in before + between + after for one in (_QUERY, _DOCUMENT)):
        what = "the chat template does not write a pair as one query and one document, by messages of these roles"
        raise ModelError(f"{where}: {what}. Fix: --profile FILE")
    return pieces


def _guided(render: Render, plain: _Pieces, where: str) -> _Pieces | None:
    """The template with a system message; None if it is not written once, unchanged, in the words around the query."""
    try:
        found = _cut(render(_QUERY, _DOCUMENT, _SYSTEM), where)
        other = render(_QUERY, _DOCUMENT, _OTHER_SYSTEM)
    except ModelError:
        return None
    around = (1, 2) if plain.passage_first else (0, 1)
    at = [number for number, literal in enumerate(found.literals) if _SYSTEM in literal]
    beyond = ({0, 1, 2} - set(around)).pop()
    unchanged = (
        found.passage_first == plain.passage_first
        and found.literals[beyond] == plain.literals[beyond]
        and "".join(found.literals).count(_SYSTEM) == 1
        and other == found.fill(_QUERY, _DOCUMENT).replace(_SYSTEM, _OTHER_SYSTEM)
    )
    return found if unchanged and at and at[0] in around else None


def _profile(
    pieces: _Pieces, guided: _Pieces | None, ids: Callable[[str], Ids], *, prompt: str, strips: bool
) -> Profile | None:
    """The profile of a template, and of the same with an instruction; None if the tokenizer splits nowhere between.

    Words that depend on an instruction belong to the query, with which they are tokenized.
    """
    variants = [variant.literals for variant in (pieces, guided) if variant is not None]
    split: list[list[tuple[str, str]]] = []
    for number, words in enumerate(zip(*variants, strict=True)):
        fixed = _same_start(words) if number == int(pieces.passage_first) else _same_end(words)
        latest = number == 0 or (number == 1 and not pieces.passage_first)
        lefts = [end + words_before.replace(_SYSTEM, end) for words_before in fixed.before for end in ENDS]
        rights = [words_after.replace(_SYSTEM, start) + start for words_after in fixed.after for start in BEGINNINGS]
        place = _boundary(fixed.text, lefts if number else [""], rights if number < 2 else [""], ids, latest=latest)
        if place is None:
            return None
        cuts = [len(before) + place for before in fixed.before]
        split.append([(one[:cut], one[cut:]) for one, cut in zip(words, cuts, strict=True)])
    prefix, suffix = split[0][0][0], split[2][0][1]

    def text(slot: str, number: int, variant: int) -> str:
        around = _literal(split[number][variant][1]), _literal(split[number + 1][variant][0])
        return f"{around[0]}{{{slot}}}{around[1]}".replace(_SYSTEM, "{instruction}")

    of_query = int(pieces.passage_first)
    return Profile(
        NAME,
        prefix=(_literal(prefix),) if prefix else (),
        query=text("query", of_query, 0),
        instructed_query=text("query", of_query, 1) if guided is not None else None,
        passage=text("passage", 1 - of_query, 0),
        suffix=(_literal(suffix),) if suffix else (),
        query_instruction=prompt,
        query_share=1.0,
        first="passage" if pieces.passage_first else "query",
        strips=strips,
    )


def _passage_tail(profile: Profile, ids: Callable[[str], Ids]) -> Ids:
    closed = [ids(fill(profile.passage, passage=text)) for text in ("0", "1 2 3 4")]
    same = [a == b for a, b in zip(*(piece[::-1] for piece in closed), strict=False)]
    shared = same.index(False) if False in same else 0
    return closed[0][len(closed[0]) - shared :]


def _literal(text: str) -> str:
    """The text as a part of a template, whose braces are doubled."""
    return text.replace("{", "{{").replace("}", "}}")


@dataclass(frozen=True, slots=True)
class _Fixed:
    """Words that all variants of a literal have in common, and those before and after them in each variant."""

    text: str
    before: Sequence[str]
    after: Sequence[str]


def _same_start(words: Sequence[str]) -> _Fixed:
    text = os.path.commonprefix([one.partition(_SYSTEM)[0] for one in words])  # noqa: RUF071
    return _Fixed(text, [""] * len(words), [one[len(text) :] for one in words])


def _same_end(words: Sequence[str]) -> _Fixed:
    text = os.path.commonprefix([one.rpartition(_SYSTEM)[2][::-1] for one in words])[::-1]  # noqa: RUF071
    return _Fixed(text, [one[: len(one) - len(text)] for one in words], [""] * len(words))


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
