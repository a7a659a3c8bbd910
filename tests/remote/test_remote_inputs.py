"""Every command reads remote paths; what cannot be remote is refused; secrets are not shown."""

import json
import os
import subprocess
import sys

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from web_server import WebServer

from rerank_cli.cli.main import app
from rerank_cli.display import without_secrets
from rerank_cli.errors import InputError, OutputError, UsageError
from rerank_cli.formats import ById, InputOptions, open_source
from rerank_cli.formats.corpus.files import beir_folder
from rerank_cli.storage.listing import expanded
from rerank_cli.storage.objects import remote_file, stores, web
from rerank_cli.storage.objects.buckets import ObjectStore
from rerank_cli.storage.objects.stores import store_of
from rerank_cli.storage.opening import open_bytes, read_whole, stamp_of
from rerank_cli.storage.outputs import write_whole
from rerank_cli.storage.remote import matching

TEXTS = {"d1": "hi", "d2": "a bear", "d3": "Berlin", "d4": "Paris"}
DOCUMENTS = [{"id": name, "text": text} for name, text in TEXTS.items()]
RECORDS = [
    {"id": "q1", "query": "what is a panda?", "documents": DOCUMENTS[:2]},
    {"id": "q2", "query": "capital of France", "documents": DOCUMENTS[2:]},
]
ANSWERS = [
    {"id": "q1", "model": "m", "results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]},
    {"id": "q2", "model": "m", "results": [{"index": 1, "relevance_score": 0.8}, {"index": 0, "relevance_score": 0.2}]},
]
QRELS = b"q1 0 d2 1\nq2 0 d4 1\n"


def lines(records):
    return b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records)


@pytest.fixture
def files(bucket):
    """Inputs of all commands in a bucket."""
    for name, data in {
        "in/a.jsonl": lines(RECORDS[:1]),
        "in/b.jsonl": lines(RECORDS[1:]),
        "in.jsonl": lines(RECORDS),
        "out.jsonl": lines(ANSWERS),
        "qrels.trec": QRELS,
        "run.trec": b"q1 Q0 d1 1 2.0 bm25\nq1 Q0 d2 2 1.0 bm25\n",
        "beir/corpus.jsonl": lines({"_id": d["id"], "text": d["text"]} for r in RECORDS for d in r["documents"]),
        "beir/queries.jsonl": lines({"_id": r["id"], "text": r["query"]} for r in RECORDS),
        "beir/qrels/test.tsv": b"query-id\tcorpus-id\tscore\nq1\td2\t1\n",
        "mine.toml": b'base = "qwen3"\nprompt = "Is it so?"\n',
        "summary.json": b'{"pairs_per_second": 7.0}',
        "train.jsonl": lines([{"query": "q", "pos": ["a panda is a bear"], "neg": ["hi", "no"]}] * 3),
    }.items():
        bucket.put(name, data)
    return bucket


def command(*args):
    """In this process: what counts is what is read."""
    return app([str(arg) for arg in args], standalone_mode=False)


def test_every_command_reads_from_a_bucket(files, capfd):
    assert command("eval", files / "run.trec", "--qrels", files / "qrels.trec", "--measures", "RR", "--json") is None
    assert json.loads(capfd.readouterr().out)["means"]["RR"] == 0.25
    command("view", files / "out.jsonl", "--input", f"{files / 'in'}/*.jsonl", "--qrels", files / "qrels.trec")
    shown = capfd.readouterr().out
    assert "a bear" in shown
    assert "Paris" in shown
    given = ("--input", files / "in.jsonl", "--summary", files / "summary.json")
    command("report", files / "out.jsonl", *given, "--qrels", files / "qrels.trec", "-o", files / "page.html")
    assert b"<!DOCTYPE html>" in files.get("page.html")
    texts = ("--queries", files / "beir/queries.jsonl", "--corpus", files / "beir/corpus.jsonl")
    command("mine", files / "run.trec", "--qrels", files / "qrels.trec", *texts, "-o", files / "mined.jsonl")
    assert json.loads(files.get("mined.jsonl")) == {"query": "what is a panda?", "pos": ["a bear"], "neg": ["hi"]}


def test_candidates_by_id_and_a_folder_in_beir_layout(files):
    folder = beir_folder(files / "beir")
    assert (folder.corpus, folder.queries, folder.qrels) == (
        files / "beir/corpus.jsonl",
        files / "beir/queries.jsonl",
        files / "beir/qrels/test.tsv",
    )
    by_id = ById(folder.queries, folder.corpus)
    source = open_source(InputOptions((files / "run.trec",), by_id=by_id))
    (request,) = list(source)
    assert (request.query, [c.text for c in request.candidates]) == ("what is a panda?", ["hi", "a bear"])
    source.close()
    with pytest.raises(InputError, match=r"nothing: is not a folder"):
        beir_folder(files / "nothing")


def test_the_index_of_a_large_corpus_has_its_texts(files, tmp_path, monkeypatch):
    from rerank_cli.formats.corpus import building

    monkeypatch.setattr(building, "SMALL_BYTES", 0)
    by_id = ById(files / "beir/queries.jsonl", files / "beir/corpus.jsonl")
    notes = []
    for _ in range(2):
        source = open_source(InputOptions((files / "run.trec",), by_id=by_id), notes.append)
        assert len(list(source)) == 1
        source.close()
    indexed = [note for note in notes if note.startswith("indexing")]
    assert len(indexed) == 1
    assert str(tmp_path / "state") in indexed[0]


def test_training_data_and_profiles(files, tmp_path):
    from rerank_cli.models.prompts.profile_files import read_profile
    from rerank_cli.training.data.open import DataOptions, open_data
    from rerank_cli.training.data.rules import GroupRules
    from rerank_cli.training.data.store import BatchPlan

    assert read_profile(files / "mine.toml", read_whole).prompt == "Is it so?"
    options = DataOptions(InputOptions((f"{files / ''}tr*.jsonl",)))
    opened = open_data(options, GroupRules(3), BatchPlan(1), str(tmp_path), lambda _: None)
    assert len(opened.groups) == 3
    opened.groups.close()


def test_patterns_match_names_in_folders():
    names = ["b/x/1.jsonl", "b/x/2.jsonl", "b/x/y/3.jsonl", "b/x/4.txt", "b/x/[5].jsonl"]
    assert matching("b/x/*.jsonl", names) == ["b/x/1.jsonl", "b/x/2.jsonl", "b/x/[5].jsonl"]
    assert matching("b/**/*.jsonl", names) == [n for n in sorted(names) if n.endswith("jsonl")]
    assert matching("b/x/?.*", names) == ["b/x/1.jsonl", "b/x/2.jsonl", "b/x/4.txt"]
    assert matching("b/x/[!1].jsonl", names) == ["b/x/2.jsonl"]
    with pytest.raises(InputError, match="no object matches"):
        matching("b/*.jsonl", names)


def test_patterns_over_a_bucket(files):
    assert expanded([f"{files / 'in'}/*.jsonl", "local*"]) == (files / "in/a.jsonl", files / "in/b.jsonl", "local*")
    files.put("in/[c].jsonl", b"{}")
    assert expanded([files / "in/[c].jsonl"]) == (files / "in/[c].jsonl",)


def test_a_reader_that_goes_on_and_one_that_jumps_get_the_bytes(files, monkeypatch):
    monkeypatch.setattr(remote_file, "BLOCK_BYTES", 1000)
    data = os.urandom(123_456)
    files.put("random", data)
    with remote_file.RemoteFile(files / "random") as file:
        assert file.read() == data
        for at in (100_000, 5, 123_455, 123_456, 77_000):
            file.seek(at)
            assert file.read(10) == data[at : at + 10][: 1000 - at % 1000]
        file.seek(500)
        buffer = bytearray(50_000)
        assert file.readinto(buffer) == 50_000
        assert buffer == data[500:50_500]
        assert len(file._blocks) <= 16
    files.put("empty", b"")
    assert open_bytes(files / "empty").content.read() == b""


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("s3://no-such-bucket/a.jsonl", InputError, "cannot be read: there is no such bucket"),
        ("s3://BUCKET/none.jsonl", InputError, "none.jsonl: there is no such file"),
        ("s3://BUCKET/in/", InputError, r"is a folder \(expected a file\). Fix: name the files in it, as with s3"),
        ("s3a://BUCKET/a", UsageError, "s3a:// is not a kind of path that is known. Fix: s3://"),
        ("ftp://host/a", UsageError, "ftp:// is not a kind of path that is known. Fix: s3://, gs://"),
        ("s3:///a", UsageError, "s3://: names no bucket"),
        ("hf://datasets/owner", UsageError, "names no file"),
    ],
)
def test_what_cannot_be_read_is_one_line(bucket, path, error, message):
    with pytest.raises(error, match=message) as found:
        stamp_of(path.replace("BUCKET", bucket.name))
    assert "\n" not in str(found.value)


def test_a_store_that_denies_access_is_one_line(bucket, monkeypatch):
    server = WebServer()
    server.faults = [403] * 9
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    stores._bucket.cache_clear()
    try:
        with pytest.raises(InputError, match=r"a.jsonl: cannot be read: access is denied. Fix: check the credentials"):
            stamp_of(bucket / "a.jsonl")
        with pytest.raises(OutputError, match=r"s.json: cannot be written: access is denied. Fix: check the cred"):
            write_whole(bucket / "s.json", b"{}")
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-o", "https://host/out.jsonl"], "https:// cannot be written, only read"),
        (["-o", "s3://bucket/"], "is the name of a folder"),
        (["-o", "OUT", "--cache", "s3://bucket/c"], "--cache: cannot be remote"),
        (["-o", "OUT", "--metrics", "s3://bucket/m.prom"], "--metrics: cannot be remote"),
        (["-o", "OUT", "-m", "s3://bucket/model"], "--model: cannot be remote"),
        (["-o", "OUT", "--adapter", "s3://bucket/a"], "--adapter: cannot be remote"),
        (["-o", "OUT", "--index-dir", "s3://bucket/i"], "--index-dir: cannot be remote"),
        (["-o", "OUT", "--config", "s3://bucket/c"], "--config: cannot be remote"),
        (["-o", "OUT", "--checkpoint", "https://host/c"], "https:// cannot be written"),
        (["-o", "OUT", "--checkpoint", "OUT"], "--checkpoint and -o name the same file"),
        (["-o", "IN", "--overwrite"], "would be written while it is read"),
    ],
)
def test_what_cannot_be_remote_is_refused(files, args, message):
    named = {"OUT": files / "new.jsonl", "IN": files / "in.jsonl"}
    before = files.keys()
    with pytest.raises(Exception, match=message) as found:
        command("run", files / "in.jsonl", *(named.get(arg, arg) for arg in args))
    assert "\n" not in str(found.value)
    assert files.keys() == before


def test_training_has_a_local_result(files):
    with pytest.raises(UsageError, match="--output: cannot be remote"):
        command("train", files / "train.jsonl", "-o", files / "model")


def test_without_the_extra_one_line_names_it(bucket, monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(UsageError, match=r"^s3:// needs obstore. Fix: pip install 'rerank-cli\[remote\]'$"):
        stamp_of(bucket / "a.jsonl")


def test_a_local_run_imports_no_library_of_stores(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(lines(RECORDS))
    code = (
        "import sys; from rerank_cli.formats import InputOptions, open_source;"
        f"list(open_source(InputOptions(({str(tmp_path / 'in.jsonl')!r},))));"
        "print([m for m in sys.modules if m.split('.')[0] in ('obstore', 'boto3', 'urllib3', 'huggingface_hub')])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("https://h/a.jsonl?X-Amz-Signature=S: is cut", "https://h/a.jsonl?…: is cut"),
        ("'https://me:secret@h/a?x=1#f' and https://h/b", "'https://h/a?…' and https://h/b"),
        ("https://h/a?…: again", "https://h/a?…: again"),
        ("s3://key:secret@bucket/a", "s3://bucket/a"),
        ("what? http is no address", "what? http is no address"),
    ],
)
def test_addresses_are_shown_without_secrets(given, shown):
    assert without_secrets(given) == shown


@pytest.fixture
def website(monkeypatch):
    monkeypatch.setattr(web.time, "sleep", lambda _: None)
    server = WebServer()
    yield server
    server.stop()


class TestWeb:
    """Addresses of web servers and of the Hub."""

    def test_is_read_by_ranges_with_its_query_and_shown_without(self, website):
        website.files["/a.jsonl"] = lines(RECORDS)
        address = f"{website.url}/a.jsonl?token=SECRET"
        website.faults = [503, 500, 429]
        source = open_source(InputOptions((address,)))
        records = list(source)
        assert [record.id for record in records] == ["q1", "q2"]
        assert {path for path, _ in website.seen} == {"/a.jsonl?token=SECRET"}
        assert all("Range" in headers for _, headers in website.seen)
        assert str(records[0].position) == f"{website.url}/a.jsonl?…:1"
        source.close()

    def test_parquet(self, website, tmp_path):
        pq.write_table(pa.Table.from_pylist(RECORDS), tmp_path / "a.parquet")
        website.files["/a.parquet"] = (tmp_path / "a.parquet").read_bytes()
        assert len(list(open_source(InputOptions((f"{website.url}/a.parquet",))))) == 2

    def test_what_goes_wrong_is_one_line(self, website):
        for faults, message in (
            ([], r"a.jsonl\?…: there is no such file"),
            ([403], r"a.jsonl\?…: cannot be read: access is denied \(403\)"),
            ([503] * 9, r"a.jsonl\?…: cannot be read: the server answered 503"),
        ):
            website.faults = list(faults)
            with pytest.raises(InputError, match=message) as found:
                stamp_of(f"{website.url}/a.jsonl?token=SECRET")
            assert "SECRET" not in str(found.value)

    def test_a_server_that_sends_whole_files_only_is_refused(self):
        server = WebServer(ranges=False)
        server.files["/a.jsonl"] = lines(RECORDS)
        try:
            with pytest.raises(InputError, match=r"does not send parts of a file \(no Range\). Fix: download it"):
                stamp_of(f"{server.url}/a.jsonl")
        finally:
            server.stop()

    def test_a_changed_file_is_noticed(self, website, monkeypatch):
        monkeypatch.setattr(remote_file, "BLOCK_BYTES", 50)
        website.files["/a"] = b"x" * 1000
        with open_bytes(f"{website.url}/a").content as content:
            website.files["/a"] = b"y" * 1000
            with pytest.raises(InputError, match="was changed while it was read"):
                content.read()

    def test_files_of_the_hub_are_found_by_name_and_pattern(self, website):
        code = (
            "from rerank_cli.formats import InputOptions, open_source;"
            "from rerank_cli.storage.listing import expanded;"
            "paths = expanded(['hf://datasets/me/mine/data/*.jsonl']); print(*paths);"
            "print(*[r.id for r in open_source(InputOptions(paths))])"
        )
        other = WebServer()
        other.files["/b"] = lines(RECORDS[1:])
        items = [
            {"type": "file", "path": f"data/{n}", "size": 1, "oid": "0" * 40} for n in ("a.jsonl", "b.jsonl", "c.txt")
        ]
        website.files["/api/datasets/me/mine/tree/main/data"] = json.dumps(items).encode()
        for revision in ("main", "c" * 40):
            website.files[f"/datasets/me/mine/resolve/{revision}/data/a.jsonl"] = lines(RECORDS[:1])
            website.files[f"/datasets/me/mine/resolve/{revision}/data/b.jsonl"] = lines(RECORDS[1:])
        # The content is often elsewhere, where the token must not go.
        website.redirects[f"/datasets/me/mine/resolve/{'c' * 40}/data/b.jsonl"] = f"{other.url}/b"
        env = os.environ | {"HF_ENDPOINT": website.url, "HF_TOKEN": "hf_secret", "HF_HUB_OFFLINE": "0"}
        ended = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
        assert ended.stdout.splitlines() == [
            "hf://datasets/me/mine/data/a.jsonl hf://datasets/me/mine/data/b.jsonl",
            "q1 q2",
        ], ended.stderr
        sent = [headers for path, headers in website.seen if "resolve" in path]
        assert all("hf_secret" in headers.get("Authorization", headers.get("authorization", "")) for headers in sent)
        assert other.seen
        assert not any("authorization" in map(str.lower, headers) for _, headers in other.seen)
        other.stop()


@pytest.mark.parametrize("scheme", ["gs", "az"])
def test_other_buckets_are_opened_by_the_same_library(scheme, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    store, key = store_of(f"{scheme}://bucket/folder/a.jsonl")
    assert isinstance(store, ObjectStore)
    assert key == "folder/a.jsonl"
