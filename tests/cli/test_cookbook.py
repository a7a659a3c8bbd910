"""Every recipe of the cookbook in a shell, block by block: what comes out is what the page shows below."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from shell import TIMEOUT, environment

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cookbook.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```bash\n(.*?)^```\n(?:\s*^```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
NEEDS = re.compile(r"^Goes on from recipe (\d+)\.", re.MULTILINE)
OUTPUT = re.compile(r" -o ([\w.]+)")


@dataclass(frozen=True, slots=True)
class Recipe:
    needs: tuple[int, ...]
    blocks: tuple[tuple[str, str], ...]  # what to run, and what the page shows of its output


def recipes():
    parts = re.split(r"^## (\d+)\. .*$", PAGE, flags=re.MULTILINE)[1:]
    return {
        int(number): Recipe(tuple(map(int, NEEDS.findall(text))), tuple(BLOCK.findall(text)))
        for number, text in zip(parts[::2], parts[1::2], strict=True)
    }


RECIPES = recipes()


class Kitchen:
    """A folder with the sample data in which each recipe is run once, after those that it goes on from."""

    def __init__(self, folder):
        self.folder = folder
        self.outputs = {}
        shutil.copytree(ROOT / "sample_data", folder / "sample_data")
        programs = folder / "bin"
        programs.mkdir()
        for name, arguments in (("rerank", "-m rerank_cli "), ("python", "")):
            program = programs / name
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}"$@"\n')
            program.chmod(0o755)
        self.settings = environment(
            {
                "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
                "RERANK_DEVICE": "cpu",
            }
        )

    def cook(self, number):
        """What each block of the recipe printed, stdout and stderr as they came."""
        if number not in self.outputs:
            for other in RECIPES[number].needs:
                self.cook(other)
            self.outputs[number] = [self.shell(commands) for commands, _ in RECIPES[number].blocks]
        return self.outputs[number]

    def shell(self, commands):
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env=self.settings,
            timeout=TIMEOUT,
            check=False,
        )
        printed = ended.stdout.decode()
        assert ended.returncode == 0, f"exit {ended.returncode} of\n{commands}\n{printed}"
        return printed


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory):
    return Kitchen(tmp_path_factory.mktemp("kitchen"))


def pattern(shown):
    """What is shown, where … stands for a piece of a line, or alone on its line for any lines."""
    lines = [
        "(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*?") + " *\n" for line in shown.splitlines()
    ]
    return re.compile("^" + "".join(lines), re.MULTILINE)


@pytest.mark.parametrize("number", RECIPES)
def test_a_recipe_runs_and_prints_what_the_page_shows(kitchen, number):
    recipe = RECIPES[number]
    assert recipe.blocks
    for (commands, shown), printed in zip(recipe.blocks, kitchen.cook(number), strict=True):
        assert pattern(shown).search(printed), f"the page shows\n{shown}\nbut there came\n{printed}"
        for output in OUTPUT.findall(commands):
            assert (kitchen.folder / output).stat().st_size > 0, output


def test_every_block_of_the_page_belongs_to_a_recipe():
    assert sum(len(recipe.blocks) for recipe in RECIPES.values()) == PAGE.count("```bash\n")
    assert list(RECIPES) == list(range(1, len(RECIPES) + 1))
    assert sum(bool(shown) for recipe in RECIPES.values() for _, shown in recipe.blocks) == PAGE.count("```text\n")
