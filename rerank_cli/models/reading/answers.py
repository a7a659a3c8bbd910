"""The answers of a language model that give the score: token ids, from the words of a profile."""

from __future__ import annotations

from dataclasses import dataclass

from rerank_cli.errors import UsageError
from rerank_cli.models.prompts.profiles import Answer, Profile
from rerank_cli.models.prompts.tokens import TextTokenizer


@dataclass(frozen=True, slots=True)
class Answers:
    """Token ids that speak for relevance, and those against it, if the score is a difference."""

    yes: tuple[int, ...]
    no: tuple[int, ...] = ()

    @property
    def ids(self) -> tuple[int, ...]:
        return self.yes + self.no


def answers_of(profile: Profile, tokenizer: TextTokenizer, *, whole: bool) -> Answers:
    """The first token of each answer, or the entry that is the `whole` word, as in the reference implementations.

    An answer that is a number is that token id. Several words with the same token count once. Raises UsageError for an
    answer without a token, and for one on both sides.
    """
    if profile.yes is None:
        raise UsageError(f"profile {profile.name}: a causal language model needs an answer (expected `yes`)")
    yes, no = (
        tuple(dict.fromkeys(_token(answer, profile.name, tokenizer, whole=whole) for answer in _several(answers)))
        for answers in (profile.yes, profile.no)
    )
    both = set(yes) & set(no)
    if both:
        token = tokenizer.tokens(sorted(both))[0]
        raise UsageError(f"profile {profile.name}: answers of `yes` and `no` begin with the same token {token!r}")
    return Answers(yes, no)


def _several(answers: Answer | tuple[Answer, ...] | None) -> tuple[Answer, ...]:
    if answers is None:
        return ()
    return answers if isinstance(answers, tuple) else (answers,)


def _token(answer: Answer, profile: str, tokenizer: TextTokenizer, *, whole: bool) -> int:
    if isinstance(answer, int):
        return answer
    if whole:
        number = tokenizer.token_id(answer if answer.startswith("▁") else f"▁{answer}")
        if number is None:
            raise UsageError(f"profile {profile}: the tokenizer has no single token for {answer!r}")
        return number
    ids = tokenizer.ids(answer)
    if not len(ids):
        raise UsageError(f"profile {profile}: the tokenizer has no tokens for the answer {answer!r}")
    return int(ids[0])
