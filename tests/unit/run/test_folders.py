"""An output folder: a file for each input file, done once, and said to be complete when it is."""

import hashlib
import json
import os
import threading
import time
from dataclasses import replace

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from instant import InstantSession, Killed, config, go, names

from rerank_cli.choices import OnChanged, OnError, OutputFormat, Resume
from rerank_cli.errors import ChangedError, HeldError, InputError, RefusedError, UsageError
from rerank_cli.evaluation.same_pass import QrelsOptions
from rerank_cli.formats import InputOptions
from rerank_cli.inspection.folder_status import folder_status, is_folder_job
from rerank_cli.run.folders.inputs import find_items, output_name
from rerank_cli.run.folders.job import run_folder
from rerank_cli.run.folders.state import FolderState
from rerank_cli.storage.lease import Worker


def lines(first, count):
    documents = ["one", "two", "three"]
    rows = [{"id": f"{first}-{n}", "query": f"query {first} {n}", "documents": documents} for n in range(count)]
    return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)


@pytest.fixture
def given(tmp_path):
    """Five files in folders as Hive lays them out, among things that are not inputs."""
    folder = tmp_path / "in"
    for name, count in (
        ("day=1/a.jsonl", 9),
        ("day=1/b.jsonl", 2),
        ("day=2/a.jsonl", 5),
        ("c.jsonl", 1),
        ("d.jsonl", 3),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(lines(name, count))
    for name in ("_SUCCESS", "day=1/_metadata", ".hidden.jsonl", "day=1/.a.jsonl.crc", "c.jsonl.lock", "x.checkpoint"):
        (folder / name).write_bytes(b"no data")
    (folder / "_temporary").mkdir()
    (folder / "_temporary" / "e.jsonl").write_bytes(lines("e", 1))
    return folder


INPUTS = ["c.jsonl", "d.jsonl", "day=1/a.jsonl", "day=1/b.jsonl", "day=2/a.jsonl"]


def plan(given, out, **options):
    return config(given, f"{out}/", **options)


def work(plan, session=None, **more):
    """Run with a session of which the calls are counted."""
    session = session or InstantSession()
    summary, _ = run_folder(plan, lambda _: session, lambda _: "r1", signals=False, **more)
    return summary, session


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def same_as_single_runs(given, out, tmp_path, inputs=INPUTS):
    for name in inputs:
        alone = tmp_path / "alone.jsonl"
        go(config(given / name, alone, overwrite=True))
        assert (out / name).read_bytes() == alone.read_bytes(), name


def test_every_file_has_its_output_with_the_bytes_of_a_single_run_and_nothing_else_is_left(given, tmp_path):
    out, opened = tmp_path / "out", []
    session = InstantSession()
    summary, _ = run_folder(plan(given, out), lambda m: opened.append(m) or session, lambda _: "r1", signals=False)
    assert files(out) == sorted([*INPUTS, "_SUCCESS", "_manifest.json"])
    assert not (out / "_rerank").exists()
    assert len(opened) == 1
    same_as_single_runs(given, out, tmp_path)
    manifest = json.loads((out / "_manifest.json").read_bytes())
    assert [file["output"] for file in manifest["files"]] == INPUTS
    assert [file["records"] for file in manifest["files"]] == [1, 3, 9, 2, 5]
    for file in manifest["files"]:
        assert file["sha256"] == hashlib.sha256((out / file["output"]).read_bytes()).hexdigest()
        assert file["pairs"] == 3 * file["records"]
    assert (summary.exit_reason, summary.files, summary.stats.files) == ("finished", 5, 5)
    assert summary.as_json()["this_process"]["pairs"] == 60
    assert manifest["totals"] | {"bytes": 0} == {"records": 20, "pairs": 60, "rejected": 0, "bytes": 0}


def test_the_same_command_again_does_nothing_and_a_new_file_renews_the_manifest(given, tmp_path):
    out = tmp_path / "out"
    work(plan(given, out))
    before = {name: (out / name).stat().st_mtime_ns for name in files(out)}
    summary, session = work(plan(given, out))
    assert (summary.nothing_to_do, session.calls) == (True, 0)
    assert {name: (out / name).stat().st_mtime_ns for name in files(out)} == before
    (given / "later.jsonl").write_bytes(lines("later", 2))
    summary, session = work(plan(given, out))
    assert (summary.nothing_to_do, summary.stats.files, summary.files) == (False, 1, 6)
    assert len(json.loads((out / "_manifest.json").read_bytes())["files"]) == 6
    assert (out / "day=1" / "a.jsonl").stat().st_mtime_ns == before["day=1/a.jsonl"]


def test_without_extended_attributes_the_records_tell_what_is_done(given, tmp_path, monkeypatch):
    monkeypatch.delattr(os, "setxattr", raising=False)
    monkeypatch.delattr(os, "getxattr", raising=False)
    work(plan(given, tmp_path / "out"))
    assert work(plan(given, tmp_path / "out"))[0].nothing_to_do


def test_a_changed_input_is_told_and_done_anew_on_request(given, tmp_path):
    out = tmp_path / "out"
    work(plan(given, out))
    (given / "d.jsonl").write_bytes(lines("other", 4))
    with pytest.raises(RefusedError, match=r"4 of 5 files done, 1 failed: .*d\.jsonl: has changed since .*on-changed"):
        work(plan(given, out))
    assert not (out / "_SUCCESS").exists()
    summary, _ = work(plan(given, out, on_changed=OnChanged.RESTART))
    assert (summary.stats.files, summary.failures) == (1, ())
    same_as_single_runs(given, out, tmp_path)
    assert (out / "_SUCCESS").exists()


def test_an_output_that_was_edited_or_is_of_unknown_origin_is_refused(given, tmp_path):
    out = tmp_path / "out"
    work(plan(given, out))
    (out / "c.jsonl").write_bytes(b"edited")
    with pytest.raises(RefusedError, match=r"c\.jsonl: is not the file that was written \(got 6 bytes"):
        work(plan(given, out))
    (out / "c.jsonl").unlink()
    assert work(plan(given, out))[0].stats.files == 1
    other = tmp_path / "other"
    other.mkdir()
    (other / "c.jsonl").write_bytes(b"of someone")
    with pytest.raises(RefusedError, match=r"c\.jsonl: exists already"):
        work(plan(given, other))
    assert work(plan(given, other, overwrite=True))[0].stats.files == 1
    same_as_single_runs(given, other, tmp_path)


def test_other_settings_or_inputs_are_refused_and_may_start_over(given, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(Killed):
        work(plan(given, out), InstantSession(dies_at=3))
    assert folder_status(str(out)).state == "stopped"
    with pytest.raises(ChangedError, match=r"started with other settings.*top n None → 2"):
        work(plan(given, out, top_n=2))
    with pytest.raises(ChangedError, match="started with other inputs"):
        work(plan(given / "day=1", out))
    summary, _ = work(plan(given, out, top_n=2, on_changed=OnChanged.RESTART))
    assert (summary.stats.files, len(summary.done)) == (5, 5)
    with pytest.raises(RefusedError, match=r"complete, but made with other settings \(top n 2 → None\)"):
        work(plan(given, out))
    assert work(plan(given, out, overwrite=True))[0].stats.files == 5
    same_as_single_runs(given, out, tmp_path)


def test_restart_discards_what_is_done_unless_another_process_works(given, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(Killed):
        work(plan(given, out), InstantSession(dies_at=6))
    with pytest.raises(RefusedError, match="no unfinished job"):
        work(plan(given, tmp_path / "new", resume=Resume.REQUIRE))
    with Worker(FolderState(out).own).present(), pytest.raises(HeldError, match="cannot start over while process"):
        work(plan(given, out, resume=Resume.NEVER))
    summary, _ = work(plan(given, out, resume=Resume.NEVER))
    assert summary.stats.files == 5
    same_as_single_runs(given, out, tmp_path)


def test_a_file_that_cannot_be_read_does_not_stop_the_others(given, tmp_path):
    out = tmp_path / "out"
    (given / "day=1" / "bad.jsonl").write_bytes(lines("x", 2) + b"{\n")
    (given / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"5 of 7 files done, 2 failed: .*bad\.jsonl:3: .*\(and 1 more"):
        work(plan(given, out))
    same_as_single_runs(given, out, tmp_path)
    assert not (out / "_SUCCESS").exists()
    found = folder_status(str(out))
    assert (found.state, found.done, found.files) == ("stopped", 5, 7)
    assert [failure.output for failure in found.failed] == ["day=1/bad.jsonl", "gone.jsonl"]
    (given / "gone.jsonl").unlink()
    (given / "day=1" / "bad.jsonl").write_bytes(lines("x", 2))
    assert work(plan(given, out))[0].exit_reason == "finished"
    assert (out / "_SUCCESS").exists()


def test_bad_records_are_counted_and_collected_by_file(given, tmp_path):
    out, errors = tmp_path / "out", tmp_path / "errors"
    (given / "c.jsonl").write_bytes(lines("x", 2) + b"{\n")
    summary, _ = work(plan(given, out, on_error=OnError.SKIP, errors=f"{errors}/"))
    assert (summary.exit_reason, summary.rejected) == ("rejected", 1)
    assert files(errors) == [f"{name}.jsonl" for name in INPUTS]
    assert len((errors / "c.jsonl.jsonl").read_bytes().splitlines()) == 1
    again, _ = work(plan(given, out, on_error=OnError.SKIP, errors=f"{errors}/"))
    assert (again.nothing_to_do, again.rejected) == (True, 1)


def test_files_of_several_formats_keep_theirs_as_far_as_it_is_written(tmp_path):
    given, out = tmp_path / "in", tmp_path / "out"
    given.mkdir()
    (given / "a.jsonl").write_bytes(lines("a", 2))
    pairs = pa.table({"query": ["q", "q"], "text": ["one", "two"]})
    pq.write_table(pairs, given / "b.parquet")
    (given / "c.csv").write_bytes(b"query,text\nq,one\nq,two\n")
    summary, _ = work(plan(given, out))
    assert [record.output for record in summary.done] == ["a.jsonl", "b.parquet", "c.jsonl"]
    assert pq.read_table(out / "b.parquet").num_rows == 1
    names_in_pairs = work(plan(given, tmp_path / "pairs", format=OutputFormat.PAIRS))[0].done
    assert [record.output for record in names_in_pairs] == ["a.jsonl", "b.parquet", "c.csv"]


@pytest.mark.parametrize(
    ("name", "format", "expected"),
    [
        ("a/b.jsonl.gz", "api", "a/b.jsonl.gz"),
        ("b.csv.gz", "api", "b.jsonl.gz"),
        ("b.arrow", "api", "b.parquet"),
        ("part-0", "api", "part-0"),
        ("b.trec", "api", "b.jsonl"),
        ("b.trec", "trec", "b.trec"),
        ("b.jsonl.zst", "trec", "b.trec.zst"),
        ("b.parquet", "beir", "b.json"),
        ("b.tsv", "msmarco", "b.tsv"),
        ("b.v2.data", "trec", "b.v2.data.trec"),
    ],
)
def test_the_suffix_of_an_output(name, format, expected):
    assert output_name(name, OutputFormat(format)) == expected


def test_patterns_name_outputs_after_their_first_wildcard(given, tmp_path):
    def found(*patterns):
        options = InputOptions(tuple(str(given / pattern) for pattern in patterns))
        return [item.output for item in find_items(replace(plan(given, tmp_path / "out"), input=options))]

    assert found("*.jsonl") == ["c.jsonl", "d.jsonl"]
    assert found("**/a.jsonl") == ["day=1/a.jsonl", "day=2/a.jsonl"]
    assert found("**") == INPUTS
    assert found("day=*") == INPUTS[2:]
    assert found("day=1/*.jsonl") == ["a.jsonl", "b.jsonl"]
    assert found("c.jsonl", "day=2") == ["a.jsonl", "c.jsonl"]
    with pytest.raises(UsageError, match=r"day=1/a\.jsonl and .*day=2/a\.jsonl would both be written to"):
        found("day=1", "day=2")
    with pytest.raises(InputError, match="no file matches"):
        found("*.gone")
    with pytest.raises(InputError, match="there is no such file"):
        found("gone.jsonl")
    (given / "[x].jsonl").write_bytes(lines("x", 1))
    assert found("[x].jsonl") == ["[x].jsonl"]


def test_an_output_folder_inside_the_input_is_no_input_and_the_input_itself_is_refused(given):
    work(plan(given, given / "out"))
    assert files(given / "out") == sorted([*INPUTS, "_SUCCESS", "_manifest.json"])
    assert work(plan(given, given / "out"))[0].nothing_to_do
    with pytest.raises(RefusedError, match="would be written while it is read"):
        work(plan(given, given))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoint": "c"}, "--checkpoint: in an output folder each file has its own"),
        ({"qrels": QrelsOptions("q")}, "--qrels measures one output"),
        ({"errors": "e.jsonl", "on_error": OnError.SKIP}, r"--errors e\.jsonl: with an output folder this is a folder"),
        ({"errors": "e/"}, "--errors needs --on-error"),
        ({"verify_tolerance": 1.0}, "--verify-tolerance needs --verify"),
    ],
)
def test_options_that_do_not_work_with_a_folder_are_refused(given, tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        work(plan(given, tmp_path / "out", **options))
    assert not (tmp_path / "out").exists()


def test_several_processes_do_every_file_once(given, tmp_path):
    out, sessions = tmp_path / "out", [InstantSession() for _ in range(4)]
    summaries = []
    threads = [
        threading.Thread(target=lambda session=session: summaries.append(work(plan(given, out), session)[0]))
        for session in sessions
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = InstantSession()
    work(plan(given, tmp_path / "alone"), alone)
    assert sum(session.calls for session in sessions) == alone.calls
    assert [summary.exit_reason for summary in summaries] == ["finished"] * 4
    assert sum(summary.stats.files for summary in summaries) == 5
    same_as_single_runs(given, out, tmp_path)
    assert files(out) == sorted([*INPUTS, "_SUCCESS", "_manifest.json"])


def test_another_model_or_device_is_refused(given, tmp_path):
    class Half(InstantSession):
        facts = replace(InstantSession.facts, dtype="fp16")

    with pytest.raises(Killed):
        work(plan(given, tmp_path / "out"), InstantSession(dies_at=2))
    with pytest.raises(RefusedError, match=r"made with another model or device \(dtype fp32 → fp16\)"):
        work(plan(given, tmp_path / "out"), Half())
    assert work(plan(given, tmp_path / "out"))[0].exit_reason == "finished"


def test_max_duration_stops_between_files_and_the_same_command_goes_on(given, tmp_path):
    summary, _ = work(plan(given, tmp_path / "out", max_duration=1e-9))
    assert (summary.exit_reason, summary.stats.files) == ("max-duration", 0)
    assert is_folder_job(str(tmp_path / "out")) or not list((tmp_path / "out").iterdir())
    assert work(plan(given, tmp_path / "out"))[0].exit_reason == "finished"


def test_a_limit_and_a_summary_hold_for_a_folder(given, tmp_path):
    path = tmp_path / "summary.json"
    summary, _ = work(plan(given, tmp_path / "out", limit=2, summary=str(path)))
    assert [record.records for record in summary.done] == [1, 2, 2, 2, 2]
    found = json.loads(path.read_bytes())
    assert (found["files"], found["files_done"], found["records"], found["exit_reason"]) == (5, 5, 9, "finished")
    assert names(tmp_path) == ["in", "out", "summary.json"]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_process_that_was_only_asleep_leaves_the_file_to_the_one_that_took_it_over(tmp_path, suffix):
    """The sleeper is of another machine, whose locks are not seen here; it wakes up when the other has finished."""
    given, out, alone = tmp_path / "in", tmp_path / "out", tmp_path / f"alone.{suffix}"
    given.mkdir()
    table = pa.table({"query": [f"q{n // 3}" for n in range(60)], "text": [f"text {n}" for n in range(60)]})
    if suffix == "parquet":
        pq.write_table(table, given / "a.parquet")
    else:
        (given / "a.jsonl").write_bytes(lines("a", 20))
    undisturbed = go(config(given / f"a.{suffix}", alone))[1].calls
    own = FolderState(out).own
    sleeper, woken = Worker(own, machine="elsewhere"), []

    class Sleeps(InstantSession):
        def score(self, prepared, *rest):
            if self.calls == 3:
                while not (out / f"a.{suffix}.checkpoint").exists():  # another thread writes it
                    time.sleep(0.001)
                path = own.path / "workers" / sleeper.token
                kept = path.read_bytes()
                path.unlink()  # so that its lock is not seen
                path.write_bytes(kept)
                os.utime(path, (1e9, 1e9))
                (out / f"a.{suffix}.lock").unlink()
                woken.append(work(plan(given, out)))
            return super().score(prepared, *rest)

    asleep, _ = work(plan(given, out), Sleeps(), worker=sleeper)
    (awake, session), (record,) = woken[0], asleep.done
    assert (awake.stats.files, asleep.stats.files, asleep.exit_reason) == (1, 0, "finished")
    assert 0 < session.calls < undisturbed
    assert record.records == 20
    if suffix == "parquet":
        assert pq.read_table(out / "a.parquet").equals(pq.read_table(alone))
    else:
        assert (out / "a.jsonl").read_bytes() == alone.read_bytes()
    assert files(out) == sorted([f"a.{suffix}", "_SUCCESS", "_manifest.json"])
