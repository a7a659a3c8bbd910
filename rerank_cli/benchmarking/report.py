"""The results of `rerank bench` as JSON and as text."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rerank_cli.benchmarking.bench import Report
from rerank_cli.benchmarking.precisions import Precisions

_UNSHARED = 0.85  # share of CPU time below which other processes use the machine
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def as_dict(report: Report) -> dict[str, Any]:
    """All figures for JSON: shares from 0 to 1, times in seconds, rates per second."""
    passed, times, trials, sample = report.passed, report.passed.times, report.trials, report.sample
    advice, whole = trials.advice, report.estimate
    found: dict[str, Any] = {
        "machine": asdict(report.machine),
        "model": asdict(report.model),
        "load_seconds": round(report.load, 3),
        "first_score_seconds": round(report.first_score, 3),
        "sample": {
            "pairs": passed.pairs,
            "records": sample.records,
            "rejected": sample.rejected,
            "places": len(sample.stretches),
            "whole_input": sample.whole,
            "chunk_pairs": passed.chunk_pairs,
            "tokens": passed.tokens,
            "texts": 2 * passed.pairs,
            "tokenized_texts": passed.texts,
            "duplicate_pairs": passed.duplicates,
            "truncated_pairs": passed.truncated,
            "rows": passed.work.rows,
            "padding_ratio": round(passed.padding, 4),
            "out_of_memory_splits": passed.work.out_of_memory,
        },
        "pairs_per_second": round(passed.pairs / times.wall, 2),
        "tokens_per_second": round(passed.tokens / times.wall, 1),
        "peak_flops": asdict(report.peak),
        "flops": None if passed.flops is None else asdict(passed.flops),
        "mfu": _rounded(report.mfu),
        "mfu_nominal": _rounded(report.mfu_nominal),
        "limit": asdict(report.limit),
        "seconds": {name: round(value, 4) for name, value in asdict(times).items()},
        "device_busy": round(times.busy, 4),
        "cpu_share": _rounded(report.cpu_share),
        "batch_tokens": None,
        "dtypes": None if report.precisions is None else _precisions_dict(report.precisions),
        "whole_input": None,
    }
    if advice:
        found["batch_tokens"] = {
            "default": advice.default,
            "recommended": advice.size,
            "gain": round(advice.gain, 4),
            "noise": round(advice.noise, 4),
            "rounds": trials.rounds,
            "tokens_per_second": {str(size): round(trials.tokens / spent, 1) for size, spent in advice.medians.items()},
            "too_large": trials.too_large,
        }
    if whole:
        found["whole_input"] = {
            "seconds": round(whole.seconds, 1),
            "relative_error": _rounded(whole.error),
            "from_beginning": whole.from_beginning,
            "pairs": whole.pairs,
            "bytes": sample.total_bytes,
        }
    return found


def _precisions_dict(found: Precisions) -> dict[str, Any]:
    exact, verdict = found.rows[0], found.verdict
    return {
        "pairs": found.pairs,
        "rounds": found.rounds,
        "recommended": verdict.best.name,
        "rows": [
            {
                "name": row.name,
                "flags": row.flags,
                "available": not row.why,
                "pairs_per_second": None if row.why else round(found.pairs / statistics.median(row.seconds), 2),
                "speedup": None if row.why else round(row.over(exact), 3),
                "worst_delta": None if row.why else row.difference.worst,
                "kendall_tau": None if row.why else round(row.difference.kendall_tau, 4),
                "remark": verdict.remarks[row.name],
            }
            for row in found.rows
        ],
    }


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)


def lines(report: Report) -> Iterator[str]:
    """The same as text."""
    for number, section in enumerate((_conditions, _speed, _waits, _precisions, _row_sizes, _whole)):
        found = list(section(report))
        if number and found:
            yield ""
        yield from found


def _conditions(report: Report) -> Iterator[str]:
    machine, model, sample, passed = report.machine, report.model, report.sample, report.passed
    threads = f"{machine.threads} threads on {machine.cores} cores"
    yield _named("machine", f"{machine.name} ({machine.capability}), {threads}, torch {machine.torch}")
    how = f"{'packed' if model.packed else 'padded'} rows of {model.batch_tokens:,} tokens"
    yield _named("model", f"{model.name} on {model.device} in {model.dtype}, {model.parameters / 1e6:,.0f} M, {how}")
    yield _named("loading", f"{report.load:.1f} s, first score after {report.first_score:.1f} s")
    places = "the whole input" if sample.whole else "the beginning of the input"
    if len(sample.stretches) > 1:
        places = f"from {len(sample.stretches)} places in the input"
    taken = f"{passed.pairs:,} pairs of {sample.records:,} records, {passed.tokens:,} tokens"
    yield _named("sample", f"{taken}, {places}, in chunks of {passed.chunk_pairs:,} pairs")
    if sample.rejected:
        yield _named("bad records", f"{sample.rejected:,} (rerank check lists the reasons)")
    share = passed.truncated / passed.pairs
    same = f"{passed.duplicates:,} duplicate pairs, {share:.1%} of pairs truncated"
    yield _named("texts", f"{2 * passed.pairs:,}, two per pair, of which {passed.texts:,} were tokenized; {same}")


def _speed(report: Report) -> Iterator[str]:
    passed, peak, times = report.passed, report.peak, report.passed.times
    yield _named("speed", f"{passed.pairs / times.wall:,.1f} pairs/s, {passed.tokens / times.wall:,.0f} tokens/s")
    yield _named("padding", f"{passed.padding:.1%} of the computed tokens")
    rates = f"{_flops(peak.before)} before, {_flops(peak.after)} after"
    yield _named("peak", f"{rates}: the fastest matrix product in {peak.precision} on this device")
    if report.mfu is None or report.mfu_nominal is None:
        yield _named("MFU", "not counted for this type of model")
    else:
        yield _named("MFU", f"{report.mfu:.1%} of the peak, by operations done")
        yield _named(
            "", f"{report.mfu_nominal:.1%} by operations of the plain model: each pair alone, all layers in full"
        )


def _waits(report: Report) -> Iterator[str]:
    times = report.passed.times
    yield _named("limit", report.limit.sentence)
    if report.limit.what == "device" and report.cpu_share is not None and report.cpu_share < _UNSHARED:
        got = f"this process got {report.cpu_share:.0%} of its threads' time"
        yield _named("", f"{got}: other processes use the machine, which is faster than measured here")
    for seconds, what in (
        (times.wall, "from the first row to the last"),
        (times.device, "device working"),
        (times.rows_wait, "device waiting for the tokenizer"),
        (times.output_wait, "device waiting for the output"),
        (times.tokenize, "tokenizing, in parallel to the device"),
        (times.input_wait, "tokenizer waiting for records"),
        (times.read, "reading, in parallel to both"),
        (times.write, "writing, in parallel to all"),
    ):
        yield f"{seconds:>13.2f} s  {what}"


def _precisions(report: Report) -> Iterator[str]:
    found = report.precisions
    if found is None:
        return
    exact, verdict = found.rows[0], found.verdict
    yield _named("dtypes", f"medians of {found.rounds} rounds of {found.pairs:,} pairs in turns; compared with fp32:")
    yield f"{'':<13}{'pairs/s':>10}{'speed':>8}{'worst |Δ|':>12}{'Kendall τ':>12}"
    for row in found.rows:
        if row.why:
            yield f"{row.name:>11}  {row.why}"
            continue
        rate, gap = found.pairs / statistics.median(row.seconds), row.difference
        figures = f"{rate:>10,.1f}{row.over(exact):>8.2f}{gap.worst:>12.2g}{gap.kendall_tau:>12.4f}"
        yield f"{row.name:>11}  {figures}  {verdict.remarks[row.name]}"
    best = verdict.best
    if best is exact:
        yield _named("set", "nothing: no other precision pays here")
    else:
        yield _named("set", f"{best.flags}: {best.over(exact):.2f} times the speed; scores change as above")


def _row_sizes(report: Report) -> Iterator[str]:
    trials, advice = report.trials, report.trials.advice
    if advice is None:
        yield _named("rows", f"no other --batch-tokens was tried: {trials.why}")
        return
    yield _named("rows", f"medians of {trials.rounds} rounds of {trials.tokens:,} tokens, device time only")
    for size, seconds in sorted(advice.medians.items()):
        against = f"{advice.medians[advice.default] / seconds - 1:+.1%}" if size != advice.default else "default"
        yield f"{size:>13,}  {trials.tokens / seconds:>12,.0f} tokens/s  {against:>8}"
    for size in trials.too_large:
        yield f"{size:>13,}  {'out of memory':>12}"
    noise = f"rounds of the default differ by {advice.noise:.1%}"
    if advice.size is None:
        yield _named("set", f"nothing: no size is faster than the default beyond noise ({noise})")
    else:
        yield _named("set", f"--batch-tokens {advice.size}: {advice.gain:+.1%} ({noise})")


def _whole(report: Report) -> Iterator[str]:
    found = report.estimate
    if found is None:
        yield _named("whole input", "no estimate: the size of the input is not known")
        return
    size = f"{found.pairs:,} pairs in {(report.sample.total_bytes or 0) / 1e6:,.1f} MB"
    where = ", if later texts are as long as those at the beginning" if found.from_beginning else ""
    error = f" ± {found.error:.0%}" if found.error is not None else ", the sample is too small for an error margin"
    yield _named("whole input", f"about {duration(found.seconds)}{error}{where}: {size}, without loading")


def duration(seconds: float) -> str:
    """Seconds in the two largest units."""
    for (size, unit), (smaller, name) in itertools.pairwise(_UNITS):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} {int(seconds % size // smaller)} {name}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def _flops(rate: float) -> str:
    return f"{rate / 1e12:,.1f} TFLOP/s" if rate >= 1e13 else f"{rate / 1e9:,.0f} GFLOP/s"


def _named(name: str, text: str) -> str:
    return f"{name:<13}{text}"
