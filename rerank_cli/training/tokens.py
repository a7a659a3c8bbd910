"""Groups to packed rows, as for scoring: one tokenizer, one pair template, one plan of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from rerank_cli.engine.limits import choose_limits
from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.rows.plan import Index
from rerank_cli.engine.rows.prepare import PairTexts, PairTokenizer, prepare
from rerank_cli.errors import UsageError
from rerank_cli.models.known import LIGHTWEIGHT
from rerank_cli.models.packed_row import TokenRow
from rerank_cli.models.prompts.pairs import Cut, Limits, PairRule
from rerank_cli.models.prompts.tokens import TextTokenizer
from rerank_cli.training.contract import DrawnGroup


@dataclass(frozen=True, slots=True)
class Lengths:
    """Token limits of a pair.

    By default those of scoring, with `max_length` and `query_max_length` as its flags. With `query` Q and `passage` P
    FlagEmbedding's: the query is cut at Q + P // 4 tokens (Q for a lightweight model), the passage at P + Q // 2, and
    the pair at Q + P with all constant tokens, the passage giving way.
    Source: FlagEmbedding 1.4, `abc/finetune/reranker/AbsDataset.py`.
    """

    max_length: int | None = None
    query_max_length: int | None = None
    query: int | None = None
    passage: int | None = None

    def __post_init__(self) -> None:
        if (self.query is None) != (self.passage is None):
            raise UsageError("--passage-max-length and --query-max-length are given together, or neither")

    def limits(self, rule: PairRule, positions: int, family: str) -> tuple[Limits, int]:
        """The limits and the maximum number of tokens of a passage, 0 without one of its own. Raises UsageError."""
        if self.query is None or self.passage is None:
            options = ModelOptions("", max_length=self.max_length, query_max_length=self.query_max_length)
            return choose_limits(options, positions, rule), 0
        most = self.query + self.passage
        room = most - rule.template.specials
        if room < 2 or most > positions:
            least = rule.template.specials + 2
            raise UsageError(
                f"--query-max-length {self.query} and --passage-max-length {self.passage}: {most} tokens for a pair "
                f"(expected {least} to {positions} for this model and prompt)"
            )
        query = self.query if family == LIGHTWEIGHT else self.query + self.passage // 4
        limits = Limits(most, min(query, most), room, Cut.PASSAGE, len(rule.template.passage_tail))
        return limits, self.passage + self.query // 2


@dataclass(frozen=True, slots=True)
class TokenizedGroups:
    """n pairs of groups as rows of their distinct sequences.

    `places` [n] is the index of each pair's score among the scores of all rows, one row after the other. `tokens` [n]
    are the tokens of each pair's sequence; `truncated` is the number of pairs that were cut.
    """

    rows: Sequence[TokenRow]
    places: Index
    tokens: Index
    truncated: int


@dataclass(slots=True)
class GroupTokenizer:
    """Tokenizes groups of a model of this family. `rule_for` is the pair rule of a prompt, None for the family's own.

    `row_tokens` is the size of a packed row; `padded` is for models that take padded batches. Sequences share no
    prefix, which would get the same dropout for all passages of a query. Without `takes_prompt`, prompts of records are
    left out, and `prompts_left_out` counts the groups that have one: data made for a decoder trains an encoder too.
    """

    tokenizer: TextTokenizer
    rule_for: Callable[[str | None], PairRule]
    lengths: Lengths
    positions: int
    family: str
    row_tokens: int = 2048
    padded: bool = False
    takes_prompt: bool = True
    prompts_left_out: int = 0
    _known: dict[tuple[str | None, str | None], tuple[PairTokenizer, int]] = field(default_factory=dict)

    def tokenize(self, groups: Sequence[DrawnGroup]) -> TokenizedGroups:
        """Raises UsageError for a prompt that this model has no place for, or that leaves no room for a pair."""
        pairs = [(group, passage) for group in groups for passage in group.passages]
        prompts = [(group.prompt if self.takes_prompt else None, group.passage_prompt) for group, _ in pairs]
        self.prompts_left_out += 0 if self.takes_prompt else sum(group.prompt is not None for group in groups)
        rows: list[TokenRow] = []
        places, tokens = np.zeros(len(pairs), np.int64), np.zeros(len(pairs), np.int64)
        before = truncated = 0
        for key in dict.fromkeys(prompts):
            chosen = np.array([place for place, known in enumerate(prompts) if known == key], dtype=np.int64)
            pair_tokenizer, cap = self._tokenizer(key)
            texts = PairTexts(
                [pairs[place][0].query for place in chosen],
                [pairs[place][1] for place in chosen],
                [cap] * len(chosen),
                [pairs[place][0].query_prompt for place in chosen],
            )
            found = prepare(texts, pair_tokenizer, self.row_tokens, padded=self.padded)
            order = np.concatenate([planned.pairs for planned in found.rows])
            place_of = np.empty_like(order)
            place_of[order] = np.arange(len(order))
            places[chosen] = before + place_of[found.distinct]
            tokens[chosen] = found.tokens
            truncated += int(found.truncated.sum())
            before += len(order)
            rows += [planned.row for planned in found.rows]
        return TokenizedGroups(rows, places, tokens, truncated)

    def first_pair(self, group: DrawnGroup) -> TokenRow:
        """A row of the group's first pair alone, without prompts of the record."""
        return self.tokenize([DrawnGroup(group.place, group.query, group.passages[:1])]).rows[0]

    def _tokenizer(self, key: tuple[str | None, str | None]) -> tuple[PairTokenizer, int]:
        if key not in self._known:
            prompt, passage_prompt = key
            rule = self.rule_for(prompt)
            if passage_prompt is not None:
                if "{instruction}" not in rule.passage:
                    raise UsageError("a record has a passage_prompt, but the model's profile has no place for it")
                rule = replace(rule, passage_instruction=passage_prompt)
            limits, cap = self.lengths.limits(rule, self.positions, self.family)
            self._known[key] = PairTokenizer(self.tokenizer, rule, limits), cap
            if len(self._known) > 1000:  # prompts are usually few; a data set with one a record must not fill memory
                self._known.pop(next(iter(self._known)))
        return self._known[key]
