"""What docs/architecture.md names exists: each module, and each name that follows a module."""

import ast
import pkgutil
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
MODULE = re.compile(r"`((?:[a-z_]+/)*[a-z_]+\.py)`((?:[\s,]+(?:and )?`[A-Za-z_]+`)*)")


def defined(module):
    tree = ast.parse(module.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}


def test_every_module_and_name_in_the_page_exists():
    found = MODULE.findall(PAGE)
    assert len(found) > 40
    for path, names in found:
        module = ROOT / "rerank_cli" / path
        if not module.is_file():
            assert (ROOT / path).is_file(), path
            continue
        missing = set(re.findall(r"`([A-Za-z_]+)`", names)) - defined(module)
        assert not missing, f"{path} has no {missing}"


def test_every_folder_of_the_package_is_in_the_picture():
    picture = PAGE.split("```")[1]
    folders = {path.parent.name for path in (ROOT / "rerank_cli").rglob("__init__.py")} - {"rerank_cli"}
    nested = {"flags", "profiling", "encoders", "decoders", "prompts", "quantization"}
    assert folders - nested <= set(re.findall(r"[a-z]+", picture))
    for folder in (ROOT / "rerank_cli").rglob("__init__.py"):
        assert '"""' in folder.read_text(encoding="utf-8"), folder


def test_every_file_that_a_page_names_exists():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    for page in pages:
        for path in re.findall(r"`((?:tests|benchmarks|rerank_cli|docs|training)/[\w./-]+)`", page.read_text("utf-8")):
            inside = page.name == "architecture.md" and (ROOT / "rerank_cli" / path).exists()
            assert inside or (ROOT / path).exists(), f"{page.name} names {path}"
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_every_name_that_a_benchmark_replaces_exists():
    """`unittest.mock.patch` takes names as strings, which nothing else checks."""
    names = [
        name
        for script in (ROOT / "benchmarks").glob("*.py")
        for name in re.findall(r'"(rerank_cli(?:\.\w+)+)"', script.read_text("utf-8"))
    ]
    assert len(names) >= 5
    for name in names:
        pkgutil.resolve_name(name)
