"""Every failure a person can cause or meet, and the exit code each one owns.

    RerankError                 1  unexpected, a bug
    ├── UsageError              2  bad flags or configuration
    ├── InputError              4  input missing, unreadable, or too many bad records
    │   └── BadRecord           4  one record cannot be used; carries a stable code
    ├── ModelError              5  the model cannot be loaded or run
    ├── RefusedError            6  output exists, belongs to another run, or is locked
    └── OutputError             7  output cannot be written

A run that finishes with rejected records exits 3, one stopped on request 10, one killed by signal N 128 + N.
Messages read `path:line: what is wrong (got X, expected Y). Fix: …` on a single line.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_REJECTED = 3
EXIT_STOPPED = 10


class ClosedPipe(Exception):
    """Nobody reads our output any more. Not a failure: the process ends of SIGPIPE, quietly."""


class RerankError(Exception):
    """Root of the tree. The message is one line for a person at a shell."""

    exit_code = 1


class UsageError(RerankError):
    """A flag or a combination of flags that makes no sense."""

    exit_code = 2


class InputError(RerankError):
    """The input is missing, unreadable, or holds more bad records than allowed."""

    exit_code = 4


class BadRecord(InputError):
    """One record cannot be used. `code` is stable and meant for machines."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type[BadRecord], tuple[str, str], dict[str, object]]:
        """Pickles with both its arguments."""
        return type(self), (self.code, str(self)), self.__dict__


class ModelError(RerankError):
    """The model cannot be found, loaded or run."""

    exit_code = 5


class RefusedError(RerankError):
    """Going on would overwrite or mix somebody's work."""

    exit_code = 6


class OutputError(RerankError):
    """The output cannot be written."""

    exit_code = 7
