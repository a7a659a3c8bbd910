"""What a run says on stderr, and the figures it leaves in a file."""

import io
import json
import os
import pty
import re
import sys
from contextlib import suppress

import pytest
from shell import RERANK, TINY, environment, json_lines, rerank

from rerank_cli.choices import ProgressMode
from rerank_cli.cli.terminal import streams
from rerank_cli.run.figures import progress
from rerank_cli.run.figures.statistics import RunStatistics

pytestmark = pytest.mark.slow

SUMMARY = {
    "exit_reason",
    "records",
    "pairs",
    "tokens",
    "truncated_pairs",
    "duplicate_pairs",
    "rejected",
    "chunks",
    "seconds",
    "pairs_per_second",
    "tokens_per_second",
    "padding_ratio",
    "model",
    "versions",
}
PROGRESS = {
    "time",
    "records",
    "pairs",
    "tokens",
    "rejected",
    "truncated_pairs",
    "pairs_per_second",
    "tokens_per_second",
    "share_done",
    "eta_seconds",
    "elapsed_seconds",
}


@pytest.mark.parametrize("mode", [ProgressMode.PLAIN, ProgressMode.JSON])
def test_a_line_is_written_at_once_so_that_a_message_of_another_thread_cannot_split_it(monkeypatch, mode):
    written = []

    class Recorded(io.StringIO):
        def write(self, text):
            written.append(text)
            return len(text)

    monkeypatch.setattr(sys, "stderr", Recorded())
    progress.say(RunStatistics(), mode)
    streams.notifier(quiet=False, as_json=mode is ProgressMode.JSON)("on cpu")
    assert len(written) == 2
    assert all(text.count("\n") == 1 and text.endswith("\n") for text in written)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run with plain progress and a summary: how it ended, and the summary."""
    folder = tmp_path_factory.mktemp("plain")
    stdin = b'{"query": "panda", "documents": ["bear", "bear", "' + b"hi " * 600 + b'"]}\n'
    file = folder / "summary.json"
    flags = ["--progress", "plain", "--progress-interval", "0.2", "--summary", file]
    ended = rerank("run", "-m", TINY, *flags, stdin=stdin, afresh=True)
    return ended, json.loads(file.read_bytes())


def test_plain_progress_is_lines_that_begin_with_a_utc_time(plain):
    lines = [line for line in plain[0].err.splitlines() if not line.startswith("rerank: ")]
    assert lines
    assert all(line[:2] == "20" and line[10] == "T" and line[19:21] == "Z " for line in lines)


def test_the_shape_and_the_device_are_said_once_and_the_figures_at_the_end(plain):
    said = [line for line in plain[0].err.splitlines() if line.startswith("rerank: ")]
    assert len(said) == 3
    assert "JSON lines, rerank" in said[0]
    assert "cpu" in said[1]
    assert said[2].startswith("rerank: 1 record, 3 pairs in ")


def test_a_summary_holds_the_figures_of_the_run(plain):
    summary = plain[1]
    assert set(summary) >= SUMMARY
    counts = {name: summary[name] for name in ("exit_reason", "records", "pairs", "rejected", "chunks")}
    assert counts == {"exit_reason": "finished", "records": 1, "pairs": 3, "rejected": 0, "chunks": 1}
    assert (summary["truncated_pairs"], summary["duplicate_pairs"]) == (1, 1)
    assert summary["seconds"]["total"] >= summary["seconds"]["score"] > 0
    assert summary["model"]["name"] == TINY
    assert {"rerank", "torch", "transformers"} <= set(summary["versions"])
    assert json_lines(plain[0].out)[0]["usage"]["total_tokens"] == summary["tokens"]


def test_json_progress_is_one_object_a_line_with_the_final_figures_last(requests_file):
    ended = rerank("run", requests_file, "-m", TINY, "--progress", "json", "--progress-interval", "0.2", afresh=True)
    said = [json.loads(line) for line in ended.err.splitlines()]
    lines = [line for line in said if line["event"] != "notice"]
    assert {line["event"] for line in lines} == {"loading", "progress"}
    assert all(set(line) >= PROGRESS for line in lines)
    assert all(isinstance(line["message"], str) for line in said if line["event"] == "notice")
    assert (lines[-1]["records"], lines[-1]["pairs"], lines[-1]["share_done"]) == (2, 4, 1.0)
    others = [line for line in ended.err.splitlines() if not line.startswith("{")]
    assert all(line.startswith("rerank: ") for line in others)


@pytest.mark.parametrize(("term", "drawn"), [("xterm", True), ("dumb", False)])
def test_a_terminal_that_cannot_draw_gets_lines(requests_file, term, drawn):
    child, master = pty.fork()
    if child == 0:
        command = [RERANK, "run", requests_file, "-m", TINY, "-o", "/dev/null", "--progress-interval", "0.1"]
        os.execve(RERANK, command, environment({"TERM": term}))
    shown = b""
    with suppress(OSError):  # how Linux ends a pseudo-terminal
        while more := os.read(master, 65536):
            shown += more
    os.close(master)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (b"\x1b[" in shown) is drawn
    assert (b"Z  loading the model" in shown) is not drawn


def test_the_last_line_tells_loading_from_scoring(plain):
    assert re.search(r"3 pairs in \d+\.\d s: \d+\.\d s loading, \d+\.\d s scoring at \d+ pairs/s", plain[0].err)
