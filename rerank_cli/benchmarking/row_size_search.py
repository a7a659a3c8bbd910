"""Compares row sizes on the same pairs: interleaved rounds, device time only."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rerank_cli.benchmarking.analysis import Advice, advise
from rerank_cli.benchmarking.sample_run import BenchSession
from rerank_cli.engine.rows.prepare import PairTexts, Prepared
from rerank_cli.records import Request
from rerank_cli.run.stages import pair_texts

_FEWEST_ROUNDS, _MOST_ROUNDS = 3, 9
_FEWEST_ROWS = 2
_LONG_ENOUGH = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes to try, the tokens that each scores in a round, and the number of rounds."""

    sizes: tuple[int, ...]
    tokens: int
    rounds: int


@dataclass(frozen=True, slots=True)
class Trials:
    """The result: `tokens` is what each size scored in a round, `too_large` the sizes that did not fit into memory.

    If no size was compared, `advice` is None and `why` is the reason.
    """

    advice: Advice | None
    why: str = ""
    tokens: int = 0
    rounds: int = 0
    too_large: tuple[int, ...] = ()


def plan_trials(sizes: Sequence[int], default: int, pace: float, seconds: float, least_rows: int = 1) -> Plan | None:
    """What can be tried in `seconds` at `pace` tokens per second; None if there is no time for two sizes.

    The largest sizes are dropped first: a round needs a few rows of each size, and `least_rows`, or rows get smaller.
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
    """`pairs` pairs from requests all over the sample."""
    depth = sum(len(request.candidates) for request in requests) / max(1, len(requests))
    step = max(1, int(len(requests) * depth / pairs))
    return pair_texts([*requests[::step], *requests[1::step]]).part(0, pairs)


def try_sizes(
    session: BenchSession, texts: PairTexts, plan: Plan, default: int, is_crowded: Callable[[], bool]
) -> Trials:
    """Score the texts with each size in every round, after a warm-up round that does not count.

    A size that runs out of memory, or nearly so, is left out with all larger ones.
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
    advice = advise(seconds, default) if len(sizes) > 1 else None
    return Trials(advice, "only the default fits into memory", tokens, plan.rounds, too_large)
