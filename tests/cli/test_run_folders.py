"""`rerank run in/ -o out/` as a process: exit codes, signals, what it says; patterns with one output."""

import json
from pathlib import Path

import pytest
from shell import TINY, is_one_line, json_lines, rerank, run_tiny, started, until, write_lines

SLOWLY = ["--chunk-pairs", "40", "--commit-interval", "0", "--threads", "1"]


@pytest.fixture
def given(tmp_path):
    folder = tmp_path / "in" / "date=2026-01-01"
    folder.mkdir(parents=True)
    for name in "abc":
        documents = [f"{name} {number}" for number in range(4)]
        write_lines(folder / f"{name}.jsonl", [{"id": name, "query": f"query {name}", "documents": documents}])
    return tmp_path / "in"


def test_a_folder_becomes_a_folder_and_status_sums_it_up(given, tmp_path):
    assert given.is_dir()
    ended = rerank("run", "in/", "-o", "out/", "-m", TINY, cwd=tmp_path)
    assert (ended.code, ended.out) == (0, b"")
    assert "3 files in out/, 3 to do" in ended.err
    assert "3 of 3 files done with 3 records; 3 files and 12 pairs by this process in " in ended.complaint
    assert ended.err.count("packed rows of") == 1
    part = tmp_path / "out" / "date=2026-01-01"
    assert sorted(path.name for path in part.iterdir()) == ["a.jsonl", "b.jsonl", "c.jsonl"]
    again = rerank("run", "in/", "-o", "out", "-m", TINY, cwd=tmp_path)
    assert (again.code, again.complaint) == (
        0,
        "rerank: out: already complete, nothing to do (--overwrite repeats the run)",
    )
    text = rerank("status", "out/", cwd=tmp_path).out.decode()
    assert "state       complete" in text
    assert "done        3 of 3 files, 3 records, 12 pairs" in text
    assert f"command     rerank run in/ -o out/ -m {TINY}" in text
    found = json.loads(rerank("status", tmp_path / "out", "--json").out)
    assert (found["state"], found["done"], found["waiting"], found["pairs"]) == ("complete", 3, 0, 12)
    assert run_tiny("in/", "-o", "whole/", "--top-n", "1", cwd=tmp_path).code == 0
    (best,) = json_lines((tmp_path / "whole" / "date=2026-01-01" / "a.jsonl").read_bytes())
    assert len(best["results"]) == 1


def test_a_pattern_with_a_file_as_output_is_one_output_of_all(given, tmp_path):
    assert run_tiny(f"{given}/**/[ab].jsonl", "-o", tmp_path / "one.jsonl").code == 0
    assert [record["id"] for record in json_lines((tmp_path / "one.jsonl").read_bytes())] == ["a", "b"]
    ended = run_tiny(f"{given}/*.gone", "-o", tmp_path / "two.jsonl")
    assert (ended.code, ended.err) == (4, f"rerank: {given}/*.gone: no file matches\n")


def test_exit_codes_of_files_that_fail_and_of_rejected_records(given, tmp_path):
    bad = given / "bad.jsonl"
    bad.write_bytes(b"{\n")
    ended = run_tiny(given, "-o", f"{tmp_path}/out/")
    assert (ended.code, is_one_line(ended.err)) == (4, True)
    assert "3 of 4 files done, 1 failed: " in ended.err
    text = rerank("status", tmp_path / "out").out.decode()
    assert "failed      bad.jsonl: " in text
    ended = run_tiny(given, "-o", f"{tmp_path}/other/", "--on-error", "skip", "--errors", f"{tmp_path}/errors/")
    assert (ended.code, (tmp_path / "other" / "_SUCCESS").exists()) == (3, True)
    assert len((tmp_path / "errors" / "bad.jsonl.jsonl").read_bytes().splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-", "-o", "out/"], "an output folder needs input files (got stdin). Fix: name files, a folder or a pattern"),
        (["in/", "-o", "out/", "--errors", "e.jsonl", "--on-error", "skip"], "--errors e.jsonl: with an output folder"),
        (["in/", "-o", "out/", "--qrels", "q"], "--qrels measures one output (got the folder out/). Fix: rerank eval"),
        (["in/", "-o", "out/", "--checkpoint", "c"], "--checkpoint: in an output folder each file has its own beside"),
    ],
)
def test_what_does_not_work_with_a_folder_is_refused_in_one_line(given, tmp_path, flags, message):
    assert given.is_dir()
    ended = run_tiny(*flags, cwd=tmp_path)
    assert (ended.code, is_one_line(ended.err)) == (2, True)
    assert ended.err.startswith(f"rerank: {message}")


@pytest.mark.slow
def test_a_signal_keeps_what_is_done_and_the_same_command_goes_on(long_file, tmp_path):
    given, out = tmp_path / "in", tmp_path / "out"
    given.mkdir()
    lines = Path(long_file).read_bytes().splitlines(keepends=True)
    (given / "long.jsonl").write_bytes(b"".join(lines[:60]))
    (given / "short.jsonl").write_bytes(b"".join(lines[60:64]))
    with started("run", given, "-o", f"{out}/", "-m", TINY, *SLOWLY) as process:
        until((out / "long.jsonl.checkpoint").exists)
        found = json.loads(rerank("status", out, "--json").out)
        assert (found["state"], len(found["running"]), found["files"], found["waiting"]) == ("running", 1, 2, 1)
        assert found["running"][0]["output"] == "long.jsonl"
        assert found["running"][0]["process"].startswith(f"process {process.command_pid} on ")
        process.terminate()
        said = process.stderr.read().decode()
        assert process.wait() == -15
    assert "stopped by SIGTERM, work kept; the same command continues from here" in said
    found = json.loads(rerank("status", out, "--json").out)
    assert (found["state"], found["done"], found["begun"]) == ("stopped", 0, 1)
    left = {path.name for path in out.iterdir()} - {"long.jsonl.journal"}  # of a chunk that was begun
    assert left == {"long.jsonl.checkpoint", "long.jsonl.partial", "_rerank"}
    assert not any((out / "_rerank").rglob("workers/*"))
    stopped = rerank("run", given, "-o", f"{out}/", "-m", TINY, *SLOWLY, "--max-duration", "0.001s")
    assert stopped.code == 10
    ended = rerank("run", given, "-o", f"{out}/", "-m", TINY, *SLOWLY)
    assert ended.code == 0
    assert "long.jsonl: resuming after " in ended.err
    assert len((out / "long.jsonl").read_bytes().splitlines()) == 60


@pytest.mark.slow
def test_from_python_a_folder_is_done_as_by_the_command(given, tmp_path):
    from rerank_cli import run_file
    from rerank_cli.errors import UsageError

    summary = run_file(given, f"{tmp_path}/out/", model=TINY, threads=1)
    assert (summary.exit_reason, summary.files, summary.as_json()["pairs"]) == ("finished", 3, 12)
    assert run_file(given, tmp_path / "out", model=TINY, threads=1).nothing_to_do
    one = run_file(f"{given}/**/*.jsonl", tmp_path / "one.jsonl", model=TINY, threads=1)
    assert one.stats.records == 3
    with pytest.raises(UsageError, match="qrels measures one output"):
        run_file(given, f"{tmp_path}/other/", model=TINY, qrels="q")


@pytest.mark.slow
def test_workers_of_several_devices_are_used_for_all_files(given, tmp_path):
    assert rerank("run", given, "-o", f"{tmp_path}/one/", "-m", TINY, "-q").code == 0
    ended = rerank("run", given, "-o", f"{tmp_path}/two/", "-m", TINY, "--devices", "cpu,cpu")
    assert ended.code == 0, ended.err
    assert ended.err.count("packed rows of") == 1
    for name in "abc":
        one, two = (tmp_path / folder / "date=2026-01-01" / f"{name}.jsonl" for folder in ("one", "two"))
        assert two.read_bytes() == one.read_bytes()
