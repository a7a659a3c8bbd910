"""Completion in the shell: names of models, devices and measures. `rerank --install-completion` sets it up.

Runs whenever the tab key is pressed, so it imports neither torch nor transformers. If nothing fits, the shell completes
files, such as the folder of a model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_GPUS = "nvidia[0-9]*"  # device files of NVIDIA's driver


def models(incomplete: str) -> list[tuple[str, str]]:
    """Names with a description each: what `rerank models` lists, and rerankers in the cache of the Hub."""
    from rerank_cli.models.known import KNOWN

    found = {known.name: known.note for known in KNOWN}
    found |= {name: "in the Hub's cache" for name in _cached() if name not in found}
    return [(name, note) for name, note in found.items() if name.startswith(incomplete)]


def _cached() -> Iterator[str]:
    """Names of models in the Hub's cache that give one score for a text or a pair, or are called rerankers."""
    from huggingface_hub.constants import HF_HUB_CACHE

    from rerank_cli.errors import ModelError
    from rerank_cli.models.checkpoint import read_object

    for folder in sorted(Path(HF_HUB_CACHE).glob("models--*")):
        name = folder.name.removeprefix("models--").replace("--", "/", 1)
        for path in list(folder.glob("snapshots/*/config.json"))[:1]:
            try:
                config = read_object(path)
            except ModelError:
                continue
            classifies = any(
                str(kind).endswith("ForSequenceClassification") for kind in config.get("architectures", [])
            )
            if "rerank" in name.lower() or (classifies and len(config.get("id2label", [0])) == 1):
                yield name


def cascades(incomplete: str) -> list[tuple[str, str]]:
    """Values of `--cascade`: the names of `models` with 20 candidates to keep."""
    return [(f"{name}:20", note) for name, note in models(incomplete)]


def measures(incomplete: str) -> list[str]:
    """Values of `--measures`: a list whose last name is completed, in any case. None if ir_measures is missing."""
    from rerank_cli.errors import UsageError
    from rerank_cli.evaluation.measures import measure_names

    before, comma, last = incomplete.rpartition(",")
    with suppress(UsageError):
        return [before + comma + name for name in measure_names() if name.lower().startswith(last.lower())]
    return []


def device(incomplete: str) -> list[str]:
    """Values of `--device` on this machine."""
    cards = [f"cuda:{number}" for number in range(_gpus())]
    return [
        name for name in ("auto", "cpu", *(("cuda", *cards) if cards else ()), "mps") if name.startswith(incomplete)
    ]


def devices(incomplete: str) -> list[str]:
    """Values of `--devices` on this machine."""
    numbers = [str(number) for number in range(_gpus())]
    lists = [*numbers, ",".join(numbers), "all"] if numbers else []
    return [name for name in dict.fromkeys([*lists, "cpu", "cpu,cpu"]) if name.startswith(incomplete)]


def _gpus() -> int:
    return len(list(Path("/dev").glob(_GPUS)))
