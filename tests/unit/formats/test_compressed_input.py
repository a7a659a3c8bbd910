import bz2
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

from rerank_cli.errors import InputError, UsageError
from rerank_cli.formats import InputOptions, open_source
from rerank_cli.records import Request, Shape
from rerank_cli.storage.compression import Decompressed

LINES = [orjson.dumps({"id": i, "query": "q", "documents": [f"document {i}"]}) + b"\n" for i in range(50)]
COMPRESS = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "bzip2": bz2.compress,
    "lz4": lz4.frame.compress,
    "xz": lzma.compress,
}
every_kind = pytest.mark.parametrize("kind", COMPRESS)


@pytest.fixture
def stdin(monkeypatch):
    def stdin(data):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return stdin


@every_kind
def test_compressed_files_are_recognised_whatever_their_name(read, write, kind):
    assert [r.id for r in read(write(COMPRESS[kind](b"".join(LINES)), name="plain.jsonl"))] == list(range(50))


@every_kind
def test_several_members_are_read_as_one_file(read, write, kind):
    data = b"".join(COMPRESS[kind](line) for line in LINES)
    assert [r.id for r in read(write(data))] == list(range(50))


@every_kind
def test_compressed_stdin_is_recognised(read, stdin, kind):
    stdin(COMPRESS[kind](b"".join(LINES)))
    records = read("-")
    assert len(records) == 50
    assert str(records[3].position) == "<stdin>:4"


@every_kind
def test_a_cut_stream_is_an_error_after_what_was_readable(write, kind):
    pack = COMPRESS[kind]
    data = pack(b"".join(LINES[:20])) + pack(b"".join(LINES[20:]))[:-9]
    path = write(data)
    source = open_source(InputOptions((path,)))
    seen = []
    with pytest.raises(InputError, match=f"input.jsonl: the {kind} data ends too early"):
        for record in source:
            seen.append(record)
    source.close()
    assert [record.id for record in seen][:20] == list(range(20))


@every_kind
def test_a_corrupt_stream_is_an_error_that_names_the_file(write, read, kind):
    data = bytearray(COMPRESS[kind](b"".join(LINES)))
    data[len(data) // 2 :] = os.urandom(3) + bytes(len(data) - len(data) // 2)
    with pytest.raises(InputError, match=r"input.jsonl: the \w+ data (is corrupt|ends too early)"):
        read(write(bytes(data)))


@every_kind
def test_bytes_after_the_last_member_are_an_error(write, read, kind):
    with pytest.raises(InputError, match="corrupt"):
        read(write(COMPRESS[kind](LINES[0]) + b"trailing rubbish that is no member"))


def test_zeros_after_the_last_gzip_member_are_padding(write, read):
    assert len(read(write(gzip.compress(LINES[0]) + bytes(100)))) == 1


def test_a_zstd_file_may_begin_with_a_skippable_frame(write, read):
    skippable = b"\x5f\x2a\x4d\x18\x04\x00\x00\x00abcd"
    assert len(read(write(skippable + COMPRESS["zstd"](LINES[0]) + skippable + COMPRESS["zstd"](LINES[1])))) == 2


def test_progress_counts_compressed_bytes(write):
    path = write(gzip.compress(b"".join(LINES)))
    source = open_source(InputOptions((path,)))
    assert source.total_bytes == Path(path).stat().st_size
    assert source.description == "JSON lines (gzip), rerank"
    assert len(list(source)) == 50
    assert source.bytes_read == source.total_bytes
    source.close()
    assert source.bytes_read == source.total_bytes


def test_progress_counts_all_files(write):
    paths = (write(*LINES[:9], name="a"), write(*LINES[9:], name="b"))
    source = open_source(InputOptions(paths))
    assert source.description == "2 files of JSON lines, rerank"
    assert len(list(source)) == 50
    source.close()
    assert source.bytes_read == source.total_bytes == sum(Path(path).stat().st_size for path in paths)


def test_compressed_tab_separated_files_are_known_by_both_suffixes(read, write):
    (record,) = read(write(gzip.compress(b"1\t10\tasks\tsays\n"), name="top.tsv.gz"))
    assert (record.shape, record.query) == (Shape.PAIRS, "asks")


def test_stdin_has_no_size(stdin):
    stdin(LINES[0])
    source = open_source(InputOptions(("-",)))
    assert source.total_bytes is None
    assert isinstance(next(iter(source)), Request)
    source.close()
    assert not sys.stdin.closed


def test_the_first_record_of_a_pipe_is_there_before_the_second_is_written(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    taken = threading.Event()

    def feed():
        with open(path, "wb", buffering=0) as pipe:
            pipe.write(LINES[0])
            taken.wait(10)
            pipe.write(LINES[1])

    writer = threading.Thread(target=feed)
    writer.start()
    source = open_source(InputOptions((str(path),)))
    records = iter(source)
    first = next(records)
    taken.set()
    assert [first.id, *(record.id for record in records)] == [0, 1]
    source.close()
    writer.join()


@pytest.mark.parametrize(("path", "reason"), [("missing.jsonl", "no such file"), ("", "is a folder"), ("a\0b", "null")])
def test_what_is_no_file_is_refused(tmp_path, read, path, reason):
    with pytest.raises(InputError, match=reason):
        read(str(tmp_path / path))


def test_a_later_file_is_looked_for_before_the_first_is_read(read, write, tmp_path):
    with pytest.raises(InputError, match=r"gone\.jsonl: there is no such file"):
        read(write(LINES[0]), str(tmp_path / "gone.jsonl"))


def test_stdin_is_read_once_only(read):
    with pytest.raises(UsageError, match="more than once"):
        read("-", "-")


def test_importing_formats_loads_none_of_the_heavy_libraries():
    heavy = ("pyarrow", "zstandard", "lz4", "torch", "typer", "rich")
    code = f"import sys, rerank_cli.formats; print([m for m in {heavy!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@every_kind
def test_a_small_file_that_swells_a_thousandfold_is_given_back_in_pieces(kind):
    small = COMPRESS[kind](bytes(128 << 20))
    stream = Decompressed(io.BufferedReader(io.BytesIO(small)), kind, "in")
    pieces = [len(piece) for piece in iter(lambda: stream.read(256 << 20), b"")]
    assert sum(pieces) == 128 << 20
    assert max(pieces) <= 64 << 20
