"""Killed at every single step that changes a file, one after the other, a run begun again writes the same.

The process is real and dies of SIGKILL; only the model is replaced by one that answers at once, so that hundreds of
steps can be tried. Every third time the second run is killed at some step too.
"""

import gc
import os
import random
import signal
import sys
import traceback
import warnings
from dataclasses import replace
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest

sys.path.append(str(Path(__file__).parents[1] / "unit" / "run"))

from instant import InstantSession, config

from rerank_cli.choices import OnError, OutputFormat
from rerank_cli.evaluation.measures import measure, parse_measures
from rerank_cli.evaluation.same_pass import QrelsOptions
from rerank_cli.evaluation.significance import compare
from rerank_cli.formats import ById
from rerank_cli.formats.corpus.first_stage import kept_beside
from rerank_cli.formats.options import Bm25
from rerank_cli.run.job import run
from rerank_cli.run.shard import Shard
from rerank_cli.run.sharding.merge import MergeOptions, merge

pytestmark = pytest.mark.slow

STEPS = {"open", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.truncate", "os.setxattr"}
SKIP = {"on_error": OnError.SKIP}
JOBS = [
    ("out.jsonl", "requests", {}),
    ("out.jsonl.gz", "requests", {"overwrite": True}),
    ("out.parquet", "requests", {}),
    ("out.jsonl", "bad", SKIP),
    ("out.jsonl", "pairs", {"format": OutputFormat.PAIRS}),
    ("out.parquet", "pairs", {"format": OutputFormat.PAIRS, "overwrite": True}),
    ("out.csv.xz", "pairs", {"format": OutputFormat.PAIRS}),
    ("out.json", "requests", {}),
    ("out.jsonl", "bad", SKIP | {"shard": Shard(1, 2)}),
    ("out.json", "requests", {"format": OutputFormat.BEIR, "measured": True}),
    ("out.jsonl", "texts", {"first_stage": True}),
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    rng = random.Random(5)
    records = [
        {"id": i, "query": f"query {i}", "documents": [f"document {rng.random()}" for _ in range(rng.randint(1, 5))]}
        for i in range(24)
    ]
    bad = [record if i % 4 else record | {"query": " "} for i, record in enumerate(records)]
    pairs = [{"query_id": r["id"], "query": r["query"], "text": text} for r in records for text in r["documents"]]
    texts = [{"id": r["id"], "text": f"query {r['id']}"} for r in records]
    for name, rows in (("requests", records), ("bad", bad), ("pairs", pairs), ("texts", texts)):
        (folder / name).write_bytes(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))
    compare([0, 1], [1, 0])  # what measuring imports is imported once, not by every process
    measure(parse_measures("RR"), {"q": {"d": 1}}, {"q": {"d": 1.0}})
    (folder / "qrels").write_text("".join(f"{i} 0 0 1\n" for i in range(24)))
    gc.collect()
    gc.freeze()  # so that a collection in one of the many children does not copy every page
    yield folder
    gc.unfreeze()


def in_a_process(act, folder, dies_at=None):
    """Fork; SIGKILL at the given step that changes something in the folder. The status as of `os.waitpid`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons mistrust a fork beside threads
        child = os.fork()
    if child == 0:
        _work_and_exit(act, folder, dies_at)
    return os.waitpid(child, 0)[1]


def _work_and_exit(act, folder, dies_at):
    steps = 0

    def step():
        nonlocal steps
        steps += 1
        if steps == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event, args):
        if event in STEPS and any(str(folder) in str(a) for a in args if isinstance(a, str | os.PathLike)):
            step()

    fsync = os.fsync
    os.fsync = lambda descriptor: (step(), fsync(descriptor))
    sys.addaudithook(audit)
    try:
        act()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def measured(summary, qrels):
    """Every query there is was measured, unless nothing was left to do."""
    if qrels and not summary.nothing_to_do:
        assert (summary.evaluation.queries, summary.evaluation.missing) == (24, 0)


def content(path):
    if path.suffix == ".parquet":
        file = pq.ParquetFile(path)
        groups = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        return file.read().to_pylist(), groups
    return path.read_bytes()


@pytest.mark.parametrize(("name", "given", "options"), JOBS)
def test_a_run_killed_at_any_step_goes_on_to_the_same_output_and_leaves_nothing(inputs, tmp_path, name, given, options):
    rng = random.Random(7)
    qrels = {"qrels": QrelsOptions(str(inputs / "qrels"), "RR")} if options.get("measured") else {}
    stage = options.get("first_stage") and ById(str(inputs / given), str(inputs / given), first_stage=Bm25(depth=3))
    options = {key: value for key, value in options.items() if key not in ("measured", "first_stage")} | qrels

    def job(folder):
        errors = {"errors": str(folder / "errors.jsonl")} if "on_error" in options else {}
        plan = config(inputs / given, folder / name, commit_interval=0, chunk_pairs=12, **options, **errors)
        if stage:
            plan = replace(plan, input=kept_beside(replace(plan.input, by_id=stage), plan.output.path))
        return lambda: measured(run(plan, lambda _: InstantSession(), lambda _: "r1")[0], plan.qrels)

    def folder_for(label):
        folder = tmp_path / label
        folder.mkdir()
        if options.get("overwrite"):
            (folder / name).write_bytes(b"of another time")
        return folder

    whole = folder_for("whole")
    assert in_a_process(job(whole), whole) == 0
    expected = {path.name: content(path) for path in whole.iterdir()}
    step, died = 0, True
    while died:
        step += 1
        folder = folder_for(f"step-{step}")
        died = os.WIFSIGNALED(in_a_process(job(folder), folder, step))
        if died and step % 3 == 0:
            in_a_process(job(folder), folder, rng.randint(1, 60))
        if died:
            assert in_a_process(job(folder), folder) == 0, f"killed at step {step}"
        assert {path.name: content(path) for path in folder.iterdir()} == expected, f"killed at step {step}"
    print(f"killed at each of {step - 1} steps, lost 0, doubled 0")
    assert step > 30


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv.gz", "out.parquet"])
def test_a_merge_killed_at_any_step_and_begun_again_writes_the_same_and_leaves_nothing(inputs, tmp_path, name):
    format = OutputFormat.API if name == "out.jsonl" else OutputFormat.PAIRS
    parts, quarantine = [], tmp_path / "bad.jsonl"
    for index in range(3):
        plan = config(
            inputs / "bad", tmp_path / name, chunk_pairs=12, format=format, errors=str(quarantine), **SKIP
        ).sharded(Shard(index, 3))
        run(plan, lambda _: InstantSession(), lambda _: "r1")
        parts.append(plan.output.path)

    def job(folder):
        return lambda: merge(MergeOptions(parts, str(folder / name), errors=str(folder / "bad.jsonl")))

    expected = {}
    step, died = 0, True
    while died:
        folder = tmp_path / f"step-{step}"
        folder.mkdir()
        died = os.WIFSIGNALED(in_a_process(job(folder), folder, step or None)) or step == 0
        assert not (folder / name).exists() or not expected or content(folder / name) == expected[name]
        if died:
            assert in_a_process(job(folder), folder) == 0, f"killed at step {step}"
        found = {path.name: content(path) for path in folder.iterdir()}
        expected = expected or found
        assert sorted(found) == ["bad.jsonl", name]
        assert found == expected, f"killed at step {step}"
        step += 1
    assert step > 10
