"""Reads a prompt profile that a user or `rerank train` wrote, as TOML or JSON (see docs/models.md)."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import orjson

from rerank_cli.choices import TruncationRule
from rerank_cli.display import without_secrets
from rerank_cli.errors import InputError, UsageError
from rerank_cli.models.prompts.profiles import BUILT_IN, Profile


def read_profile(name: str, read: Callable[[str], bytes] | None = None) -> Profile:
    """A built-in profile by name, or the profile in a file. Raises UsageError if it is not valid.

    `read` reads the file of a name with a scheme, such as `s3://bucket/my.toml`.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    remote, built_in = read is not None and "://" in name, ", ".join(sorted(BUILT_IN))
    path = Path(without_secrets(name).removesuffix("?…")) if remote else Path(name).expanduser()
    if not remote and not path.suffix and not path.exists():
        raise UsageError(f"--profile {name}: no such profile (expected a TOML or JSON file, or {built_in})")
    try:
        data = read(name) if read is not None and remote else path.read_bytes()
        content = orjson.loads(data) if path.suffix == ".json" else tomllib.loads(data.decode())
    except (OSError, InputError) as error:
        raise UsageError(f"--profile {name}: {getattr(error, 'strerror', None) or error}") from error
    except (orjson.JSONDecodeError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--profile {name}: unreadable ({error})") from error
    if not isinstance(content, dict):
        raise UsageError(f"--profile {path}: expected a table of settings")
    base = content.pop("base", None)
    if base is not None and not (isinstance(base, str) and base in BUILT_IN):
        raise UsageError(f"--profile {path}: no profile {base!r} to build on (expected {built_in})")
    known = [field.name for field in fields(Profile)]
    values: dict[str, Any] = {"name": path.stem}
    for setting, value in content.items():
        if setting not in known:
            raise UsageError(f"--profile {path}: unknown setting {setting!r} (expected {', '.join(known)})")
        values[setting] = _typed(path, setting, value)
    return replace(BUILT_IN[base], **values) if base else Profile(**values)


def _typed(path: Path, name: str, value: Any) -> Any:
    if name in {"prefix", "middle", "suffix"}:
        pieces = (value,) if isinstance(value, str) else value
        if isinstance(pieces, (list, tuple)) and all(isinstance(piece, str) for piece in pieces):
            return tuple(piece for piece in pieces if piece)
    elif name == "truncation_rule":
        if isinstance(value, str) and value in set(TruncationRule):
            return TruncationRule(value)
    elif name in {"divide_by", "query_share"}:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    elif name in {"yes", "no"}:
        answers = value if isinstance(value, list) else [value]
        if answers and all(isinstance(answer, str) or _is_id(answer) for answer in answers):
            return tuple(answers) if isinstance(value, list) else value
    elif name in {"strips", "one_string"}:
        if isinstance(value, bool):
            return value
    elif name == "max_length":
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif isinstance(value, str):
        return value
    raise UsageError(f"--profile {path}: {name} cannot be {value!r}")


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
