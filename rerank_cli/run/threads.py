"""`Ahead` prefetches an iterator on a thread; `Behind` runs a consumer on one.

The Rust tokenizer, torch and file writes release the interpreter lock, so a few threads keep a device busy. Both queues
are bounded; an exception of the thread is raised again, with its traceback, in the thread that uses the object.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_POLL = 0.1  # seconds
_END = object()


class Ahead(Generic[T]):
    """Iterates `items`, which a thread produces at most `depth` items ahead.

    Iteration ends early when `until` returns true, even while the thread waits for input; `exhausted` is set once all
    items were taken. The thread calls `ring` whenever `take` has something new.
    """

    def __init__(
        self,
        items: Iterable[T],
        depth: int = 1,
        until: Callable[[], bool] = lambda: False,
        ring: Callable[[], None] = lambda: None,
        *,
        start: bool = True,
    ) -> None:
        self._items = items
        self._until = until
        self._ring = ring
        self._ready: queue.Queue[Any] = queue.Queue(maxsize=depth)
        self._closed = threading.Event()
        self._error: BaseException | None = None
        self.exhausted = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        if start:
            self.start()

    def start(self) -> None:
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        while not self._closed.is_set() and not self._until():
            try:
                item = self._ready.get(timeout=_POLL)
            except queue.Empty:
                continue
            if self._is_end(item):
                return
            yield item

    @property
    def full(self) -> bool:
        """Whether as many items wait as there is room for."""
        return self._ready.full()

    def take(self) -> list[T]:
        """The next item, or an empty list if none is ready or all were taken. Does not block."""
        with suppress(queue.Empty):
            item = self._ready.get_nowait()
            return [] if self._is_end(item) else [item]
        return []

    def _is_end(self, item: Any) -> bool:
        """Whether the thread has ended. Raises its exception if it failed."""
        if item is not _END:
            return False
        if self._error is not None:
            raise self._error
        self.exhausted = True
        return True

    def close(self) -> None:
        """Ask the thread to end at its next item. A thread that blocks in a read ends with the process."""
        self._closed.set()
        self._thread.join(timeout=1.0)

    def _work(self) -> None:
        try:
            for item in self._items:
                if not self.put(item):
                    return
        except BaseException as error:  # raised again by _is_end
            self._error = error
        self.put(_END)

    def put(self, item: Any) -> bool:
        """Append an item when there is room; False if closed before. In the thread only, between two of its items."""
        while not self._closed.is_set():
            try:
                self._ready.put(item, timeout=_POLL)
            except queue.Full:
                continue
            self._ring()
            return True
        return False


class Behind(Generic[T]):
    """Runs `consume` on a thread, at most `depth` items behind `put`.

    After an error `consume` is not called again; `put` and `close` raise the error.
    """

    def __init__(self, consume: Callable[[T], None], depth: int = 2) -> None:
        self._consume = consume
        self._queue: queue.Queue[Any] = queue.Queue(maxsize=depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        if self._error is not None:
            raise self._error
        self._queue.put(item)

    def close(self) -> None:
        """Wait until all items are consumed, then end the thread."""
        self._queue.put(_END)
        self._thread.join()
        if self._error is not None:
            raise self._error

    @property
    def failed(self) -> bool:
        return self._error is not None

    def _work(self) -> None:
        while (item := self._queue.get()) is not _END:
            if self._error is None:
                try:
                    self._consume(item)
                except BaseException as error:  # raised again by put and close
                    self._error = error
