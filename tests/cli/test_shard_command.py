"""`--shard` and `rerank merge`, as schedulers and shells call them, with a real model."""

import json
import random
import shutil

import pytest
from processes import TINY
from shell import is_one_line, rerank, started, until, write_lines

pytestmark = pytest.mark.slow

WORDS = ["the", "giant", "panda", "is", "a", "bear", "that", "lives", "in", "china", "and", "eats", "bamboo"]


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    rng = random.Random(3)
    records = (
        {"query": f"panda {i}", "documents": [" ".join(rng.choices(WORDS, k=rng.randint(5, 60))) for _ in range(12)]}
        for i in range(120)
    )
    return write_lines(tmp_path_factory.mktemp("given") / "in.jsonl", records)


def run(*args, **settings):
    return rerank("run", *args, "-m", TINY, "-q", "--chunk-pairs", "50", **settings)


@pytest.fixture(scope="module")
def whole(given, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "whole.jsonl"
    assert run(given, "-o", output).code == 0
    return output.read_bytes()


def test_eight_shards_merged_are_the_bytes_of_one_run(given, whole, tmp_path):
    for index in (5, 0, 7, 1, 2, 6, 4, 3):
        ended = run(given, "--shard", f"{index}/8", "-o", tmp_path / "part.jsonl")
        assert (ended.code, ended.err) == (0, "")
    parts = sorted(tmp_path.glob("part-*"), reverse=True)
    assert [path.name for path in parts[-2:]] == ["part-00001-of-00008.jsonl", "part-00000-of-00008.jsonl"]
    merged = rerank("merge", *parts, "-o", tmp_path / "whole.jsonl")
    assert (merged.code, merged.complaint) == (0, f"rerank: {tmp_path / 'whole.jsonl'}: 8 shards, 120 records")
    assert (tmp_path / "whole.jsonl").read_bytes() == whole
    again = rerank("run", given, "-m", TINY, "--chunk-pairs", "50", "-o", tmp_path / "whole.jsonl")
    assert again.code == 0
    assert "already complete, nothing to do" in again.err
    status = json.loads(rerank("status", tmp_path / "whole.jsonl", "--json").out)
    assert (status["state"], status["finished"]["records"]) == ("complete", 120)
    refused = rerank("merge", *parts[1:], "-o", tmp_path / "other.jsonl", "-q")
    assert refused.code == 6
    assert is_one_line(refused.err)
    assert "part-00007-of-00008.jsonl: was not named" in refused.err


def test_a_killed_shard_goes_on_to_the_same_bytes(given, whole, tmp_path):
    command = ["run", given, "-m", TINY, "-q", "--chunk-pairs", "50", "--commit-interval", "0", "--devices", "cpu"]
    shard = [*command, "--shard", "1/2", "-o", tmp_path / "part.jsonl"]
    with started(*shard) as process:
        until(lambda: process.poll() is not None or (tmp_path / "part-00001-of-00002.jsonl.checkpoint").exists())
        process.kill()
        process.wait()
    assert not (tmp_path / "part-00001-of-00002.jsonl").exists(), "the run was over before it could be killed"
    stopped = json.loads(rerank("status", tmp_path / "part-00001-of-00002.jsonl", "--json").out)
    assert stopped["state"] == "stopped"
    assert 0 < stopped["progress"]["share_done"] < 1
    assert (ended := rerank(*shard, "--resume", "require")).code == 0, ended.err
    assert rerank(*command, "--shard", "0/2", "-o", tmp_path / "part.jsonl").code == 0
    assert rerank("merge", *tmp_path.glob("part-*"), "-o", tmp_path / "whole.jsonl", "-q").code == 0
    assert (tmp_path / "whole.jsonl").read_bytes() == whole


def test_a_slurm_array_and_an_indexed_job(given, whole, tmp_path):
    slurm = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "1"}
    first = run(given, "--shard", "auto", "-o", tmp_path / "part.jsonl", env=slurm)
    assert (first.code, first.err) == (0, "")
    indexed = {"JOB_COMPLETION_INDEX": "1", "RERANK_SHARD": "auto/2"}
    second = run(given, "-o", tmp_path / "part.jsonl", env=indexed)
    assert (second.code, second.err) == (0, "")
    assert rerank("merge", *tmp_path.glob("part-*"), "-o", tmp_path / "whole.jsonl", "-q").code == 0
    assert (tmp_path / "whole.jsonl").read_bytes() == whole


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (["--shard", "auto"], "neither SLURM_ARRAY_TASK_ID (a Slurm array) nor JOB_COMPLETION_INDEX"),
        (["--shard", "8/8"], "shards are counted from 0 (expected 0 to 7)"),
        (["--shard", "1/8", "--limit", "3"], "Fix: leave --limit out"),
    ],
)
def test_a_wrong_shard_is_a_usage_error(given, tmp_path, args, complaint):
    ended = run(given, *args, "-o", tmp_path / "part.jsonl")
    assert ended.code == 2
    assert is_one_line(ended.err)
    assert complaint in ended.err


def test_stdin_and_stdout_are_refused(given, tmp_path):
    for args in (["-o", tmp_path / "part.jsonl"], [given]):
        ended = run(*args, "--shard", "0/2", stdin=b"{}\n")
        assert ended.code == 2
        assert is_one_line(ended.err)
    assert not list(tmp_path.iterdir())


def test_pairs_in_parquet_a_run_by_id_and_a_cascade(given, tmp_path):
    """With --verify, --cache and --max-duration, as in one run."""
    import pandas as pd

    with open(given, encoding="utf-8") as file:
        records = [json.loads(line) for line in file][:20]
    pairs = [
        {"query_id": f"q{i}", "query": record["query"], "docid": f"d{i}-{j}", "text": text}
        for i, record in enumerate(records)
        for j, text in enumerate(record["documents"])
    ]
    pd.DataFrame(pairs).to_parquet(tmp_path / "pairs.parquet")
    write_lines(tmp_path / "queries.jsonl", ({"_id": f"q{i}", "text": r["query"]} for i, r in enumerate(records)))
    write_lines(tmp_path / "corpus.jsonl", ({"_id": row["docid"], "text": row["text"]} for row in pairs))
    write_lines(tmp_path / "run.trec", (f"{row['query_id']} Q0 {row['docid']} 1 1 t" for row in pairs))
    texts = ["--queries", tmp_path / "queries.jsonl", "--corpus", tmp_path / "corpus.jsonl"]
    jobs = {
        "pairs.parquet": ([tmp_path / "pairs.parquet", "--format", "pairs"], ["--verify", "5", "--max-duration", "1h"]),
        "by_id.trec": (["--run", tmp_path / "run.trec", *texts, "--format", "trec"], ["--cache", tmp_path / "scores"]),
        "cascade.jsonl": ([given, "--cascade", "mini:3", "--cascade-sample", "1", "--top-n", "2"], []),
    }
    (tmp_path / "out").mkdir()
    for name, (args, more) in jobs.items():
        one, merged = tmp_path / "out" / f"one.{name}", tmp_path / "out" / name
        assert (ended := run(*args, "-o", one)).code == 0, ended.err
        for index in range(2):
            ended = run(*args, *more, "--shard", f"{index}/2", "-o", merged)
            assert (ended.code, ended.err) == (0, "")
        ended = rerank("merge", *merged.parent.glob(f"{merged.stem}-*"), "-o", merged, "-q")
        assert ended.code == 0, ended.err
        if merged.suffix == ".parquet":
            assert pd.read_parquet(merged).equals(pd.read_parquet(one))
        else:
            assert merged.read_bytes() == one.read_bytes()
    qrels = write_lines(tmp_path / "qrels", ["q1 0 d1-2 1"])
    assert rerank("eval", tmp_path / "out" / "by_id.trec", "--qrels", qrels).code == 0


def test_shards_that_were_copied_without_receipts(given, whole, tmp_path):
    for index in range(2):
        assert run(given, "--shard", f"{index}/2", "-o", tmp_path / "part.jsonl").code == 0
    (tmp_path / "copies").mkdir()
    for path in tmp_path.glob("part-*"):
        shutil.copyfile(path, tmp_path / "copies" / path.name)
    copies = list((tmp_path / "copies").iterdir())
    refused = rerank("merge", *copies, "-o", tmp_path / "whole.jsonl", "-q")
    assert refused.code == 6
    assert "has no receipt" in refused.err
    assert rerank("merge", *copies, "-o", tmp_path / "whole.jsonl", "--by-name", "-q").code == 0
    assert (tmp_path / "whole.jsonl").read_bytes() == whole
