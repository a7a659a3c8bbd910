"""The commands of `deploy/` are commands of rerank, with flags that it has. `make recipes-check` has the rest read."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from rerank_cli.cli.main import app

DEPLOY = Path(__file__).parents[2] / "deploy"
TAKEN = re.compile(r"(?<![\w./-])rerank (?:run|merge|eval) [^|\n]*")


def commands(text):
    """Every command of rerank in a text, with continued lines joined; a quote around it is not part of it."""
    found = TAKEN.findall(text.replace("\\\n", " "))
    return [shlex.split(each.rpartition('"')[0] if each.count('"') % 2 else each)[1:] for each in found]


def of_shell(name):
    return commands((DEPLOY / name).read_text())


def of_kubernetes():
    job = yaml.safe_load((DEPLOY / "kubernetes.yaml").read_text())
    containers = job["spec"]["template"]["spec"]["containers"]
    return [*of_shell("kubernetes.yaml"), *(container["args"] for container in containers)]


def of_airflow():
    """The strings of the module, with what is put into them replaced by a name."""
    for node in ast.walk(ast.parse((DEPLOY / "airflow_dag.py").read_text())):
        if isinstance(node, ast.keyword) and node.arg == "bash_command":
            parts = node.value.values if isinstance(node.value, ast.JoinedStr) else [node.value]
            text = "".join(part.value if isinstance(part, ast.Constant) else "file.jsonl" for part in parts)
            yield from commands(text)


RECIPES = {
    "slurm-array.sh": of_shell("slurm-array.sh"),
    "kubernetes.yaml": of_kubernetes(),
    "skypilot.yaml": of_shell("skypilot.yaml"),
    "airflow_dag.py": list(of_airflow()),
    "ray-job.sh": of_shell("ray-job.sh"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_commands_have_flags_that_exist_and_values_that_they_take(name):
    group = typer.main.get_command(app)
    assert RECIPES[name]
    for command, *words in RECIPES[name]:
        group.commands[command].make_context(command, list(words))


def test_every_recipe_is_read_and_listed():
    files = {path.name for path in DEPLOY.iterdir() if path.suffix in (".sh", ".yaml", ".py")}
    assert files == set(RECIPES)
    listed = (DEPLOY / "README.md").read_text()
    assert all(f"({name})" in listed for name in files)
