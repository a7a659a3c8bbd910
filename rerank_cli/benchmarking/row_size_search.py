"""Sizes of rows tried against one another on the same pairs: interleaved rounds, the device's time alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from rerank_cli.benchmarking.analysis import Advice, advise
from rerank_cli.engine.contract import Session
from rerank_cli.engine.prepare import PairTexts, Prepared
from rerank_cli.records import Request
from rerank_cli.run.stages import pair_texts

_FEWEST_ROUNDS, _MOST_ROUNDS = 3, 9
_FEWEST_ROWS = 2
_LONG_ENOUGH = 1.0


class Resizable(Session, Protocol):
    """A session that can feed its model rows of another size."""

    @property
    def least_rows(self) -> int: ...

    def resized(self, batch_tokens: int) -> Session: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes to try, each in so many rounds of so many tokens."""

    sizes: tuple[int, ...]
    tokens: int
    rounds: int


@dataclass(frozen=True, slots=True)
class Trials:
    """What came of it: `tokens` of the pairs that each size scored in a round; `too_large` are sizes that did not fit.

    `advice` is None where nothing was tried, for the reason `why`.
    """

    advice: Advice | None
    why: str = ""
    tokens: int = 0
    rounds: int = 0
    too_large: tuple[int, ...] = ()


def plan_trials(sizes: Sequence[int], default: int, pace: float, seconds: float, least_rows: int = 1) -> Plan | None:
    """What can be tried in `seconds` at `pace` tokens a second; None if not even two sizes can.

    The largest sizes go first: a round must be worth a few rows of each, and `least_rows`, or it would be cut smaller.
    """
    fewest = max(_FEWEST_ROWS, least_rows)
    left = sorted(sizes)
    while len(left) > 1:
        affordable = int(pace * seconds / (len(left) * (_FEWEST_ROUNDS + 1)))
        if fewest * left[-1] <= affordable:
            tokens = min(affordable, max(fewest * left[-1], 4 * left[-1], int(pace * _LONG_ENOUGH)))
            rounds = int(pace * seconds / (len(left) * tokens)) - 1
            return Plan(tuple(left), tokens, min(rounds, _MOST_ROUNDS))
        if left[-1] == default:
            return None
        left.pop()
    return None


def choose_texts(requests: Sequence[Request], pairs: int) -> PairTexts:
    """So many pairs from requests all over the sample."""
    depth = sum(len(request.candidates) for request in requests) / max(1, len(requests))
    step = max(1, int(len(requests) * depth / pairs))
    return pair_texts([*requests[::step], *requests[1::step]]).part(0, pairs)


def try_sizes(session: Resizable, texts: PairTexts, plan: Plan, default: int, is_crowded: Callable[[], bool]) -> Trials:
    """Score the texts with each size, a round of all after the other; the first round warms up and does not count.

    Sizes that run out of memory, or come close, are left out, and all above them.
    """
    prepared: dict[int, Prepared] = {}
    for size in plan.sizes:
        prepared[size] = session.resized(size).prepare(texts)
        splits = session.work.out_of_memory
        session.score(prepared[size])
        if size != default and (session.work.out_of_memory > splits or is_crowded()):
            del prepared[size]
            break
    sizes = sorted({*prepared, default})
    if default not in prepared:
        prepared[default] = session.resized(default).prepare(texts)
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    for number in range(plan.rounds):
        for size in sizes if number % 2 else reversed(sizes):
            begun = time.perf_counter()
            session.score(prepared[size])
            seconds[size].append(time.perf_counter() - begun)
    too_large = tuple(size for size in plan.sizes if size not in prepared)
    tokens = int(prepared[default].tokens.sum())
    return Trials(
        advise(seconds, default) if len(sizes) > 1 else None,
        "none but the default fits into memory",
        tokens,
        plan.rounds,
        too_large,
    )
