"""`kill -9` in the middle of a run, and the same command again."""

import random

import pytest
from shell import TINY, rerank, started, until, write_lines

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    rng = random.Random(3)
    words = "the giant panda is a bear that lives in china " * 6
    records = (
        {"id": i, "query": f"panda {i}", "documents": [f"{i} {j} {words}" for j in range(rng.randint(1, 20))]}
        for i in range(150)
    )
    return write_lines(tmp_path_factory.mktemp("kills") / "in.jsonl", records)


@pytest.fixture(scope="module")
def whole(given, tmp_path_factory):
    """The bytes of a run that nobody disturbed."""
    output = tmp_path_factory.mktemp("whole") / "out.jsonl"
    assert rerank("run", given, "-m", TINY, "-q", "--chunk-pairs", "40", "-o", output).code == 0
    return output.read_bytes()


def test_a_killed_run_loses_and_doubles_nothing(given, whole, tmp_path):
    output, checkpoint = tmp_path / "out.jsonl", tmp_path / "out.jsonl.checkpoint"
    command = ["run", given, "-m", TINY, "-q", "--chunk-pairs", "40", "--commit-interval", "0", "-o", output]
    with started(*command, afresh=True) as process:
        until(lambda: process.poll() is not None or checkpoint.exists())
        process.kill()
        process.wait()
    assert checkpoint.exists(), "the run was over before it could be killed"
    assert not output.exists()
    ended = rerank(*command, "--resume", "require")
    assert (ended.code, ended.err) == (0, "")
    assert output.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_a_second_run_of_the_same_output_is_refused_while_the_first_is_at_it(long_file, tmp_path):
    output = tmp_path / "out.jsonl"
    with started("run", long_file, "-m", TINY, "-q", "-o", output) as process:
        until((tmp_path / "out.jsonl.lock").exists)
        until(lambda: (tmp_path / "out.jsonl.lock").read_text())
        ended = rerank("run", long_file, "-m", TINY, "-q", "-o", output)
        assert ended.code == 6
        assert f"being written by process {process.command_pid} on " in ended.err
