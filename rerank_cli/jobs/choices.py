"""What a flag of a run may be. Importing this costs nothing, so that `--help` may."""

from __future__ import annotations

from enum import StrEnum


class OnError(StrEnum):
    """What a bad record does: end the run, be left out, or be answered by an error in its place."""

    FAIL = "fail"
    SKIP = "skip"
    EMIT = "emit"


class Resume(StrEnum):
    """What to do with the work of an earlier run: go on if there is any, insist that there is, or start over."""

    AUTO = "auto"
    REQUIRE = "require"
    NEVER = "never"


class ProgressMode(StrEnum):
    """How a run shows itself; `auto` is a bar on a terminal and plain lines elsewhere."""

    AUTO = "auto"
    BAR = "bar"
    PLAIN = "plain"
    JSON = "json"
    OFF = "off"
