"""Pages of documentation whose commands are run in a shell, block by block, in a folder with the sample data."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from processes import TIMEOUT, environment, forked_command

ROOT = Path(__file__).parents[2]
# A block of commands, and below it what it prints.
BLOCK = re.compile(r"^```bash\n(.*?)^```\n(?:\s*^```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
OUTPUT = re.compile(r" -o ([\w.]+)")


class Shell:
    """A folder in which commands of a page are run, with `rerank` and `python` of this environment."""

    def __init__(self, folder):
        self.folder = folder
        shutil.copytree(ROOT / "sample_data", folder / "sample_data")
        programs = folder / "bin"
        programs.mkdir()
        for name, command in (("rerank", forked_command()), ("python", (sys.executable,))):
            program = programs / name
            program.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
            program.chmod(0o755)
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        self._environment = environment({"PATH": path, "RERANK_DEVICE": "cpu"})

    def run(self, blocks):
        """Run blocks: each succeeds and prints what the page shows of it; at the end, their outputs are not empty."""
        for commands, shown in blocks:
            printed = self._run(commands)
            assert pattern(shown).search(printed), f"the page shows\n{shown}\nbut the commands printed\n{printed}"
        for output in OUTPUT.findall("".join(commands for commands, _ in blocks)):
            assert (self.folder / output).stat().st_size > 0, output

    def _run(self, commands):
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env=self._environment,
            timeout=TIMEOUT,
            check=False,
        )
        printed = ended.stdout.decode()
        assert ended.returncode == 0, f"exit {ended.returncode} of\n{commands}\n{printed}"
        return printed


def pattern(shown):
    """What is shown, where … stands for a piece of a line, or alone on its line for any lines."""
    lines = [
        "(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*?") + " *\n" for line in shown.splitlines()
    ]
    return re.compile("^" + "".join(lines), re.MULTILINE)
