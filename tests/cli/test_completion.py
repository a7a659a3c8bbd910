"""Completion as shells ask for it: the script of bash in bash, the protocols of zsh and fish."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from shell import RERANK, TINY, environment


def completed(shell, line, env=None):
    """What the shell is told for a line that ends where the cursor is."""
    asked = {"_RERANK_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": line}
    if shell == "bash":
        words = line.split(" ")
        asked |= {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    if shell == "fish":
        asked["_TYPER_COMPLETE_FISH_ACTION"] = "get-args"
    ended = subprocess.run(
        [RERANK], env=environment(asked | (env or {})), capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stderr == ""
    return ended.stdout


def names(line, **settings):
    return [name for name in completed("bash", line, **settings).splitlines() if name]


def test_known_models_complete():
    found = names("rerank run -m BAAI/bge-reranker-v2-m")
    assert found == ["BAAI/bge-reranker-v2-m3", "BAAI/bge-reranker-v2-minicpm-layerwise"]
    assert names("rerank score --model mi")[0] == "mini"
    assert names("rerank models Qwen/Qwen3-Reranker-0") == ["Qwen/Qwen3-Reranker-0.6B"]
    assert "BAAI/bge-reranker-base:20" in names("rerank run --cascade BAAI/")


@pytest.fixture
def cache(tmp_path):
    """A cache of the Hub with a reranker, a classifier with three labels, an embedding model and a broken one."""
    label = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}}
    for name, config in {
        "someone--tiny": Path(TINY, "config.json").read_text(),
        "someone--one-label": json.dumps(label),
        "someone--three-labels": json.dumps(label | {"id2label": {"0": "a", "1": "b", "2": "c"}}),
        "someone--embedder": json.dumps({"architectures": ["BertModel"]}),
        "someone--my-reranker": json.dumps({"architectures": ["Qwen3ForCausalLM"]}),
        "someone--broken": "{",
    }.items():
        folder = tmp_path / f"models--{name}" / "snapshots" / "0123"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(config)
    (tmp_path / "models--someone--empty").mkdir()
    return {"HF_HUB_CACHE": str(tmp_path)}


def test_rerankers_in_the_cache_of_the_hub_complete(cache):
    assert names("rerank run -m some", env=cache) == ["someone/my-reranker", "someone/one-label", "someone/tiny"]


def test_devices_complete():
    assert names("rerank run --device c")[0] == "cpu"
    assert names("rerank bench --device au") == ["auto"]
    assert names("rerank run --devices cp") == ["cpu", "cpu,cpu"]


def test_what_is_no_model_or_device_is_left_to_the_shell():
    assert names("rerank run -m ./mod") == []
    assert names("rerank run cand") == []


def test_zsh_and_fish_get_names_with_descriptions():
    assert '"mini":"built in' in completed("zsh", "rerank run -m min")
    assert completed("fish", "rerank run -m min").startswith("mini\tbuilt in")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_script_that_is_shown_completes_in_bash():
    path = f"{Path(RERANK).parent}{os.pathsep}{os.environ['PATH']}"
    script = subprocess.run(
        [RERANK], env=environment({"_RERANK_COMPLETE": "source_bash"}), capture_output=True, text=True, check=True
    ).stdout
    asked = "COMP_WORDS=(rerank run --model BAAI/bge-reranker-l); COMP_CWORD=3; _rerank_completion rerank"
    ended = subprocess.run(
        ["bash", "-c", f'{script}\n{asked}; printf "%s\\n" "${{COMPREPLY[@]}}"'],
        env=environment({"PATH": path}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == "BAAI/bge-reranker-large\n"


def test_completing_imports_neither_torch_nor_numpy():
    code = (
        "import sys; from rerank_cli.cli.terminal import completion; "
        "completion.models(''), completion.device(''), completion.devices(''), completion.cascades(''); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'transformers')))"
    )
    assert (
        subprocess.run([Path(RERANK).with_name("python"), "-c", code], env=environment(), check=False).returncode == 0
    )
