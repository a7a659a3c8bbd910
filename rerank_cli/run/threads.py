"""Stages on threads: an iterator worked ahead of its reader, and a consumer that runs behind its writer.

The Rust tokenizer, torch and file writes release the interpreter lock, so that a few plain threads keep a device busy.
Queues are bounded; an exception in a stage comes out where the stage is read, with its traceback.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_POLL = 0.1


class _Raised:
    """An exception on its way to another thread."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


_END = object()


class Ahead(Generic[T]):
    """Iterates `items`, produced on a thread of their own at most `depth` ahead.

    Iteration ends early once `until` says so, even while the thread waits for input that may never come; `exhausted`
    tells whether it came to the end. `ring` is called, on the thread, whenever `take` has something new to give.
    """

    def __init__(
        self,
        items: Iterable[T],
        depth: int = 1,
        until: Callable[[], bool] = lambda: False,
        ring: Callable[[], None] = lambda: None,
    ) -> None:
        self._items = items
        self._until = until
        self._ring = ring
        self._ready: queue.Queue[Any] = queue.Queue(maxsize=depth)
        self._closed = threading.Event()
        self.exhausted = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        while not self._closed.is_set() and not self._until():
            try:
                item = self._ready.get(timeout=_POLL)
            except queue.Empty:
                continue
            if self._told_end(item):
                return
            yield item

    def take(self) -> list[T]:
        """The next item, or nothing where there is none yet or none any more; never waits."""
        if self.exhausted:
            return []
        try:
            item = self._ready.get_nowait()
        except queue.Empty:
            return []
        return [] if self._told_end(item) else [item]

    def _told_end(self, item: Any) -> bool:
        """Whether the thread says that it is done; raises what it died of."""
        if isinstance(item, _Raised):
            raise item.error
        if item is _END:
            self.exhausted = True
        return self.exhausted

    def close(self) -> None:
        """Ask the thread to end at its next item; one that hangs in a read ends with the process."""
        self._closed.set()
        self._thread.join(timeout=1.0)

    def _work(self) -> None:
        try:
            for item in self._items:
                if not self._offer(item):
                    return
            self._offer(_END)
        except BaseException as error:  # raised again where the items are read
            self._offer(_Raised(error))

    def _offer(self, item: Any) -> bool:
        while not self._closed.is_set():
            try:
                self._ready.put(item, timeout=_POLL)
            except queue.Full:
                continue
            self._ring()
            return True
        return False


class Behind(Generic[T]):
    """Runs `consume` on a thread of its own, at most `depth` items behind.

    After an error `consume` is not called again; `put`, `flush` and `close` raise it.
    """

    def __init__(self, consume: Callable[[T], None], depth: int = 2) -> None:
        self._consume = consume
        self._queue: queue.Queue[Any] = queue.Queue(maxsize=depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        self._raise()
        self._queue.put(item)

    def close(self) -> None:
        """Wait until everything put is consumed, then end the thread."""
        self._queue.put(_END)
        self._thread.join()
        self._raise()

    @property
    def failed(self) -> bool:
        return self._error is not None

    def _work(self) -> None:
        while (item := self._queue.get()) is not _END:
            if self._error is None:
                try:
                    self._consume(item)
                except BaseException as error:  # raised again where the next item is put
                    self._error = error

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
