"""How far an output is, for a person and for a machine; the other ways to stop and to keep a checkpoint."""

import json
import subprocess

import pytest
from shell import RERANK, TINY, environment, is_one_line, json_lines, rerank, started, until

from rerank_cli.cli.flags.declare import duration
from rerank_cli.errors import UsageError

pytestmark = pytest.mark.slow

SLOWLY = ["--chunk-pairs", "40", "--commit-interval", "0", "--threads", "1"]


def test_of_a_run_at_work_and_after_it_was_stopped_and_at_its_end(requests_file, long_file, tmp_path):
    output = tmp_path / "out.jsonl"
    with started("run", long_file, "-m", TINY, "-q", "-o", output, *SLOWLY) as process:
        until((tmp_path / "out.jsonl.checkpoint").exists)
        running = rerank("status", output)
        assert running.code == 0
        assert f"running: process {process.pid} on " in running.out.decode()
        process.terminate()
        process.wait()
    text = rerank("status", output).out.decode()
    assert "stopped; the same command continues it" in text
    assert f"model {TINY}" in text
    assert "chunk pairs 40" in text
    found = json.loads(rerank("status", output, "--json").out)
    assert (found["state"], found["holder"]) == ("stopped", None)
    assert 0 < found["progress"]["share_done"] < 1
    assert found["progress"]["pairs_per_second"] > 0
    assert found["counts"]["records"] == len(json_lines((tmp_path / "out.jsonl.partial").read_bytes()))
    assert found["kept_bytes"] == (tmp_path / "out.jsonl.partial").stat().st_size
    done = rerank("run", requests_file, "-m", TINY, "-q", "-o", tmp_path / "small.jsonl")
    assert (done.code, json.loads(rerank("status", tmp_path / "small.jsonl", "--json").out)["state"]) == (0, "complete")


def test_of_nothing_is_exit_4(tmp_path):
    ended = rerank("status", tmp_path / "none.jsonl")
    assert (ended.code, is_one_line(ended.err)) == (4, True)
    assert "there is no such output" in ended.err


def test_of_a_file_that_somebody_else_made(tmp_path):
    (tmp_path / "out.jsonl").write_text("dear to somebody")
    assert json.loads(rerank("status", tmp_path / "out.jsonl", "--json").out)["state"] == "exists"


def test_the_same_command_after_the_end_says_so_and_is_exit_0_or_3(requests_file, tmp_path):
    with open(requests_file, "ab") as file:
        file.write(b"bad\n")
    flags = ["-m", TINY, "-o", tmp_path / "out.jsonl", "--on-error", "skip", "--progress", "off"]
    assert rerank("run", requests_file, *flags).code == 3
    again = rerank("run", requests_file, *flags)
    assert again.code == 3
    assert again.complaint.endswith("out.jsonl: already complete, nothing to do (--overwrite repeats the run)")
    judged = rerank("run", requests_file, *flags, "--qrels", tmp_path / "qrels.txt")
    assert judged.complaint.endswith("nothing to do (--overwrite repeats the run, rerank eval measures it)")


def test_a_pipe_goes_on_where_it_stopped_when_it_has_a_checkpoint(long_file, tmp_path):
    kept, parts = tmp_path / "kept.checkpoint", []
    for _ in range(2):
        with open(long_file, "rb") as stdin:
            flags = ["--checkpoint", kept, "--limit", "60", *SLOWLY]
            with started("run", "-m", TINY, "-q", *flags, stdin=stdin) as process:
                if not parts:
                    until(kept.exists)
                    process.terminate()
                parts.append(process.stdout.read())
                process.wait()
                assert process.returncode == (0 if len(parts) == 2 else -15)
    assert all(parts)
    assert [answer["id"] for answer in json_lines(b"".join(parts))] == list(range(60))
    assert list(tmp_path.iterdir()) == []


def test_a_time_limit_ends_with_exit_10_and_says_how_to_go_on(long_file, tmp_path):
    ended = rerank("run", long_file, "-m", TINY, "-o", tmp_path / "o", "--max-duration", "2s", "--progress", "off")
    assert ended.code == 10
    assert "stopped by max-duration, work kept; the same command continues from here" in ended.err


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5", 1.5), ("90s", 90), ("30m", 1800), ("7h30m", 27000), ("1d1s", 86401)]
)
def test_times_as_people_write_them(text, seconds):
    assert duration(text, "--max-duration") == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-5", "5x", "m", "1h 5m", "1h5", "nan", "inf", "1e3"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(UsageError, match="--max-duration"):
        duration(text, "--max-duration")


def test_a_checkpoint_that_is_somebody_elses_file_is_exit_6(requests_file, tmp_path):
    dear = tmp_path / "dear.jsonl"
    dear.write_text('{"dear": 1}\n')
    command = f"{RERANK} run {requests_file} -m {TINY} -q --restart --checkpoint {dear}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, env=environment(), check=False)
    assert (done.returncode, is_one_line(done.stderr.decode()), done.stdout) == (6, True, b"")
    assert dear.read_text() == '{"dear": 1}\n'
