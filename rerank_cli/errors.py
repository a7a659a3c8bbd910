"""All errors that are shown to people, with their exit codes.

    RerankError                 1  unexpected: a bug
    ├── UsageError              2  a flag, a setting or a combination of them is not valid
    ├── InputError              4  the input is missing, unreadable, or has too many bad records
    │   └── BadRecord           4  one record cannot be used; has a stable code
    ├── ModelError              5  the model cannot be loaded or run
    ├── RefusedError            6  the run would overwrite the output, or mix it with another run's
    │   ├── ChangedError        6  the input or the settings are not those of the unfinished run
    │   └── HeldError           6  another process writes the output
    └── OutputError             7  the output cannot be written

A run that finishes with rejected records exits 3, one stopped on request 10, one killed by signal N 128 + N.
Messages read `path:line: what is wrong (got X, expected Y). Fix: …` on a single line.
"""

from __future__ import annotations

EXIT_REJECTED = 3
EXIT_STOPPED = 10


class ClosedPipe(Exception):
    """The reader of stdout closed the pipe. Not an error: the process ends itself by SIGPIPE, silently."""


class RerankError(Exception):
    """Base of all errors. The message is one line."""

    exit_code = 1


class UsageError(RerankError):
    exit_code = 2


class InputError(RerankError):
    exit_code = 4


class BadRecord(InputError):
    """One record cannot be used. `code` is stable, for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type[BadRecord], tuple[str, str], dict[str, object]]:
        """Pickling keeps both arguments."""
        return type(self), (self.code, str(self)), self.__dict__


class ModelError(RerankError):
    exit_code = 5


class RefusedError(RerankError):
    exit_code = 6


class ChangedError(RefusedError):
    """`what` is the message without its fix."""

    def __init__(self, what: str, fix: str = "--restart, --on-changed restart, or another -o") -> None:
        super().__init__(f"{what}. Fix: {fix}")
        self.what = what


class HeldError(RefusedError):
    """Another process writes the output, or has taken it over from this one."""


class OutputError(RerankError):
    exit_code = 7
