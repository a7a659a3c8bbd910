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


class Fuse(StrEnum):
    """How the reranker is mixed with the first stage: by the ranks of both, or by their scores."""

    RRF = "rrf"
    WEIGHTED = "weighted"


class Normalize(StrEnum):
    """What is done to the scores of a query before they are mixed."""

    NONE = "none"
    MINMAX = "minmax"
    ZSCORE = "zscore"


class ProgressMode(StrEnum):
    """How a run shows itself; `auto` is a bar on a terminal and plain lines elsewhere."""

    AUTO = "auto"
    BAR = "bar"
    PLAIN = "plain"
    JSON = "json"
    OFF = "off"
