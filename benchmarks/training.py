"""How fast training is: packed rows against padded ones, and against CrossEncoderTrainer of sentence-transformers.

The same groups, weights (MiniLM), optimizer and loss (cross-entropy with the positive), without dropout; steps are
interleaved, and the losses of all are compared. The trainer computes ListNetLoss in its default mini-batches; beside it
stands a step of CrossEncoder's own preprocessing and forward pass over the whole batch. `scifact` has abstracts, most
near 512 tokens; `mixed` has paragraphs of SQuAD and single sentences of them. A table, then one JSON line. The time is
that of the clock: nothing else may run beside it.

    python benchmarks/training.py --scifact path/to/scifact --squad path/to/train-v1.1.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import minilm
from transformers import TrainerCallback, TrainerState

from rerank_cli.engine.options import ModelOptions
from rerank_cli.models.trainable import TrainedPart, freeze_without_gradient
from rerank_cli.training.contract import DrawnGroup
from rerank_cli.training.losses import LossSettings
from rerank_cli.training.memory import part_tokens_for
from rerank_cli.training.optimizer import Optimizer, OptimizerSettings
from rerank_cli.training.setup import open_model
from rerank_cli.training.step import Trainer
from rerank_cli.training.tokens import Lengths

Step = Callable[[int, Sequence[DrawnGroup]], float]
RATE = 2e-5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scifact", type=Path, required=True, help="SciFact in BEIR layout with its BM25 run")
    parser.add_argument("--squad", type=Path, required=True, help="train-v1.1.json")
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--size", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=4)
    args = parser.parse_args()
    count = args.groups * (args.rounds + 1)
    data = {
        "scifact": scifact_groups(args.scifact, count, args.size),
        "mixed": squad_groups(args.squad, count, args.size),
    }
    results: dict[str, Any] = {"threads": torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as scratch:
        folder = minilm(Path(scratch, "model"))
        for name, groups in data.items():
            steps = {"packed": ours(folder, packed=True), "padded": ours(folder, packed=False), "step": step(folder)}
            results[name] = measured(steps, folder, groups, args.groups)
            print(f"{name}: {results[name]}")
    print(json.dumps(results))


def measured(steps: dict[str, Step], folder: Path, groups: Sequence[DrawnGroup], batch: int) -> dict[str, Any]:
    """Groups a second, by the median; the first round is not counted."""
    rounds = Rounds(steps, groups, batch)
    losses = rounds.losses | {"trainer": trained(folder, groups, batch, rounds)}
    rates = {name: round(batch / statistics.median(taken[1:]), 3) for name, taken in rounds.seconds.items()}
    apart = {name: float(np.abs(np.array(found) - losses["step"]).max()) for name, found in losses.items()}
    return {
        "groups_a_second": rates,
        "packed_over_trainer": round(rates["packed"] / rates["trainer"], 2),
        "packed_over_step": round(rates["packed"] / rates["step"], 2),
        "packed_over_padded": round(rates["packed"] / rates["padded"], 2),
        "loss_difference": apart,
    }


class Rounds(TrainerCallback):
    """The trainer's steps are timed from the end of the others' to its own, with the fetching of its batch."""

    def __init__(self, steps: dict[str, Step], groups: Sequence[DrawnGroup], batch: int) -> None:
        self.seconds: dict[str, list[float]] = {name: [] for name in (*steps, "trainer")}
        self.losses: dict[str, list[float]] = {name: [] for name in steps}
        self._steps, self._groups, self._batch = steps, groups, batch
        self._begun = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._begun = time.perf_counter()

    def on_step_end(self, _: Any, state: TrainerState, *__: Any, **___: Any) -> None:
        self.seconds["trainer"].append(time.perf_counter() - self._begun)
        number = state.global_step - 1
        part = self._groups[number * self._batch : (number + 1) * self._batch]
        for name, step in self._steps.items():
            begun = time.perf_counter()
            self.losses[name].append(step(number, part))
            self.seconds[name].append(time.perf_counter() - begun)
        self._begun = time.perf_counter()


def trained(folder: Path, groups: Sequence[DrawnGroup], batch: int, rounds: Rounds) -> list[float]:
    """The losses of CrossEncoderTrainer's steps, with the others' steps after each of its own."""
    from datasets import Dataset
    from sentence_transformers.base.sampler import DefaultBatchSampler
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import ListNetLoss

    # The softmax of these labels is 1 for the positive: ListNet is then the cross-entropy with it.
    rows = [
        {"query": one.query, "docs": list(one.passages), "labels": [1e4] + [0.0] * (len(one.passages) - 1)}
        for one in groups
    ]
    arguments = CrossEncoderTrainingArguments(
        output_dir=str(folder / "trainer"), per_device_train_batch_size=batch, num_train_epochs=1, learning_rate=RATE,
        lr_scheduler_type="constant", weight_decay=0.01, max_grad_norm=1.0, use_cpu=True, save_strategy="no",
        logging_steps=1, report_to="none", disable_tqdm=True,
        batch_sampler=lambda data, batch_size, drop_last, **_: DefaultBatchSampler(
            range(len(data)), batch_size, drop_last
        ),
    )  # fmt: skip
    model = undropped(folder)
    trainer = CrossEncoderTrainer(
        model, arguments, train_dataset=Dataset.from_list(rows), loss=ListNetLoss(model), callbacks=[rounds]
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def ours(folder: Path, *, packed: bool) -> Step:
    opened = open_model(ModelOptions(str(folder), device="cpu"), TrainedPart(dropout=0.0), Lengths(), packed=packed)
    freeze_without_gradient(opened.trainable, shift_invariant=True)
    settings = OptimizerSettings(RATE)
    trainer = Trainer(
        opened.trainable,
        opened.tokenizer,
        LossSettings(),
        Optimizer(opened.trainable.trained, settings),
        part_tokens=part_tokens_for(opened.trainable, recompute=False),
    )
    return lambda number, groups: trainer.run(number, RATE, groups, groups).loss


def undropped(folder: Path) -> Any:
    from sentence_transformers import CrossEncoder

    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return CrossEncoder(str(folder), device="cpu", config_kwargs=no_dropout)


def step(folder: Path) -> Step:
    """CrossEncoder's own preprocessing and forward pass over the whole batch, and a plain step of AdamW."""
    model = undropped(folder)
    model.train()
    weights = list(model.parameters())
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.01)

    def compute(_: int, groups: Sequence[DrawnGroup]) -> float:
        pairs = [(group.query, passage) for group in groups for passage in group.passages]
        scores = model(model.preprocess(pairs))["scores"].view(len(groups), -1)
        loss = torch.nn.functional.cross_entropy(scores, torch.zeros(len(groups), dtype=torch.long))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        return float(loss.detach())

    return compute


def scifact_groups(folder: Path, count: int, size: int) -> list[DrawnGroup]:
    with (folder / "corpus.jsonl").open() as lines:
        corpus = {one["_id"]: f"{one['title']} {one['text']}" for one in map(json.loads, lines)}
    with (folder / "queries.jsonl").open() as lines:
        queries = {one["_id"]: one["text"] for one in map(json.loads, lines)}
    ranked: dict[str, list[str]] = {}
    for line in (folder / "run.bm25.test.top100.trec").read_text().splitlines():
        query, _, document, *_ = line.split()
        ranked.setdefault(query, []).append(document)
    chosen = list(ranked.items())[:count]
    return [
        DrawnGroup(place, queries[query], tuple(corpus[document] for document in documents[:size]))
        for place, (query, documents) in enumerate(chosen)
    ]


def squad_groups(path: Path, count: int, size: int) -> list[DrawnGroup]:
    """Half of the passages are paragraphs, half are single sentences."""
    random = np.random.default_rng(0)
    articles = json.loads(path.read_text())["data"]
    paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"] if paragraph["qas"]]
    found = []
    for place in range(count):
        chosen = [paragraphs[number] for number in random.choice(len(paragraphs), size, replace=False)]
        texts = [one["context"] if n % 2 else one["context"].split(". ")[0] for n, one in enumerate(chosen)]
        found.append(DrawnGroup(place, chosen[0]["qas"][0]["question"], tuple(texts)))
    return found


if __name__ == "__main__":
    main()
