"""How a run ends when it is told to: soon, with what is finished kept, and of the signal."""

import json
import os
import select
import signal
import subprocess
from pathlib import Path

import pytest
from shell import RERANK, TINY, environment, json_lines, rerank, started, stderr_until, until

pytestmark = pytest.mark.slow

SOON = 30  # seconds; a chunk of these takes a few milliseconds


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_finished_chunks_and_kills_the_process(long_file, tmp_path, number):
    output, partial, summary = (tmp_path / name for name in ("out.jsonl", "out.jsonl.partial", "summary.json"))
    flags = ["--chunk-pairs", "40", "--progress", "off", "--summary", summary]
    with started("run", long_file, "-m", TINY, "-o", output, *flags) as process:
        until(lambda: partial.exists() and partial.stat().st_size)
        process.send_signal(number)
        err = process.stderr.read().decode()
        assert process.wait(timeout=SOON) == -number
    assert number.name in err
    assert "Traceback" not in err
    assert not output.exists()
    kept = json_lines(partial.read_bytes())
    assert [answer["id"] for answer in kept] == list(range(len(kept)))
    figures = json.loads(summary.read_bytes())
    assert (figures["exit_reason"], figures["records"]) == (number.name, len(kept))


def test_usr1_prints_one_line_and_the_run_goes_on(long_file, tmp_path):
    partial = tmp_path / "out.jsonl.partial"
    flags = ["--chunk-pairs", "40", "-q"]
    with started("run", long_file, "-m", TINY, "-o", tmp_path / "out.jsonl", *flags) as process:
        until(lambda: partial.exists() and partial.stat().st_size)
        process.send_signal(signal.SIGUSR1)
        line = stderr_until(process, "\n")
        assert line.count("\n") == 1
        assert " pairs/s" in line
        size = partial.stat().st_size
        until(lambda: partial.stat().st_size > size)
        assert process.poll() is None


def test_a_second_interrupt_quits_at_once_though_the_output_takes_no_more(tmp_path):
    documents = [f"{i} {'panda ' * 150}" for i in range(200)]  # one answer is more than a pipe holds
    record = json.dumps({"query": "q", "documents": documents}).encode() + b"\n"
    (tmp_path / "in.jsonl").write_bytes(record * 100)
    flags = ["--progress", "off", "--chunk-pairs", "200"]
    with started("run", tmp_path / "in.jsonl", "-m", TINY, *flags, afresh=True) as process:
        assert select.select([process.stdout], [], [], 120)[0]
        process.send_signal(signal.SIGINT)
        stderr_until(process, "again to quit at once")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=SOON) == -signal.SIGINT
        assert b"stopped by" not in process.stderr.read()


def test_an_interrupt_ends_a_run_whose_input_has_fallen_silent():
    with started("run", "-m", TINY, "--progress", "off", "--chunk-pairs", "2", stdin=subprocess.PIPE) as process:
        process.stdin.write(b'{"query": "q", "documents": ["a", "b"]}\n' * 60)
        process.stdin.flush()
        for _ in range(59):  # the last one may wait for its chunk to fill
            assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=SOON) == -signal.SIGINT


def test_an_interrupt_before_the_first_record_ends_the_run_without_a_word():
    with started("run", "-m", TINY, stdin=subprocess.PIPE, afresh=True) as process:
        until(lambda: has_claimed_stdout(process))
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=SOON) == -signal.SIGINT
        assert process.stderr.read() == b""


def has_claimed_stdout(process):
    """Does descriptor 1 point where stderr does? The run has begun, past the imports of the command."""
    folder = Path(f"/proc/{process.pid}/fd")
    return (folder / "1").readlink() == (folder / "2").readlink()


def test_a_stopped_run_to_stdout_names_no_file(long_file):
    with started("run", long_file, "-m", TINY, "--progress", "off", "--chunk-pairs", "40") as process:
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert "-.partial" not in process.stderr.read().decode()
        assert process.wait(timeout=SOON) == -signal.SIGINT


def test_an_ignored_interrupt_stays_ignored(long_file, tmp_path):
    """A script's background job (`rerank run … &`) is started with SIGINT ignored, and must outlive a Ctrl-C."""
    partial = tmp_path / "out.jsonl.partial"
    command = f"trap '' INT; exec {RERANK} run {long_file} -m {TINY} -q -o {tmp_path}/out.jsonl --chunk-pairs 40"
    process = subprocess.Popen(["sh", "-c", command], stderr=subprocess.DEVNULL, env=environment())
    try:
        until(lambda: partial.exists() and partial.stat().st_size)
        process.send_signal(signal.SIGINT)
        size = partial.stat().st_size
        until(lambda: partial.stat().st_size > size + 200_000 or process.poll() is not None)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_a_run_after_a_stopped_one_can_be_had_again(requests_file, tmp_path):
    (tmp_path / "out.jsonl.partial").write_bytes(b"left by a run that was killed\n")
    ended = rerank("run", requests_file, "-m", TINY, "-o", tmp_path / "out.jsonl", "--progress", "off")
    assert ended.code == 0
    assert len(json_lines((tmp_path / "out.jsonl").read_bytes())) == 2


_FIRST = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
_MAY_UNSHARE = subprocess.run([*_FIRST, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _MAY_UNSHARE, reason="needs a PID namespace, which this system does not allow")
@pytest.mark.parametrize("moment", ["starting", "loading", "scoring"])
def test_the_first_process_of_a_container_ends_too(long_file, tmp_path, moment):
    """The kernel ignores a signal with its default action that this process sends to itself."""
    output = tmp_path / "out.jsonl"
    lock, partial = tmp_path / "out.jsonl.lock", tmp_path / "out.jsonl.partial"
    command = [RERANK, "run", long_file, "-m", TINY, "-q", "-o", output, "--chunk-pairs", "40", "--threads", "1"]

    def scoring():
        return partial.exists() and partial.stat().st_size

    with subprocess.Popen([*_FIRST, *command], env=environment(), stderr=subprocess.PIPE) as outer:
        try:
            children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
            until({"starting": lambda: _listens(children), "loading": lock.exists, "scoring": scoring}[moment])
            inner = int(children.read_text())
            os.kill(inner, signal.SIGTERM)
            assert outer.wait(timeout=SOON) == 128 + signal.SIGTERM
        finally:
            outer.kill()
    assert not lock.exists()
    assert not output.exists()


def _listens(children):
    """Whether the only child handles SIGTERM already."""
    if not (number := children.read_text().strip()):
        return False
    status = Path(f"/proc/{number}/status").read_text()
    caught = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")), 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)
