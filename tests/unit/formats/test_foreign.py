"""Kinds of files that are not read, see also test_neighbours.py: one line each, never a broken record."""

import bz2
import codecs
import gzip
import io
import lzma
import tarfile
import zipfile

import pytest

from rerank_cli.errors import InputError
from rerank_cli.storage.foreign import foreign

LINE = '{"query": "q", "documents": ["ä"]}\n'


def zipped(name="in.jsonl"):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, LINE)
    return file.getvalue()


def in_tar():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("in.jsonl"))
    return file.getvalue()


FILES = {
    "zip": (zipped(), "is a ZIP archive", "unzip it"),
    "empty zip": (b"PK\5\6" + bytes(18), "is a ZIP archive", "unzip it"),
    "ods": (zipped("mimetype").replace(b'{"query": "q", "', b"application/vnd.oasis.opendocument.spreadsheet"), "", ""),
    "PyTorch": (zipped("archive/data.pkl"), "is a file of PyTorch", "give the texts as"),
    "tar": (in_tar(), "is a tar archive", "tar -xf in.data"),
    "tar.xz": (lzma.compress(in_tar()), "is a tar archive", "tar -xf in.data"),
    "UTF-16": (LINE.encode("utf-16"), "is text in UTF-16", "iconv -f UTF-16 -t UTF-8 in.data > NEW"),
    "UTF-16BE": (codecs.BOM_UTF16_BE + LINE.encode("utf-16-be"), "is text in UTF-16", "iconv -f UTF-16 -t UTF-8"),
    "no BOM": (LINE.encode("utf-16-le"), "is text in UTF-16LE", "iconv -f UTF-16LE -t UTF-8 in.data > NEW"),
    "no BOM, BE": (LINE.encode("utf-16-be"), "is text in UTF-16BE", "iconv -f UTF-16BE -t UTF-8 in.data > NEW"),
    "UTF-32": (LINE.encode("utf-32"), "is text in UTF-32", "iconv -f UTF-32 -t UTF-8 in.data > NEW"),
    "twice": (gzip.compress(bz2.compress(b"a")), "is compressed twice, with bzip2 inside", "decompress it once"),
    "compress": (b"\x1f\x9d\x90abc", "is compressed with compress", "gzip -d in.data"),
    "lzma": (lzma.compress(LINE.encode(), lzma.FORMAT_ALONE), "is compressed with lzma", "xz -d in.data"),
    "lzop": (b"\x89LZO\0\r\n\x1a\n\x10", "is compressed with lzop", "lzop -d in.data"),
    "lzip": (b"LZIP\x01\x0c", "is compressed with lzip", "lzip -d in.data"),
    "snappy": (b"\xff\x06\0\0sNaPpY", "is compressed with Snappy", "compress with zstd instead"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4", "is a 7z archive", "unpack it"),
    "RAR": (b"Rar!\x1a\x07\x01\0", "is a RAR archive", "unpack it"),
    "HDF5": (b"\x89HDF\r\n\x1a\n\0", "is an HDF5 file", "write it as Parquet"),
    "PDF": (b"%PDF-1.7\n%\xe2", "is a PDF document", "give the texts as"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a pointer of Git LFS", "git lfs pull"),
    "XML": (b'<?xml version="1.0"?>\n<trec/>', "is an XML document", "give the texts as"),
    "page": (b"\n<!DOCTYPE html>\n<title>404</title>", "is an HTML page", "download the file itself"),
    "dump": (b"--\n-- PostgreSQL database dump\n--\n", "is an SQL dump", "export the rows"),
}  # fmt: skip
FILES["ods"] = (FILES["ods"][0], "is an OpenDocument spreadsheet", "read_excel('in.data')")
READABLE = [
    LINE,
    "Obj,query\n",
    "ORC warriors\tquery\ttext\n",
    "FEA1\tquery\ttext\n",
    "Rar!",
    "PK\tquery\ttext\n",
    "7z\tquery\n",
    "<b>bold</b>\tquery\n",
    "ustar" * 60,
    "熊猫\tquery\n",
    "\ufeff" + LINE,
    "-- a comment\n",
    "",
]


@pytest.mark.parametrize("content", [file[0] for file in FILES.values()], ids=FILES)
@pytest.mark.parametrize("stdin", [False, True])
def test_a_file_of_another_kind_is_named_with_the_way_out(request, read, tmp_path, monkeypatch, content, stdin):
    what, fix = FILES[request.node.callspec.id.split("-", 1)[1]][1:]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.data").write_bytes(content)
    if stdin:
        fix = fix.replace("in.data", "FILE")
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    with pytest.raises(InputError) as refused:
        read("-" if stdin else "in.data")
    said = str(refused.value)
    assert said.startswith(f"{'<stdin>' if stdin else 'in.data'}: {what}")
    assert fix in said.split("Fix: ")[1]
    assert "expected JSON lines, CSV, TSV, Parquet or Arrow" in said
    assert "--on-error" not in said
    assert said.isprintable()


@pytest.mark.parametrize("text", READABLE)
def test_text_is_never_taken_for_a_file_of_another_kind(text):
    assert foreign(text.encode(), "in") is None


def test_a_path_in_a_command_is_quoted():
    assert "iconv -f UTF-16 -t UTF-8 'my data.txt' > NEW" in (foreign("text".encode("utf-16"), "my data.txt") or "")
    assert "read_excel('my data.xls')" in (foreign(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "my data.xls") or "")
