"""The training loop: one flat DeepSpeed loop for both stages, read top to bottom.

In: a model, a schedule of packed rows, where to go on from. Out: a `Step` for every optimizer step, checkpoints, and at the
end the trained weights. Starting the processes and storing what comes out are left to the caller (`ray_jobs.train`, or
torchrun): it must have set up `torch.distributed`.

The objective is the mean over the target tokens of the *global* batch. Each pass adds its sum of token losses divided by
that batch's target tokens, so that packing, passes, accumulation, and the number of workers change nothing but rounding.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from pipeline.config import Optimization, Train
from pipeline.errors import ConfigError, DataError
from pipeline.plan import shapes
from pipeline.records import PackedRow, Step, TrainStage
from pipeline.train import checkpoints, lora
from pipeline.train.attention import Bounds
from pipeline.train.engine import averaged_over, full_weights, prepare, readers_of
from pipeline.train.engine import step as step_of
from pipeline.train.figures import Clock, peak_flops, peak_memory
from pipeline.train.packing import IGNORED
from pipeline.train.ranks import together
from pipeline.train.schedule import Schedule

FINAL_LEARNING_RATE = 0.1
"""Share of the peak at the end of the cosine: the last examples still count."""
SPIKE_WINDOW = 20
"""Steps whose median a loss is compared with; before there are so many none is called a spike."""


class Caller:
    """What the loop tells whoever called it, on every rank. Override what you want to hear."""

    def started(self, done: int, steps: int) -> None:
        """The loop begins, with so many of its steps behind it."""

    def stepped(self, step: Step) -> None:
        """A step is done."""

    def leaving(self) -> bool:
        """Whether a checkpoint is wanted now, for a node is about to be taken away. All ranks say the same."""
        return False

    def save(self, done: int, write: Callable[[Path], None]) -> bool:
        """A checkpoint is due after so many steps: `write` puts this rank's files into a local folder. Says whether one is kept."""
        del done, write
        return False

    def uploaded(self) -> float:
        """Seconds that checkpoints took on their way to storage, of those that arrived since this was last asked."""
        return 0.0


@dataclass(frozen=True)
class Trained:
    """The end of a stage: the model, its full weights (on rank 0), and all its steps."""

    model: Any
    state_dict: Mapping[str, torch.Tensor] | None
    steps: list[Step]


def train(
    stage: TrainStage,
    settings: Train,
    model: Any,
    schedule: Schedule,
    *,
    recipe: str = "",
    resume_from: AbstractContextManager[Path | None] | None = None,
    caller: Caller | None = None,
) -> Trained:
    """Train a model for one stage, on every rank. `resume_from` is a checkpoint's folder, for as long as it is being read; it must
    be of the same `recipe`, a hash of all that decides what is trained.

    Raises ConfigError where the checkpoint to resume from cannot be used, and where the training diverges; DataError where a
    checkpoint cannot be written.
    """
    caller = caller or Caller()
    rank, world_size = dist.get_rank(), dist.get_world_size()
    readers = readers_of(settings)
    reader, part = divmod(rank, settings.sequence_parallel)
    optimization = settings.optimization(stage)
    passes = -(-schedule.rows_for_each(readers) // settings.micro_rows)
    shape = shapes.of_config(model.config)
    with resume_from or nullcontext() as folder:
        with together():
            behind = checkpoints.find(folder, settings, recipe)
        engine = prepare(settings, optimization, model, passes, universal=behind is not None and behind.universal)
        if behind is not None:
            checkpoints.load(engine, behind)
    steps = behind.steps if behind is not None else []
    caller.started(len(steps), schedule.steps)
    saved = len(steps)
    clock, peak = Clock(engine.device), peak_flops(engine.device)

    for step in range(len(steps), schedule.steps):
        started = time.monotonic()
        # Dropout's noise too is a function of the step, so there is no generator state to keep.
        torch.manual_seed(settings.seed * 1_000_003 + step * world_size + rank)
        learning_rate = _learning_rate(optimization, step, schedule.steps)
        for group in engine.optimizer.param_groups:
            group["lr"] = learning_rate

        batch = schedule.batch(step)
        loss_sum = torch.zeros((), device=engine.device)
        with clock.phase("data"):
            rows = schedule.rows(step, reader, readers)
        for first in range(0, len(rows), settings.micro_rows):
            with clock.phase("data"):
                inputs = _inputs(
                    rows[first : first + settings.micro_rows], part, settings.sequence_parallel, engine.device
                )
            with clock.phase("forward"):
                loss = engine(**inputs)
            with clock.phase("backward"):
                # DeepSpeed takes a mean, hence the factor; and it must not divide by the passes.
                engine.backward(loss * (averaged_over(settings) / batch.targets), scale_wrt_gas=False)
            with clock.phase("optimizer"):
                grad_norm = step_of(engine)
            loss_sum += loss.detach()

        dist.all_reduce(loss_sum)
        loss_mean = float(loss_sum) / batch.targets
        seconds = time.monotonic() - started
        phases = clock.read()
        floating = shape.operations(batch.tokens, batch.squares, batch.targets)
        record = Step(
            stage=stage,
            step=step,
            loss=loss_mean,
            grad_norm=grad_norm,
            learning_rate=learning_rate,
            tokens=batch.tokens,
            target_tokens=batch.targets,
            seconds=seconds,
            fill=batch.tokens / (len(schedule.indices(step)) * optimization.max_length),
            mfu=floating / seconds / (peak * world_size) if peak else None,
            memory=peak_memory(engine.device),
            data_s=phases.get("data", 0.0),
            forward_s=phases.get("forward", 0.0),
            backward_s=phases.get("backward", 0.0),
            optimizer_s=phases.get("optimizer", 0.0),
            checkpoint_s=phases.get("checkpoint", 0.0),
            upload_s=caller.uploaded(),
        )
        _guard(record, steps, settings, optimization, saved)
        steps.append(record)
        caller.stepped(record)
        done = len(steps)
        # Asked after every step: what is due anyway serves a stop as well.
        if done < schedule.steps and (caller.leaving() or done % settings.checkpoint_every == 0):
            with clock.phase("checkpoint"), _last_good(saved):
                kept = caller.save(done, lambda folder: checkpoints.write(engine, settings, recipe, steps, folder))
            saved = done if kept else saved

    weights = full_weights(engine, settings.zero_stage)
    return Trained(model, lora.merged(weights, settings.lora) if weights and settings.lora else weights, steps)


def _inputs(rows: Sequence[PackedRow], part: int, parts: int, device: torch.device) -> dict[str, Any]:
    """Rows as one sequence; of several parts this rank's. Positions restart with each example."""
    lengths = [length for row in rows for length in row.lengths]
    ids = np.concatenate([np.asarray(row.input_ids) for row in rows])
    labels = np.concatenate([np.asarray(row.labels) for row in rows])
    missing = -len(ids) % parts
    if missing:  # all parts are of one length: the rest is an example from which nothing is learned
        lengths.append(missing)
        ids, labels = np.pad(ids, (0, missing)), np.pad(labels, (0, missing), constant_values=IGNORED)
    positions = np.concatenate([np.arange(length) for length in lengths])
    share = len(ids) // parts
    mine = slice(part * share, (part + 1) * share)
    targets = np.flatnonzero(labels[mine] != IGNORED)
    return {
        "input_ids": torch.from_numpy(ids[mine])[None].to(device, non_blocking=True),
        "position_ids": torch.from_numpy(positions[mine])[None].to(device, non_blocking=True),
        "targets": torch.from_numpy(targets).to(device, non_blocking=True),
        "labels": torch.from_numpy(labels[mine][targets]).to(device, non_blocking=True),
        "bounds": Bounds.of(lengths, device),
    }


@contextmanager
def _last_good(saved: int) -> Iterator[None]:
    """Say with what the training can go on where a checkpoint cannot be written."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{error}: free some space and run again; {_checkpoint(saved)}") from error


def _checkpoint(saved: int) -> str:
    return f"the checkpoint after step {saved} is the last good one" if saved else "there is no checkpoint yet"


def _learning_rate(optimization: Optimization, step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to a tenth."""
    warmup = math.ceil(optimization.warmup * steps)
    if step < warmup:
        return optimization.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return optimization.learning_rate * (FINAL_LEARNING_RATE + (1 - FINAL_LEARNING_RATE) * cosine)


def _guard(record: Step, steps: Sequence[Step], settings: Train, optimization: Optimization, saved: int) -> None:
    """Refuse to go on where the training diverges."""
    usual = statistics.median(step.loss for step in steps[-SPIKE_WINDOW:]) if len(steps) >= SPIKE_WINDOW else math.inf
    finite = math.isfinite(record.loss) and math.isfinite(record.grad_norm)
    if finite and record.loss <= settings.max_spike * usual:
        return
    what = f"the loss is {record.loss:.4g}" + (f", usual are {usual:.4g}" if math.isfinite(usual) else "")
    section = "stage1" if record.stage == "stage1" else "stage2"
    go_on = "raise train.max_spike to go on from there, or " if finite else ""
    raise ConfigError(
        f"{record.stage} diverged at step {record.step + 1}: {what}, the gradient norm {record.grad_norm:.4g}; {_checkpoint(saved)}: "
        f"{go_on}lower train.{section}.learning_rate (now {optimization.learning_rate:g}) or train.max_grad_norm, with which "
        "the stage begins anew"
    )
