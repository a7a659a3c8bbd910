"""Classifiers with several labels: which one is the relevant one, and the score that their logits give.

`--label` names it, else `id2label` of config.json does, else it is the second of two, which is a guess. Independent of
torch, so that it is known without weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rerank_cli.errors import ModelError, UsageError
from rerank_cli.models.checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

# Names that rerankers and models of natural-language inference give their label for "the passage answers the query".
_RELEVANT = ("relevant", "entailment", "yes", "true")


@dataclass(frozen=True, slots=True)
class Label:
    """The label whose probability is the score. `alone` if each label has a probability of its own, a sigmoid.

    `source` is what chose it: `flag`, `file`, or `guess`, the second of two.
    """

    index: int
    name: str
    source: str
    alone: bool = False


def labels_of(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The names of a classifier's labels, by index, as transformers reads them: two if nothing is stated."""
    config, where = checkpoint.config, f"{checkpoint.name}: config.json"
    stated = config.get("id2label")
    if stated:
        try:
            names = {int(number): str(name) for number, name in stated.items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise ModelError(f"{where}: id2label is not a table of names by number") from error
        if sorted(names) != list(range(len(names))):
            raise ModelError(f"{where}: id2label numbers its labels {sorted(names)} (expected 0 to {len(names) - 1})")
        return tuple(names[number] for number in range(len(names)))
    count = config.get("num_labels", 2)
    if not isinstance(count, int) or count < 1:
        raise ModelError(f"{where}: num_labels cannot be {count!r}")
    return tuple(f"LABEL_{number}" for number in range(count))


def choose_label(checkpoint: Checkpoint, asked: str | None) -> Label | None:
    """The label that `--label` asks for by name or index, else the relevant one; None for a classifier with one label.

    Raises UsageError if there is no such label, or if it has to be asked for; ModelError for several regressions.
    """
    names = labels_of(checkpoint)
    if len(names) == 1:
        return None
    kind = checkpoint.config.get("problem_type")
    if kind == "regression":
        raise ModelError(f"{checkpoint.name}: a regression with {len(names)} outputs (expected one)")
    alone = kind == "multi_label_classification"
    listed = ", ".join(names) if len(names) <= 8 else f"{', '.join(names[:8])}, … {len(names)} in all"
    if asked is not None:
        index = _index_of(asked, names)
        if index is None:
            raise UsageError(f"--label {asked}: {checkpoint.name} has no such label (expected {listed}, or an index)")
        return Label(index, names[index], "flag", alone)
    found = [index for index, name in enumerate(names) if name.strip().lower() in _RELEVANT]
    if len(found) == 1:
        return Label(found[0], names[found[0]], "file", alone)
    if len(names) == 2:
        return Label(1, names[1], "guess", alone)
    what = f"{checkpoint.name} has {len(names)} labels ({listed}), and their names do not say which is the score"
    raise UsageError(f"{what}. Fix: --label NAME or index")


def _index_of(asked: str, names: tuple[str, ...]) -> int | None:
    """The index of the label with this name, whatever its case, else the number itself if there is such a label."""
    plain = asked.strip().lower()
    same = [index for index, name in enumerate(names) if name == asked]
    same = same or [index for index, name in enumerate(names) if name.strip().lower() == plain]
    if len(same) == 1:
        return same[0]
    return int(plain) if plain.isascii() and plain.isdigit() and int(plain) < len(names) else None


def score_of(logits: Tensor, label: Label | None) -> Tensor:
    """Logits [n, labels] to scores [n]: the one logit, or the log-odds of the label against all others.

    Log-odds are the logit l whose sigmoid 1/(1+e⁻ˡ) is the label's share in a softmax; of two labels, l is the
    difference of their logits. A label that stands alone keeps its logit.
    """
    if label is None:
        return logits.reshape(-1)
    chosen = logits[:, label.index]
    if label.alone:
        return chosen
    others = [number for number in range(logits.shape[1]) if number != label.index]
    return chosen - logits[:, others].logsumexp(dim=1)
