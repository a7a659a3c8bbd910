"""Every recipe of the cookbook, run as it stands."""

import re
from dataclasses import dataclass

import pytest
from pages import BLOCK, ROOT, Shell

pytestmark = pytest.mark.slow

COOKBOOK = (ROOT / "docs" / "cookbook.md").read_text(encoding="utf-8")
NEEDS = re.compile(r"^Continues recipe (\d+)\.", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Recipe:
    needs: tuple[int, ...]
    blocks: tuple[tuple[str, str], ...]  # what to run, and what the page shows of its output


def recipes():
    parts = re.split(r"^## (\d+)\. .*$", COOKBOOK, flags=re.MULTILINE)[1:]
    return {
        int(number): Recipe(tuple(map(int, NEEDS.findall(text))), tuple(BLOCK.findall(text)))
        for number, text in zip(parts[::2], parts[1::2], strict=True)
    }


RECIPES = recipes()


@pytest.fixture(scope="module")
def cook(tmp_path_factory):
    """Runs a recipe once, after those that it continues."""
    shell, done = Shell(tmp_path_factory.mktemp("kitchen")), set()

    def cook(number):
        if number in done:
            return
        for other in RECIPES[number].needs:
            cook(other)
        shell.run(RECIPES[number].blocks)
        done.add(number)

    return cook


@pytest.mark.parametrize("number", RECIPES)
def test_a_recipe_runs_and_prints_what_the_page_shows(cook, number):
    assert RECIPES[number].blocks
    cook(number)


def test_every_block_of_the_cookbook_belongs_to_a_recipe():
    assert sum(len(recipe.blocks) for recipe in RECIPES.values()) == COOKBOOK.count("```bash\n")
    assert list(RECIPES) == list(range(1, len(RECIPES) + 1))
    assert sum(bool(shown) for recipe in RECIPES.values() for _, shown in recipe.blocks) == COOKBOOK.count("```text\n")
