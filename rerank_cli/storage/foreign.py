"""Kinds of files that are not read, recognised by their first bytes: what each is, and how to turn it into one that is.

Signatures are those of the formats' specifications, as `file(1)` lists them.
"""

from __future__ import annotations

import re
import shlex

from rerank_cli.storage.compression import recognise

_TO_PARQUET = "write it as Parquet, for example with frame.to_parquet('NEW.parquet')"
_EXCEL = "save it as CSV UTF-8, or pandas.read_excel('PATH').to_csv('NEW.csv', index=False)"
_UNPACK = "unpack it, and name the file in it"
_TEXTS = "give the texts as JSON lines, CSV or Parquet"
_MAGIC = {
    b"SQLite format 3\0": ("a SQLite database", "sqlite3 -csv -header PATH 'SELECT …' > NEW.csv"),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("an old Office document, such as an Excel workbook", _EXCEL),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", _UNPACK),
    b"Rar!\x1a\x07": ("a RAR archive", _UNPACK),
    b"\x1f\x9d": ("compressed with compress (.Z)", "gzip -d PATH"),
    b"]\0\0": ("compressed with lzma, the predecessor of xz", "xz -d PATH"),
    b"\x89LZO\0\r\n\x1a\n": ("compressed with lzop", "lzop -d PATH"),
    b"LZIP\x01": ("compressed with lzip", "lzip -d PATH"),
    b"\xff\x06\0\0sNaPpY": ("compressed with Snappy", "decompress it, or compress with zstd instead"),
    b"\x93NUMPY": ("a NumPy array", _TEXTS),
    b"\x89HDF\r\n\x1a\n": ("an HDF5 file", "read it with the program that wrote it, and " + _TO_PARQUET),
    b"Obj\x01": ("an Avro file", "duckdb -c \"INSTALL avro; LOAD avro; COPY (FROM 'PATH') TO 'NEW.parquet'\""),
    b"%PDF-": ("a PDF document", _TEXTS),
    b"version https://git-lfs": ("a pointer of Git LFS, not the file that it stands for", "git lfs pull"),
}
# Signatures that may also begin a text: only if bytes follow that are not ASCII text.
_LETTERS = {
    b"ORC": ("an ORC file", "pyarrow.parquet.write_table(pyarrow.orc.read_table('PATH'), 'NEW.parquet')"),
    b"FEA1": ("a Feather file of version 1", "pandas.read_feather('PATH').to_feather('NEW.feather')"),
}
_BINARY = re.compile(rb"[\0-\x08\x80-\xff]")
# Names of members of a ZIP archive.
_IN_ZIP = (
    (re.compile(rb"xl/(workbook|worksheets|_rels|sharedStrings|styles|theme)"), "an Excel workbook", _EXCEL),
    (re.compile(rb"opendocument\.spreadsheet"), "an OpenDocument spreadsheet", _EXCEL),
    (re.compile(rb"PK\x03\x04.{26}[\w./-]*\.npy", re.DOTALL), "a NumPy archive", _TEXTS),
    (re.compile(rb"PK\x03\x04.{26}[\w./-]*data\.pkl", re.DOTALL), "a file of PyTorch", _TEXTS),
)
_PICKLE = re.compile(rb"\x80[\x02-\x05][\x8a\x8c\x8e\x95()\]}cXKqU\x88\x89NG]")
_MARKUP = re.compile(rb"\s*<(!doctype html|html|table|\?xml|!--)", re.IGNORECASE)
_SQL = re.compile(
    rb"\s*(PRAGMA foreign_keys|CREATE TABLE |INSERT INTO |-- MySQL dump|--\r?\n-- PostgreSQL)", re.IGNORECASE
)


def foreign(head: bytes, path: str) -> str | None:
    """What a file of another kind is and how to convert it, given its first bytes; None if it may be readable."""
    found = _of(head)
    if found is None:
        return None
    what, fix = found
    path_in = "FILE" if path == "<stdin>" else path
    fix = fix.replace("'PATH'", f"'{path_in}'").replace("PATH", shlex.quote(path_in))
    return f"{path}: is {what} (expected JSON lines, CSV, TSV, Parquet or Arrow). Fix: {fix}"


def _of(head: bytes) -> tuple[str, str] | None:
    known = _MAGIC | _LETTERS if _BINARY.search(head[:64]) else _MAGIC
    for magic, found in known.items():
        if head.startswith(magic):
            return found
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        inside = next((found for pattern, *found in _IN_ZIP if pattern.search(head)), None)
        return (inside[0], inside[1]) if inside else ("a ZIP archive", "unzip it, and name the file in it")
    # 257 bytes of a header come first, of which the name of a file is filled up with NUL.
    if head[257:262] == b"ustar" and b"\0" in head[:257]:
        return "a tar archive", "tar -xf PATH, and name the file in it"
    if encoding := _wide(head):
        return f"text in {encoding}", f"iconv -f {encoding} -t UTF-8 PATH > NEW"
    if head[8:12] == b"DUCK" and b"\0" in head[12:20]:
        return "a DuckDB database", "duckdb PATH -c \"COPY (SELECT …) TO 'NEW.parquet'\""
    if _PICKLE.match(head):
        return "a Python pickle, which may hold code and is never opened", f"where it was made, {_TO_PARQUET}"
    if markup := _MARKUP.match(head):
        is_xml = markup[1].lower() == b"?xml"
        return ("an XML document", _TEXTS) if is_xml else ("an HTML page", f"download the file itself, or {_TEXTS}")
    if _SQL.match(head):
        return "an SQL dump", "export the rows of a query as CSV with a header, with the database's own program"
    if compression := recognise(head):
        return f"compressed twice, with {compression} inside", "decompress it once"
    return None


def _wide(head: bytes) -> str | None:
    """UTF-16 or UTF-32, by a byte order mark, or by ASCII characters with NUL bytes between."""
    if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "UTF-32"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    first = head[:8]
    if len(first) == 8 and all(first[0::2]) and not any(first[1::2]):
        return "UTF-16LE"
    return "UTF-16BE" if len(first) == 8 and all(first[1::2]) and not any(first[0::2]) else None
