"""The wheel by itself: what it carries and whether its command runs outside the source tree.

Dependencies come from the environment of the tests; `make wheel-check` installs them afresh from the metadata.
"""

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import orjson
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MINI = "rerank_cli/checkpoints/mini/"
REQUEST = b'{"query": "what is a panda?", "documents": ["hi", "The giant panda is a bear that lives in China."]}\n'


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT]
    subprocess.run(command, check=True, timeout=300)
    (found,) = folder.glob("*.whl")
    return found


def test_it_carries_the_built_in_model_and_stays_small(wheel):
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    model = {name.removeprefix(MINI): size for name, size in sizes.items() if name.startswith(MINI)}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= set(model)
    assert sum(model.values()) <= 20_000_000
    assert "rerank_cli/py.typed" in sizes
    assert {f"rerank_cli/reports/{name}" for name in ("page.html", "style.css", "page.js")} <= set(sizes)


def test_it_carries_nothing_but_the_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"rerank_cli"}


def test_its_command_reranks_in_an_environment_of_its_own(wheel, tmp_path):
    home = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", home], check=True, timeout=120)
    subprocess.run([home / "bin/pip", "install", "--quiet", "--no-deps", wheel], check=True, timeout=120)
    (packages,) = home.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    done = subprocess.run(
        [home / "bin/rerank", "run", "-m", "mini", "-q"],
        input=REQUEST,
        capture_output=True,
        cwd=tmp_path,
        timeout=120,
        check=True,
    )
    assert [result["index"] for result in orjson.loads(done.stdout)["results"]] == [1, 0]
    where = subprocess.run(
        [home / "bin/python", "-c", "import rerank_cli; print(rerank_cli.__file__)"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
        timeout=60,
    ).stdout
    assert where.startswith(str(home))
