"""How far an output is, for a person and for a machine; the other ways to stop and to keep a checkpoint."""

import json
import subprocess
from pathlib import Path

import pytest
from shell import RERANK, TINY, environment, is_one_line, json_lines, rerank, started, until

from rerank_cli.cli.flags.values import duration
from rerank_cli.errors import UsageError

pytestmark = pytest.mark.slow

SLOWLY = ["--chunk-pairs", "40", "--commit-interval", "0", "--threads", "1"]


def test_of_a_run_at_work_and_after_it_was_stopped_and_at_its_end(requests_file, long_file, tmp_path):
    output = tmp_path / "out.jsonl"
    with started("run", long_file, "-m", TINY, "-q", "-o", output, *SLOWLY) as process:
        until((tmp_path / "out.jsonl.checkpoint").exists)
        running = rerank("status", output)
        assert running.code == 0
        assert f"running: process {process.command_pid} on " in running.out.decode()
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


def test_progress_inside_a_chunk_is_counted_row_by_row(long_file, tmp_path):
    given, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    given.write_bytes(b"".join(Path(long_file).read_bytes().splitlines(keepends=True)[:20]))
    flags = ["--threads", "1", "--progress", "json", "--progress-interval", "0.5"]

    def progress():
        return json.loads(rerank("status", output, "--json").out)["progress"] or {"pairs": 0}

    with started("run", given, "-m", "mini", "-o", output, *flags) as process:
        until((tmp_path / "out.jsonl.lock").exists)
        until(lambda: progress()["pairs"] > 0)
        seen = progress()
        process.kill()
        lines = [json.loads(line) for line in process.stderr.read().splitlines()]
    assert (seen["records"], seen["event"]) == (0, "progress")
    assert 0 < seen["share_done"] < 1
    shares = [line["share_done"] for line in lines if line["event"] == "progress"]
    assert shares == sorted(shares)
    assert 0 < shares[-1] < 1
    last = [line for line in lines if line["event"] == "progress"][-1]
    assert last["eta_seconds"] > 0
    assert min(last["pairs"], last["tokens"], last["pairs_per_second"], last["tokens_per_second"]) > 0


def test_a_finished_output_has_its_figures_also_if_the_input_was_a_stream(requests_file, tmp_path):
    output = tmp_path / "out.jsonl"
    with open(requests_file, "rb") as stdin:
        assert rerank("run", "-m", TINY, "-q", "-o", output, "--top-n", "1", stdin=stdin.read()).code == 0
    found = json.loads(rerank("status", output, "--json").out)
    assert found["state"] == "complete"
    finished = found["finished"]
    assert (finished["records"], finished["pairs"], finished["rejected"], finished["model"]) == (2, 4, 0, TINY)
    assert finished["command"] == f"rerank run -m {TINY} -q -o {output} --top-n 1"
    text = rerank("status", output).out.decode()
    assert "done        2 records, 4 pairs, " in text
    assert f"command     {finished['command']}" in text
    with open(output, "ab") as file:
        file.write(b"{}\n")
    assert json.loads(rerank("status", output, "--json").out)["finished"] is None


def test_an_empty_input_is_said_and_loads_no_model(tmp_path):
    (tmp_path / "empty.jsonl").write_bytes(b"\n")
    output = tmp_path / "out.jsonl"
    ended = rerank("run", tmp_path / "empty.jsonl", "-m", TINY, "-o", output)
    assert (ended.code, ended.complaint) == (0, "rerank: 0 records: the input is empty")
    assert TINY not in ended.err
    assert output.read_bytes() == b""
    assert rerank("run", "-m", TINY, stdin=b"").complaint == "rerank: 0 records: the input is empty"
    again = rerank("run", tmp_path / "empty.jsonl", "-m", TINY, "-o", output)
    assert (again.code, "already complete" in again.err) == (0, True)


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


def test_a_run_that_starts_over_continues_without_the_flag_that_discards_its_work(long_file, tmp_path):
    command = ["run", long_file, "-m", TINY, "-o", tmp_path / "o", "--max-duration", "5s", "--progress", "off", *SLOWLY]
    ended = rerank(*command, "--restart")
    said = "the same command without --restart or --resume never continues from here"
    assert (ended.code, ended.complaint) == (10, f"rerank: stopped by max-duration, work kept; {said}")
    again = rerank(*command)
    assert (again.code, "resuming after " in again.err) == (10, True)


def test_a_time_limit_of_a_run_to_stdout_says_that_nothing_is_kept(long_file):
    ended = rerank("run", long_file, "-m", TINY, "--max-duration", "1s", "--progress", "off")
    assert ended.code == 10
    assert ended.complaint == "rerank: stopped by max-duration; --checkpoint FILE makes a run to stdout resumable"


def killed_half_way(given, output, *flags):
    with started("run", given, "-m", TINY, "-q", "-o", output, *SLOWLY, *flags) as process:
        until(output.with_name(output.name + ".checkpoint").exists)
        process.kill()
        process.wait()


def test_a_changed_input_is_refused_or_with_on_changed_restart_begun_again(long_file, tmp_path):
    lines = Path(long_file).read_bytes().splitlines(keepends=True)[:40]
    given, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    given.write_bytes(b"".join(lines))
    output.write_text("of the night before")
    killed_half_way(given, output, "--overwrite")
    given.write_bytes(b"".join(lines[1:]))
    command = ["run", given, "-m", TINY, "-o", output, *SLOWLY, "--overwrite", "--progress", "off"]
    refused = rerank(*command)
    assert refused.code == 6
    assert refused.complaint.endswith("Fix: --restart, --on-changed restart, or another -o")
    assert output.read_text() == "of the night before"
    ended = rerank(*command, "--on-changed", "restart")
    assert ended.code == 0
    assert "of the input are not those already processed; starting over, the unfinished output with" in ended.err
    assert rerank("run", given, "-m", TINY, "-q", *SLOWLY).out == output.read_bytes()


def test_changed_settings_are_begun_again_too_and_a_stream_never(long_file, tmp_path):
    output = tmp_path / "out.jsonl"
    killed_half_way(long_file, output)
    command = ["-m", TINY, "-o", output, *SLOWLY, "--progress", "off", "--limit", "20"]
    ended = rerank("run", long_file, *command, "--top-n", "3", "--on-changed", "restart")
    assert ended.code == 0
    assert "started with other settings (top n None → 3); starting over, " in ended.err
    assert len(json_lines(output.read_bytes())) == 20
    output.unlink()
    killed_half_way(long_file, output)
    first = Path(long_file).read_bytes().splitlines(keepends=True)[:3]
    streamed = rerank("run", *command, "--on-changed", "restart", stdin=b"".join(first[1:]))
    assert streamed.code == 6


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
