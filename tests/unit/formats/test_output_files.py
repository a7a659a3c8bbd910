import bz2
import errno
import gzip
import io
import lzma
import os
import subprocess
import sys
import threading
from pathlib import Path

import lz4.frame
import orjson
import pytest
import zstandard

from rerank_cli.choices import OutputFormat
from rerank_cli.errors import OutputError, RefusedError, UsageError
from rerank_cli.formats import AnswerOptions, ErrorsFile, OutputOptions, check_output, open_sink, refuse_existing

DECOMPRESS = {
    ".xz": lzma.decompress,
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".lz4": lambda data: lz4.frame.open(io.BytesIO(data)).read(),
    ".zst": lambda data: zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True).read(),
}


def options(path, format="api", **more):
    return OutputOptions(str(path), OutputFormat(format), AnswerOptions("m"), **more)


def names(folder):
    return [path.name for path in folder.iterdir()]


@pytest.fixture
def sink(tmp_path):
    def sink(name="out.jsonl", **more):
        return open_sink(options(tmp_path / name), columns=None, **more)

    return sink


def test_nothing_stands_under_the_final_name_before_it_is_published(sink, tmp_path, ranking):
    opened = sink()
    opened.write([ranking([1])])
    opened.commit()
    assert names(tmp_path) == ["out.jsonl.partial"]
    opened.publish()
    assert names(tmp_path) == ["out.jsonl"]


def test_an_abandoned_output_stays_partial(sink, tmp_path, ranking):
    opened = sink()
    opened.write([ranking([1])])
    opened.commit()
    opened.abandon()
    assert orjson.loads((tmp_path / "out.jsonl.partial").read_bytes())["id"] == "q1"


def test_an_output_that_was_there_is_whole_until_it_is_replaced(sink, tmp_path, ranking):
    final = tmp_path / "out.jsonl"
    final.write_text("old")
    opened = sink()
    opened.write([ranking([1])])
    assert final.read_text() == "old"
    opened.publish()
    assert final.read_text().startswith('{"id":"q1"')


def test_a_commit_says_how_many_bytes_are_safe(sink, tmp_path, ranking):
    opened = sink()
    opened.write([ranking([1])])
    committed = opened.commit()
    assert committed.length == (tmp_path / "out.jsonl.partial").stat().st_size > 0
    assert opened.commit() == committed
    opened.abandon()


def test_a_linked_output_stays_a_link(tmp_path, sink):
    (tmp_path / "real").mkdir()
    (tmp_path / "out.jsonl").symlink_to(tmp_path / "real" / "data.jsonl")
    sink().publish()
    assert (tmp_path / "out.jsonl").is_symlink()
    assert names(tmp_path / "real") == ["data.jsonl"]


def test_a_stale_partial_is_overwritten(tmp_path, sink, ranking):
    (tmp_path / "out.jsonl.partial").write_text("x" * 10_000)
    opened = sink()
    opened.write([ranking([1])])
    opened.publish()
    assert (tmp_path / "out.jsonl").stat().st_size < 200


@pytest.mark.parametrize("suffix", DECOMPRESS)
def test_every_committed_prefix_of_a_compressed_file_is_whole(sink, tmp_path, ranking, suffix):
    opened = sink(f"out.jsonl{suffix}")
    partial = tmp_path / f"out.jsonl{suffix}.partial"
    for count in (1, 2, 3):
        opened.write([ranking([1])])
        opened.write([ranking([2])])
        length = opened.commit().length
        assert len(DECOMPRESS[suffix](partial.read_bytes()[:length]).splitlines()) == 2 * count
    opened.publish()
    assert len(DECOMPRESS[suffix]((tmp_path / f"out.jsonl{suffix}").read_bytes()).splitlines()) == 6


@pytest.mark.parametrize("suffix", DECOMPRESS)
def test_a_compressed_file_of_nothing_is_a_valid_one(save, suffix):
    assert DECOMPRESS[suffix](save([], name=f"out{suffix}").read_bytes()) == b""


@pytest.mark.parametrize("suffix", ["", *DECOMPRESS])
def test_the_same_outcomes_give_the_same_bytes(save, ranking, suffix):
    first = save([ranking([1])], name=f"a.jsonl{suffix}").read_bytes()
    assert save([ranking([1])], name=f"b.jsonl{suffix}").read_bytes() == first


def test_stdout_is_flushed_with_every_chunk_and_stays_open(ranking):
    raw = io.BytesIO()
    stdout = io.BufferedWriter(raw)
    opened = open_sink(options("-"), columns=None, stdout=stdout)
    opened.write([ranking([1])])
    assert raw.getvalue().count(b"\n") == 1
    opened.commit()
    opened.publish()
    opened.abandon()
    assert not stdout.closed


def test_a_full_device_is_one_error_that_names_it(ranking):
    opened = open_sink(options("/dev/full"), columns=None)
    with pytest.raises(OutputError, match=r"^/dev/full: cannot be written: No space left on device$"):
        opened.write([ranking([1])])
    opened.abandon()


def test_a_full_stdout_shows_at_the_flush(ranking):
    class Full(io.RawIOBase):
        full = True

        def writable(self):
            return True

        def write(self, data):
            if self.full:
                raise OSError(errno.ENOSPC, "no space")
            return len(data)

    raw = Full()
    opened = open_sink(options("-"), columns=None, stdout=io.BufferedWriter(raw))
    with pytest.raises(OutputError, match="<stdout>: cannot be written: No space"):
        opened.write([ranking([1])])
    raw.full = False


def test_the_null_device_is_written_where_it_is(ranking):
    opened = open_sink(options("/dev/null"), columns=None)
    opened.write([ranking([1])])
    opened.publish()
    assert not Path("/dev/null.partial").exists()


def test_a_named_pipe_is_written_where_it_is(tmp_path, ranking):
    path = tmp_path / "pipe.jsonl"
    os.mkfifo(path)
    got = []
    reader = threading.Thread(target=lambda: got.append(path.read_bytes()))
    reader.start()
    opened = open_sink(options(path), columns=None)
    opened.write([ranking([1])])
    opened.publish()
    reader.join()
    assert got[0].startswith(b'{"id":"q1"')
    assert names(tmp_path) == ["pipe.jsonl"]


def test_a_closed_pipe_goes_through_as_it_is(ranking):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb", buffering=0) as stdout:
        opened = open_sink(options("-"), columns=None, stdout=stdout)
        with pytest.raises(BrokenPipeError):
            opened.write([ranking([1])])


LIMITED = """
import resource, sys
sys.path.insert(0, {tests!r})
from conftest import make_ranking
from rerank_cli.errors import OutputError
from rerank_cli.choices import OutputFormat
from rerank_cli.formats import AnswerOptions, OutputOptions, open_sink
import pyarrow.parquet
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
sink = open_sink(OutputOptions({path!r}, OutputFormat.API, AnswerOptions("m")), columns=None)
try:
    for i in range(400):
        sink.write([make_ranking([1.0], id=f"{{i * 7919:x}}")])
    sink.commit()
    sink.publish()
except OutputError as error:
    print(error)
sink.abandon()
"""


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet", "out.jsonl.gz"])
def test_a_file_over_its_limit_is_an_output_error(tmp_path, name):
    path = str(tmp_path / name)
    code = LIMITED.format(tests=str(Path(__file__).parent), path=path)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == f"{path}: cannot be written: File too large\n"
    assert run.stderr == ""
    assert not Path(path).exists()


def test_an_output_that_exists_is_refused_unless_told(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("x")
    with pytest.raises(RefusedError, match=r"exists already\. Fix: --overwrite"):
        refuse_existing(options(path))
    refuse_existing(options(path, overwrite=True))


def test_an_output_that_is_an_input_is_refused_even_so(tmp_path, write):
    path = write({"a": 1}, name="in.jsonl")
    os.link(path, tmp_path / "hard.jsonl")
    (tmp_path / "soft.jsonl").symlink_to(path)
    for name in ("in.jsonl", "hard.jsonl", "soft.jsonl"):
        with pytest.raises(RefusedError, match="while it is read as an input"):
            check_output(options(tmp_path / name, overwrite=True), ["other.jsonl", path])


def test_an_input_that_would_be_the_partial_file_is_refused(tmp_path, write):
    path = write({"a": 1}, name="out.jsonl.partial")
    with pytest.raises(RefusedError, match="while it is read"):
        check_output(options(tmp_path / "out.jsonl"), [path])


def test_an_output_that_is_stdin_is_refused(monkeypatch, write):
    path = write({"a": 1})
    with open(path) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(RefusedError, match="while it is read"):
            check_output(options(path, overwrite=True), ["-"])


def test_a_missing_folder_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match=r"folder does not exist\. Fix: mkdir -p"):
        check_output(options(tmp_path / "no" / "out.jsonl"), [])


def test_a_folder_is_no_output(tmp_path):
    with pytest.raises(OutputError, match="is a folder"):
        check_output(options(tmp_path, overwrite=True), [])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot be written"):
        check_output(options(tmp_path / "out.jsonl"), [])


@pytest.mark.parametrize("format", ["trec", "openai-batch"])
def test_parquet_carries_answers_and_pairs_only(tmp_path, format):
    with pytest.raises(UsageError, match="Parquet does not support"):
        check_output(options(tmp_path / "out.parquet", format), [])


def test_a_run_has_no_place_for_errors(tmp_path):
    with pytest.raises(UsageError, match="cannot contain errors"):
        check_output(options(tmp_path / "out.trec", "trec", keep_errors=True), [])


@pytest.mark.parametrize("name", ["out.parquet", "out.jsonl.gz"])
def test_binary_output_to_a_device_is_refused(tmp_path, name):
    (tmp_path / name).symlink_to("/dev/null")
    with pytest.raises(UsageError, match="is a device or a pipe"):
        check_output(options(tmp_path / name), [])


@pytest.mark.parametrize("path", ["-", "/dev/null", "/dev/stdout"])
def test_streams_and_devices_need_no_folder(path):
    assert check_output(options(path), []) is None


def test_the_errors_file_says_where_and_why(tmp_path, rejection):
    path = tmp_path / "errors.jsonl"
    errors = ErrorsFile(str(path))
    assert path.read_bytes() == b""
    errors.write(rejection)
    errors.commit()
    errors.close()
    assert orjson.loads(path.read_bytes()) == {
        "path": "in.jsonl",
        "line": 7,
        "id": "q7",
        "code": "bad_json",
        "message": "broken JSON",
        "raw": "{",
    }


def test_the_errors_file_is_never_stdout():
    with pytest.raises(UsageError, match="--errors cannot be -"):
        ErrorsFile("-")


def test_the_errors_file_is_never_an_input(write):
    path = write({"a": 1})
    with pytest.raises(RefusedError, match="another --errors"):
        ErrorsFile(path, [path])


def test_an_errors_file_that_cannot_be_opened_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="No such file"):
        ErrorsFile(str(tmp_path / "no" / "errors.jsonl"))
