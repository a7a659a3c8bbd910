"""Training data through a whole run: killed at any point it goes on, and nothing is cut by --top-n."""

import orjson
import pyarrow.parquet as pq
import pytest
from instant import config, go, kill

from rerank_cli.errors import RefusedError


@pytest.fixture
def given(tmp_path):
    path = tmp_path / "in.jsonl"
    records = [{"query": f"q{n}", "pos": [f"p{n}"], "neg": [f"n{n} {i}" for i in range(n % 5)]} for n in range(40)]
    path.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))
    return path


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_a_run_that_was_killed_goes_on_and_writes_the_same(given, tmp_path, name):
    go(config(given, tmp_path / f"whole-{name}"))
    kill(config(given, tmp_path / name), 4)
    go(config(given, tmp_path / name))
    whole, broken = tmp_path / f"whole-{name}", tmp_path / name
    if name.endswith("parquet"):
        assert pq.read_table(broken).equals(pq.read_table(whole))
    else:
        assert broken.read_bytes() == whole.read_bytes()


def test_top_n_cuts_no_training_data(given, tmp_path):
    go(config(given, tmp_path / "out.jsonl", top_n=1))
    rows = [orjson.loads(line) for line in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    assert all(len(row["neg_scores"]) == len(row["neg"]) for row in rows)


def test_a_document_that_changed_lists_is_another_input(given, tmp_path):
    plan = config(given, tmp_path / "out.jsonl")
    kill(plan, 4)
    lines = given.read_bytes().splitlines(keepends=True)
    moved = orjson.loads(lines[2])
    moved["pos"], moved["neg"] = moved["pos"] + moved["neg"][:1], moved["neg"][1:]
    lines[2] = orjson.dumps(moved) + b"\n"
    given.write_bytes(b"".join(lines))
    with pytest.raises(RefusedError, match="are not those already processed"):
        go(plan)
