"""What a score cache is worth to a job that runs every night, on pairs of which most were there the night before.

Yesterday's file is today's without one pair in twenty. Each round runs today's three times: without a cache, with a new
one (what look-ups and writing cost a run that finds nothing), and with a fresh copy of yesterday's. Scoring is the time
from the first record to the last byte, tokenizing, look-ups and writing included, the model being loaded; the whole job
is the command, from its start to its end. CPU seconds are those of the first kind of run, which other programs on the
machine disturb less. Answers are compared. A table, then one JSON line.

    python benchmarks/nightly.py --scifact path/to/scifact
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import orjson
from data import minilm, read_corpus, read_queries, read_run

from rerank_cli.choices import OutputFormat, ProgressMode, ScoreKind
from rerank_cli.engine.contract import Session
from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.session import open_session
from rerank_cli.formats import AnswerOptions, InputOptions, OutputOptions
from rerank_cli.run.job import run
from rerank_cli.run.options import RunConfig
from rerank_cli.run.summary import Summary

WITHOUT, EMPTY, FILLED = "no cache", "a new cache", "yesterday's cache"
Figures = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scifact", type=Path, required=True, help="SciFact in BEIR layout with its BM25 run")
    parser.add_argument("--model", help="default: the MiniLM encoder with a random head")
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--new", type=float, default=0.05, help="part of today's pairs that yesterday did not have")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--commands", type=int, default=5, help="rounds that run the whole command too")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="fp32")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        args.model = args.model or str(minilm(Path(scratch, "model")))
        yesterday, today = write_nights(args, Path(scratch))
        nights = Nights(args, Path(scratch), today)
        nights.fill(yesterday)
        for number in range(args.rounds + 1):
            nights.round(counts=number > 0, commands=0 < number <= args.commands)
        worst = nights.worst_difference()
    report(args, nights, worst)


def write_nights(args: argparse.Namespace, scratch: Path) -> tuple[Path, Path]:
    """The first claims with their best BM25 abstracts, and the same without the pairs that are new today."""
    texts, corpus = read_queries(args.scifact), read_corpus(args.scifact)
    candidates = read_run(args.scifact / "run.bm25.test.top100.trec", args.depth)
    rng = random.Random(0)
    paths = scratch / "yesterday.jsonl", scratch / "today.jsonl"
    with paths[0].open("wb") as before, paths[1].open("wb") as now:
        for query in list(candidates)[: args.queries]:
            documents = [f"{corpus[name]['title']} {corpus[name]['text']}" for name in candidates[query]]
            new = set(rng.sample(range(len(documents)), round(args.new * len(documents))))
            old = [document for place, document in enumerate(documents) if place not in new]
            for file, given in ((before, old), (now, documents)):
                record = {"id": query, "query": texts[query], "documents": given}
                file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
    return paths


class Nights:
    """Runs of today's file, and what they took."""

    def __init__(self, args: argparse.Namespace, scratch: Path, today: Path) -> None:
        self._args = args
        self._scratch = scratch
        self._today = today
        self._filled = scratch / "filled.db"
        options = ModelOptions(args.model, device=args.device, dtype=args.dtype)
        self._session: Session = open_session(options)
        self._plan = RunConfig(
            options,
            InputOptions((str(today),)),
            OutputOptions("", OutputFormat.API, AnswerOptions("model", ScoreKind.RAW, False), overwrite=True),
            progress=ProgressMode.OFF,
        )
        self.scoring: Figures = {WITHOUT: [], EMPTY: [], FILLED: []}
        self.cpu: Figures = {WITHOUT: [], EMPTY: [], FILLED: []}
        self.whole_job: Figures = {WITHOUT: [], FILLED: []}
        self.last: dict[str, Summary] = {}

    def fill(self, yesterday: Path) -> None:
        """Yesterday's run, which leaves its cache."""
        plan = replace(self._plan, input=InputOptions((str(yesterday),)), cache=str(self._filled))
        self._run(plan, "yesterday")

    def round(self, *, counts: bool, commands: bool) -> None:
        for name, cache in ((WITHOUT, None), (EMPTY, self._new_cache()), (FILLED, self._copied_cache())):
            begun = time.process_time()
            spent = self._run(replace(self._plan, cache=cache), name)
            if counts:
                self.scoring[name].append(spent)
                self.cpu[name].append(time.process_time() - begun)
        for name, cache in ((WITHOUT, None), (FILLED, self._copied_cache())):
            if commands:
                self.whole_job[name].append(self._command(cache))

    def worst_difference(self) -> float:
        """Between today's logits without a cache and with yesterday's."""
        answers = [self._logits(name) for name in (WITHOUT, FILLED)]
        return max(abs(answers[0][key] - answers[1][key]) for key in answers[0])

    def _run(self, plan: RunConfig, name: str) -> float:
        """Seconds from the first record to the last byte."""
        output = replace(plan.output, path=str(self._output(name)))
        summary, _ = run(replace(plan, output=output), lambda _: self._session)
        self.last[name] = summary
        if not summary.stats.finished or summary.stats.scoring_since is None:
            raise SystemExit("interrupted")
        return time.monotonic() - summary.stats.scoring_since

    def _command(self, cache: str | None) -> float:
        """Seconds of the whole command."""
        args = self._args
        command = [sys.executable, "-m", "rerank_cli", "run", str(self._today), "-m", args.model, "-q"]
        command += ["-o", str(self._scratch / "command.jsonl"), "--overwrite", "--no-documents"]
        command += ["--device", args.device, "--dtype", args.dtype]
        begun = time.perf_counter()
        subprocess.run([*command, *(["--cache", cache] if cache else [])], check=True)
        return time.perf_counter() - begun

    def _new_cache(self) -> str:
        path = self._scratch / "new.db"
        path.unlink(missing_ok=True)
        return str(path)

    def _copied_cache(self) -> str:
        return str(shutil.copyfile(self._filled, self._scratch / "copy.db"))

    def _output(self, name: str) -> Path:
        return self._scratch / f"out-{name.replace(' ', '-')}.jsonl"

    def _logits(self, name: str) -> dict[tuple[str, int], float]:
        answers = [orjson.loads(line) for line in self._output(name).read_bytes().splitlines()]
        return {(a["id"], result["index"]): result["relevance_score"] for a in answers for result in a["results"]}


def report(args: argparse.Namespace, nights: Nights, worst: float) -> None:
    pairs = nights.last[WITHOUT].stats.pairs
    use = nights.last[FILLED].cache
    if use is None:
        raise SystemExit("no cache was used")
    print(f"{pairs} pairs, {use.misses} of them new, medians of {args.rounds} interleaved rounds\n")
    scoring, cpu, whole = medians(nights.scoring), medians(nights.cpu), medians(nights.whole_job)
    for name, median in scoring.items():
        spread = f"{min(nights.scoring[name]):.2f} to {max(nights.scoring[name]):.2f}"
        job = f"   whole job {whole[name]:.2f} s" if name in whole else ""
        print(f"  {name:<20}scoring {median:.3f} s ({spread}; {cpu[name]:.3f} s of CPU)", end="")
        print(f"{pairs / median:>10,.0f} pairs/s{job}")
    ratios = {
        "scoring": scoring[WITHOUT] / scoring[FILLED],
        "cpu": cpu[WITHOUT] / cpu[FILLED],
        "whole_job": whole[WITHOUT] / whole[FILLED] if whole else None,
        "cost_without_hits": scoring[EMPTY] / scoring[WITHOUT] - 1,
        "cpu_cost_without_hits": cpu[EMPTY] / cpu[WITHOUT] - 1,
    }
    print(f"\n  scoring {ratios['scoring']:.1f} times faster ({ratios['cpu']:.1f} by CPU)", end="")
    print(f", whole job {ratios['whole_job']:.2f} times" if ratios["whole_job"] else "", end="")
    print(f"; a cache that finds nothing costs {ratios['cost_without_hits']:+.2%}", end="")
    print(f" ({ratios['cpu_cost_without_hits']:+.2%} by CPU); worst |Δ| {worst:.1e}\n")
    seconds = {"scoring": rounded(nights.scoring), "cpu": rounded(nights.cpu), "whole_job": rounded(nights.whole_job)}
    found = {"pairs": pairs, "new": use.misses, "entries": use.entries, "worst_difference": worst}
    print(orjson.dumps({"benchmark": "nightly", **found, **ratios, "seconds": seconds}).decode())


def medians(figures: Figures) -> dict[str, float]:
    return {name: statistics.median(found) for name, found in figures.items() if found}


def rounded(figures: Figures) -> Figures:
    return {name: [round(value, 4) for value in found] for name, found in figures.items()}


if __name__ == "__main__":
    main()
