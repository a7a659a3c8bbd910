"""Says once, in a long run in fp32 on a CPU with fast bf16, what bf16 would give, measured on pairs of the run itself.

`--dtype auto` stays fp32 on a CPU so that scores are equal on every machine, and few would know what that costs here.
The trial runs between two slices, on the thread that scores, so the two never compete. It changes neither outputs,
journal nor figures; whatever goes wrong in it goes to the log, and the run goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, replace

from rerank_cli.display import counted
from rerank_cli.engine.contract import Session, StopRequested
from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.rows.prepare import PairTexts
from rerank_cli.engine.spare_memory import give_back, spare_memory
from rerank_cli.run.comparison import Difference, difference, timed
from rerank_cli.run.figures.statistics import RunStatistics
from rerank_cli.run.scoring.local import MakeScoring, ScoredSlice, Scoring, ShouldStop
from rerank_cli.run.stages import Slice

log = logging.getLogger(__name__)

_FEW, _SHARE = 3.0, 0.02  # the trial may take this many seconds, or this share of the run if that is more
_FEWEST, _MOST = 8, 256  # pairs
_ROUNDS = 2
_TURNS = 2 * _ROUNDS + 1  # one more of bf16, whose first products are slow; counted as if each took as long as fp32
_LIGHT = 1_500_000_000  # bytes of fp32 weights, above which it must be known that there is memory for a second copy
_READ = 1_000_000_000  # bytes of weights read in a second


@dataclass(frozen=True, slots=True)
class Trial:
    """Result: these pairs took `speedup` times as long in fp32 as in bf16."""

    pairs: int
    speedup: float
    difference: Difference

    @property
    def line(self) -> str:
        """What a run says of it."""
        found = self.difference
        return (
            f"bf16 is {self.speedup:.1f} times as fast here as fp32, the default on a CPU: measured on "
            f"{counted(self.pairs, 'pair')} of this run, worst |Δ| of logits {found.worst:.2g}, Kendall τ of rankings "
            f"{found.kendall_tau:.3f}. --dtype bf16 uses it (an output begun in fp32 starts over), --dtype fp32 keeps "
            "fp32 without this line"
        )


@dataclass(frozen=True, slots=True)
class Watched:
    """A run: its model, its statistics, and a function of the seconds that it will still take (None: not known)."""

    options: ModelOptions
    session: Session
    stats: RunStatistics
    left: Callable[[], float | None]


@dataclass(slots=True)
class DtypeAdvice:
    """The advice of a process, given once over all its runs, by `notify`.

    A run is tried whose scoring takes at least `long` seconds by an estimate after `enough` seconds of it. A smaller
    gain than `least_gain` only goes to the log. Used by one thread at a time.
    """

    notify: Callable[[str], None]
    open_model: Callable[[ModelOptions], Session]
    long: float = 60.0
    enough: float = 2.0
    least_gain: float = 1.15
    _done: bool = False
    _earlier: float = 0.0  # seconds of scoring in earlier runs

    def around(self, make: MakeScoring, run: Watched) -> MakeScoring:
        """The same scoring, with a trial after a slice once the run proves to be a long one.

        Models that the advice is not about are scored as they are.
        """
        facts = run.session.facts
        if self._done or (facts.device, facts.dtype, facts.quantize) != ("cpu", "fp32", "none"):
            return make

        def watched(should_stop: ShouldStop) -> Scoring:
            def score(slices: Iterable[Slice]) -> Generator[ScoredSlice]:
                before = run.stats.seconds.get("score", 0.0)
                spent = 0.0
                try:
                    with closing(make(should_stop)(slices)) as scored:
                        for part, pairs in scored:
                            yield part, pairs
                            spent = run.stats.seconds.get("score", 0.0) - before
                            if not self._done and not should_stop():
                                self._consider(run, part.texts, spent, should_stop)
                finally:
                    self._earlier += spent

            return score

        return watched

    def _consider(self, run: Watched, texts: PairTexts, spent: float, should_stop: ShouldStop) -> None:
        """Try bf16 on some of `texts` if the run is long enough for it."""
        whole = scoring_seconds(spent, run.stats.scoring, run.left()) + self._earlier
        if spent < self.enough or whole < self.long:
            return
        allowed = max(_FEW, _SHARE * whole)
        pairs = affordable(allowed, run.session.facts.parameters, run.stats.own_pairs / max(1e-9, spent))
        if min(pairs, len(texts)) >= _FEWEST:
            self._done = True
            self._advise(run, texts.part(0, pairs), allowed, should_stop)

    def _advise(self, run: Watched, texts: PairTexts, allowed: float, should_stop: ShouldStop) -> None:
        """Try bf16 on these pairs, and say what it gave. Ends between two rows after twice the time that is allowed."""
        begun = time.monotonic()
        deadline = begun + 2 * allowed
        try:
            found = _tried(run, self.open_model, texts, lambda: should_stop() or time.monotonic() > deadline)
        except StopRequested:
            log.info("bf16 was not tried to the end: the run stops, or the trial took too long")
        except Exception as error:  # advice must not end a run
            log.info("bf16 could not be tried: %s: %s", type(error).__name__, str(error).partition("\n")[0])
        else:
            if found and found.speedup >= self.least_gain:
                self.notify(found.line)
            elif found:
                log.info("bf16 is %.2f times as fast here as fp32, not worth a change", found.speedup)
        give_back()  # the second model, which a traceback may have held until here
        log.info("trying bf16 took %.1f s, of %.1f s that it may take", time.monotonic() - begun, allowed)


def scoring_seconds(spent: float, since: float, left: float | None) -> float:
    """Seconds of scoring of a whole run, by those `spent` in the time `since` its start and the time `left`."""
    busy = min(1.0, spent / max(1e-9, since))  # the rest waits for input, the tokenizer or the output
    return spent + busy * (left or 0.0)


def affordable(seconds: float, parameters: int, pace: float) -> int:
    """Pairs that can be tried in `seconds`, after loading a model; `pace` is in pairs per second. 0 if too few."""
    pairs = int((seconds - 4 * parameters / _READ) * pace / _TURNS)
    return 0 if pairs < _FEWEST else min(pairs, _MOST)


def is_room(parameters: int, spare: int | None) -> bool:
    """Whether a copy in bf16 fits into `spare` bytes with as much again beside it; None: only a light model does."""
    return 4 * parameters <= _LIGHT if spare is None else 2 * 2 * parameters <= spare


def _tried(
    run: Watched, open_model: Callable[[ModelOptions], Session], texts: PairTexts, should_stop: ShouldStop
) -> Trial | None:
    """Score the same rows with both; None, and a line in the log, if bf16 is slow here or memory is short.

    The session's counters are afterwards as they were, and nothing holds the second model.
    """
    from rerank_cli.engine.fast_bf16 import is_bf16_fast

    if not is_bf16_fast():
        log.info("bf16 is not fast on this CPU")
        return None
    if not is_room(run.session.facts.parameters, spare_memory()):
        log.info("bf16 was not tried: there may be no memory for a second copy of the weights")
        return None
    work = replace(run.session.work)
    try:
        return _compared(run.session, open_model(replace(run.options, dtype="bf16")), texts, should_stop)
    finally:
        run.session.work.restore(work)


def _compared(session: Session, other: Session, texts: PairTexts, should_stop: ShouldStop) -> Trial:
    prepared = session.prepare(texts)
    _, found = timed(other, prepared, should_stop)
    slow, fast = [], []
    for _ in range(_ROUNDS):
        spent, exact = timed(session, prepared, should_stop)
        slow.append(spent)
        fast.append(timed(other, prepared, should_stop)[0])
    return Trial(len(texts), min(slow) / min(fast), difference(texts.queries, found, exact))
