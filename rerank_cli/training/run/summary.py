"""What a training run did, on one line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rerank_cli.evaluation.evaluate import Evaluation
from rerank_cli.training.run.checkpoints import TrainingState
from rerank_cli.training.run.steps import clock


@dataclass(slots=True)
class TrainSummary:
    """What a run did. `interrupted` is why it stopped early and can be continued, None if it is finished."""

    state: TrainingState | None = None
    rejected: int = 0
    nothing_to_do: bool = False
    interrupted: str | None = None
    evaluation: Evaluation | None = None
    estimate: Mapping[str, Any] | None = None

    def line(self) -> str:
        """`120 steps in 5:10, nDCG@10 0.6770 → 0.7130 (p = 0.0031) at step 100`."""
        state = self.state
        assert state is not None
        parts = [f"{state.steps_done:,} steps in {clock(state.seconds)}"]
        if state.best_step is not None:
            name = next(iter(state.evaluations[0]["measures"]))
            best = next(line for line in state.evaluations[1:] if line["step"] == state.best_step)
            found = best["differences"][name]
            p = f" (p = {found['permutation_p']:.2g})" if found else ""
            figures = f"{state.baseline['means'][name]:.4f} → {best['measures'][name]:.4f}{p}"
            parts.append(f"{name} {figures} at step {state.best_step:,}")
        if self.rejected:
            parts.append(f"{self.rejected:,} records rejected")
        return ", ".join(parts)
