"""What the processes of a job share in its output folder: `_rerank/`, removed at the end, `_manifest.json`, `_SUCCESS`.

_rerank/job.json          settings and inputs of the job
_rerank/model.json        the loaded model, which all processes must have
_rerank/workers, leases   who is there, and who works on what: `storage.lease`
_rerank/done, failed      a file per output: its record, or why its input cannot be done
_rerank/sealed            a file per output without records, written just before it gets its name
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rerank_cli.errors import RefusedError
from rerank_cli.storage.folder import Entry, LocalFolder
from rerank_cli.storage.lease import Worker

OWN, MANIFEST, SUCCESS = "_rerank", "_manifest.json", "_SUCCESS"
# What is added to the name of an output: files beside it while it is unfinished, or in a folder of its parts.
BESIDE = re.compile(r"\.(partial(/[^/]*)?|checkpoint|lock|journal|queries|judged)(\.new)?\Z")
_KIND = "rerank manifest 1"
_DONE, _FAILED, _SEALED, _JOB, _MODEL = "done", "failed", "sealed", "job.json", "model.json"


@dataclass(frozen=True, slots=True)
class Record:
    """A finished output: its path in the folder, its input, counts, size, hash, and its `recovery.receipt`."""

    output: str
    input: str
    input_bytes: int
    records: int
    pairs: int
    rejected: int
    bytes: int
    sha256: str
    finished: str
    receipt: str


@dataclass(frozen=True, slots=True)
class Failure:
    """An input that could not be done; `written` by the folder's clock."""

    output: str
    message: str
    exit_code: int
    written: float = 0.0


@dataclass(slots=True)
class FolderState:
    """The files of a job in its output folder `path`. Methods raise OutputError where they write."""

    path: Path
    folder: LocalFolder = field(init=False)
    own: LocalFolder = field(init=False)
    _known: dict[str, tuple[Entry, Record | None]] = field(default_factory=dict)  # by file, those of this job
    _manifest: tuple[Any, dict[str, Any]] | None = None  # what was read last, and of which version of the file

    def __post_init__(self) -> None:
        self.folder = LocalFolder(str(self.path))
        self.own = LocalFolder(str(self.path / OWN))

    @property
    def is_complete(self) -> bool:
        return self.folder.entry(SUCCESS) is not None

    def manifest(self) -> dict[str, Any] | None:
        """The manifest, None if there is none. Raises RefusedError if it is damaged or another program's."""
        version = self.folder.entry(MANIFEST)
        if version is None:
            return None
        if self._manifest is None or self._manifest[0] != version:
            found = _object(self.folder.read(MANIFEST))
            if found.get("kind") != _KIND or not isinstance(found.get("files"), list):
                raise RefusedError(
                    f"{self.path / MANIFEST}: is not a manifest of this version of rerank. Fix: another -o"
                )
            found["records"] = {file["output"]: Record(**file) for file in found["files"]}
            self._manifest = version, found
        return self._manifest[1]

    def record(self, output: str) -> Record | None:
        """The record of an output, the newest first: that of this job, else that of the manifest."""
        return self._read_record(_file(_DONE, output)) or self._in_manifest().get(output)

    def records(self) -> dict[str, Record]:
        """The records of all outputs, by output."""
        # The manifest is read last: records are deleted only when it has them.
        known = {}
        for entry in self.own.entries(_DONE):
            before = self._known.get(entry.name)
            same = before is not None and before[0] == entry
            known[entry.name] = before if before and same else (entry, self._read_record(entry.name))
        self._known = known
        found = [record for _, record in known.values()]
        return {**self._in_manifest(), **{record.output: record for record in found if record}}

    def unlisted(self) -> Iterator[Record]:
        """The records that are not in the manifest."""
        listed = self._in_manifest()
        yield from (record for record in self.records().values() if listed.get(record.output) != record)

    def add(self, record: Record) -> None:
        """Record a finished output."""
        self.own.write(_file(_DONE, record.output), _json(asdict(record)))
        for kind in (_FAILED, _SEALED):
            self.own.delete(_file(kind, record.output))

    def seal(self, output: str, identity: list[int], receipt: str) -> None:
        """Note that a file of this identity becomes the output, which has no records and so no checkpoint."""
        self.own.write(_file(_SEALED, output), _json({"identity": identity, "receipt": receipt}))

    def sealed(self, output: str) -> tuple[list[int], str] | None:
        found = _object(self.own.read(_file(_SEALED, output)))
        return (found["identity"], found["receipt"]) if found else None

    def fail(self, failure: Failure) -> None:
        content = {"output": failure.output, "message": failure.message, "exit_code": failure.exit_code}
        self.own.write(_file(_FAILED, failure.output), _json(content))

    def failures(self, since: float = 0.0) -> dict[str, Failure]:
        """The failures since a time by the folder's clock, by output."""
        found = {}
        for entry in self.own.entries(_FAILED):
            content = _object(self.own.read(entry.name))
            if entry.written >= since and content:
                found[content["output"]] = Failure(**content, written=entry.written)
        return found

    def job(self) -> dict[str, Any] | None:
        """Settings and inputs of the unfinished job."""
        return _object(self.own.read(_JOB)) or None

    def begin(self, job: dict[str, Any]) -> None:
        """Store settings and inputs; from now on the folder is not complete."""
        self.own.write(_JOB, _json(job))
        self.folder.delete(SUCCESS)

    def agree(self, model: dict[str, Any]) -> dict[str, Any]:
        """The model of this job, which is the given one if no process has loaded one before."""
        if self.own.put_if_absent(_MODEL, _json(model)):
            return model
        return _object(self.own.read(_MODEL)) or model

    @property
    def model(self) -> dict[str, Any] | None:
        return _object(self.own.read(_MODEL)) or None

    def finish(self, manifest: dict[str, Any]) -> None:
        """Write the manifest, then `_SUCCESS`, then delete what the processes shared."""
        self.folder.write(MANIFEST, _json({"kind": _KIND, **manifest}, indent=1))
        self.folder.write(SUCCESS, b"")
        self.tidy()

    def sweep(self, outputs: Collection[str]) -> None:
        """Delete what processes that died after the record of an output have left beside it."""
        for name in [entry.name for entry in self.folder.entries()]:
            if (beside := BESIDE.search(name)) and name[: beside.start()] in outputs:
                self.folder.delete(name)
                if "/" in beside[0]:
                    self.folder.delete_empty(name.rpartition("/")[0])

    def tidy(self) -> None:
        """Delete job, model, records and failures; not what tells who is there."""
        for name in [entry.name for under in (_DONE, _FAILED, _SEALED) for entry in self.own.entries(under)]:
            self.own.delete(name)
        for name in (_MODEL, _JOB):
            self.own.delete(name)

    def leave(self, worker: Worker) -> None:
        """For a process that ends: delete empty folders, and what dead processes left if no other one is here."""
        if not worker.others():
            worker.clear()
            self.own.delete_unfinished()
        self.own.delete_empty("")

    def forget_manifest(self) -> None:
        self.folder.delete(SUCCESS)
        self.folder.delete(MANIFEST)

    def _in_manifest(self) -> dict[str, Record]:
        found = self.manifest()
        return found["records"] if found else {}

    def _read_record(self, name: str) -> Record | None:

        content = self.own.read(name)
        with suppress(TypeError):
            return Record(**_object(content)) if content else None
        return None


def _file(kind: str, output: str) -> str:
    key = hashlib.blake2b(output.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()
    return f"{kind}/{key[:2]}/{key}.json"


def _json(content: dict[str, Any], indent: int | None = None) -> bytes:
    """JSON in ASCII, so that it can name files that are no text."""
    return json.dumps(content, indent=indent).encode() + b"\n"


def _object(data: bytes | None) -> dict[str, Any]:
    with suppress(ValueError):
        found = json.loads(data or b"{}")
        return found if isinstance(found, dict) else {}
    return {}
