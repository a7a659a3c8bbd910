"""Paths with a scheme, such as `s3://bucket/key`: which there are, how they are shown, and patterns over a bucket.

Nothing here imports a library or opens a connection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rerank_cli.errors import InputError, UsageError

BUCKETS = ("s3", "gs", "az")  # object stores, which can be written
WEB = ("https", "http", "hf")  # can only be read
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_WILD = re.compile(r"[*?\[]")
# What other programs call them.
_OTHER_NAMES = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "abfs": "az", "abfss": "az", "azure": "az", "wasbs": "az"}


def scheme_of(path: str) -> str | None:
    """The scheme in lower case, None for a local path."""
    found = _SCHEME.match(path) if "://" in path else None
    return found[1].lower() if found else None


def is_remote(path: str) -> bool:
    return "://" in path and _SCHEME.match(path) is not None


def split(path: str) -> tuple[str, str, str]:
    """Scheme, bucket (or host) and key of a remote path. Raises UsageError for a scheme that is not known."""
    scheme, _, rest = path.partition("://")
    scheme = scheme.lower()
    if scheme not in (*BUCKETS, *WEB):
        other = _OTHER_NAMES.get(scheme)
        known = f"{other}://" if other else "s3://, gs://, az://, hf:// or https://"
        raise UsageError(f"{scheme}:// is not a kind of path that is known. Fix: {known}, or a local path")
    bucket, _, key = rest.partition("/")
    if not bucket:
        raise UsageError(f"{scheme}://: names no {'bucket' if scheme in BUCKETS else 'host'}")
    return scheme, bucket, key


def refuse_remote(path: str | None, flag: str) -> None:
    """Raise UsageError for a remote path where only a local one can be used."""
    if path is not None and is_remote(path):
        raise UsageError(f"{flag}: cannot be remote (got {scheme_of(path)}://). Fix: a local path")


def refuse_unwritable(path: str) -> None:
    """Raise UsageError for a remote path that cannot be written: not an object in a bucket."""
    scheme, _, key = split(path)
    if scheme not in BUCKETS:
        raise UsageError(f"{scheme}:// cannot be written, only read. Fix: s3://, gs://, az:// or a local path")
    if not key or key.endswith("/"):
        raise UsageError(f"{path}: names no object. Fix: a name in it, such as {path.rstrip('/')}/out.jsonl")


def is_pattern(path: str) -> bool:
    """Whether a remote path in a bucket or a repository has wildcards: `*`, `?` or `[`. Others are not listed."""
    scheme = scheme_of(path)
    return scheme is not None and scheme not in ("http", "https") and bool(_WILD.search(path))


def fixed_folder(pattern: str) -> str:
    """The folder that holds all matches: the part of a pattern before the first segment with a wildcard."""
    found = _WILD.search(pattern)
    return pattern[: pattern.rindex("/", 0, found.start()) + 1] if found else pattern


def matching(pattern: str, paths: Iterable[str]) -> Sequence[str]:
    """The paths that a pattern matches, sorted. `*` and `?` do not match a slash, `**/` matches any folders."""
    parts = re.split(r"(\*\*/|/)", pattern)
    text = "".join("(?:.*/)?" if part == "**/" else part if part == "/" else _segment(part) for part in parts)
    wanted = re.compile(text + r"\Z")
    found = sorted(path for path in paths if wanted.match(path))
    if not found:
        raise InputError(f"{pattern}: no object matches this pattern")
    return found


def _segment(pattern: str) -> str:
    """A part of a pattern as a regular expression: `*`, `?`, `[abc]` and `[!abc]`, which match no slash."""

    def one(found: re.Match[str]) -> str:
        if found[1]:
            inside = found[1].replace("\\", "\\\\").replace("^", "\\^")
            return f"[^/{inside[1:]}]" if inside.startswith("!") else f"[{inside}]"
        return {"*": "[^/]*", "?": "[^/]"}.get(found[0]) or re.escape(found[0])

    return re.sub(r"\[(!?[^\]/]+)\]|.", one, pattern, flags=re.DOTALL)


def joined(folder: str, name: str) -> str:
    """A path in a remote folder."""
    return f"{folder.rstrip('/')}/{name}"
