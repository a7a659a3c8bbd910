"""The steps of a training run, with evaluations and checkpoints in between."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rerank_cli.engine.contract import StopRequested
from rerank_cli.errors import ModelError
from rerank_cli.evaluation.evaluate import Evaluation
from rerank_cli.run.signals import Stop
from rerank_cli.training.contract import DrawnGroup
from rerank_cli.training.data.open import OpenedData
from rerank_cli.training.options import TrainConfig
from rerank_cli.training.processes import Processes
from rerank_cli.training.run.checkpoints import TrainingState, WorkFolder
from rerank_cli.training.run.evaluation import HeldOut, as_line, baseline_of
from rerank_cli.training.run.log import StepLog
from rerank_cli.training.run.trackers import Trackers

if TYPE_CHECKING:
    from rerank_cli.training.learner import Learner
    from rerank_cli.training.optimizer import OptimizerSettings
    from rerank_cli.training.step import StepReport

_EVALUATIONS = 10  # of a run, unless a flag says how often
_EQUAL = 1e-4  # the largest difference between scores that are said to be equal
_COLLAPSED = 100  # steps in a row with equal scores, after which training ends


@dataclass(slots=True)
class Steps:
    """The steps of a run, of `total`. `saved` is the number of those that a checkpoint has."""

    config: TrainConfig
    total: int
    stop: Stop
    folder: WorkFolder
    processes: Processes
    state: TrainingState
    learner: Learner
    data: OpenedData
    held_out: HeldOut | None
    log: StepLog | None
    trackers: Trackers
    rates: OptimizerSettings
    saved: int = 0
    evaluation: Evaluation | None = None
    _last: dict[str, Any] = field(default_factory=dict)
    _saved_at: float = field(default_factory=time.monotonic)
    _said_at: float = 0.0

    def compute(self) -> bool:
        """Compute what is left, and save it; False if it was stopped."""
        state, config = self.state, self.config
        try:
            self._evaluate_if_due()
            while state.steps_done < self.total and not state.stopped_early:
                if self.processes.any(self.stop()):
                    self._save()
                    return False
                self._step()
                self._evaluate_if_due()
                if self._save_is_due():
                    self._save()
        except StopRequested:
            self._save()
            return False
        if self.saved != state.steps_done:
            self._save()
        if state.stopped_early and state.steps_done < self.total:
            config.notify(f"stopping early: no better evaluation since step {state.best_step:,}")
        return True

    def _step(self) -> None:
        state, config = self.state, self.config
        begun = time.monotonic()
        step = state.steps_done
        rate = self.rates.rate(step, self.total)
        groups = self.data.groups.batch(step)
        report = self.learner.step(step, rate, groups)
        counts = self.processes.gather((report.pairs, report.tokens, report.truncated))
        pairs, tokens, truncated = (sum(values) for values in zip(*counts, strict=True))
        seconds = time.monotonic() - begun
        state.steps_done += 1
        state.seconds += seconds
        state.pairs += pairs
        state.tokens += tokens
        state.truncated += truncated
        state.part_tokens = self.learner.trainer.part_tokens
        line = {
            "step": state.steps_done,
            "epoch": round(state.steps_done / self.data.groups.steps_per_epoch, 4),
            "loss": report.loss,
            "lr": rate,
            "gradient_norm": report.gradient_norm,
            "pairs": pairs,
            "tokens": tokens,
            "truncated": truncated,
            "seconds": round(seconds, 4),
        }
        self._write(line)
        self._last = line
        now = time.monotonic()
        if now - self._said_at >= config.progress_interval:
            self._said_at = now
            self.say_progress()
        self._check_collapse(report, groups)

    def _write(self, line: dict[str, Any]) -> None:
        if self.log is not None:
            self.log.write(line)
            self.trackers.write(line)

    def _check_collapse(self, report: StepReport, groups: Sequence[DrawnGroup]) -> None:
        """Raise ModelError once all passages of a group have had the same score for many steps."""
        if self.learner.trainer.loss.shift_invariant:
            import torch

            scores = report.scores if report.scores.dim() == 1 else report.scores[:, -1]
            parts = torch.split(scores, [len(group.passages) for group in self.processes.share(groups)])
            equal = not self.processes.any(any(float(part.max() - part.min()) >= _EQUAL for part in parts))
            self.state.equal_scores = self.state.equal_scores + 1 if equal else 0
            if self.state.equal_scores >= _COLLAPSED:
                what = f"step {self.state.steps_done:,}: all passages have had the same score for {_COLLAPSED} steps"
                raise ModelError(f"{what} (loss {report.loss:.4f}). Fix: a smaller --lr, or a longer --warmup")

    def _evaluate_if_due(self) -> None:
        """Evaluate at the first step, every so many steps and after the last, unless that is done already."""
        held_out, state, options = self.held_out, self.state, self.config.held_out
        if held_out is None or options is None:
            return
        every = options.every or max(1, math.ceil(self.total / _EVALUATIONS))
        step, last = state.steps_done, state.evaluations[-1]["step"] if state.evaluations else -1
        if step == last or (step % every and step != self.total):
            return
        if step and self._save_is_due():
            self._save()  # before the evaluation, which takes long
        begun = time.monotonic()
        score = self.learner.scores(held_out.groups, self.stop)
        self.evaluation = found = held_out.evaluate(lambda _: score, state.baseline)
        line = as_line(found, step, time.monotonic() - begun)
        self._write(line)
        state.evaluations.append(line)
        self.config.notify(f"step {step:,}: {found.line}")
        if not state.baseline:
            state.baseline = baseline_of(found)
            return
        self._compare(line, options.patience)
        self._save()

    def _compare(self, line: dict[str, Any], patience: int | None) -> None:
        """Note the step if it is the best so far, and whether training ends early."""
        state, name = self.state, self.held_out.decisive if self.held_out else ""
        values = {entry["step"]: entry["measures"][name] for entry in state.evaluations[1:]}
        best = state.best_step
        if best is None or line["measures"][name] > values[best]:
            state.best_step = line["step"]
        elif patience is not None:
            since = [step for step in values if best is not None and step > best]
            state.stopped_early = len(since) >= patience

    def _save_is_due(self) -> bool:
        config, done = self.config, self.state.steps_done
        if done == self.saved:
            return False
        if config.save_steps is not None:
            return done % config.save_steps == 0
        due = time.monotonic() - self._saved_at >= config.save_interval
        return self.processes.gather(due)[0] if self.learner.sharding else due  # as it takes all processes then

    def _save(self) -> None:
        """Make a checkpoint of all steps so far."""
        weights, optimizer = self.learner.saved()
        if self.log is not None:
            self.state.log_bytes = self.log.commit()
            self.folder.save(self.state, weights, optimizer)
        self.saved = self.state.steps_done
        self._saved_at = time.monotonic()

    def say_progress(self) -> None:
        """One line of progress."""
        last, done = self._last, self.state.steps_done
        if not last:
            self.config.notify(f"at step {done:,} of {self.total:,}")
            return
        parts = [f"step {done:,} of {self.total:,}", f"loss {last['loss']:.4f}", f"lr {last['lr']:.3g}"]
        pace = last["tokens"] / max(last["seconds"], 1e-9)
        parts += [f"{pace:,.0f} tokens/s", f"ETA {clock((self.total - done) * last['seconds'])}"]
        self.config.notify("  ".join(parts))


def clock(seconds: float) -> str:
    """`5:10`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
