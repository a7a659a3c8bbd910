"""Runs with input, output and checkpoint in a bucket: the bytes of a local run, whatever happens meanwhile."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

sys.path.append(str(Path(__file__).parents[1] / "unit" / "run"))

from instant import InstantSession, Killed, config
from s3_server import FaultyProxy

from rerank_cli.choices import OnError, Resume
from rerank_cli.errors import ChangedError, InputError, OutputError, RefusedError
from rerank_cli.inspection.status import status_of
from rerank_cli.run.job import run
from rerank_cli.run.recovery.lease import Lease
from rerank_cli.storage.objects import remote_file, stores
from rerank_cli.storage.objects.buckets import ObjectStore
from rerank_cli.storage.opening import open_bytes
from rerank_cli.storage.outputs import publish

VICTIM = Path(__file__).with_name("victim.py")


def lines(count=40, documents=5, words=1):
    records = (
        {"id": i, "query": f"query {i}", "documents": [f"document {i} {j} " * words for j in range(documents)]}
        for i in range(count)
    )
    return b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records)


def go(plan, dies_at=None):
    return run(plan, lambda _: InstantSession(dies_at), lambda _: "r1")[0]


def whole(tmp_path, data, name="whole.jsonl", **options):
    """The output of a local run."""
    given = tmp_path / "given.jsonl"
    given.write_bytes(data)
    go(config(given, tmp_path / name, **options))
    return (tmp_path / name).read_bytes()


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.zst", "out.parquet"])
def test_an_output_in_a_bucket_has_the_bytes_of_a_local_one(bucket, tmp_path, name):
    expected = whole(tmp_path, lines(), f"whole{name[3:]}")
    bucket.put("in.jsonl.gz", gzip.compress(lines()))
    assert go(config(bucket / "in.jsonl.gz", bucket / name)).exit_reason == "finished"
    assert bucket.get(name) == expected
    assert go(config(bucket / "in.jsonl.gz", bucket / name)).nothing_to_do
    bucket.put("in.jsonl.gz", gzip.compress(lines(41)))
    with pytest.raises(RefusedError, match=r"^s3://.*: exists already. Fix: --overwrite"):
        go(config(bucket / "in.jsonl.gz", bucket / name))
    assert bucket.keys() == ["in.jsonl.gz", name]
    assert list((tmp_path / "state" / "rerank").iterdir()) == []


def test_parquet_is_read_by_ranges(bucket, tmp_path):
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist([orjson.loads(line) for line in lines(100).splitlines()])
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=50)
    (tmp_path / "in.parquet").write_bytes(file.getvalue())
    go(config(tmp_path / "in.parquet", tmp_path / "out.parquet", commit_interval=9))
    bucket.put("in.parquet", file.getvalue())
    go(config(bucket / "in.parquet", bucket / "out.parquet", commit_interval=9))
    assert bucket.get("out.parquet") == (tmp_path / "out.parquet").read_bytes()


def test_without_a_checkpoint_in_the_bucket_a_run_goes_on_on_the_same_machine(bucket, tmp_path):
    expected = whole(tmp_path, lines())
    bucket.put("in.jsonl", lines())
    plan = config(bucket / "in.jsonl", bucket / "out.jsonl")
    with pytest.raises(Killed):
        go(plan, dies_at=7)
    assert bucket.keys() == ["in.jsonl"]
    assert status_of(bucket / "out.jsonl").state == "stopped"
    summary = go(plan)
    assert summary.stats.resumed_records == 7
    assert bucket.get("out.jsonl") == expected


def test_a_run_whose_disk_is_lost_goes_on_elsewhere(bucket, tmp_path):
    data = lines(30) + b"no record\n" + lines(10)
    more = {"on_error": OnError.SKIP}
    expected = whole(tmp_path, data, errors=str(tmp_path / "errors.jsonl"), **more)
    bucket.put("in.jsonl", data)
    more |= {"errors": bucket / "errors.jsonl", "checkpoint": bucket / "check"}
    plan = config(bucket / "in.jsonl", bucket / "out.jsonl", **more)
    with pytest.raises(Killed):
        go(plan, dies_at=33)
    found = status_of(bucket / "out.jsonl", bucket / "check")
    assert (found.state, found.checkpoint.records) == ("stopped", 34)
    shutil.rmtree(tmp_path / "state")
    found = status_of(bucket / "out.jsonl", bucket / "check")
    assert (found.state, found.checkpoint.records) == ("stopped", 34)
    assert go(plan).stats.resumed_records == 34
    assert bucket.get("out.jsonl") == expected
    errors = [json.loads(line) for line in bucket.get("errors.jsonl").splitlines()]
    assert [(error["line"], error["path"]) for error in errors] == [(31, bucket / "in.jsonl")]
    assert bucket.keys() == ["errors.jsonl", "in.jsonl", "out.jsonl"]


def test_a_disk_that_was_left_behind_is_not_trusted(bucket, tmp_path, monkeypatch):
    expected = whole(tmp_path, lines())
    bucket.put("in.jsonl", lines())
    plan = config(bucket / "in.jsonl", bucket / "out.jsonl", checkpoint=bucket / "check")
    for disk, dies_at in (("state", 5), ("another", 8), ("state", 4)):
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / disk))
        with pytest.raises(Killed):
            go(plan, dies_at)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
    assert go(plan).stats.resumed_records == 17
    assert bucket.get("out.jsonl") == expected
    assert bucket.keys() == ["in.jsonl", "out.jsonl"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_a_run_killed_at_requests_to_the_store_loses_nothing_and_leaves_nothing(bucket, tmp_path, name):
    """Every kill is followed by a start, every other on an empty disk. The kills wander through all requests."""
    data = lines(12) + b"bad\n" + lines(12)
    expected = whole(tmp_path, data, f"whole{name[3:]}", on_error=OnError.SKIP, chunk_pairs=12)
    bucket.put("in.jsonl", data)
    asked = {"input": bucket / "in.jsonl", "output": bucket / name, "errors": bucket / "errors.jsonl"}

    def victim(dies_at, disk):
        given = json.dumps({**asked, "checkpoint": bucket / "check", "dies_at": dies_at})
        env = os.environ | {"XDG_STATE_HOME": str(tmp_path / disk)}
        return subprocess.run([sys.executable, VICTIM, given], env=env, capture_output=True, text=True, timeout=60)

    steps = int(victim(0, "first").stdout)
    assert bucket.get(name) == expected
    for number, dies_at in enumerate(range(3, steps, max(1, steps // 5))):
        bucket.server.request("DELETE", f"{bucket.name}/{name}")
        ended = victim(dies_at, f"disk-{number}")
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        ended = victim(0, f"disk-{number}" + "-new" * (number % 2))
        assert ended.returncode == 0, ended.stderr
        assert bucket.get(name) == expected, f"killed at step {dies_at} of {steps}"
        assert bucket.keys() == ["errors.jsonl", "in.jsonl", name], f"killed at step {dies_at} of {steps}"


def test_a_job_goes_on_when_the_store_fails_and_connections_break(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_file, "BLOCK_BYTES", 1 << 16)
    data = lines(200, words=50)
    expected = whole(tmp_path, data)
    bucket.put("in.jsonl", data)
    proxy = FaultyProxy(bucket.server.port, share=0.3, seed=5)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    stores._bucket.cache_clear()
    try:
        options = {"checkpoint": bucket / "check", "commit_interval": 0.05}
        go(config(bucket / "in.jsonl", bucket / "out.jsonl", **options))
    finally:
        proxy.stop()
    assert proxy.faults > 5
    assert bucket.get("out.jsonl") == expected
    assert bucket.keys() == ["in.jsonl", "out.jsonl"]


def test_a_resume_reads_from_the_byte_it_needs(bucket, monkeypatch):
    monkeypatch.setattr(remote_file, "BLOCK_BYTES", 1 << 14)
    data = lines(400, words=20)
    bucket.put("in.jsonl", data)
    with pytest.raises(Killed):
        go(config(bucket / "in.jsonl", bucket / "out.jsonl"), dies_at=300)
    seen, read = [], ObjectStore.read
    monkeypatch.setattr(
        ObjectStore, "read", lambda self, key, *rest: seen.append((key, rest[0])) or read(self, key, *rest)
    )
    go(config(bucket / "in.jsonl", bucket / "out.jsonl"))
    starts = sorted({start for key, start in seen if key == "in.jsonl"})
    # The beginning shows the format; the reading ahead from there is dropped.
    assert not [start for start in starts if 6 << 14 < start < len(data) * 0.7]
    assert starts[-1] > len(data) * 0.9


def test_another_version_of_the_input_is_a_changed_input(bucket):
    bucket.put("in.jsonl", lines())
    plan = config(bucket / "in.jsonl", bucket / "out.jsonl")
    with pytest.raises(Killed):
        go(plan, dies_at=7)
    bucket.put("in.jsonl", lines().replace(b"query 0", b"query zero"))
    with pytest.raises(ChangedError, match="the first 7 records of the input are not those already processed"):
        go(plan)
    bucket.put("in.jsonl", lines() + lines(1))  # longer, and the same so far
    assert go(plan).stats.records == 41


def test_an_object_that_changes_while_it_is_read_is_an_error(bucket, monkeypatch):
    monkeypatch.setattr(remote_file, "BLOCK_BYTES", 1 << 12)
    bucket.put("in.jsonl", lines(2000))
    with open_bytes(bucket / "in.jsonl").content as content:
        content.read(100)
        bucket.put("in.jsonl", lines(2001))
        with pytest.raises(InputError, match=r"in.jsonl: cannot be read: was changed while it was read. Fix: run"):
            content.read()


def test_an_upload_that_fails_leaves_nothing_in_the_bucket_and_is_tried_again_by_the_next_run(
    bucket, tmp_path, monkeypatch
):
    big = tmp_path / "out.jsonl.partial"
    with big.open("wb") as file:
        file.truncate(20 << 20)
    publish(big, bucket / "big.jsonl", {"run": "r"})  # in parts
    assert bucket.server.request("GET", f"{bucket.name}/big.jsonl") == bytes(20 << 20)
    bucket.put("in.jsonl", lines())
    plan = config(bucket / "in.jsonl", bucket / "out.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "upload", lambda *_: (_ for _ in ()).throw(OSError("access is denied")))
        with pytest.raises(OutputError, match=r"^s3://.*/out.jsonl: cannot be written: access is denied$"):
            go(plan)
    assert bucket.keys() == ["big.jsonl", "in.jsonl"]
    summary = go(plan)
    assert (summary.stats.resumed_records, summary.stats.records) == (40, 40)
    assert bucket.get("out.jsonl") == whole(tmp_path, lines())


def test_restart_begins_anew(bucket):
    bucket.put("in.jsonl", lines())
    plan = config(bucket / "in.jsonl", bucket / "out.jsonl", checkpoint=bucket / "check")
    with pytest.raises(Killed):
        go(plan, dies_at=7)
    plan = config(bucket / "in.jsonl", bucket / "out.jsonl", checkpoint=bucket / "check", resume=Resume.NEVER)
    assert go(plan).stats.resumed_records == 0
    assert bucket.keys() == ["in.jsonl", "out.jsonl"]


class TestLease:
    """Two runs of one output."""

    def test_a_live_one_is_respected(self, bucket):
        with (
            Lease(bucket / "out.lock", "out").held(),
            pytest.raises(RefusedError, match=rf"^out: being written by process {os.getpid()} on .*Fix: wait"),
            Lease(bucket / "out.lock", "out").held(),
        ):
            pass
        assert bucket.keys() == []

    @pytest.mark.parametrize("renewed", [False, True])
    def test_one_of_another_machine_is_taken_over_when_it_gives_no_sign_of_life(self, bucket, monkeypatch, renewed):
        from rerank_cli.run.recovery import lease

        theirs = Lease(bucket / "out.lock", "out", seconds=0.5 if renewed else 3600)
        with monkeypatch.context() as patch:
            patch.setattr(lease, "_machine", lambda: "another")
            holding = theirs.held()
            holding.__enter__()
            while renewed and theirs._beat < 2:
                theirs._ended.wait(0.02)
        notes = []
        ours = Lease(bucket / "out.lock", "out", seconds=60 if renewed else 2)
        if renewed:
            with pytest.raises(RefusedError, match="being written by"), ours.held(notes.append):
                pass
        else:
            with ours.held(notes.append):
                ours.check()
            assert notes[-1].startswith("out: takes over from process")
        holding.__exit__(None, None, None)
        assert not bucket.keys()

    def test_whoever_lost_it_stops(self, bucket):
        with Lease(bucket / "out.lock", "out", seconds=0.2).held() as ours:
            bucket.put("out.lock", b'{"token": "theirs", "holder": "another"}')
            while not ours.lost:
                ours._ended.wait(0.02)
            with pytest.raises(RefusedError, match="another process took it over"):
                ours.check()
        assert bucket.keys() == ["out.lock"]
