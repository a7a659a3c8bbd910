"""The folder of a finished run: the model, its card, and the manifest from which the run can be done again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import torch
import transformers

from rerank_cli import __version__
from rerank_cli.models.checkpoint import Checkpoint
from rerank_cli.models.known import KNOWN
from rerank_cli.training.data.open import OpenedData
from rerank_cli.training.learner import Learner
from rerank_cli.training.options import TrainConfig
from rerank_cli.training.run.checkpoints import MANIFEST, TrainingState
from rerank_cli.training.run.evaluation import HeldOut
from rerank_cli.training.run.fingerprint import inputs_of, stamps_of

CARD = "README.md"
_LICENCE = re.compile(r"^license: *['\"]?([\w.+-]+)", re.MULTILINE)


def manifest_of(
    config: TrainConfig,
    learner: Learner,
    checkpoint: Checkpoint,
    state: TrainingState,
    files: Mapping[str, str],
    data: OpenedData,
) -> dict[str, Any]:
    """Settings, data with hashes, figures and versions. `stamps` recognise the data without reading all of it."""
    return {
        "command": config.command,
        "base": {"name": checkpoint.name, "revision": checkpoint.revision},
        "settings": state.fingerprint,
        "loss": learner.trainer.loss.kind.value,
        "full": learner.opened.trainable.adapter is None,
        "data": {"files": dict(files), "groups": len(data.groups)},
        "rejected": data.rejected,
        "stamps": stamps_of(inputs_of(config)),
        "steps": state.steps_done,
        "seconds": round(state.seconds, 1),
        "pairs": state.pairs,
        "tokens": state.tokens,
        "truncated": state.truncated,
        "evaluations": state.evaluations,
        "best_step": state.best_step,
        "versions": {"rerank-cli": __version__, "torch": torch.__version__, "transformers": transformers.__version__},
    }


def write_texts(folder: Path, manifest: Mapping[str, Any], held_out: HeldOut | None, licence: str | None) -> None:
    """The manifest and the model card."""
    (folder / MANIFEST).write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    (folder / CARD).write_text(card_of(manifest, held_out, licence), encoding="utf-8")


def card_of(manifest: Mapping[str, Any], held_out: HeldOut | None, licence: str | None) -> str:
    """The model card, with the Hub's header."""
    base, settings = manifest["base"], manifest["settings"]
    head = ["---", "library_name: sentence-transformers", "pipeline_tag: text-ranking"]
    head += [f"base_model: {base['name']}"] if "/" in base["name"] and not Path(base["name"]).exists() else []
    head += [f"license: {licence}"] if licence else []
    head += ["tags:", "- reranker", "- cross-encoder", "---", ""]
    seconds = manifest["seconds"]
    text = [
        "# Reranker",
        "",
        f"Fine-tuned from `{base['name']}` (revision `{base['revision']}`) with `rerank train`: "
        f"{manifest['steps']:,} steps on {manifest['data']['groups']:,} groups, {seconds / 60:,.1f} minutes.",
        "",
        "```",
        manifest["command"] or "rerank train …",
        "```",
        "",
        "`rerank_training.json` has all settings and figures, `training_log.jsonl` every step.",
        "",
        *_quality(manifest, held_out),
        "## Data",
        "",
        "| file | SHA-256 |",
        "|---|---|",
        *(f"| `{path}` | `{digest}` |" for path, digest in manifest["data"]["files"].items()),
        "",
        "## Settings",
        "",
        "| setting | value |",
        "|---|---|",
        f"| loss | {manifest['loss']} |",
        *(
            f"| {name} | {value} |"
            for name, value in settings.items()
            if value not in (None, []) and not name.startswith(("loss ", "lora ") if manifest["full"] else "loss ")
        ),
        "",
    ]
    return "\n".join([*head, *text])


def licence_of(checkpoint: Checkpoint) -> str | None:
    """The licence of the base: what the header of its card says, else what is known of a published one."""
    with suppress(OSError, UnicodeDecodeError):
        head, _, rest = (checkpoint.folder / CARD).read_text(encoding="utf-8").removeprefix("---\n").partition("\n---")
        stated = _LICENCE.search(head) if rest else None
        if stated:
            return stated[1].lower()
    return next((known.licence.lower() for known in KNOWN if known.name == checkpoint.name), None)


def _quality(manifest: Mapping[str, Any], held_out: HeldOut | None) -> list[str]:
    """The measures before and after, as a table with p-values."""
    evaluations, best = manifest["evaluations"], manifest["best_step"]
    if best is None or held_out is None:
        return []
    before = evaluations[0]
    after = next(line for line in evaluations[1:] if line["step"] == best)
    first = held_out.first.means if held_out.first else {}
    rows = []
    for name, value in after["measures"].items():
        difference = after["differences"][name]
        p = f"{difference['permutation_p']:.2g}" if difference else ""
        rows.append(
            f"| {name} | {first.get(name, float('nan')):.4f} | {before['measures'][name]:.4f} | {value:.4f} | {p} |"
        )
    return [
        "## Quality",
        "",
        f"Over {after['queries']:,} held-out queries, by the weights of step {best:,}, which this folder has.",
        "",
        "| measure | first stage | before training | after | p (permutation test) |",
        "|---|---|---|---|---|",
        *rows,
        "",
    ]


def write_result(
    folder: Path,
    config: TrainConfig,
    learner: Learner,
    checkpoint: Checkpoint,
    state: TrainingState,
    files: Mapping[str, str],
    data: OpenedData,
    held_out: HeldOut | None,
) -> None:
    """Everything but the log. Raises OutputError."""
    from rerank_cli.training.export import export

    export(learner.opened, folder, merge=config.merge)
    manifest = manifest_of(config, learner, checkpoint, state, files, data)
    write_texts(folder, manifest, held_out, licence_of(checkpoint))
