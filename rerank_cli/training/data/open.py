"""Opens training data: reads it once, says what is wrong with it, and gives its groups at any place."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from rerank_cli.display import counted, shown
from rerank_cli.errors import InputError
from rerank_cli.formats import ErrorsFile, InputOptions
from rerank_cli.formats.corpus.files import corpus_files
from rerank_cli.formats.runs.qrels import read_qrels
from rerank_cli.formats.shapes.groups import GroupFields
from rerank_cli.records import Rejection
from rerank_cli.storage.listing import matches_of
from rerank_cli.storage.opening import BLOCK, not_readable, open_file
from rerank_cli.training.data.files import FileGroups
from rerank_cli.training.data.rules import GroupRules
from rerank_cli.training.data.runs import RunGroups
from rerank_cli.training.data.store import BatchPlan, Groups, GroupStore


@dataclass(frozen=True, slots=True)
class BadRecords:
    """What happens to bad records: the first ends the run, or at most `most` are left out and written to `errors`."""

    skip: bool = False
    errors: str | None = None
    most: int | None = None


@dataclass(frozen=True, slots=True)
class DataOptions:
    """Which training data to read. With `input.by_id`, `input.paths` are runs, and `qrels` has the judgements."""

    input: InputOptions
    label_field: str | None = None
    qrels: str | None = None
    min_relevance: int = 1
    bad: BadRecords = field(default_factory=BadRecords)


@dataclass(slots=True)
class _Guard:
    """Counts bad records, and ends the run according to `BadRecords`."""

    bad: BadRecords
    errors: ErrorsFile | None
    count: int = 0

    def __call__(self, rejection: Rejection) -> None:
        self.count += 1
        if not self.bad.skip:
            fix = "" if "Fix: " in str(rejection) else ". Fix: --on-error skip"
            raise InputError(f"{rejection}{fix}")
        if self.bad.most is not None and self.count > self.bad.most:
            raise InputError(f"{rejection} (bad record number {self.count}, more than --max-errors {self.bad.most})")
        if self.errors:
            self.errors.write(rejection)


@dataclass(frozen=True, slots=True)
class OpenedData:
    """The data, the number of rejected records, and remarks about it for people."""

    groups: Groups
    rejected: int
    remarks: Sequence[str]


def open_data(
    options: DataOptions, rules: GroupRules, plan: BatchPlan, folder: str | None, notify: Callable[[str], None]
) -> OpenedData:
    """Read all records. A temporary file, if one is needed, is made in `folder`.

    Raises InputError for a file that cannot be read, for bad records according to `options.bad`, and for data without
    groups; UsageError or RefusedError for an errors file that cannot be used.
    """
    given = options.input
    paths = tuple(path for named in given.paths for path in _files_of(named))
    given = replace(given, paths=paths)
    with ExitStack() as stack:
        errors = None
        if options.bad.errors:
            errors = ErrorsFile(options.bad.errors, paths)
            stack.callback(errors.close)
        reject = _Guard(options.bad, errors)
        store: GroupStore
        with ThreadPoolExecutor(1) as thread:
            # Hashing releases the interpreter's lock: the digests are there when the records are read.
            digests = {path: thread.submit(_digest, path) for path in paths}
            remarks = []
            if given.by_id and options.qrels:
                qrels = read_qrels(options.qrels)
                store = RunGroups(given, given.by_id, qrels, options.min_relevance, rules, folder, reject, notify)
                others = dict.fromkeys((*store.files, options.qrels))
                digests |= {path: thread.submit(_digest, path) for path in others if path not in digests}
                if store.unjudged:
                    queries = counted(store.unjudged, "query")
                    remarks.append(f"{queries} of the run left out: no document is judged relevant")
            else:
                store = FileGroups(given, _fields(options), rules, folder, reject)
            stack.callback(store.close)
            files = {path: digest.result() for path, digest in digests.items()}
        if errors:
            errors.commit()
        if not len(store.index):
            got = [*([f"{reject.count:,} bad records"] if reject.count else []), *remarks] or ["no records"]
            raise InputError(f"{shown(paths[0], 300)}: there is nothing to train on (got {'; '.join(got)})")
        mark = hashlib.blake2b("\n".join(files.values()).encode(), digest_size=16).hexdigest()
        groups = Groups(store, rules, plan, files, mark)
        remarks += _remarks(store, rules)
        if errors:
            errors.close()
        stack.pop_all()
    return OpenedData(groups, reject.count, remarks)


def named_files(given: InputOptions, qrels: str | None) -> list[str]:
    """All files that these options name: those that patterns match and folders hold. Raises InputError."""
    files = [path for named in given.paths for path in _files_of(named)]
    if given.by_id:
        files += [*corpus_files(given.by_id.queries), *corpus_files(given.by_id.corpus)]
    return list(dict.fromkeys([*files, *([qrels] if qrels else [])]))


def _fields(options: DataOptions) -> GroupFields:
    given, known = options.input, GroupFields()
    return GroupFields(
        (given.query_field,) if given.query_field else known.query,
        (given.text_field,) if given.text_field else known.passage,
        (options.label_field,) if options.label_field else (),
    )


def _remarks(store: GroupStore, rules: GroupRules) -> list[str]:
    """What a person should know of the data before training on it."""
    counts, count, wanted = store.counts, len(store.index), rules.group_size - 1
    found = []
    if counts.short:
        what = f"{counts.short:,} of {count:,} groups have fewer than {wanted} negatives: theirs are repeated"
        found.append(f"{what} (--group-size sets the number)")
    if counts.without_negatives:
        what = f"{counts.without_negatives:,} of {count:,} groups have no negatives"
        found.append(f"{what}: passages of other queries are taken")
    return found


def _files_of(path: str) -> list[str]:
    """The files that a pattern matches, sorted; the path itself if it is none or a file of that name exists."""
    found = matches_of(path)
    if not found:
        raise InputError(f"{shown(path, 300)}: no file matches this pattern")
    return list(found)


def _digest(path: str) -> str:
    """The SHA-256 of a file's content. Raises InputError."""
    hash = hashlib.sha256()
    with open_file(path) as file:
        try:
            while block := file.read(BLOCK):
                hash.update(block)
        except OSError as error:
            raise not_readable(path, error) from error
    return hash.hexdigest()
