"""Pure functions that interpret measurements: what limits a run, which row size to use, how long an input takes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_BUSY_ENOUGH = 0.9
_LEAST_GAIN = 0.02  # smaller gains do not justify setting a flag
_FEWEST_PARTS = 3


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds between the device's first row and its last, and of the stages that run beside it.

    The device waits `rows_wait` for the tokenizer and `output_wait` for the writer; the tokenizer waits `input_wait`
    for the reader.
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
        """Share of the time in which the device worked."""
        return min(1.0, self.device / self.wall) if self.wall else 0.0


@dataclass(frozen=True, slots=True)
class Limit:
    """The stage that limits a run: device, tokenizer, reading or writing; and a sentence that explains it."""

    what: str
    sentence: str


def limit_of(times: Times, device: str) -> Limit:
    """The stage that the others wait for."""
    if times.busy >= _BUSY_ENOUGH:
        return Limit("device", f"the device ({device}): it was busy {times.busy:.0%} of the time")
    waited = f"the device waited {1 - times.busy:.0%} of the time"
    if times.output_wait > times.rows_wait:
        fix = "a faster disk, or a longer --commit-interval, would help"
        return Limit("writing", f"writing: {waited} for its output to be written; {fix}")
    if times.input_wait > times.tokenize:
        fix = "a faster disk, or an input that is not compressed, would help"
        return Limit("reading", f"reading: {waited} for the tokenizer, and the tokenizer for records; {fix}")
    return Limit("tokenizer", f"the tokenizer: {waited} for token ids; more CPU cores would help")


@dataclass(frozen=True, slots=True)
class Advice:
    """Seconds per row size, medians of interleaved rounds.

    `gain` is the speed-up of the fastest size over the default, `noise` the spread of the default's own rounds, both as
    shares. `size` is the size to set, None if the default is as good as any.
    """

    medians: Mapping[int, float]
    default: int
    quickest: int
    gain: float
    noise: float

    @property
    def size(self) -> int | None:
        better = self.quickest != self.default and self.gain > max(self.noise, _LEAST_GAIN)
        return self.quickest if better else None


def advise(rounds: Mapping[int, Sequence[float]], default: int) -> Advice:
    """Which `--batch-tokens` to set, from the seconds of each size in each round; rounds are in the same order."""
    medians = {size: statistics.median(seconds) for size, seconds in rounds.items()}
    quickest = min(medians, key=lambda size: medians[size])
    gain = statistics.median(slow / fast for slow, fast in zip(rounds[default], rounds[quickest], strict=True)) - 1
    spread = max(rounds[default]) - min(rounds[default])
    return Advice(medians, default, quickest, gain, spread / medians[default])


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds for the whole input, without loading the model, and its number of pairs.

    `error` is the relative half-width of an approximate 95 % interval, None if the sample has too few parts. It covers
    the pace, and text per byte unless `from_beginning`: then that is known from the beginning of the input only.
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
    """Extrapolate from bytes to characters to tokens to seconds.

    `text` has (bytes, characters) of each part of the input that was read, `pace` (seconds, tokens) of each part that
    was scored. `characters`, `pairs` and `tokens` are totals of the sample. Three or more parts of text are places all
    over the input; `complete` means that the parts are the whole input.
    """
    all_characters = total_bytes * sum(found for _, found in text) / sum(size for size, _ in text)
    all_tokens = all_characters * tokens / characters
    seconds = all_tokens * sum(spent for spent, _ in pace) / sum(done for _, done in pace)
    spread = len(text) >= _FEWEST_PARTS
    errors = [ratio_error([(done, spent) for spent, done in pace]), ratio_error(text) if spread else 0.0]
    error = 2 * math.hypot(*errors) if len(pace) >= _FEWEST_PARTS else None
    return Estimate(seconds, round(all_characters * pairs / characters), error, not (spread or complete))


def ratio_error(parts: Sequence[tuple[float, float]]) -> float:
    """Relative standard error of Σy / Σx over parts (x, y); 0 for a single part.

    Cochran, "Sampling Techniques", 3rd ed., chapter 6 (ratio estimators), without finite population correction.
    """
    count = len(parts)
    across, up = sum(x for x, _ in parts), sum(y for _, y in parts)
    if count < 2 or not across or not up:
        return 0.0
    ratio = up / across
    squares = sum((y - ratio * x) ** 2 for x, y in parts)
    return math.sqrt(squares * count / (count - 1)) / up
