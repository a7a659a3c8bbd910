"""Compares precisions on a CPU, on the same rows: speed, score differences, agreement of rankings, what to set."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from rerank_cli.choices import Quantize
from rerank_cli.engine.contract import Session
from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.results import Logits
from rerank_cli.engine.rows.prepare import PairTexts, Prepared
from rerank_cli.errors import RerankError, UsageError
from rerank_cli.run.comparison import Difference, difference, timed

EXACT = "fp32"
WAYS = {
    EXACT: ("fp32", Quantize.NONE),
    "bf16": ("bf16", Quantize.NONE),
    "int8": ("fp32", Quantize.INT8),
    "int8-bf16": ("bf16", Quantize.INT8),
}
_FEWEST_ROUNDS, _MOST_ROUNDS = 3, 9
_FEWEST_PAIRS = 16
_LEAST_GAIN = 1.1  # times as fast as what would be set otherwise
_CLOSE = 0.95  # Kendall's τ from which rankings count as the same for most purposes
_NONE = Difference(0.0, 1.0)
_HOPELESS = 5.0  # times as long as fp32 for a short pair: such a precision is not measured any further
_SHORT = 80  # characters of its passage
_BYTES = 5  # per parameter, while int8 weights are made from fp32


@dataclass(frozen=True, slots=True)
class Row:
    """One precision: seconds per round and the difference from fp32, or `why` it is not available here."""

    name: str
    seconds: tuple[float, ...] = ()
    difference: Difference = _NONE
    why: str = ""

    @property
    def flags(self) -> str:
        """What selects it in a run."""
        dtype, quantize = WAYS[self.name]
        return f"--dtype {dtype}" + (f" --quantize {quantize.value}" if quantize is not Quantize.NONE else "")

    def over(self, other: Row) -> float:
        """How many times as fast as another: the median over rounds."""
        return statistics.median(slow / fast for slow, fast in zip(other.seconds, self.seconds, strict=True))


@dataclass(frozen=True, slots=True)
class Verdict:
    """The row to set, and for each row a remark."""

    best: Row
    remarks: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Precisions:
    """The result: each row scored the same `pairs` in every one of `rounds`. The first is fp32."""

    pairs: int
    rounds: int
    rows: Sequence[Row]

    @property
    def verdict(self) -> Verdict:
        return recommend(self.rows)


def parse_precisions(text: str) -> tuple[str, ...]:
    """`fp32,bf16,int8` as names, fp32 first whether it is named or not. Raises UsageError."""
    names = text.split(",")
    unknown = [name for name in names if name not in WAYS]
    if unknown:
        raise UsageError(f"--dtypes {text}: no precision {unknown[0]!r} (expected some of {', '.join(WAYS)})")
    found = tuple(dict.fromkeys([EXACT, *names]))
    if len(found) < 2:
        raise UsageError(f"--dtypes {text}: nothing to compare fp32 with. Fix: --dtypes bf16,int8")
    return found


def recommend(rows: Sequence[Row]) -> Verdict:
    """The fastest row whose rankings agree with those of fp32, if it is clearly faster than what changes scores less.

    bf16 comes before int8, because it changes scores less: int8 pays only if it is clearly faster than the better of
    fp32 and bf16.
    """
    best, remarks = rows[0], {EXACT: "the default"}
    for row in sorted(rows[1:], key=lambda row: list(WAYS).index(row.name)):
        if row.why:
            remarks[row.name] = row.why
        elif row.over(best) < _LEAST_GAIN:
            remarks[row.name] = f"does not pay: {row.over(best):.2f} times the speed of {best.name}"
        elif not row.difference.kendall_tau >= _CLOSE:
            remarks[row.name] = f"faster, but rankings differ: τ below {_CLOSE}"
        else:
            best, remarks[row.name] = row, f"pays: {row.over(best):.2f} times the speed of {best.name}"
    return Verdict(best, remarks)


def compare(
    session: Session,
    options: ModelOptions,
    names: Sequence[str],
    texts: Callable[[int], PairTexts],
    seconds: float,
    open_model: Callable[[ModelOptions], Session],
    spare_memory: Callable[[], int | None],
) -> Precisions:
    """Score the same pairs with each precision in every round, for about `seconds` after loading.

    `session` is the model in fp32, `texts` gives as many pairs of the sample as it is asked for.
    """
    models: dict[str, Session] = {EXACT: session}
    missing: dict[str, Row] = {}
    for name in names[1:]:
        try:
            models[name] = _opened(name, session, options, open_model, spare_memory())
        except RerankError as error:
            missing[name] = Row(name, why=f"not available: {error}")
    for name, times in _slow(models, texts(1)).items():
        del models[name]
        missing[name] = Row(name, why=f"takes {times:,.0f} times as long as fp32 on this processor")
    few = texts(_FEWEST_PAIRS)
    spent = sum(_paces(models, few)) / len(few)
    found = texts(max(_FEWEST_PAIRS, int(seconds / (_FEWEST_ROUNDS + 1) / spent)))
    taken, logits = _rounds(models, found, seconds)
    measured = {
        name: Row(name, tuple(taken[name]), difference(found.queries, logits[name], logits[EXACT])) for name in models
    }
    return Precisions(len(found), len(taken[EXACT]), [(measured | missing)[name] for name in names])


def _opened(
    name: str,
    session: Session,
    options: ModelOptions,
    open_model: Callable[[ModelOptions], Session],
    spare: int | None,
) -> Session:
    needed = _BYTES * session.facts.parameters
    if spare is not None and spare < needed:
        raise UsageError(f"needs {needed / 1e9:.1f} GB for another copy of the weights, {spare / 1e9:.1f} GB are free")
    dtype, quantize = WAYS[name]
    return open_model(replace(options, dtype=dtype, quantize=quantize))


def _slow(models: Mapping[str, Session], pair: PairTexts) -> dict[str, float]:
    """The precisions that are hopelessly slow, by how many times as long as fp32 they take for a short pair.

    A library without a kernel for a processor may fall back to one that takes a thousand times as long.
    """
    short = replace(pair, passages=[passage[:_SHORT] for passage in pair.passages])
    prepared = models[EXACT].prepare(short)
    spent = {name: _quickest(model, prepared) for name, model in models.items()}
    return {name: each / spent[EXACT] for name, each in spent.items() if is_hopeless(each, spent[EXACT])}


def is_hopeless(seconds: float, exact: float) -> bool:
    """Whether a precision is too slow to be measured, by its seconds for what takes `exact` in fp32."""
    return seconds > _HOPELESS * exact


def _quickest(model: Session, prepared: Prepared) -> float:
    """Seconds of the fastest of three times, the first of which prepares kernels."""
    return min(timed(model, prepared)[0] for _ in range(3))


def _paces(models: Mapping[str, Session], texts: PairTexts) -> list[float]:
    """Seconds that each takes for the texts, after a first time that does not count."""
    prepared = next(iter(models.values())).prepare(texts)
    for model in models.values():
        timed(model, prepared)
    return [timed(model, prepared)[0] for model in models.values()]


def _rounds(
    models: Mapping[str, Session], texts: PairTexts, seconds: float
) -> tuple[dict[str, list[float]], dict[str, Logits]]:
    """Seconds of each round, in turns and every other round in reverse; and the logits."""
    prepared = models[EXACT].prepare(texts)
    taken: dict[str, list[float]] = {name: [] for name in models}
    logits: dict[str, Logits] = {}
    until = time.monotonic() + seconds
    for number in range(_MOST_ROUNDS):
        if number >= _FEWEST_ROUNDS and time.monotonic() > until:
            break
        for name in models if number % 2 else reversed(list(models)):
            spent, logits[name] = timed(models[name], prepared)
            taken[name].append(spent)
    return taken, logits
