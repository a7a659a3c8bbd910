"""Signals at moments when there is nothing to put away yet, loops around the command, and clocks that jump."""

import os
import random
import signal
import subprocess
import time

import pytest
from processes import foreground
from real_runs import begun, command, ended, names, one_thread, until

pytestmark = pytest.mark.slow

STOPPING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", STOPPING)
@pytest.mark.parametrize("after", [0.0, 0.5, 1.0])
def test_a_signal_while_the_model_is_loaded_ends_the_run_at_once_and_leaves_no_lock(given, tmp_path, number, after):
    with begun(command(given, tmp_path / "out.jsonl"), afresh=True) as process:
        until((tmp_path / "out.jsonl.lock").exists)
        time.sleep(after)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == -number
    assert (out, b"Traceback" in err) == (b"", False)
    assert not {"out.jsonl", "out.jsonl.lock"} & set(names(tmp_path))


def test_usr1_at_any_moment_of_the_start_ends_nothing(given, whole, tmp_path):
    with begun(command(given, tmp_path / "out.jsonl"), afresh=True) as process:
        time.sleep(0.2)
        while process.poll() is None:
            process.send_signal(signal.SIGUSR1)
            time.sleep(0.1)
        _, err = process.communicate()
    assert process.returncode == 0
    assert b"loading the model" in err
    assert (tmp_path / "out.jsonl").read_bytes() == whole(".jsonl")


@pytest.mark.parametrize("number", STOPPING)
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_run_that_was_told_to_stop_goes_on_to_the_same_bytes(given, whole, tmp_path, number, suffix):
    words = command(given, tmp_path / f"out{suffix}")
    with begun(words) as process:
        until((tmp_path / f"out{suffix}.checkpoint").exists)
        time.sleep(random.Random(number).random() * 0.3)
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == -number
    assert f"out{suffix}.lock" not in names(tmp_path)
    assert ended([*words, "--resume", "require"]) == (0, "")
    assert (tmp_path / f"out{suffix}").read_bytes() == whole(suffix)
    assert names(tmp_path) == [f"out{suffix}"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_shell_loop_around_the_command_stops_too(given, tmp_path, number):
    """As Ctrl-C does it: the terminal sends the signal to shell and command alike."""
    one = " ".join(command(given, tmp_path / "out-$i.jsonl"))
    script = f"for i in 1 2 3; do {one}; echo $? >> {tmp_path}/codes; done"
    loop = subprocess.Popen(["bash", "-c", script], env=one_thread(), start_new_session=True, preexec_fn=foreground)
    try:
        until((tmp_path / "out-1.jsonl.checkpoint").exists)
        os.killpg(loop.pid, number)
        loop.wait(timeout=60)
    finally:
        if loop.poll() is None:
            os.killpg(loop.pid, signal.SIGKILL)
            loop.wait()
    assert loop.returncode == -number
    assert not (tmp_path / "codes").exists()
    assert "out-2.jsonl.lock" not in names(tmp_path)


JUMPING = """
import random, time
then = time.time
time.time = lambda: then() + random.uniform(-1e8, 1e8)
time.time_ns = lambda: int(time.time() * 1e9)
"""


def test_a_clock_that_jumps_changes_nothing(given, whole, tmp_path):
    """Files from the future beside a process whose clock runs wild."""
    (tmp_path / "sitecustomize.py").write_text(JUMPING)
    wild = {"PYTHONPATH": str(tmp_path)}
    folder = tmp_path / "work"
    folder.mkdir()
    words = command(given, folder / "out.jsonl")
    assert ended([*words, "--max-duration", "4s"], env=wild)[0] in (0, 10)
    for path in folder.iterdir():
        os.utime(path, (4e9, 4e9))
    assert ended(words, env=wild)[0] == 0
    assert (folder / "out.jsonl").read_bytes() == whole(".jsonl")


def test_a_time_limit_is_exit_10_again_and_again_until_the_work_is_done(given, whole, tmp_path):
    limit, codes = 0.4, []
    while not codes or codes[-1] == 10:
        codes.append(ended(command(given, tmp_path / "out.jsonl", "--max-duration", f"{limit}s"))[0])
        limit *= 1.3
    assert codes[0] == 10
    assert codes[-1] == 0
    assert (tmp_path / "out.jsonl").read_bytes() == whole(".jsonl")
