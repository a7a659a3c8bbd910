import csv
import json
import random
from dataclasses import replace

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from instant import InstantSession, config, go, kill, names

from rerank_cli.choices import OnError, OutputFormat, Quantize, Resume
from rerank_cli.errors import InputError, RefusedError
from rerank_cli.formats import AnswerOptions
from rerank_cli.run.recovery.fingerprint import settings

RECORDS = 60


@pytest.fixture
def given(tmp_path):
    rng = random.Random(5)
    records = [
        {"id": i, "query": f"query {i}", "documents": [f"document {rng.random()}" for _ in range(rng.randint(1, 5))]}
        for i in range(RECORDS)
    ]
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records))
    return path


@pytest.mark.parametrize(
    "name", ["out.jsonl", "out.jsonl.gz", "out.jsonl.zst", "out.jsonl.xz", "out.json", "out.parquet"]
)
@pytest.mark.parametrize("at", [0, 1, 5, 9])
def test_a_run_that_was_killed_goes_on_and_writes_the_same_bytes(given, tmp_path, name, at):
    whole, broken = tmp_path / f"whole-{name}", tmp_path / name
    _, uninterrupted = go(config(given, whole))
    kill(config(given, broken), at)
    assert not broken.exists()
    _, session = go(config(given, broken))
    assert session.calls == uninterrupted.calls - at
    if name.endswith("parquet"):
        assert pq.read_table(broken).equals(pq.read_table(whole))
    else:
        assert broken.read_bytes() == whole.read_bytes()
    assert names(tmp_path) == sorted(["in.jsonl", whole.name, broken.name])


def as_pairs(given, path):
    """The candidates of the records as a table of pairs, in the format of the suffix."""
    records = [orjson.loads(line) for line in given.read_bytes().splitlines()]
    rows = [
        {"query_id": str(record["id"]), "query": record["query"], "docid": f"d{n}", "text": f'{text}\n"{n}", the end'}
        for record in records
        for n, text in enumerate(record["documents"])
    ]
    table, kind = pa.Table.from_pylist(rows), path.suffix
    if kind in (".csv", ".tsv"):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="," if kind == ".csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    elif kind == ".json":
        path.write_text("\n".join(json.dumps(record, indent=2) for record in records))
    else:
        container = pa.ipc.new_stream if kind == ".arrow" else pa.ipc.new_file
        with container(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=7)
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "arrow", "feather", "json"])
@pytest.mark.parametrize("name", ["out.jsonl", "out.csv", "out.tsv.xz"])
def test_a_run_of_any_kind_of_file_goes_on_after_kill_upon_kill(given, tmp_path, kind, name):
    given = as_pairs(given, tmp_path / f"in.{kind}")
    options = {"format": OutputFormat.PAIRS}
    _, uninterrupted = go(config(given, tmp_path / f"whole-{name}", **options))
    plan = config(given, tmp_path / name, **options)
    for _ in range(3):
        kill(plan, 2)
    _, session = go(plan)
    assert session.calls == uninterrupted.calls - 6
    assert (tmp_path / name).read_bytes() == (tmp_path / f"whole-{name}").read_bytes()


def test_a_run_killed_again_and_again_loses_and_doubles_nothing(given, tmp_path):
    go(config(given, tmp_path / "whole.jsonl"))
    plan = config(given, tmp_path / "out.jsonl")
    for _ in range(5):
        kill(plan, 2)
    go(plan)
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_counts_go_on_too(given, tmp_path):
    whole, _ = go(config(given, tmp_path / "whole.jsonl"))
    plan = config(given, tmp_path / "out.jsonl")
    kill(plan, 5)
    resumed, _ = go(plan)
    assert resumed.stats.counts() == whole.stats.counts()
    assert 0 < resumed.stats.resumed_records < RECORDS


def test_the_share_done_keeps_to_what_is_finished(given, tmp_path):
    seen = []

    class Watching(InstantSession):
        def score(self, prepared, *_):
            seen.append(prepared)
            return super().score(prepared)

    summary, _ = go(config(given, tmp_path / "out.jsonl"), Watching())
    assert summary.stats.share_done == 1.0
    kill(config(given, tmp_path / "half.jsonl"), len(seen) // 2)
    half = orjson.loads(orjson.loads((tmp_path / "half.jsonl.checkpoint").read_bytes())["checkpoint"])
    assert 0.3 < half["counts"]["bytes_done"] / given.stat().st_size < 0.7


def test_bytes_after_the_last_commit_are_cut_off(given, tmp_path):
    go(config(given, tmp_path / "whole.jsonl"))
    plan = config(given, tmp_path / "out.jsonl")
    kill(plan, 5)
    with (tmp_path / "out.jsonl.partial").open("ab") as file:
        file.write(b'{"id": 17, "torn')
    go(plan)
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_a_flipped_bit_in_what_was_committed_is_refused(given, tmp_path, name):
    plan = config(given, tmp_path / name)
    kill(plan, 5)
    partial = tmp_path / f"{name}.partial"
    file = partial / "part-00001.parquet" if partial.is_dir() else partial
    content = bytearray(file.read_bytes())
    content[10] ^= 1
    file.write_bytes(content)
    with pytest.raises(RefusedError, match=r"does not match its checkpoint. Fix: --restart"):
        go(plan)
    assert file.read_bytes() == content


def test_a_partial_file_that_is_too_short_is_refused(given, tmp_path):
    plan = config(given, tmp_path / "out.jsonl")
    kill(plan, 5)
    partial = tmp_path / "out.jsonl.partial"
    partial.write_bytes(partial.read_bytes()[:-1])
    with pytest.raises(RefusedError, match="does not match its checkpoint"):
        go(plan)


def test_a_damaged_checkpoint_is_refused(given, tmp_path):
    plan = config(given, tmp_path / "out.jsonl")
    kill(plan, 5)
    checkpoint = tmp_path / "out.jsonl.checkpoint"
    content = bytearray(checkpoint.read_bytes())
    content[60] ^= 1
    for damaged in (content, content[:50], b"", b"[]"):
        checkpoint.write_bytes(damaged)
        with pytest.raises(RefusedError, match=r"damaged.*--restart"):
            go(plan)


def test_restart_begins_anew_whatever_is_there(given, tmp_path):
    plan = config(given, tmp_path / "out.jsonl")
    kill(plan, 5)
    (tmp_path / "out.jsonl.checkpoint").write_bytes(b"nonsense")
    _, session = go(config(given, tmp_path / "out.jsonl", resume=Resume.NEVER))
    assert session.calls == go(config(given, tmp_path / "whole.jsonl"))[1].calls


def test_other_settings_are_refused_and_named(given, tmp_path):
    kill(config(given, tmp_path / "out.jsonl"), 5)
    with pytest.raises(RefusedError, match=r"started with other settings \(top n None → 3\). Fix: --restart"):
        go(config(given, tmp_path / "out.jsonl", top_n=3))


def test_a_setting_that_is_stored_only_when_set_is_compared_both_ways(given, tmp_path):
    plain = config(given, tmp_path / "out.jsonl")
    echoing = config(given, tmp_path / "echo.jsonl", answers=AnswerOptions("instant", query=True))
    assert "echo query" not in settings(plain)
    for plan, other, change in ((plain, echoing, "None → True"), (echoing, plain, "True → None")):
        kill(plan, 5)
        with pytest.raises(RefusedError, match=rf"started with other settings \(echo query {change}\). Fix: --restart"):
            go(replace(other, output=replace(other.output, path=plan.output.path)))
        go(plan)
    whole = tmp_path / "whole.jsonl"
    go(replace(echoing, output=replace(echoing.output, path=str(whole))))
    assert (tmp_path / "echo.jsonl").read_bytes() == whole.read_bytes() != (tmp_path / "out.jsonl").read_bytes()


def test_a_model_quantized_in_another_way_is_refused(given, tmp_path):
    plan = config(given, tmp_path / "out.jsonl")
    kill(plan, 5)
    with pytest.raises(RefusedError, match=r"started with other settings \(quantize None → fp8\)"):
        go(replace(plan, model=replace(plan.model, quantize=Quantize.FP8)))


def test_another_revision_of_the_model_is_refused(given, tmp_path):
    plan = config(given, tmp_path / "out.jsonl")
    kill(plan, 5)

    class Retrained(InstantSession):
        facts = type(InstantSession.facts)("instant", "r2", "fake", "cpu", "fp32", 0, True, 512, 384, 2048)

    with pytest.raises(RefusedError, match="model revision r1 → r2"):
        go(plan, Retrained())


def test_an_input_whose_finished_part_changed_is_refused(given, tmp_path):
    plan = config(given, tmp_path / "out.jsonl")
    kill(plan, 5)
    given.write_bytes(given.read_bytes().replace(b"query 0", b"query X"))
    with pytest.raises(RefusedError, match="records of the input are not those already processed"):
        go(plan)


def test_an_input_that_got_shorter_than_what_is_done_is_refused(given, tmp_path):
    plan = config(given, tmp_path / "out.jsonl")
    kill(plan, 5)
    given.write_bytes(given.read_bytes().split(b"\n")[0] + b"\n")
    with pytest.raises(RefusedError, match="records of the input are not those already processed"):
        go(plan)


def test_an_input_that_grew_goes_on(given, tmp_path):
    plan = config(given, tmp_path / "out.jsonl")
    kill(plan, 5)
    with given.open("ab") as file:
        file.write(b'{"id": "new", "query": "q", "documents": ["d"]}\n')
    go(plan)
    go(config(given, tmp_path / "whole.jsonl"))
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_bad_line_can_be_mended_and_the_same_command_goes_on(given, tmp_path):
    good = given.read_bytes()
    lines = good.split(b"\n")
    lines[50] = lines[50][:10]
    given.write_bytes(b"\n".join(lines))
    plan = config(given, tmp_path / "out.jsonl")
    with pytest.raises(InputError, match=r"in.jsonl:51: broken JSON"):
        go(plan)
    given.write_bytes(good)
    resumed, _ = go(plan)
    assert resumed.stats.resumed_records > 0
    go(config(given, tmp_path / "whole.jsonl"))
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_run_that_failed_at_a_bad_line_goes_on_with_skip(given, tmp_path):
    lines = given.read_bytes().split(b"\n")
    lines[50] = lines[50][:10]
    given.write_bytes(b"\n".join(lines))
    with pytest.raises(InputError):
        go(config(given, tmp_path / "out.jsonl"))
    skip = {"on_error": OnError.SKIP, "errors": str(tmp_path / "errors.jsonl")}
    resumed, _ = go(config(given, tmp_path / "out.jsonl", **skip))
    assert resumed.stats.resumed_records > 0
    assert resumed.stats.rejected == 1
    assert len((tmp_path / "out.jsonl").read_bytes().splitlines()) == RECORDS - 1


def test_the_quarantine_file_goes_on_without_doubling(given, tmp_path):
    lines = [line if i % 4 else b"bad" for i, line in enumerate(given.read_bytes().splitlines())]
    given.write_bytes(b"\n".join(lines))
    errors = tmp_path / "errors.jsonl"
    plan = config(given, tmp_path / "out.jsonl", on_error=OnError.SKIP, errors=str(errors))
    for _ in range(3):
        kill(plan, 2)
    go(plan)
    assert [orjson.loads(line)["line"] for line in errors.read_bytes().splitlines()] == list(range(1, RECORDS + 1, 4))


def test_require_wants_something_to_go_on_from(given, tmp_path):
    plan = config(given, tmp_path / "out.jsonl", resume=Resume.REQUIRE)
    with pytest.raises(RefusedError, match="no checkpoint to resume from"):
        go(plan)
    kill(config(given, tmp_path / "out.jsonl"), 5)
    go(plan)


def test_the_chunk_size_of_the_first_run_is_kept(given, tmp_path):
    go(config(given, tmp_path / "whole.jsonl"))
    plan = config(given, tmp_path / "out.jsonl")
    kill(plan, 5)

    class OtherDevice(InstantSession):
        sizes = type(InstantSession.sizes)(batch_tokens=1, chunk_pairs=1000)

    go(plan, OtherDevice())
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.slow
def test_a_second_run_of_the_same_output_is_refused_and_told_who_is_at_it(given, tmp_path):
    class Nosy(InstantSession):
        def score(self, prepared, *_):
            with pytest.raises(RefusedError, match=r"out.jsonl: being written by process \d+ on "):
                go(config(given, tmp_path / "out.jsonl"))
            return super().score(prepared)

    go(config(given, tmp_path / "out.jsonl"), Nosy())
    assert names(tmp_path) == ["in.jsonl", "out.jsonl"]


def test_a_lock_file_that_a_dead_process_left_is_no_obstacle(given, tmp_path):
    (tmp_path / "out.jsonl.lock").write_text("process 1 on elsewhere")
    go(config(given, tmp_path / "out.jsonl"))
    assert names(tmp_path) == ["in.jsonl", "out.jsonl"]


def test_a_partial_file_without_a_checkpoint_is_begun_anew(given, tmp_path):
    (tmp_path / "out.jsonl.partial").write_bytes(b"old")
    summary, _ = go(config(given, tmp_path / "out.jsonl"))
    assert summary.stats.resumed_records == 0


def test_a_checkpoint_without_its_partial_file_is_begun_anew(given, tmp_path):
    kill(config(given, tmp_path / "out.jsonl"), 5)
    (tmp_path / "out.jsonl.partial").unlink()
    summary, _ = go(config(given, tmp_path / "out.jsonl"))
    assert summary.stats.resumed_records == 0
    assert names(tmp_path) == ["in.jsonl", "out.jsonl"]
