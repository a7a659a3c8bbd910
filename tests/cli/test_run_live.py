"""Streams that pause: what was sent is answered although more may come, and a resumed run gives the same bytes."""

import json
import select
import subprocess

import pytest
from shell import PANDA, TIMEOUT, TINY, is_one_line, rerank, started, until

pytestmark = pytest.mark.slow


def request(number):
    return json.dumps({"id": number, "query": f"what is panda {number}?", "documents": ["hi", PANDA]}).encode() + b"\n"


REQUESTS = [request(number) for number in range(4)]


def ask(process, *lines):
    """Send lines, keep the pipe open, and read one line back."""
    process.stdin.write(b"".join(lines))
    process.stdin.flush()
    assert select.select([process.stdout], [], [], TIMEOUT)[0], "no answer while the pipe is open"
    return json.loads(process.stdout.readline())


@pytest.mark.parametrize(
    "flags",
    [[], ["--chunk-pairs", "1"], ["--devices", "cpu,cpu"], ["--cascade", "mini:1"], ["--cache", "scores.sqlite"]],
    ids=lambda flags: flags[0] if flags else "plain",
)
def test_each_request_of_a_program_that_waits_is_answered(flags, tmp_path):
    flags = [tmp_path / flag if flag == "scores.sqlite" else flag for flag in flags]
    with started("run", "-m", TINY, "-q", *flags, stdin=subprocess.PIPE) as process:
        assert [ask(process, line)["id"] for line in REQUESTS] == [0, 1, 2, 3]
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0
        assert process.stdout.read() == b""


def test_rows_that_wait_together_are_answered_together():
    with started("run", "-m", TINY, "-q", stdin=subprocess.PIPE) as process:
        assert ask(process, *REQUESTS[:3])["id"] == 0
        assert [json.loads(process.stdout.readline())["id"] for _ in range(2)] == [1, 2]


def test_a_bad_first_line_does_not_wait_for_a_second_one():
    with started("run", "-m", TINY, "-q", "--on-error", "emit", stdin=subprocess.PIPE) as process:
        assert ask(process, b'{"query": \n')["error"]["code"] == "bad_json"
        assert ask(process, REQUESTS[1])["id"] == 1
    with started("run", "-m", TINY, "-q", stdin=subprocess.PIPE) as process:
        process.stdin.write(b'{"query": \n')
        process.stdin.flush()
        assert process.wait(TIMEOUT) == 4
        assert is_one_line(process.stderr.read().decode())


def send_slowly(process, lines, output):
    """Each line once the answer to the one before is in the output; a compressed output has a member for each chunk."""
    partial, size = output.with_name(output.name + ".partial"), 0
    for line in lines:
        process.stdin.write(line)
        process.stdin.flush()
        until(lambda size=size: partial.exists() and partial.stat().st_size > size)
        size = partial.stat().st_size


def test_a_resumed_run_ends_chunks_where_the_stream_had_paused(tmp_path):
    whole, output = tmp_path / "whole.jsonl.gz", tmp_path / "out.jsonl.gz"
    flags = ["run", "-m", TINY, "-q", "--commit-interval", "1000", "-o"]
    with started(*flags, whole, stdin=subprocess.PIPE) as process:
        send_slowly(process, [REQUESTS[0], REQUESTS[1] + REQUESTS[2], REQUESTS[3]], whole)
        process.stdin.close()
        assert process.wait(TIMEOUT) == 0
    with started(*flags, output, stdin=subprocess.PIPE) as process:
        send_slowly(process, [REQUESTS[0], REQUESTS[1] + REQUESTS[2]], output)
        process.kill()
        process.wait()
    assert rerank(*flags, output, stdin=b"".join(REQUESTS)).code == 0
    assert output.read_bytes() == whole.read_bytes()
    assert whole.read_bytes().count(b"\x1f\x8b\x08") >= 3
    assert rerank(*flags, tmp_path / "at-once.jsonl.gz", stdin=b"".join(REQUESTS)).code == 0
    assert (tmp_path / "at-once.jsonl.gz").read_bytes() != whole.read_bytes()
