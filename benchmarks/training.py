"""How fast training is: packed rows against padded ones, and against the step of sentence-transformers' CrossEncoder.

The same groups, weights (MiniLM), optimizer and loss (cross-entropy with the positive), without dropout; rounds are
interleaved, and the losses of all are compared. `scifact` has abstracts, most near 512 tokens; `mixed` has paragraphs
of SQuAD and single sentences of them. A table, then one JSON line.

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
            steps = {"packed": ours(folder, packed=True), "padded": ours(folder, packed=False), "peer": peer(folder)}
            results[name] = measured(steps, groups, args.groups)
            print(f"{name}: {results[name]}")
    print(json.dumps(results))


def measured(steps: dict[str, Step], groups: Sequence[DrawnGroup], batch: int) -> dict[str, Any]:
    """Groups a second, by the median of CPU seconds; the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    losses: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(len(groups) // batch):
        part = groups[number * batch : (number + 1) * batch]
        for name, step in steps.items():
            begun = time.process_time()
            losses[name].append(step(number, part))
            seconds[name].append(time.process_time() - begun)
    rates = {name: round(batch / statistics.median(taken[1:]), 3) for name, taken in seconds.items()}
    worst = {name: float(np.abs(np.array(found) - losses["peer"]).max()) for name, found in losses.items()}
    return {
        "groups_a_cpu_second": rates,
        "packed_over_peer": round(rates["packed"] / rates["peer"], 2),
        "packed_over_padded": round(rates["packed"] / rates["padded"], 2),
        "loss_difference": worst,
    }


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


def peer(folder: Path) -> Step:
    """CrossEncoder's own preprocessing and forward pass over the whole batch, as its trainer runs them."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folder), device="cpu", config_kwargs={"hidden_dropout_prob": 0.0,
                                                                    "attention_probs_dropout_prob": 0.0})  # fmt: skip
    model.train()
    weights = list(model.parameters())
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.01)

    def step(_: int, groups: Sequence[DrawnGroup]) -> float:
        pairs = [(group.query, passage) for group in groups for passage in group.passages]
        scores = model(model.preprocess(pairs))["scores"].view(len(groups), -1)
        loss = torch.nn.functional.cross_entropy(scores, torch.zeros(len(groups), dtype=torch.long))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        return float(loss.detach())

    return step


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
