"""`--metrics`: figures for Prometheus, read back with its own parser."""

import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families
from shell import PANDA, TINY, is_one_line, rerank, started, until, write_lines

from rerank_cli.errors import OutputError
from rerank_cli.run.figures import metrics
from rerank_cli.run.figures.metrics import MetricsFile
from rerank_cli.run.figures.statistics import RunStatistics


def samples(path):
    """The value of every sample by its name, and the state whose value is 1."""
    found, state = {}, None
    for family in text_string_to_metric_families(path.read_text()):
        for sample in family.samples:
            if sample.name == "rerank_state":
                state = sample.labels["state"] if sample.value else state
            else:
                found[sample.name] = sample.value
            assert sample.labels["output"]
    return found, state


@pytest.mark.slow
def test_a_finished_run_leaves_its_figures(requests_file, tmp_path):
    file = tmp_path / "run.prom"
    assert rerank("run", requests_file, "-m", TINY, "-o", tmp_path / "out.jsonl", "--metrics", file).code == 0
    found, state = samples(file)
    assert state == "finished"
    assert (found["rerank_records_total"], found["rerank_pairs_total"], found["rerank_rejected_total"]) == (2, 4, 0)
    assert found["rerank_share_done"] == 1
    assert found["rerank_tokens_total"] > 4
    before = file.read_bytes()
    again = rerank("run", requests_file, "-m", TINY, "-o", tmp_path / "out.jsonl", "--metrics", file)
    assert "already complete" in again.err
    assert file.read_bytes() == before


@pytest.mark.slow
def test_figures_while_it_runs_and_after_a_stop(long_file, tmp_path):
    file, output = tmp_path / "run.prom", tmp_path / "out.jsonl"
    flags = ["-m", TINY, "-q", "-o", output, "--metrics", file, "--progress-interval", "0.1", "--threads", "1"]
    with started("run", long_file, *flags) as process:
        until(lambda: file.exists() and samples(file)[1] == "running" and samples(file)[0]["rerank_pairs_total"] > 0)
        process.terminate()
        process.wait()
    found, state = samples(file)
    assert state == "stopped"
    assert 0 < found["rerank_share_done"] < 1


@pytest.mark.slow
def test_a_run_that_fails_and_one_with_bad_records(tmp_path):
    records = [{"id": "a", "query": "what is panda?", "documents": [PANDA]}] * 40 + [{"id": "b", "query": 3}]
    bad, file = write_lines(tmp_path / "bad.jsonl", records), tmp_path / "run.prom"
    assert rerank("run", bad, "-m", TINY, "-q", "-o", tmp_path / "out.jsonl", "--metrics", file).code == 4
    assert samples(file)[1] == "failed"
    flags = ["--on-error", "skip", "--metrics", file]
    assert rerank("run", bad, "-m", TINY, "-q", "-o", tmp_path / "out.jsonl", *flags).code == 3
    found, state = samples(file)
    assert (state, found["rerank_rejected_total"]) == ("rejected", 1)


def test_paths_that_cannot_hold_it_are_refused(requests_file, tmp_path):
    for path, what in (
        (tmp_path / "answers", "name the same file"),
        ("/dev/null", "not a regular file"),
        ("-", "cannot be -"),
        (tmp_path / "figures.json", "Fix: use .prom"),
    ):
        ended = rerank("run", requests_file, "-m", TINY, "-q", "-o", tmp_path / "answers", "--metrics", path)
        assert ended.code == 2, path
        assert is_one_line(ended.err)
        assert what in ended.err


def test_without_the_library_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(Exception, match=r"pip install 'rerank-cli\[metrics\]'"):
        metrics.check_metrics()


def test_a_write_that_fails_is_told_once_and_ends_nothing(monkeypatch, tmp_path):
    def full(path, _):
        raise OutputError(f"{path}: no space left on device")

    monkeypatch.setattr(metrics, "replace_file", full)
    said = []
    file = MetricsFile(str(tmp_path / "run.prom"), "out.jsonl", RunStatistics(), said.append)
    with file.kept(60):
        file.end("finished")
    assert said == [f"{tmp_path / 'run.prom'}: no space left on device; the run goes on without --metrics"]
