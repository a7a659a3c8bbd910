"""`--config FILE` and `--print-config`: flags > RERANK_* environment > the file > defaults.

A configuration file is TOML whose keys are long flag names (`max-length = 1024`), at the top level or in a table named
after the command. Only the file named by the flag is read.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import typer

from rerank_cli.cli.flags.declare import PROGRESS, flag
from rerank_cli.errors import UsageError
from rerank_cli.storage.remote import refuse_remote

_SOURCES = {"COMMANDLINE": "flag", "ENVIRONMENT": "environment", "DEFAULT_MAP": "config file", "DEFAULT": "default"}


def _read(context: typer.Context, path: str | None) -> str | None:
    """Use the file's top-level settings and those of the command's table as defaults; UsageError for unknown ones."""
    if path is None:
        return None
    refuse_remote(path, "--config")
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path}: not valid TOML ({error})") from error
    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    commands = getattr(context.parent.command, "commands", {}) if context.parent else {}
    flat = {key: value for key, value in content.items() if key not in tables}
    flat |= tables.get(context.info_name or "", {})
    values = {key.replace("-", "_"): value for key, value in flat.items()}
    known = {parameter.name for parameter in context.command.params}
    for name in [*(set(tables) - set(commands)), *(set(values) - known)]:
        raise UsageError(f"--config {path}: unknown setting {name!r}")
    context.default_map = {**(context.default_map or {}), **values}
    return path


def show(context: typer.Context) -> None:
    """Print every setting with its value and source as TOML; one without a value as a comment."""
    for parameter in context.command.params:
        name = parameter.name or ""
        if name in {"config", "print_config", "help"} or name not in context.params:
            continue
        source = context.get_parameter_source(name)
        origin = _SOURCES.get(source.name if source else "", "default")
        value = context.params[name]
        key = name.replace("_", "-")
        written = str(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
        print(f"# {key} is not set" if value is None else f"{key} = {written}  # {origin}")


def is_chosen(context: typer.Context, name: str) -> bool:
    """Whether a flag, the environment or the configuration file sets this parameter, even to its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


Config = flag(
    None, "Read settings from a TOML file.", "FILE", panel=PROGRESS, local=True, callback=_read, is_eager=True
)
PrintConfig = flag(False, "Print every setting and where it comes from, then exit.", panel=PROGRESS)
