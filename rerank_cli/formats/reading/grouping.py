"""Adjacent rows of one key to one group. What a group consists of is defined by a `Reader`.

A bad row is rejected alone and its group continues. A key that returns after other keys is rejected row by row, with
the line where it was first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Generic, Protocol, TypeVar

from rerank_cli.display import shown
from rerank_cli.errors import BadRecord
from rerank_cli.formats.reading.query_log import QueryLog
from rerank_cli.formats.shapes.fields import Id
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Place, Position, Rejection


class Keyed(Protocol):
    """A parsed row. `key` is (False, id) of the query, or (True, text) for a query without an id."""

    @property
    def key(self) -> tuple[bool, Id]: ...


ItemT = TypeVar("ItemT", bound=Keyed)
AddedT = TypeVar("AddedT", bound=Keyed, contravariant=True)
MadeT = TypeVar("MadeT", covariant=True)


class Group(Protocol[AddedT, MadeT]):
    """The rows of one key so far. `add` raises BadRecord for a row that does not fit."""

    @property
    def key(self) -> tuple[bool, Id]: ...
    @property
    def position(self) -> Position: ...
    def add(self, item: AddedT) -> None: ...
    def made(self) -> MadeT: ...


class Reader(Protocol[ItemT, MadeT]):
    """Parses rows and begins groups of them."""

    def understand(self, row: Row) -> ItemT:
        """Raises BadRecord."""

    def begin(self, item: ItemT, position: Position) -> Group[ItemT, MadeT]: ...

    def id_of(self, row: Row) -> Id:
        """The query id of a bad row, if it has a usable one."""


class Grouping(Generic[ItemT, MadeT]):
    """Rows in, groups out. Holds one group; `seen` stores where each earlier one began; `paths` names the inputs."""

    def __init__(self, reader: Reader[ItemT, MadeT], seen: QueryLog, paths: Sequence[str]) -> None:
        self._reader = reader
        self._seen = seen
        self._paths = paths
        self._group: Group[ItemT, MadeT] | None = None

    def records(self, rows: Iterator[Row | Rejection]) -> Iterator[MadeT | Rejection]:
        """The result of each group, after its last row; rejections where they occur."""
        for row in rows:
            finished = None
            if isinstance(row, Row):
                try:
                    finished = self._take(row)
                except BadRecord as error:
                    row = Rejection(row.position, error.code, str(error), self._reader.id_of(row), row.excerpt())
            if isinstance(row, Rejection):
                # A bad row has the place of the unfinished group, so that resuming reads both again.
                place = self._group.position.place if self._group else row.position.place
                yield replace(row, position=replace(row.position, place=place))
            if finished:
                yield finished.made()
        if self._group:
            yield self._group.made()

    def _take(self, row: Row) -> Group[ItemT, MadeT] | None:
        """Add a row to its group; returns the previous group if the row begins a new one."""
        item = self._reader.understand(row)
        key = item.key
        if self._group and key == self._group.key:
            self._group.add(item)
            return None
        group = self._reader.begin(item, row.position)
        group.add(item)
        place = row.position.place or Place()
        file, number = self._seen.first(key, place)
        if (file, number) != (place.file, place.rows):
            where = f"got {shown(repr(key[1]))} again, after other queries; first at {self._paths[file]}:{number + 1}"
            message = f"rows of one {'query' if key[0] else 'query id'} must be adjacent ({where})"
            raise BadRecord("query_returned", f"{message}. Fix: --sort, or sort the input")
        finished, self._group = self._group, group
        return finished
