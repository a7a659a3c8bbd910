"""What measurements mean: what limits a run, which size of rows to take, how long the whole input will last.

Plain functions of figures; nothing here is measured or printed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_BUSY_ENOUGH = 0.9
_WORTH_A_FLAG = 0.02
_FEWEST_PARTS = 3


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of a run between the device's first row and its last, and of the stages beside it.

    `rows_wait` and `output_wait` are the device's, for the tokenizer and for the writer; `input_wait` is the
    tokenizer's, for the reader.
    """

    wall: float
    device: float
    rows_wait: float
    output_wait: float
    input_wait: float
    tokenize: float
    read: float
    write: float

    @property
    def busy(self) -> float:
        """Share of the time that the device was at work."""
        return min(1.0, self.device / self.wall) if self.wall else 0.0


@dataclass(frozen=True, slots=True)
class Limit:
    """What limits a run: device, tokenizer, reading or writing; and that in a sentence."""

    what: str
    sentence: str


def limit_of(times: Times, device: str) -> Limit:
    """The stage that the others wait for."""
    busy, idle = f"{times.busy:.0%}", f"{1 - times.busy:.0%}"
    if times.busy >= _BUSY_ENOUGH:
        return Limit("device", f"the device ({device}): it was busy {busy} of the time")
    if times.output_wait > times.rows_wait:
        why = "a faster disk, or a longer --commit-interval, would help"
        return Limit("writing", f"writing: the device waited {idle} of the time, for its output to be put away; {why}")
    if times.input_wait > times.tokenize:
        why = "a faster disk, or an input that is not compressed, would help"
        return Limit(
            "reading", f"reading: the device waited {idle} of the time, the tokenizer itself for records; {why}"
        )
    why = "more CPU cores would help"
    return Limit("tokenizer", f"the tokenizer: the device waited {idle} of the time for token ids; {why}")


@dataclass(frozen=True, slots=True)
class Advice:
    """Seconds that sizes of rows took, medians of interleaved rounds.

    `gain` is how much more the quickest does in the same time than the default, `noise` how far the default's own
    rounds are apart, both as shares. `size` is None where the default is as good as any.
    """

    medians: Mapping[int, float]
    default: int
    quickest: int
    gain: float
    noise: float

    @property
    def size(self) -> int | None:
        better = self.quickest != self.default and self.gain > max(self.noise, _WORTH_A_FLAG)
        return self.quickest if better else None


def advise(rounds: Mapping[int, Sequence[float]], default: int) -> Advice:
    """Which `--batch-tokens` to take, given the seconds of each size in each round, round by round in one order."""
    medians = {size: statistics.median(seconds) for size, seconds in rounds.items()}
    quickest = min(medians, key=lambda size: medians[size])
    gain = statistics.median(mine / other for mine, other in zip(rounds[default], rounds[quickest], strict=True)) - 1
    spread = max(rounds[default]) - min(rounds[default])
    return Advice(medians, default, quickest, gain, spread / medians[default])


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds for the whole input without loading the model, and the pairs in it.

    `error` is the relative half-width of about 95 %, of what was sampled: of the pace, and of how much text there is to
    a byte where places all over the input tell it. Where only its beginning does, `from_beginning` says so. None where
    the sample has too few parts to tell.
    """

    seconds: float
    pairs: int
    error: float | None
    from_beginning: bool


def estimate(
    *,
    total_bytes: int,
    text: Sequence[tuple[int, int]],
    characters: int,
    pairs: int,
    tokens: int,
    pace: Sequence[tuple[float, int]],
    complete: bool = False,
) -> Estimate:
    """Bytes to characters to tokens to seconds.

    `text` has (bytes, characters) of each part of the input that was read, `pace` (seconds, tokens) of each part that
    was scored; the sample has so many characters, pairs and tokens. Three parts of text and more are places spread over
    the input; `complete` tells that the parts are all of it.
    """
    there = total_bytes * sum(found for _, found in text) / sum(size for size, _ in text)
    whole = there * tokens / characters
    seconds = whole * sum(spent for spent, _ in pace) / sum(done for _, done in pace)
    spread = len(text) >= _FEWEST_PARTS
    errors = [ratio_error([(done, spent) for spent, done in pace]), ratio_error(text) if spread else 0.0]
    error = 2 * math.hypot(*errors) if len(pace) >= _FEWEST_PARTS else None
    return Estimate(seconds, round(there * pairs / characters), error, not (spread or complete))


def ratio_error(parts: Sequence[tuple[float, float]]) -> float:
    """Relative standard error of Σy / Σx over parts (x, y); 0 where one part says nothing of it.

    Source: Cochran, "Sampling Techniques", 3rd ed., chapter 6 (ratio estimators), without the correction for a finite
    population.
    """
    count = len(parts)
    across, up = sum(x for x, _ in parts), sum(y for _, y in parts)
    if count < 2 or not across or not up:
        return 0.0
    ratio = up / across
    squares = sum((y - ratio * x) ** 2 for x, y in parts)
    return math.sqrt(squares * count / (count - 1)) / up
