"""Write docs/cli.md from the commands' own --help; with --check say whether it is up to date."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parent / "cli.md"
COMMANDS = (
    "", "run", "score", "check", "inspect", "bench", "eval", "merge", "status", "report", "view", "mine", "train",
    "models",
)  # fmt: skip
HEAD = "# Command line\n\nGenerated from `--help` by `make docs`; do not edit.\n"


def main() -> int:
    text = HEAD + "".join(section(command) for command in COMMANDS)
    if "--check" not in sys.argv:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") == text:
        return 0
    print("docs/cli.md is not what --help says. Fix: make docs", file=sys.stderr)
    return 1


def section(command: str) -> str:
    """A heading and the help text of one command, at a fixed width."""
    words = [*command.split(), "--help"]
    environment = {"PATH": os.environ["PATH"], "COLUMNS": "100", "TERM": "dumb", "LC_ALL": "C.UTF-8"}
    shown = subprocess.run(
        [sys.executable, "-m", "rerank_cli", *words], env=environment, check=True, capture_output=True, text=True
    ).stdout
    lines = [line.rstrip() for line in shown.replace("python -m rerank_cli", "rerank").splitlines()]
    return f"\n## {' '.join(['rerank', *command.split()])}\n\n```\n" + "\n".join(lines).strip() + "\n```\n"


if __name__ == "__main__":
    sys.exit(main())
