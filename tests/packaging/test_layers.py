"""The layers that pyproject.toml lists, and no imports in a circle, those inside functions included."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_imports_go_one_way():
    linter = Path(sys.executable).with_name("lint-imports")
    ended = subprocess.run([linter, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "4 kept, 0 broken" in ended.stdout


def test_names_of_test_files_are_unique():
    """pytest imports them by their names alone, and refuses a second one of a name in the same process."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py")
    assert [name for name, count in names.items() if count > 1] == []
