"""Where a resume begins to read, what it does when a run had just ended, and streams that keep a checkpoint."""

import io
import os
import time

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from instant import InstantSession, Killed, config, go, kill, names

from rerank_cli.choices import OnError, OutputFormat, Resume
from rerank_cli.engine.options import ModelOptions
from rerank_cli.errors import RefusedError
from rerank_cli.formats import InputOptions
from rerank_cli.formats.reading import file_records
from rerank_cli.run.job import run
from rerank_cli.run.recovery.output_state import OutputState

RECORDS = 60


@pytest.fixture
def begun_at(monkeypatch):
    """The places at which files were opened."""
    places = []
    opened = file_records.open_input

    def spy(path, options, fields, start):
        places.append(start)
        return opened(path, options, fields, start)

    monkeypatch.setattr(file_records, "open_input", spy)
    return places


def write(path, records):
    path.write_bytes(b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records))
    return path


@pytest.fixture
def given(tmp_path):
    return write(tmp_path / "in.jsonl", [{"query": f"q{i}", "documents": ["a", f"b{i}", "c"]} for i in range(RECORDS)])


def pairs(tmp_path, suffix):
    rows = [{"query_id": i, "query": f"q{i}", "text": f"t{j}"} for i in range(RECORDS) for j in range(3)]
    rows += [rows[0], {"query_id": 70, "query": "q70", "text": "t"}, rows[-1]]
    path = tmp_path / f"in.{suffix}"
    if suffix == "jsonl":
        return write(path, rows)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=20)
    return path


def revision(_):
    return InstantSession.facts.revision


def again(plan):
    """The same command once more, which may find that there is nothing to do."""
    session = InstantSession()
    summary, _ = run(plan, lambda _: session, revision)
    return summary, session


def test_a_resume_reads_from_the_last_finished_record_on(given, tmp_path, begun_at):
    plan = config(given, tmp_path / "out.jsonl")
    kill(plan, 10)
    go(plan)
    assert begun_at[-1].rows > RECORDS // 4
    assert begun_at[-1].offset > given.stat().st_size // 4


def test_an_input_with_another_time_is_read_from_its_beginning(given, tmp_path, begun_at):
    plan = config(given, tmp_path / "out.jsonl")
    kill(plan, 10)
    os.utime(given, (0, time.time() + 1e6))
    resumed, _ = go(plan)
    assert begun_at[-1].rows == 0
    assert resumed.stats.resumed_records > 0
    go(config(given, tmp_path / "whole.jsonl"))
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_finished_record_that_is_another_one_now_is_refused_though_size_and_time_are_the_same(given, tmp_path):
    plan = config(given, tmp_path / "out.jsonl")
    kill(plan, 10)
    done = orjson.loads(orjson.loads((tmp_path / "out.jsonl.checkpoint").read_bytes())["checkpoint"])
    info, content = given.stat(), bytearray(given.read_bytes())
    content[done["reached"]["place"]["offset"] + 11] ^= 1
    given.write_bytes(content)
    os.utime(given, ns=(info.st_atime_ns, info.st_mtime_ns))
    with pytest.raises(RefusedError, match="records of the input are not those already processed"):
        go(plan)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("at", [2, 9, 20])
def test_a_query_that_returns_is_known_after_a_resume_too(tmp_path, begun_at, suffix, at):
    table = pairs(tmp_path, suffix)
    options = {"format": OutputFormat.PAIRS, "on_error": OnError.EMIT}
    whole, _ = go(config(table, tmp_path / "whole.jsonl", **options))
    plan = config(table, tmp_path / "out.jsonl", **options)
    kill(plan, at)
    resumed, _ = go(plan)
    assert begun_at[-1].rows > 0
    assert resumed.stats.rejected == whole.stats.rejected == 2
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert names(tmp_path) == [f"in.{suffix}", "out.jsonl", "whole.jsonl"]


@pytest.mark.parametrize("damage", ["missing", "flipped"])
def test_without_its_log_of_queries_a_table_of_pairs_is_read_from_its_beginning(tmp_path, begun_at, damage):
    table = pairs(tmp_path, "jsonl")
    options = {"format": OutputFormat.PAIRS, "on_error": OnError.EMIT}
    go(config(table, tmp_path / "whole.jsonl", **options))
    plan = config(table, tmp_path / "out.jsonl", **options)
    kill(plan, 9)
    log = tmp_path / "out.jsonl.queries"
    content = bytearray(log.read_bytes())
    content[5] ^= 1
    log.unlink() if damage == "missing" else log.write_bytes(content)
    for dies_at in (9, None):
        begun_at.clear()
        kill(plan, dies_at) if dies_at else go(plan)
        assert (begun_at[-1].rows == 0) == (dies_at is not None)
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "out.parquet"])
def test_the_same_command_after_the_end_has_nothing_to_do(given, tmp_path, name):
    plan = config(given, tmp_path / name, summary=str(tmp_path / "figures.json"))
    again(plan)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    summary, session = again(plan)
    assert (summary.nothing_to_do, summary.interrupted, session.calls) == (True, None, 0)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("change", ["settings", "limit", "input", "output", "revision", "attributes"])
def test_an_output_that_something_else_made_is_refused(given, tmp_path, change, monkeypatch):
    output = tmp_path / "out.jsonl"
    again(config(given, output))
    plan = config(given, output, **{"settings": {"top_n": 1}, "limit": {"limit": 3}}.get(change, {}))
    if change == "input":
        os.utime(given, (1, 1))
    if change == "output":
        with output.open("ab") as file:
            file.write(b"more")
    if change == "attributes":
        monkeypatch.delattr(os, "listxattr")
    model_revision = (lambda _: "r2") if change == "revision" else revision
    before = output.read_bytes()
    with pytest.raises(RefusedError, match=r"exists already. Fix: --overwrite"):
        run(plan, lambda _: InstantSession(), model_revision)
    assert output.read_bytes() == before


@pytest.mark.parametrize("how", [{"overwrite": True}, {"overwrite": True, "resume": Resume.NEVER}])
def test_overwrite_does_a_complete_output_again(given, tmp_path, how):
    again(config(given, tmp_path / "out.jsonl"))
    _, session = again(config(given, tmp_path / "out.jsonl", **how))
    assert session.calls > 0


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
@pytest.mark.parametrize("more", [{}, {"overwrite": True}])
def test_a_run_that_was_killed_before_it_could_tidy_up_is_complete(given, tmp_path, monkeypatch, name, more):
    monkeypatch.delattr(os, "setxattr")
    plan = config(given, tmp_path / name, **more)
    with monkeypatch.context() as patch:
        patch.setattr(OutputState, "forget", lambda self: self.checkpoint.exists() and _die())
        with pytest.raises(Killed):
            again(plan)
    assert (tmp_path / f"{name}.checkpoint").exists()
    summary, session = again(plan)
    assert (summary.nothing_to_do, session.calls) == (True, 0)
    assert names(tmp_path) == ["in.jsonl", name]


@pytest.mark.parametrize("more", [{}, {"overwrite": True}])
def test_an_input_that_changed_after_such_a_kill_is_not_taken_for_done(given, tmp_path, monkeypatch, more):
    plan = config(given, tmp_path / "out.jsonl", **more)
    with monkeypatch.context() as patch:
        patch.setattr(OutputState, "forget", lambda self: self.checkpoint.exists() and _die())
        with pytest.raises(Killed):
            again(plan)
    with given.open("ab") as file:
        file.write(b'{"query": "new", "documents": ["d"]}\n')
    if more:
        again(plan)
        assert len((tmp_path / "out.jsonl").read_bytes().splitlines()) == RECORDS + 1
    else:
        with pytest.raises(RefusedError, match="exists already"):
            again(plan)


def _die():
    raise Killed


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_a_run_that_was_killed_before_it_could_rename_goes_on(given, tmp_path, monkeypatch, name):
    whole = tmp_path / f"whole-{name}"
    again(config(given, whole))
    plan = config(given, tmp_path / name)
    replace = os.replace
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", lambda old, new: _die() if new == tmp_path / name else replace(old, new))
        with pytest.raises(Killed):
            again(plan)
    summary, session = again(plan)
    assert (summary.nothing_to_do, session.calls) == (False, 0)
    assert (tmp_path / name).read_bytes() == whole.read_bytes()
    assert names(tmp_path) == sorted(["in.jsonl", name, whole.name])


class Pipe(io.BytesIO):
    def close(self):
        pass


def test_a_stream_with_a_checkpoint_writes_only_the_rest(given, tmp_path):
    go(config(given, tmp_path / "whole.jsonl"))
    kept = tmp_path / "kept.checkpoint"
    first, second = Pipe(), Pipe()
    kill(config(given, "-", stdout=first, checkpoint=str(kept)), 7)
    assert kept.exists()
    go(config(given, "-", stdout=second, checkpoint=str(kept)))
    assert first.getvalue()
    assert first.getvalue() + second.getvalue() == (tmp_path / "whole.jsonl").read_bytes()
    assert names(tmp_path) == ["in.jsonl", "whole.jsonl"]


def test_a_stream_in_and_out_with_a_checkpoint(given, tmp_path, monkeypatch):
    go(config(given, tmp_path / "whole.jsonl"))
    written = b""
    for dies_at in (7, None):
        with given.open("rb") as stdin, monkeypatch.context() as patch:
            patch.setattr("sys.stdin", type("Stdin", (), {"buffer": stdin, "fileno": stdin.fileno}))
            out = Pipe()
            plan = config("-", "-", stdout=out, checkpoint=str(tmp_path / "kept"))
            kill(plan, dies_at) if dies_at else go(plan)
            written += out.getvalue()
    assert written == (tmp_path / "whole.jsonl").read_bytes()


def test_a_file_that_is_no_checkpoint_is_not_taken_for_one(given, tmp_path):
    dear = tmp_path / "dear.json"
    dear.write_text('{"dear": "to somebody"}')
    with pytest.raises(RefusedError, match="not a checkpoint of rerank"):
        go(config(given, tmp_path / "out.jsonl", checkpoint=str(dear), resume=Resume.NEVER))
    assert dear.read_text() == '{"dear": "to somebody"}'


def test_a_checkpoint_may_be_kept_elsewhere(given, tmp_path):
    plan = config(given, tmp_path / "out.jsonl", checkpoint=str(tmp_path / "kept"))
    kill(plan, 7)
    assert names(tmp_path) == ["in.jsonl", "kept", "out.jsonl.partial"]
    assert go(plan)[0].stats.resumed_records > 0
    assert names(tmp_path) == ["in.jsonl", "out.jsonl"]


def test_a_checkpoint_of_another_version_is_refused_by_name(given, tmp_path):
    plan = config(given, tmp_path / "out.jsonl")
    kill(plan, 5)
    kept = tmp_path / "out.jsonl.checkpoint"
    kept.write_bytes(kept.read_bytes().replace(b"checkpoint 2", b"checkpoint 3", 1))
    with pytest.raises(RefusedError, match=r"written by another version of rerank \(rerank checkpoint 3\)"):
        go(plan)


def test_the_clock_stops_a_run_whose_work_is_kept(given, tmp_path):
    class Slow(InstantSession):
        def score(self, prepared, *_):
            time.sleep(0.02)
            return super().score(prepared)

    plan = config(given, tmp_path / "out.jsonl", max_duration=0.15)
    summary, stop = run(plan, lambda _: Slow())
    assert (summary.interrupted, summary.exit_reason, stop.signal) == ("max-duration", "max-duration", None)
    assert 0 < summary.stats.records < RECORDS
    go(config(given, tmp_path / "out.jsonl"))
    go(config(given, tmp_path / "whole.jsonl"))
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_limit_below_what_is_done_is_refused(given, tmp_path):
    kill(config(given, tmp_path / "out.jsonl"), 10)
    with pytest.raises(RefusedError, match=r"--limit 2: \d+ records are done already"):
        go(config(given, tmp_path / "out.jsonl", limit=2))
    go(config(given, tmp_path / "out.jsonl", limit=50))
    assert len((tmp_path / "out.jsonl").read_bytes().splitlines()) == 50


@pytest.mark.slow
@pytest.mark.parametrize("on_error", [OnError.FAIL, OnError.SKIP])
def test_an_input_that_is_cut_while_it_is_read_ends_the_run_and_work_is_kept(tmp_path, on_error):
    records = [{"query": f"q{i}", "documents": ["a", f"{i} " + "long " * 400, "c"]} for i in range(3600)]
    given = write(tmp_path / "in.jsonl", records)
    content = given.read_bytes()

    class PassageRule(InstantSession):
        def score(self, prepared, *_):
            if self.calls == 3:
                os.truncate(given, len(content) // 2 + 10)
            return super().score(prepared)

    plan = config(given, tmp_path / "out.jsonl", on_error=on_error, chunk_pairs=90)
    with pytest.raises(Exception, match=r"was cut while it was read|cut off") as caught:
        go(plan, PassageRule())
    assert caught.value.exit_code == 4
    assert not (tmp_path / "out.jsonl").exists()
    given.write_bytes(content)
    resumed, _ = go(plan)
    assert (resumed.stats.rejected, resumed.stats.records) == (0, 3600)
    assert resumed.stats.resumed_records > 0


def test_inputs_in_several_files_go_on_in_the_file_at_hand(tmp_path, begun_at):
    paths = [
        str(write(tmp_path / f"{n}.jsonl", [{"query": f"q{n}{i}", "documents": ["a", "b"]} for i in range(20)]))
        for n in range(3)
    ]

    def several(name):
        plan = config(paths[0], tmp_path / name)
        return type(plan)(ModelOptions("instant"), InputOptions(tuple(paths)), plan.output, progress=plan.progress)

    go(several("whole.jsonl"))
    kill(several("out.jsonl"), 8)
    begun_at.clear()
    go(several("out.jsonl"))
    assert [place.file for place in begun_at] == [0, 1, 2]
    assert begun_at[1].rows > 0
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
