"""What lies in an output's folder, held against the output of a run that nobody disturbed.

Every finding is a sentence; none means that all is well. Bytes must agree, compressed ones too; of Parquet, tables and
row groups. Rows are counted besides, so that a difference tells what happened.
"""

import gzip
import json
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from kill_jobs import key_of

from rerank_cli.errors import RefusedError
from rerank_cli.run.recovery import checkpoint


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job writes, and the names that go with it."""

    folder: Path
    output: str
    errors: str | None

    @property
    def final(self):
        return self.folder / self.output

    @property
    def partial(self):
        return self.folder / f"{self.output}.partial"

    @property
    def checkpoint(self):
        return self.folder / f"{self.output}.checkpoint"

    def saved(self):
        """The checkpoint, None where there is none. RefusedError if it is not whole."""
        return checkpoint.load(self.checkpoint)

    def leftovers(self):
        """Names that have no business there when the job is done."""
        return sorted({path.name for path in self.folder.iterdir()} - {self.output, self.errors})


def after_a_kill(place, whole, before):
    """The checkpoint that is left, and findings. `before` is how many records were committed when the process began."""
    if place.final.exists():
        return None, different(place, whole)
    try:
        saved = place.saved()
    except RefusedError as error:
        return None, [str(error)]
    records = saved.records if saved else 0
    findings = [f"{before} records were committed, now {records}"] if records < before else []
    if saved and not _is_beginning(place, saved.output.length, whole):
        findings.append(f"what is committed of {place.partial.name} is no beginning of the whole output")
    return saved, findings


def after_the_end(place, whole):
    """Findings about a job that is done."""
    left = place.leftovers()
    return different(place, whole) + ([f"left behind: {', '.join(left)}"] if left else [])


def different(place, whole):
    """How the output and the file of errors differ from those of the whole run."""
    if not place.final.exists():
        return ["there is no output"]
    found = [] if _same(place.final, whole.final) else ["the output differs"]
    if place.errors and _bytes(place.folder / place.errors) != _bytes(whole.folder / whole.errors):
        found.append("the file of errors differs")
    return found


def lost_and_doubled(place, expected):
    """How many of the expected rows are missing, and how many there are too often or should not be there at all."""
    found = Counter(map(key_of, _rows(place.final))) if place.final.exists() else Counter()
    return (expected - found).total(), (found - expected).total()


def _rows(path):
    if path.suffix == ".parquet":
        return _table(path).to_pylist() if _is_parquet(path) else []
    return [_row(line) for line in _text(path.read_bytes(), path.name).splitlines()]


def _row(line):
    """The object in a line. One that cannot be read counts as a row that nobody expects."""
    try:
        return json.loads(line)
    except ValueError:
        return {"id": repr(line)}


def _bytes(path):
    return path.read_bytes() if path.exists() else b""


def _same(output, whole):
    if output.suffix == ".parquet":
        return _is_parquet(output) and _table_and_groups(output) == _table_and_groups(whole)
    return output.read_bytes() == whole.read_bytes()


def _table_and_groups(path):
    with pq.ParquetFile(path) as file:
        groups = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
        schema = file.schema_arrow
        return file.read().to_pylist(), groups, schema, schema.metadata


def _is_beginning(place, committed, whole):
    """Is the committed part, so many bytes or parts, how the whole output begins?"""
    if place.final.suffix == ".parquet":
        with pq.ParquetFile(whole.final) as file:
            expected = file.read()
        parts = sorted(place.partial.glob("part-*.parquet"))[:committed]
        table = pa.concat_tables([_table(part) for part in parts]) if parts else expected.slice(0, 0)
        return len(parts) == committed and table.equals(expected.slice(0, table.num_rows))
    data = _bytes(place.partial)[:committed]
    return len(data) == committed and whole.final.read_bytes().startswith(data)


def _table(path):
    with pq.ParquetFile(path) as file:
        return file.read()


def _is_parquet(path):
    try:
        pq.read_metadata(path)
    except pa.ArrowInvalid:
        return False
    return True


def _text(data, name):
    """What a file of this name holds, all of its members; the bytes themselves where they are damaged."""
    try:
        if name.endswith(".gz"):
            return gzip.decompress(data)
        if name.endswith(".zst"):
            return zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
    except (OSError, EOFError, zlib.error, zstandard.ZstdError):
        return data
    return data
