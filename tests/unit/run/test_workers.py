"""Jobs with real worker processes and no model: whoever scores what, the output is that of one process."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import elsewhere
import orjson
import pytest
from elsewhere import ROW, RowSession, at_work, failing
from instant import Killed, config, go

from rerank_cli.choices import Resume
from rerank_cli.engine.rows.prepare import PairTexts
from rerank_cli.errors import BadRecord, ModelError
from rerank_cli.run.job import run
from rerank_cli.run.recovery.journal import Journal
from rerank_cli.run.scoring.workers.messages import WorkerFailure
from rerank_cli.run.scoring.workers.pool import Workers
from rerank_cli.run.scoring.workers.transport import Place

pytestmark = pytest.mark.slow

CHUNK = 30 * ROW
CHUNKS = 8
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="tells by /proc whether a process lives")


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    path = tmp_path_factory.mktemp("given") / "in.jsonl"
    records = [{"query": f"q{i}", "documents": [f"{i}.{n}." for n in range(10)]} for i in range(CHUNK // 10 * CHUNKS)]
    path.write_bytes(b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records))
    return path


@pytest.fixture(scope="module")
def whole(given, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "out.jsonl"
    go(plan(given, output), RowSession())
    return output.read_bytes()


def plan(given, output, **more):
    return config(given, output, **({"chunk_pairs": CHUNK} | more))


def go_elsewhere(options, *sessions):
    summary, _ = run(options, lambda _: at_work(*sessions))
    return summary


def test_the_bytes_are_those_of_one_process_though_one_worker_is_slow(given, whole, tmp_path):
    summary = go_elsewhere(plan(given, tmp_path / "out.jsonl", verify=20), {"pause": 0.01}, {"device": "cpu:1"})
    assert (tmp_path / "out.jsonl").read_bytes() == whole
    assert (summary.model.device, summary.work.rows) == ("cpu, cpu:1", 30 * CHUNKS)
    assert summary.verdict.worst == 0
    assert {"score", "tokenize", "wait for workers"} <= set(summary.stats.seconds)


@pytest.mark.parametrize(
    ("way", "how"),
    [
        ("kill", "died of SIGKILL"),
        ("exit", "ended with exit code 3"),
        ("device", "lost its device (Lost: CUDA error: unspecified)"),
    ],
)
def test_slices_of_a_worker_that_dies_go_to_the_others_without_its_finished_rows_and_it_is_started_again(
    given, whole, tmp_path, caplog, way, how
):
    summary = go_elsewhere(plan(given, tmp_path / "out.jsonl"), {"at": "10.5.", "way": way}, {"pause": 0.005})
    assert (tmp_path / "out.jsonl").read_bytes() == whole
    died, again = caplog.messages
    assert died.startswith(f"worker 1 of 2 (cpu:0) {how}")
    assert died.endswith("; workers left: 1")
    assert again == "worker 1 of 2 (cpu:0) is started again (1 of 2 times)"
    assert summary.work.rows < 30 * CHUNKS  # the dead worker's rows were not reported, and not scored again


def test_a_slice_that_kills_two_workers_ends_the_run_naming_its_records_and_nothing_is_lost(given, whole, tmp_path):
    options = plan(given, tmp_path / "out.jsonl")
    with pytest.raises(
        ModelError, match=r"in\.jsonl:64 to 84: workers died on these .* of 3 .*; worker . of 3 .*Fix: "
    ):
        go_elsewhere(options, *[{"at": "70.5."}] * 3)
    go_elsewhere(options, {}, {})
    assert (tmp_path / "out.jsonl").read_bytes() == whole


@pytest.mark.parametrize(("way", "how"), [("kill", "died of SIGKILL"), ("model", "could not be started again")])
def test_a_worker_that_dies_again_and_again_is_left_alone_and_the_run_ends_naming_where(given, tmp_path, way, how):
    lives = tmp_path / "lives"
    place = Place("cpu:0", partial(elsewhere.once, lives, way, at="10.5."))
    with pytest.raises(ModelError, match=rf"in\.jsonl:1 to 21: no worker is left \(.* SIGKILL .*; .* {how}.*Fix: "):
        run(plan(given, tmp_path / "out.jsonl"), lambda _: Workers([place]))
    assert lives.read_text() == "xxx"


def test_a_lone_worker_that_dies_is_started_again_and_does_the_rest(given, whole, tmp_path):
    place = Place("cpu:0", partial(elsewhere.once, tmp_path / "lives", "well", at="10.5."))
    run(plan(given, tmp_path / "out.jsonl"), lambda _: Workers([place]))
    assert (tmp_path / "out.jsonl").read_bytes() == whole


def test_what_a_worker_logs_is_one_line_here_and_what_it_prints_is_no_data(given, tmp_path, caplog, capfd):
    go_elsewhere(plan(given, tmp_path / "out.jsonl"), {"at": "70.5.", "way": "noise"})
    assert set(caplog.messages) == {"worker 1 of 1 (cpu:0): out of memory at 7 tokens"}
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("way", "kind", "message"),
    [
        ("ours", BadRecord, "in.jsonl:1: is odd"),
        ("python's", ValueError, "not a value"),
        ("foreign", WorkerFailure, "Foreign: from afar"),
    ],
)
def test_an_exception_in_a_worker_is_raised_here_with_its_traceback(given, tmp_path, way, kind, message):
    with pytest.raises(kind) as caught:
        go_elsewhere(plan(given, tmp_path / "out.jsonl"), {"at": "30.5.", "way": way}, {"at": "30.5.", "way": way})
    assert str(caught.value) == message
    trace, where = caught.value.__notes__
    assert "raise RAISED[way]" in trace
    assert where.startswith("(in worker ")
    assert way != "ours" or caught.value.code == "odd"


@pytest.mark.parametrize(
    ("way", "kind", "message"),
    [
        ("model", ModelError, "no such model"),
        ("kill", ModelError, r"worker 2 of 2 \(b\) died of SIGKILL \(out of memory\?\) before its model was loaded"),
    ],
)
def test_a_worker_that_cannot_open_its_model_ends_the_run_and_the_other_worker(way, kind, message):
    with pytest.raises(kind, match=message):
        Workers([Place("a", RowSession), Place("b", partial(failing, way))])


def test_workers_that_loaded_different_models_are_refused():
    with pytest.raises(ModelError, match=r"worker 2 of 2 \(b\) has revision r2, the first worker has r1. Fix: "):
        Workers([Place("a", RowSession), Place("b", elsewhere.OtherRevision)])


def test_all_plan_the_smallest_rows_that_one_of_them_has_room_for(given, whole, tmp_path):
    summary = go_elsewhere(plan(given, tmp_path / "out.jsonl"), {}, {"batch_tokens": 900}, {})
    assert (summary.model.batch_tokens, summary.work.rows) == (900, CHUNK // 3 * CHUNKS)
    assert (tmp_path / "out.jsonl").read_bytes() == whole


def test_rows_of_models_that_are_compiled_must_be_alike():
    with pytest.raises(ModelError, match=r"worker 2 of 2 .* has batch_tokens 900, the first worker has 2048. Fix: "):
        at_work({"compiled": True}, {"compiled": True, "batch_tokens": 900})


def test_a_stop_keeps_finished_rows_and_another_number_of_workers_goes_on(given, whole, tmp_path, monkeypatch):
    options, heard, add = plan(given, tmp_path / "out.jsonl"), [], Journal.add

    def asking(self, *row):
        heard.append(row)
        if len(heard) == 70:
            os.kill(os.getpid(), signal.SIGTERM)
        add(self, *row)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", asking)
        first = go_elsewhere(options, {"pause": 0.005}, {"pause": 0.005})
    assert first.exit_reason == "SIGTERM"
    assert first.work.rows == len(heard)
    last = go_elsewhere(options, {}, {}, {})
    assert (tmp_path / "out.jsonl").read_bytes() == whole
    assert first.work.rows + last.work.rows == 30 * CHUNKS


def test_rows_that_a_killed_run_noted_are_not_scored_again(given, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(Journal.__init__, "__defaults__", (0.0,))
    options, heard, add = plan(given, tmp_path / "out.jsonl"), [], Journal.add

    def dying(self, *row):
        heard.append(row)
        if len(heard) == 21:
            raise Killed
        add(self, *row)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", dying)
        with pytest.raises(Killed):
            go_elsewhere(options, {"pause": 0.002}, {"pause": 0.002})
    summary = go_elsewhere(options, {}, {})
    assert summary.work.rows == 30 * CHUNKS - 20
    assert (tmp_path / "out.jsonl").read_bytes() == whole


@pytest.fixture
def job(given, tmp_path):
    """A job in a process group of its own, in the midst of its work, and the ids of its workers."""
    command = [sys.executable, elsewhere.__file__, given, tmp_path / "out.jsonl"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=_foreground
    )
    with process:
        try:
            workers = [int(number) for number in process.stdout.readline().split()]
            until(lambda: (tmp_path / "out.jsonl.checkpoint").exists())
            yield process, workers
        finally:
            process.kill()


def _foreground():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def gone(workers):
    return not any(alive(number) for number in workers)


def alive(number):
    """Whether the process runs; one that nobody has reaped does not."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@needs_proc
def test_an_interrupt_of_the_whole_group_is_the_jobs_to_obey(job, given, whole, tmp_path):
    process, workers = job
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert err.decode().splitlines() == ["rerank: SIGINT, finishing the current row (again to quit at once)"]
    assert gone(workers)
    go_elsewhere(plan(given, tmp_path / "out.jsonl", chunk_pairs=30, resume=Resume.REQUIRE), {}, {})
    assert (tmp_path / "out.jsonl").read_bytes() == whole


@needs_proc
@pytest.mark.parametrize("signals", [[signal.SIGKILL], [signal.SIGTERM, signal.SIGTERM]])
def test_no_worker_outlives_its_job(job, signals):
    process, workers = job
    assert not gone(workers)
    for number in signals:
        process.send_signal(number)
        time.sleep(0.01)
    assert process.wait(timeout=30) == -signals[0]
    until(lambda: gone(workers))


def test_without_a_worker_left_nothing_is_verified():
    with at_work({}) as workers:
        workers._workers[0].link.process.kill()
        with pytest.raises(ModelError, match=r"no worker is left to verify with: worker 1 of 1 .* died of SIGKILL"):
            workers.score_plainly(PairTexts(["q"], ["p"], [0]))


def test_a_worker_that_dies_while_it_verifies_leaves_that_to_the_next():
    with at_work({"at": "x", "way": "kill"}, {}) as workers:
        os.kill(workers._workers[0].link.process.pid, signal.SIGKILL)
        assert len(workers.score_plainly(PairTexts(["q"], ["p"], [0]))) == 1
