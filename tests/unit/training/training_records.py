"""Training data as files, and opened."""

import json

from rerank_cli.formats import InputOptions
from rerank_cli.training.data.open import BadRecords, DataOptions, open_data
from rerank_cli.training.data.rules import GroupRules
from rerank_cli.training.data.store import BatchPlan

RECORDS = [{"query": f"q{i}", "pos": [f"p{i}"], "neg": [f"n{i}{j}" for j in range(3)]} for i in range(7)]
PAIRS = [
    {"query": record["query"], "passage": text, "label": int(text.startswith("p"))}
    for record in RECORDS
    for text in [*record["pos"], *record["neg"]]
]


OPEN = []


def lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def opened(*paths, size=4, batch=2, seed=0, shuffle=True, bad=None, labelled=False, unit=False, **reading):
    options = DataOptions(InputOptions(tuple(map(str, paths)), **reading), bad=bad or BadRecords())
    rules, plan = GroupRules(size, labelled, unit), BatchPlan(batch, seed, shuffle)
    return kept(open_data(options, rules, plan, None, lambda _: None))


def kept(data):
    """Data that is closed after the test."""
    OPEN.append(data.groups)
    return data


def batches(data, first=0, count=None):
    groups = data.groups
    return [groups.batch(step) for step in range(first, first + (count or groups.steps_per_epoch))]
