"""Rows that stand together put together: rows of one key make one group, whatever a group is made of.

A row that cannot be used is rejected alone and its group goes on; a key that comes back later is rejected row by row,
naming the place where it was first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar

from rerank_cli.display import shown
from rerank_cli.errors import BadRecord
from rerank_cli.formats.reading.query_log import QueryLog
from rerank_cli.formats.shapes.fields import Id
from rerank_cli.formats.shapes.rows import Row
from rerank_cli.records import Place, Position, Rejection


class Keyed(Protocol):
    """A row, understood. The key says whether the query has no id, and the id or else the text."""

    @property
    def key(self) -> tuple[bool, Id]: ...


ItemT = TypeVar("ItemT", bound=Keyed)
AddedT = TypeVar("AddedT", bound=Keyed, contravariant=True)
MadeT = TypeVar("MadeT", covariant=True)


class Group(Protocol[AddedT, MadeT]):
    """Rows of one key so far. `add` raises BadRecord for one that does not belong."""

    @property
    def key(self) -> tuple[bool, Id]: ...
    @property
    def position(self) -> Position: ...
    def add(self, item: AddedT, row: Row) -> None: ...
    def made(self) -> MadeT: ...


class Reader(Protocol[ItemT, MadeT]):
    """What rows are to those who group them."""

    def understand(self, row: Row) -> ItemT:
        """Raises BadRecord."""

    def begin(self, item: ItemT, position: Position) -> Group[ItemT, MadeT]: ...

    def id_of(self, row: Row) -> Id:
        """The query id of a bad row, if it has a usable one."""


class Grouping(Generic[ItemT, MadeT]):
    """Rows in, groups out. Keeps one group, and in `seen` where each earlier one began; `paths` names the inputs."""

    def __init__(self, reader: Reader[ItemT, MadeT], seen: QueryLog, paths: Sequence[str]) -> None:
        self._reader = reader
        self._seen = seen
        self._paths = paths
        self._group: Group[ItemT, MadeT] | None = None

    def records(self, rows: Iterator[Row | Rejection]) -> Iterator[MadeT | Rejection]:
        """What each group makes, at the group's last row; rejections where they occur."""
        for row in rows:
            if isinstance(row, Rejection):
                yield replace(row, position=self._inside(row.position))
                continue
            try:
                finished = self._take(row)
            except BadRecord as error:
                position = self._inside(row.position)
                yield Rejection(position, error.code, str(error), self._reader.id_of(row), row.excerpt())
                continue
            if finished:
                yield finished.made()
        if self._group:
            yield self._group.made()

    def _inside(self, position: Position) -> Position:
        """The position of a bad row: to be found again from where the group begins that is not finished yet."""
        return replace(position, place=self._group.position.place) if self._group else position

    def _take(self, row: Row) -> Group[ItemT, MadeT] | None:
        """Add a row to its group; returns the group before if this row begins another."""
        item = self._reader.understand(row)
        if self._group and item.key == self._group.key:
            self._group.add(item, row)
            return None
        group = self._reader.begin(item, row.position)
        group.add(item, row)
        self._check_new(item.key, row.position)
        before, self._group = self._group, group
        return before

    def _check_new(self, key: tuple[Any, Id], position: Position) -> None:
        place = position.place or Place()
        file, rows = self._seen.first(key, place)
        if (file, rows) != (place.file, place.rows):
            what = "query" if key[0] else "query id"
            first = f"{self._paths[file]}:{rows + 1}"
            where = f"got {shown(repr(key[1]))} again, after other queries; it was first at {first}"
            message = f"rows of one {what} must stand together ({where}). Fix: --sort, or sort the input"
            raise BadRecord("query_returned", message)
