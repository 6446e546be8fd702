"""The one training loop: micro-batches in, weights and metrics out.

What it promises, for every stage:

- The gradient of an update is the sum over all loss-bearing units of its micro-batches divided by their number, so that
  eight micro-batches of one sequence give what one of eight gives; never a mean of means, never divided by padding.
- The learning rate is a function of the update's number, set from the host; micro-batches do not advance it.
- A loss or gradient that is not finite leaves weights and optimizer untouched, is logged as it is, and the third in a
  row stops the run.
- No draw has a state: the order of the data is a function of (seed, stage, epoch), see `batch_order.py`, an adapter's
  dropout one of (seed, stage, step, row of the data). What cannot be derived is in `Trainer.snapshot`: counters, and
  the trainable and the optimizer's variables.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gemma_keras import backends
from gemma_keras.program_shapes import shapes_met
from pipelines.host.errors import DataError, WorkflowError
from pipelines.host.progress import Progress
from pipelines.host.states import snapshot_folder
from pipelines.measures.metrics import curve_flatness
from pipelines.measures.throughput import TRAINING, Throughput
from pipelines.training.best_weights import BestWeights
from pipelines.training.dropout_keys import DROPOUT_KEYS, dropout_keys
from pipelines.training.optimizers import OptimizerSettings, build_optimizer, learning_rate_schedule
from pipelines.training.state import StageState
from pipelines.training.state_files import Snapshot
from pipelines.training.variables import assign, changing_variables, sources_of, trained_variables

Batch = Mapping[str, np.ndarray]
MAX_SKIPPED_IN_A_ROW = 3
_COUNTERS = ("step", "tokens", "skipped", "skipped_in_a_row", "sums_up")
ROW_INDEX = "row_index"  # int (b,): which rows of the data a batch holds; for messages, never given to the model

Save = Callable[[Path], None]
"""Writes the model that is trained into a folder."""

LossFunction = Callable[[Any, Mapping[str, Any]], tuple[Any, dict[str, Any]]]
"""(model, batch of tensors) → (loss, aux), see `Trainer`."""


class BatchesFrom(Protocol):
    """The micro-batches of each update from one of them on, by its number; made anew at each call."""

    def __call__(self, start: int = 0) -> Iterator[Iterable[Batch]]:
        """From update `start` on, counted from 0."""


class Surroundings(Protocol):
    """What training uses of a stage's context: the key of its draws, and where figures go."""

    name: str
    seed: int
    output: Path
    throughput: Throughput
    warnings: list[str]
    state: StageState | None

    def log(self, step: int, **metrics: Any) -> None:
        """Write a row of metrics."""

    def progress(self, total: int | None, description: str, *, before: int = 0) -> Progress:
        """Show progress."""


class NonFiniteTrainingError(WorkflowError):
    """Several updates in a row had a loss or gradient that is not finite."""

    exit_code = 65


def count_target_tokens(batch: Batch) -> int:
    """Loss-bearing tokens of a batch: the sum of its `target_mask`."""
    return int(np.sum(batch["target_mask"]))


class Trainer:
    """Updates a model on lists of micro-batches and measures what it does.

    Args:
        model: a built Keras model.
        loss_function: (model, batch of tensors) -> (loss, aux). `loss` float (): the **sum** over the batch's
            loss-bearing units. `aux`: dict of tensors; a scalar is a sum over the units too, an array has the batch as
            its first axis.
        settings: of the optimizer.
        total_steps: int >= 1. Updates until training ends: the horizon of the schedule.
        context: seed, name, log and progress of a stage; None for no log and no progress.
        count_units: batch of arrays -> how many loss-bearing units it has; default its target tokens.
        summarize: {name of an array in aux: all micro-batches' rows, concatenated} -> dict of floats to log; default
            nothing.
        throughput: adds up tokens and time of the updates; default one of its own.
        count_flops: batch of arrays -> operations that its real tokens need, see `training_flops`; default not counted.

    Each `update` and `evaluate` takes numpy arrays; every new set of shapes is compiled once, so keep shapes fixed and
    fill rows up with units that do not count. With an adapter that drops inputs a batch to learn from has `row_index`,
    int (b,).
    """

    def __init__(
        self,
        model: Any,
        loss_function: LossFunction,
        settings: OptimizerSettings,
        total_steps: int,
        context: Surroundings | None = None,
        count_units: Callable[[Batch], int] = count_target_tokens,
        summarize: Callable[[dict[str, np.ndarray]], dict[str, float]] | None = None,
        throughput: Throughput | None = None,
        count_flops: Callable[[Batch], float] | None = None,
    ) -> None:
        self.model = model
        self.loss_function = loss_function
        self.settings = settings
        self.total_steps = total_steps
        self.context = context
        self.count_units = count_units
        self.summarize = summarize
        self.throughput = throughput or Throughput()
        self.count_flops = count_flops
        self.learning_rate = learning_rate_schedule(
            settings.schedule, settings.learning_rate, total_steps, settings.warmup_fraction, settings.warmup_steps
        )
        self.optimizer = build_optimizer(model, self.learning_rate(0), settings.weight_decay, settings.beta_2)
        self.step = 0
        self.tokens = 0
        self.skipped = 0
        self.skipped_in_a_row = 0
        self._gradients = backends.compile_gradients(self._loss_of, model)
        self._forward = backends.compile_forward(self._loss_of, [model], "heldout_loss")
        self._apply = backends.compile_update(self.optimizer, model)
        self.sums_up = False
        self._drops = any(options.dropout > 0 for options in getattr(model, "adapters", {}).values())

    def update(self, micro_batches: Sequence[Batch]) -> dict[str, float]:
        """One step of the optimizer on the micro-batches of one global batch.

        Args:
            micro_batches: dicts of arrays with equal keys.

        Returns:
            `loss` (mean over all units), scalars of aux (likewise), `learning_rate`, `grad_norm` (before clipping),
            `num_tokens` (real tokens seen so far), `skipped_updates`, `step_time` in seconds, what `summarize` adds;
            `throughput` has how fast it went.

        Raises:
            DataError: no token of the whole batch bears loss.
            NonFiniteTrainingError: the third update in a row whose loss or gradient is not finite.
        """
        started, shapes_before = time.perf_counter(), shapes_met()
        units = sum(self.count_units(batch) for batch in micro_batches)
        if not units:
            raise DataError(
                f"Nothing in the batch of update {self.step} bears loss (rows {_row_names(micro_batches)}): expected "
                "response tokens, got only masked ones. Remove these rows or raise max_length."
            )
        # Once several were summed up, a single one goes the same way: another program would have to be compiled.
        self.sums_up = self.sums_up or len(micro_batches) > 1
        gradients = backends.zero_gradients(self.model) if self.sums_up else None
        losses, measured = [], []
        for batch in micro_batches:
            loss, aux, gradients = self._gradients(self._training_inputs(batch), sums=gradients)
            losses.append(loss)
            measured.append(aux)
        # Read when all micro-batches are under way: each reading waits for its program to end.
        total_loss = sum(float(loss) for loss in losses)
        measured = [{name: backends.to_host(value) for name, value in aux.items()} for aux in measured]
        learning_rate = self.learning_rate(self.step)
        grad_norm = math.nan
        if math.isfinite(total_loss):
            self.optimizer.learning_rate = learning_rate
            grad_norm = float(self._apply(gradients, 1.0 / units, self.settings.clip_norm))
        metrics = {
            "loss": total_loss / units,
            **self._aux_metrics(measured, units),
            "learning_rate": learning_rate,
            "grad_norm": grad_norm,
        }
        seconds, has_compiled = time.perf_counter() - started, shapes_met() > shapes_before
        metrics |= self._count_update(micro_batches, seconds, has_compiled, math.isfinite(grad_norm))
        if self.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            self._log_update(metrics)
            raise NonFiniteTrainingError(
                f"{MAX_SKIPPED_IN_A_ROW} updates in a row, the last one update {self.step - 1}, had a loss or gradient "
                "that is not finite; weights and optimizer stand as before the first of them. Lower learning_rate "
                f"(now {self.settings.learning_rate:g}), or train in float32 if dtype is mixed_bfloat16, or look at "
                f"the rows of the last batch: {_row_names(micro_batches)}."
            )
        return metrics

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """The loss and the scalars of aux on held-out batches, averaged over all their units; changes nothing.

        Returns:
            `eval_loss` and `eval_<name>`; {} without batches or units.
        """
        total_loss, units, measured = 0.0, 0, []
        for batch in batches:
            loss, aux = self._forward(model_inputs(batch))
            total_loss += float(loss)
            units += self.count_units(batch)
            measured.append({name: backends.to_host(value) for name, value in aux.items()})
        if not units:
            return {}
        metrics = {"loss": total_loss / units, **self._aux_metrics(measured, units)}
        return {f"eval_{name}": value for name, value in metrics.items()}

    def fit(
        self,
        global_batches: Callable[[int], Iterable[Sequence[Batch]]],
        heldout: Callable[[], Iterable[Batch]] | None = None,
        eval_every: int = 0,
        keep_best: bool = False,
        patience: int | None = None,
        save_every: int = 0,
        save: Save | None = None,
    ) -> dict[str, Any]:
        """Train on one list of micro-batches after another; log each update, and the held-out loss now and then.

        With a context that keeps states it goes on from the stage's last one.

        Args:
            global_batches: number of an update → one list of micro-batches an update from that one on; `total_steps` in
                all.
            heldout: gives the held-out batches anew at each call; None for no evaluation.
            eval_every: int. Updates between evaluations; 0 evaluates at the end only. With an interval also before the
                first update.
            keep_best: whether the model ends with the weights of the lowest held-out loss, in place of the last ones.
            patience: evaluations in a row without a lower held-out loss after which training ends; None for never.
            save_every: int. Updates between models that `save` puts into the stage's `snapshots/STEP/`; 0 for none.

        Returns:
            dict: `train_loss` (mean of the last tenth of the updates), `eval_loss` (of the weights it ends with, None
            without held-out data), `eval_loss_curve` ([[step, loss], ...]), `eval_loss_flatness`, `steps`, `tokens`,
            `tokens_per_second` (without updates that compiled, None where all did), `skipped_updates`; with
            `keep_best` the update that they are of (`best_step`), and where `patience` ended it so (`stopped_early`).
        """
        losses: list[float] = []
        curve: list[list[float]] = []
        state = None if self.context is None else self.context.state
        saved = None if self.context is None or state is None else state.resume(self.context.warnings)
        best = BestWeights(trained_variables(self.model), keep_best, patience)
        if saved is not None:
            self.restore(saved)
            best.restore(saved.part("best"))
            losses, curve = list(saved.record["losses"]), list(saved.record["curve"])
        del saved  # a copy of weights and moments

        def snapshot() -> Snapshot:
            own, lowest = self.snapshot(), best.snapshot()
            record = {**own.record, "losses": losses, "curve": curve, "best": lowest.record}
            return Snapshot({**own.arrays, **lowest.under("best")}, record)

        def measure() -> None:
            metrics = self.evaluate(heldout()) if heldout is not None else {}
            if metrics:
                curve.append([self.step, metrics["eval_loss"]])
                best.look(self.step, metrics["eval_loss"])
                self.log(**metrics)

        if eval_every and not self.step:
            measure()
        for micro_batches in () if best.is_over else self.with_progress(global_batches(self.step)):
            metrics = self.update(micro_batches)
            losses.append(metrics["loss"])
            self._log_update(metrics)
            if eval_every and self.step % eval_every == 0:
                measure()
            if self.context is not None and save is not None and save_every and self.step % save_every == 0:
                save(snapshot_folder(self.context.output, self.step))
            if self.context is not None and state is not None:
                state.checkpoint(self.step, self.total_steps, "updates", snapshot, self.context.warnings)
            if best.is_over:
                break
        if state is not None:
            state.finish()
        if not curve or curve[-1][0] != self.step:
            measure()
        is_other = best.put_back(self.step)
        return {
            **self._figures(losses, curve),
            **({"eval_loss": best.loss} if is_other else {}),
            **({"best_step": best.step} if keep_best else {}),
            **({"stopped_early": True} if best.is_over else {}),
        }

    def _figures(self, losses: Sequence[float], curve: Sequence[Sequence[float]]) -> dict[str, Any]:
        last = [loss for loss in losses[-max(1, len(losses) // 10) :] if math.isfinite(loss)]
        return {
            "train_loss": float(np.mean(last)) if last else None,
            "eval_loss": curve[-1][1] if curve else None,
            "eval_loss_curve": curve,
            "eval_loss_flatness": curve_flatness(curve),
            "steps": self.step,
            "tokens": self.tokens,
            "tokens_per_second": self.throughput.tokens_per_second(TRAINING),
            "skipped_updates": self.skipped,
        }

    def snapshot(self) -> Snapshot:
        """All that training goes on from: the variables that it changes, and its counters.

        What is frozen is not in it: it comes from where the model was loaded.
        """
        changing = changing_variables(self.model, self.optimizer)
        return Snapshot(sources_of(changing), {name: getattr(self, name) for name in _COUNTERS})

    def restore(self, saved: Snapshot) -> None:
        """Take back what `snapshot` gave, in this process or another.

        Raises:
            ValueError: it is of another model.
        """
        assign(changing_variables(self.model, self.optimizer), saved.arrays)
        for name in _COUNTERS:
            setattr(self, name, saved.record[name])

    def log(self, **metrics: float) -> None:
        """Write metrics under the number of updates done so far."""
        if self.context is not None:
            self.context.log(self.step, **metrics)

    def _log_update(self, metrics: dict[str, float]) -> None:
        self.log(**metrics, **self.throughput.row(TRAINING))

    def with_progress(self, global_batches: Iterable[Sequence[Batch]]) -> Iterator[Sequence[Batch]]:
        """The same batches, with the stage's progress display moved on after each."""
        if self.context is None:
            yield from global_batches
            return
        with self.context.progress(self.total_steps, "training", before=self.step) as progress:
            for micro_batches in global_batches:
                tokens_before = self.tokens
                yield micro_batches
                progress.advance(work=self.tokens - tokens_before)

    def _loss_of(self, batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        return self.loss_function(self.model, batch)

    def _training_inputs(self, batch: Batch) -> dict[str, np.ndarray]:
        inputs = model_inputs(batch)
        if self._drops:
            seed, stage = (0, "") if self.context is None else (self.context.seed, self.context.name)
            inputs[DROPOUT_KEYS] = dropout_keys(seed, stage, self.step, batch[ROW_INDEX], len(batch["token_ids"]))
        return inputs

    def _aux_metrics(self, measured: list[dict[str, np.ndarray]], units: int) -> dict[str, float]:
        scalars = [name for name, value in measured[0].items() if value.ndim == 0]
        metrics = {name: float(sum(part[name].astype(np.float64) for part in measured)) / units for name in scalars}
        if self.summarize is not None:
            arrays = [name for name, value in measured[0].items() if value.ndim]
            metrics.update(self.summarize({name: np.concatenate([part[name] for part in measured]) for name in arrays}))
        return metrics

    def _count_update(
        self, micro_batches: Sequence[Batch], seconds: float, has_compiled: bool, applied: bool
    ) -> dict[str, float]:
        tokens = sum(count_real_tokens(batch) for batch in micro_batches)
        flops = None if self.count_flops is None else sum(map(self.count_flops, micro_batches))
        self.throughput.count(TRAINING, tokens, seconds, flops, self.model.compute_dtype, has_compiled)
        self.step += 1
        self.tokens += tokens
        self.skipped += not applied
        self.skipped_in_a_row = 0 if applied else self.skipped_in_a_row + 1
        return {"num_tokens": self.tokens, "skipped_updates": self.skipped, "step_time": seconds}


def model_inputs(batch: Batch) -> dict[str, np.ndarray]:
    """What of a batch goes to the device: everything but `row_index`."""
    return {name: value for name, value in batch.items() if name != ROW_INDEX}


def count_real_tokens(batch: Batch) -> int:
    """Tokens of a batch that are not padding."""
    return int(np.sum(batch["padding_mask"]))


def _row_names(micro_batches: Sequence[Batch]) -> str:
    rows = [str(int(row)) for batch in micro_batches for row in batch.get(ROW_INDEX, ()) if row >= 0]
    return ", ".join(rows[:16]) + (", …" if len(rows) > 16 else "") if rows else "unknown"
