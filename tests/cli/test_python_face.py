"""The Python face against the command: the same scores, the same files, and a process that goes on."""

import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from pages import ROOT, pattern
from shell import TINY, environment, json_lines, rerank, until, write_lines

from rerank_cli import Reranker, run_file
from rerank_cli.errors import InputError, OutputError, RefusedError, UsageError

pytestmark = pytest.mark.slow

PARITY = Path(__file__).parents[1] / "models" / "parity"
WORDS = ["the", "giant", "panda", "is", "a", "bear", "that", "lives", "in", "China", "and", "eats", "bamboo"]
REQUESTS = [
    {"id": n, "query": f"{WORDS[n % 13]} {n}", "documents": [" ".join(WORDS[: 1 + (n * j) % 13]) for j in range(1, 9)]}
    for n in range(40)
]
FAMILIES = {
    "bert": {},
    "xlm-roberta": {"max_length": 24},
    "gemma": {"max_length": 64},
    "minicpm-layerwise": {"cutoff_layers": (2, 5)},
    "gemma2-lightweight": {"compress_layers": (2,), "compress_ratio": 2, "cutoff_layers": (4,)},
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_lines(tmp_path_factory.mktemp("face") / "in.jsonl", REQUESTS)


def flags(settings):
    pairs = ((f"--{name.replace('_', '-')}", value) for name, value in settings.items())
    return [word for name, value in pairs for word in (name, ",".join(map(str, np.atleast_1d(value))))]


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_the_command(family, path):
    settings, folder = FAMILIES[family], str(PARITY / family)
    ended = rerank("run", path, "-m", folder, "-q", "--device", "cpu", "--scores", "both", *flags(settings))
    assert ended.code == 0
    expected = [[(r["index"], r["relevance_score"], r["logit"]) for r in answer["results"]] for answer in ended.records]
    asked = [(request["query"], request["documents"]) for request in REQUESTS]
    pairs = [(query, text) for query, texts in asked for text in texts]
    with Reranker(folder, device="cpu", **settings) as reranker:
        found = [[(one.index, one.score, one.logit) for one in ranked] for ranked in reranker.rank_many(asked)]
        assert found == expected
        logits = reranker.score(pairs, scores="raw")
        assert logits.shape == ((len(pairs), 2) if family == "minicpm-layerwise" else (len(pairs),))
        deepest = logits if logits.ndim == 1 else logits[:, -1]
        by_place = [[score for _, _, score in sorted(answer)] for answer in expected]
        np.testing.assert_array_equal(deepest, np.array(by_place, np.float32).reshape(-1))
        with ThreadPoolExecutor(4) as pool:
            alone = list(pool.map(lambda one: reranker.rank(*one), asked))
    logits_alone = [one.logit for ranked in alone for one in sorted(ranked, key=lambda one: one.index)]
    np.testing.assert_allclose(logits_alone, deepest, atol=2e-5)  # other rows, so other last bits


def test_one_request_has_the_scores_that_the_command_gives_it_alone(tmp_path):
    request = REQUESTS[7]
    ended = rerank("run", write_lines(tmp_path / "one.jsonl", [request]), "-m", TINY, "-q", "--device", "cpu")
    expected = [(one["index"], one["relevance_score"]) for one in ended.records[0]["results"]]
    with Reranker(TINY, device="cpu") as reranker:
        assert [(one.index, one.score) for one in reranker.rank(request["query"], request["documents"])] == expected


def test_run_file_writes_the_bytes_of_the_command_and_returns_its_summary(path, tmp_path):
    ended = rerank("run", path, "-m", TINY, "-q", "-o", tmp_path / "theirs.jsonl", "--top-n", "3", "--scores", "both")
    assert ended.code == 0
    said = []
    summary = run_file(Path(path), tmp_path / "ours.jsonl", model=TINY, top_n=3, scores="both", notify=said.append)
    assert (tmp_path / "ours.jsonl").read_bytes() == (tmp_path / "theirs.jsonl").read_bytes()
    assert (summary.exit_reason, summary.stats.records, summary.stats.pairs) == ("finished", 40, 320)
    assert summary.as_json()["model"]["name"] == TINY
    assert any("packed rows" in line for line in said)
    assert run_file(path, tmp_path / "ours.jsonl", model=TINY, top_n=3, scores="both").nothing_to_do


def test_run_file_works_in_a_thread_and_sets_no_signal_handler(path, tmp_path, capfd):
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    before, during, found = [signal.getsignal(number) for number in numbers], [], []

    def notify(_):
        during.append([signal.getsignal(number) for number in numbers])

    def work():
        found.append(run_file(path, tmp_path / "out.jsonl", model=TINY, notify=notify))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found[0].stats.records == 40
    assert during
    assert all(handlers == before for handlers in during)
    run_file(path, tmp_path / "again.jsonl", model=TINY, notify=notify)
    assert all(handlers == before for handlers in during)
    assert capfd.readouterr() == ("", "")


def test_run_file_raises_our_errors_and_leaves_out_bad_records_if_it_may(path, tmp_path):
    bad = write_lines(tmp_path / "bad.jsonl", [*REQUESTS[:2], "{ broken", REQUESTS[2]])
    with pytest.raises(InputError, match=r"bad.jsonl:3: .* Fix: on_error skip"):
        run_file(bad, tmp_path / "out.jsonl", model=TINY)
    summary = run_file(bad, tmp_path / "out.jsonl", model=TINY, on_error="skip", errors=tmp_path / "rejected.jsonl")
    assert (summary.exit_reason, summary.stats.records, summary.stats.rejected) == ("rejected", 4, 1)
    assert len(json_lines((tmp_path / "rejected.jsonl").read_bytes())) == 1
    with pytest.raises(RefusedError, match=r"out.jsonl: exists already. Fix: overwrite, or another output"):
        run_file(path, tmp_path / "out.jsonl", model=TINY)
    with pytest.raises(InputError, match="no such file"):
        run_file(tmp_path / "nothing.jsonl", tmp_path / "other.jsonl", model=TINY)
    with pytest.raises(OutputError):
        run_file(path, tmp_path / "no" / "folder" / "out.jsonl", model=TINY)
    with pytest.raises(UsageError, match="writes a file, not stdout"):
        run_file(path, "-", model=TINY)
    with pytest.raises(UsageError, match="inputs is empty"):
        run_file([], tmp_path / "out.jsonl", model=TINY)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bad.jsonl", "out.jsonl", "rejected.jsonl"]


def test_messages_of_run_file_name_keywords(tmp_path):
    path, said = write_lines(tmp_path / "bad.jsonl", [*REQUESTS, "{ broken"]), []
    with pytest.raises(InputError):
        run_file(path, tmp_path / "out.jsonl", model=TINY, chunk_pairs=8, restart=True, notify=said.append)
    assert said[-1].endswith(
        " records are kept; fix the problem and run the same command without restart or resume never to resume"
    )


def test_run_file_reranks_candidates_by_id_and_measures_them(tmp_path):
    folder = ROOT / "sample_data" / "scifact"
    summary = run_file(
        [],
        tmp_path / "ce.trec",
        run=folder / "bm25.test.trec",
        beir=folder,
        depth=3,
        format="trec",
        qrels=folder / "qrels" / "test.tsv",
        measures=["nDCG@10", "RR@10"],
        model=TINY,
    )
    assert len((tmp_path / "ce.trec").read_text().splitlines()) == 30
    assert set(summary.evaluation.after.means) == {"nDCG@10", "RR@10"}


def test_an_interrupted_run_file_raises_and_the_same_call_continues(tmp_path):
    path = write_lines(tmp_path / "in.jsonl", [request | {"id": n} for n in range(15) for request in REQUESTS])
    out, whole = tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    call = (
        f"run_file({path!r}, {str(out)!r}, model={TINY!r}, chunk_pairs=40, commit_interval=0, threads=1, notify=print)"
    )
    code = f"""
from rerank_cli import run_file
try:
    {call}
except KeyboardInterrupt:
    print("interrupted", flush=True)
    print(run_file({path!r}, {str(out)!r}, model={TINY!r}, chunk_pairs=40, commit_interval=0, threads=1,
                   notify=print).exit_reason)
"""
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, env=environment(), preexec_fn=interruptible
    ) as process:
        until(Path(f"{out}.checkpoint").exists)
        process.send_signal(signal.SIGINT)
        said = process.stdout.read().decode()
        assert process.wait() == 0
    assert "interrupted\n" in said
    assert "resuming after " in said.partition("interrupted")[2]
    assert said.endswith("finished\n")
    run_file(path, whole, model=TINY, chunk_pairs=40, threads=1)
    assert out.read_bytes() == whole.read_bytes()


def interruptible():
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_with_signals_the_first_one_commits_and_returns(tmp_path):
    path = write_lines(tmp_path / "in.jsonl", [request | {"id": n} for n in range(100) for request in REQUESTS])
    out = tmp_path / "out.jsonl"
    code = f"""
from rerank_cli import run_file
summary = run_file({path!r}, {str(out)!r}, model={TINY!r}, chunk_pairs=40, commit_interval=0, threads=1, signals=True)
print(summary.exit_reason, summary.stats.finished)
"""
    command = [sys.executable, "-u", "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        until(Path(f"{out}.checkpoint").exists)
        process.send_signal(signal.SIGTERM)
        said = process.communicate()[0].decode()
    assert (process.returncode, said) == (0, "SIGTERM False\n")


def test_a_script_without_a_main_guard_is_told_and_does_not_run_twice(path, tmp_path):
    script = tmp_path / "script.py"
    call = f"run_file({path!r}, {str(tmp_path / 'out.jsonl')!r}, model={TINY!r}, devices=['cpu', 'cpu'])"
    script.write_text(f"from rerank_cli import run_file\n{call}\n")
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment(), check=False)
    assert ended.returncode == 1
    assert 'Fix: call it under if __name__ == "__main__":' in ended.stderr
    script.write_text(f"from rerank_cli import run_file\nif __name__ == '__main__':\n    {call}\n")
    subprocess.run([sys.executable, script], capture_output=True, env=environment(), check=True)
    assert len(json_lines((tmp_path / "out.jsonl").read_bytes())) == 40


BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\s*^```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
EXTRAS = ("langchain_core", "llama_index")


def test_the_examples_of_the_page_run_and_print_what_it_shows(tmp_path):
    """In their order, in one process; without those of extras that are not installed."""
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = BLOCK.findall(page)
    assert len(blocks) == page.count("```python\n") > 5
    missing = tuple(f"from {name}" for name in EXTRAS if find_spec(name) is None)
    blocks = [block for block in blocks if not block[0].startswith(missing)] if missing else blocks
    (tmp_path / "sample_data").symlink_to(ROOT / "sample_data")
    script = "\n".join(f"print('-- block')\n{code}" for code, _ in blocks)
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    for (code, shown), printed in zip(blocks, ended.stdout.split("-- block\n")[1:], strict=True):
        assert pattern(shown).fullmatch(printed), f"the page shows\n{shown}\nbut this printed\n{printed}\n{code}"
