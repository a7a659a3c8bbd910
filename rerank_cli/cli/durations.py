"""Times as people write them: `90`, `90s`, `30m`, `7h30m`, `2d`."""

from __future__ import annotations

import re

from rerank_cli.errors import UsageError

_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_PART = re.compile(r"(\d+(?:\.\d+)?)([dhms])")


def duration(text: str, flag: str) -> float:
    """Seconds; a bare number is seconds too. UsageError names the flag."""
    plain = f"{text}s" if re.fullmatch(r"\d+(\.\d+)?", text) else text
    parts = _PART.findall(plain)
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if "".join(map("".join, parts)) != plain or seconds <= 0:
        raise UsageError(f"{flag} {text}: not a time (expected 90s, 30m, 7h30m or the like)")
    return seconds
