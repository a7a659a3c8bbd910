"""What one process of a training run does: its lock, its data, its learner, the steps, and the result."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rerank_cli.choices import Loss, Resume
from rerank_cli.display import shown
from rerank_cli.engine.lazy import uncollected
from rerank_cli.engine.limits import find
from rerank_cli.errors import ChangedError
from rerank_cli.models.checkpoint import Checkpoint
from rerank_cli.models.registry import identify
from rerank_cli.run.signals import Stop, die_of
from rerank_cli.training.data.open import DataOptions, OpenedData, open_data
from rerank_cli.training.data.store import BatchPlan
from rerank_cli.training.options import LossOptions, TrainConfig, rules_of
from rerank_cli.training.processes import Processes
from rerank_cli.training.run.checkpoints import OPTIMIZER, WEIGHTS, TrainingState, WorkFolder
from rerank_cli.training.run.checks import check_taught, check_teacher, refuse_places, steps_of
from rerank_cli.training.run.evaluation import open_held_out
from rerank_cli.training.run.fingerprint import differences, inputs_of, settings_of, stamps_of
from rerank_cli.training.run.log import StepLog
from rerank_cli.training.run.steps import Steps
from rerank_cli.training.run.summary import TrainSummary
from rerank_cli.training.run.teacher import TeacherFiles, taught
from rerank_cli.training.run.trackers import Trackers, check_trackers

if TYPE_CHECKING:
    from rerank_cli.training.learner import Learner
    from rerank_cli.training.losses import LossSettings
    from rerank_cli.training.optimizer import OptimizerSettings


@dataclass(slots=True)
class Job:
    """One run. What it opens is closed by the stack that its methods are given."""

    config: TrainConfig
    stop: Stop
    folder: WorkFolder
    processes: Processes
    summary: TrainSummary = field(default_factory=TrainSummary)
    state: TrainingState | None = None
    training: Steps | None = None
    steps: int = 0
    _locked: bool = False

    def lock(self, stack: ExitStack) -> None:
        """Take the output's lock. A signal that arrives meanwhile takes effect afterwards."""
        self.stop.patient = True
        stack.enter_context(self.folder.held())
        self._locked = True
        self.stop.patient = False
        if self.stop.signal:
            self.remove_lock()
            die_of(self.stop.signal)

    def remove_lock(self) -> None:
        """Remove the lock file if this run holds it: for a process that is about to end without unwinding."""
        if self._locked:
            self.folder.lock.unlink(missing_ok=True)

    def announce(self, reason: str) -> None:
        self.config.notify(f"{reason}: saving a checkpoint after this step; once more ends at once")

    def work(self, stack: ExitStack) -> None:
        """Open everything, compute the steps that are left, publish."""
        config, folder = self.config, self.folder
        check_trackers(config.report_to)
        check_teacher(config)
        inputs = inputs_of(config)
        named = find(config.model)
        mark = settings_of(config) | {"model revision": named.revision}
        if config.resume is not Resume.NEVER and not config.overwrite and self._complete(mark, inputs):
            self.summary.nothing_to_do = True
            return
        refuse_places(config, folder.final, [*inputs, str(named.folder)])
        saved = self._saved()
        if saved:
            self._refuse_another(saved, mark)
        held_out = open_held_out(config.held_out, config.notify) if config.held_out else None
        teacher = TeacherFiles(config, folder.final)
        opened = self._open_groups(stack, teacher)
        if opened is None:
            self.summary.interrupted = self.stop.reason or "max-duration"
            return
        data, files = opened
        self.summary.rejected = data.rejected
        mark |= {"data": data.groups.fingerprint, "held-out set": held_out.mark if held_out else None}
        if saved:
            self._refuse_another(saved, mark)
        self.state = saved or TrainingState(mark)
        self.steps = steps_of(config, data.groups.steps_per_epoch)
        checkpoint = self._begin(named, stack)
        learner, rates = self._open_learner(checkpoint, data)
        if config.dry_run:
            from rerank_cli.training.run.estimate import estimate

            found = estimate(learner, data.groups, held_out, self.steps)  # by all, whose gradients are one
            self.summary.estimate = found if self.processes.leads else None
            return
        if saved:
            self._load(learner, saved)
        self.processes.wait()  # until all have read the checkpoint
        log, trackers = self._open_logs(stack, saved, mark)
        learner.rehearse(data.groups.longest(config.batch_groups))
        if learner.trainer.tokenizer.prompts_left_out:
            config.notify(f"the prompts of the records are left out: {named.name} reads pairs without one")
        self.stop.patient = True
        run = self.training = Steps(
            config,
            self.steps,
            self.stop,
            folder,
            self.processes,
            self.state,
            learner,
            data,
            held_out,
            log,
            trackers,
            rates,
            self.state.steps_done,
        )
        if run.compute():
            self._finish(run, named, files)
            if self.processes.leads:
                teacher.remove()
        else:
            self.summary.interrupted = self.stop.reason

    def _saved(self) -> TrainingState | None:
        """The checkpoint of an unfinished run. Refuses an output that exists. Leaves all as it is for a dry run."""
        config, folder = self.config, self.folder
        if config.dry_run:
            return None
        if self.processes.leads:
            folder.restore()
        folder.refuse_existing(config.overwrite)
        return folder.saved(config.resume)

    def _open_groups(self, stack: ExitStack, teacher: TeacherFiles) -> tuple[OpenedData, Mapping[str, str]] | None:
        """The data, scored by the teacher if there is one, with the files that it is from; None if the time is over."""
        config = self.config
        data = self._open_data(stack, config.data)
        files = data.groups.files
        if config.teacher and config.dry_run:
            config.notify("the scores of --teacher are left out: the loss and the time are those of --loss ce")
        elif config.teacher:
            check_taught(config, data)
            found = self._taught(config.teacher, data, teacher)
            if found is None:
                return None
            data = replace(self._open_data(stack, found), rejected=data.rejected)
        return data, files

    def _open_learner(self, checkpoint: Checkpoint, data: OpenedData) -> tuple[Learner, OptimizerSettings]:
        """The model with its optimizer, described to the user."""
        with uncollected():
            from rerank_cli.training.learner import loss_settings, open_learner, optimizer_settings
        config = self.config
        if config.teacher and config.dry_run:
            config = replace(config, loss=LossOptions(Loss.CE))
        family = identify(checkpoint)
        loss = loss_settings(config, data.groups, data.groups.with_teacher)
        rates = optimizer_settings(config, family)
        learner = open_learner(config, checkpoint, family, loss, self.processes)
        self._describe(learner, data, loss, rates)
        return learner, rates

    def _load(self, learner: Learner, saved: TrainingState) -> None:
        """Continue with the weights and the optimizer of a checkpoint."""
        self.config.notify(f"resuming after step {saved.steps_done:,} of {self.steps:,}")
        learner.load(self.folder.tensors(WEIGHTS))
        learner.trainer.optimizer.load(self.folder.tensors(OPTIMIZER))
        if saved.part_tokens is not None:
            now = learner.trainer.part_tokens
            learner.trainer.part_tokens = min(saved.part_tokens, now) if learner.sharding else saved.part_tokens

    def _open_logs(
        self, stack: ExitStack, saved: TrainingState | None, mark: Mapping[str, Any]
    ) -> tuple[StepLog | None, Trackers]:
        """The log and the trackers, in the work folder, which exists from then on. Only process 0 writes any."""
        config, folder, state = self.config, self.folder, self.state
        assert state is not None
        log = None
        if self.processes.leads:
            if saved:
                folder.keep_best(saved)
            else:
                folder.create()
                stack.callback(folder.forget_unused)
            log = StepLog(str(folder.place_log(config.log, state.log_bytes)), state.log_bytes)
            stack.callback(log.close)
        names = config.report_to if self.processes.leads else ()
        trackers = Trackers(names, folder.final.name, config.report_dir or f"{folder.final}.reports", mark)
        stack.callback(trackers.close)
        return log, trackers

    def _begin(self, named: Checkpoint, stack: ExitStack) -> Checkpoint:
        """The checkpoint that training begins with, made of the named one if that has no head."""
        from rerank_cli.training.run.begin import begin

        made = self.folder.base
        if self.processes.count > 1:
            made = made.with_name(f"{made.name}-{self.processes.rank}")
        stack.callback(shutil.rmtree, made, ignore_errors=True)
        found = begin(named, self.config.start_layer, self.config.seed, made)
        if found is not named:
            self.config.notify(f"{named.name} has no head for a score: it gets a new one")
        return found

    def _taught(self, teacher: str, data: OpenedData, files: TeacherFiles) -> DataOptions | None:
        """The data with the teacher's scores, None if the time is over. Process 0 makes them."""
        config, found = self.config, None
        if self.processes.leads:
            found = taught(config, teacher, data.groups, files, self.stop.seconds_left)
        return self.processes.gather(found)[0]

    def _open_data(self, stack: ExitStack, options: DataOptions) -> OpenedData:
        config = self.config
        rules = rules_of(config)
        plan = BatchPlan(config.batch_groups, config.seed, config.shuffle)
        data = open_data(options, rules, plan, str(self.folder.final.parent), config.notify)
        stack.callback(data.groups.close)
        for remark in data.remarks:
            config.notify(remark)
        return data

    def _describe(self, learner: Learner, data: OpenedData, loss: LossSettings, rates: OptimizerSettings) -> None:
        """Say what is trained on what."""
        model, config = learner.opened.trainable, self.config
        trained = sum(weight.numel() for weight in model.trained.values())
        rows = "packed rows" if model.model.packed else "padded batches"
        whole = "weights without --freeze" if config.freeze else "all weights"
        adapters = "adapters" if model.adapter is not None else whole
        what = f"{config.model.name} on {model.device}, {adapters} ({trained:,} parameters), {rows}"
        what += f", divided over {self.processes.count} processes" if learner.sharding else ""
        config.notify(f"{what}, loss {loss.kind.value}, lr {rates.lr:g}")
        groups = data.groups
        if loss.kind in (Loss.LISTNET, Loss.LAMBDARANK) and groups.single:
            what = f"--loss {loss.kind.value} learns nothing from {groups.single:,} of {len(groups):,} groups"
            config.notify(f"{what}, which have one passage (--sort, if rows of one query are apart)")
        epochs = f"{self.steps:,} steps, {config.epochs:g} epoch{'' if config.epochs == 1 else 's'}"
        config.notify(f"{len(groups):,} groups of {config.group_size}, {config.batch_groups} a step: {epochs}")

    def _refuse_another(self, saved: TrainingState, mark: Mapping[str, Any]) -> None:
        """Raise ChangedError with the differences if a checkpoint is of a run with other settings."""
        found = differences({name: saved.fingerprint.get(name) for name in mark}, dict(mark))
        self.state = saved
        if found:
            raise ChangedError(f"{shown(self.config.output, 300)}: started with other settings ({'; '.join(found)})")

    def _complete(self, mark: Mapping[str, Any], inputs: Sequence[str]) -> bool:
        """Whether an earlier run of the same command has finished; removes what it left if it was killed then."""
        manifest = self.folder.manifest()
        if manifest is None or self.config.dry_run:
            return False
        made = manifest.get("settings", {})
        if differences({name: made.get(name) for name in mark}, dict(mark)):
            return False
        if stamps_of(inputs) != manifest.get("stamps"):
            return False
        self.folder.forget()
        shutil.rmtree(self.folder.base, ignore_errors=True)
        TeacherFiles(self.config, self.folder.final).remove_if_done()
        self.summary.rejected = int(manifest.get("rejected", 0))
        return True

    def _finish(self, run: Steps, checkpoint: Checkpoint, files: Mapping[str, str]) -> None:
        """Write the result with the best weights, or the last if nothing was evaluated."""
        from rerank_cli.training.run.result import write_result

        state, folder, learner = run.state, self.folder, run.learner
        if run.log is None and learner.sharding is None:  # another process writes the result
            return
        if state.best_step is not None and state.best_step != state.steps_done:
            learner.load(folder.best_weights(state))
        learner = learner.finished()
        if run.log is None:
            return
        self.summary.state, self.summary.evaluation = state, run.evaluation
        log = run.log.path

        def write(made: Path) -> None:
            write_result(made, self.config, learner, checkpoint, state, files, run.data, run.held_out)
            shutil.copyfile(log, made / "training_log.jsonl")

        folder.publish(write)

    def say_progress(self) -> None:
        """One line of progress."""
        if self.training is None:
            self.config.notify("loading")
        else:
            self.training.say_progress()
