"""`rerank report` and `rerank view` as commands; what they say is tested without processes."""

import json
import os
import pty

import pytest
from shell import RERANK, environment, is_one_line, rerank, run_tiny, write_lines


@pytest.fixture
def files(tmp_path):
    """An output, its input, its judgements, and where a page goes."""
    documents = [{"id": f"d{i}", "text": f"text {i}"} for i in range(3)]
    results = [{"index": i, "document": documents[i], "relevance_score": 0.9 - i / 10} for i in (2, 0, 1)]
    output = write_lines(tmp_path / "out.jsonl", [{"id": str(n), "model": "m", "results": results} for n in range(200)])
    requests = [{"id": str(n), "query": f"query {n}", "documents": documents} for n in range(200)]
    given = write_lines(tmp_path / "in.jsonl", requests)
    (tmp_path / "qrels.txt").write_text("0 0 d2 1\n1 0 d0 1\n")
    return output, given, str(tmp_path / "qrels.txt"), tmp_path / "report.html"


def test_a_page_and_the_terminals_version(files):
    output, given, qrels, page = files
    ended = rerank("report", output, "--input", given, "--qrels", qrels, "-o", page, "--terminal")
    assert ended.code == 0, ended.err
    assert is_one_line(ended.err)
    assert "report.html: 0." in ended.err
    assert b"1 better, 1 worse" in ended.out
    assert "query 199" in page.read_text() or "query 1" in page.read_text()
    assert "<h1" in page.read_text()
    again = rerank("report", output, "-o", page)
    assert (again.code, is_one_line(again.err)) == (6, True)
    assert rerank("report", output, "-o", page, "--overwrite").code == 0


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["-o", "-"], 2, "--output cannot be -"),
        (["-o", "none/report.html"], 7, "its folder does not exist"),
        (["--summary", "none.json"], 4, "there is no such file"),
        (["-o", "out.jsonl", "--overwrite"], 6, "out.jsonl"),
    ],
)
def test_what_cannot_be_reported_is_one_line(files, flags, code, message):
    ended = rerank("report", "out.jsonl", *flags, cwd=files[-1].parent)
    assert (ended.code, ended.out, is_one_line(ended.err)) == (code, b"", True)
    assert message in ended.err


def test_a_page_to_dev_stdout_comes_out_of_stdout(files):
    ended = rerank("report", files[0], "-o", "/dev/stdout")
    assert (ended.code, ended.out.strip()[-7:]) == (0, b"</html>")
    assert is_one_line(ended.err)


def test_a_closed_pipe_is_quiet(files):
    output, *_ = files
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = rerank("view", output, stdout=writing)
    finally:
        os.close(writing)
    assert (ended.code, ended.err) == (-13, "")


def test_plain_text_off_a_terminal(files):
    output, given, *_ = files
    ended = rerank("view", output, "--input", given, "--query", "7", "--top", "1")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.decode().startswith("7  query 7\n   1  ")


@pytest.mark.slow
def test_echoed_queries_are_shown_and_mined_without_the_input(tmp_path):
    documents = [{"id": f"d{i}", "text": "word " * 60 + f"end of {i}"} for i in range(3)]
    given = write_lines(tmp_path / "in.jsonl", [{"id": "7", "query": "an echoed query", "documents": documents}])
    output, train = tmp_path / "out.jsonl", tmp_path / "train.jsonl"
    (tmp_path / "qrels").write_text("7 0 d1 1\n")
    assert run_tiny(given, "--echo-query", "-o", output).code == 0
    assert json.loads(output.read_bytes())["query"] == "an echoed query"
    seen = rerank("view", output, "--full", "--top", "1").out.decode()
    assert seen.startswith("7  an echoed query\n   1  ")
    assert "end of " in seen
    assert all(line == line.rstrip() for line in seen.splitlines()[2:])
    page = tmp_path / "report.html"
    assert rerank("report", output, "-o", page).code == 0
    assert "an echoed query" in page.read_text()
    assert rerank("mine", output, "--qrels", tmp_path / "qrels", "-o", train).code == 0
    assert json.loads(train.read_bytes())["query"] == "an echoed query"


def in_a_terminal(*arguments, env):
    """Run with stdout on a pseudo-terminal; exit code and what was shown."""
    child, master = pty.fork()
    if child == 0:
        os.execve(RERANK, [RERANK, *map(str, arguments)], environment(env))
    shown = b""
    try:
        while more := os.read(master, 65536):
            shown += more
    except OSError:  # how Linux ends a pseudo-terminal
        pass
    finally:
        os.close(master)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown


def test_on_a_terminal_it_goes_through_the_pager_which_may_be_left_early(files, tmp_path):
    output, *_ = files
    pager = tmp_path / "pager"
    pager.write_text("#!/bin/sh\nhead -n 1\necho left\n")
    pager.chmod(0o755)
    code, shown = in_a_terminal("view", output, env={"PAGER": str(pager), "TERM": "xterm", "COLUMNS": "80"})
    assert code == 0
    assert shown.endswith(b"left\r\n")
    assert b"\x1b[" in shown
    assert len(shown.splitlines()) == 2


def test_without_a_pager_it_is_shown_all_the_same(files):
    code, shown = in_a_terminal("view", files[0], "--query", "3", env={"PAGER": "no-such-pager", "TERM": "xterm"})
    assert code == 0
    assert json.dumps("text 2")[1:-1].encode() in shown
