"""The training loop: one flat DeepSpeed loop for both stages, read top to bottom.

In: a model folder, a schedule of packed rows, where to resume from. Out: a `Step` for every optimizer
step, checkpoints, and at the end the trained weights. Starting the processes and storing what comes out
are left to the caller (`ray_jobs.train`, or torchrun): it must have set up `torch.distributed`.

The objective is the mean over the target tokens of the *global* batch. Each micro batch adds its sum of
token losses divided by that batch's target tokens, so that packing, micro batches, accumulation and the
number of workers change nothing but rounding.
"""

import contextlib
import io
import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import deepspeed
import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy

from pipeline.config import Optimization, Train
from pipeline.errors import ConfigError
from pipeline.records import PackedRow, Step, TrainStage
from pipeline.train.data import IGNORED, Schedule

STATE_FILE = "longthought.json"
"""In each checkpoint: the steps taken so far, and who took them."""

FINAL_LEARNING_RATE = 0.1
"""Share of the peak at the end of the cosine: the last examples still count."""


class Caller:
    """What the loop tells whoever called it, on every rank. Override what you want to hear."""

    def started(self, done: int) -> None:
        """The loop begins, with so many steps behind it."""

    def stepped(self, step: Step) -> None:
        """A step is done."""

    def save(self, done: int, write: Callable[[Path], None]) -> None:
        """A checkpoint is due after so many steps: `write` puts this rank's files into a local folder."""


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
    resume_from: Path | None = None,
    caller: Caller | None = None,
    dtype: torch.dtype = torch.bfloat16,
) -> Trained:
    """Train a model for one stage, on every rank.

    Raises ConfigError where the checkpoint to resume from was written by another number of workers, and where the
    training diverges.
    """
    rank, world_size = dist.get_rank(), dist.get_world_size()
    optimization: Optimization = getattr(settings, stage)
    engine = _engine(settings, optimization, model, world_size, dtype)
    steps = _resume(engine, settings, resume_from, world_size) if resume_from else []
    caller = caller or Caller()
    caller.started(len(steps))

    for step in range(len(steps), schedule.steps):
        started = time.monotonic()
        # Dropout's noise too is a function of the step, so there is no generator state to keep.
        torch.manual_seed(settings.seed * 1_000_003 + step * world_size + rank)
        learning_rate = _learning_rate(optimization, step, schedule.steps)
        for group in engine.optimizer.param_groups:
            group["lr"] = learning_rate

        tokens, target_tokens = schedule.tokens(step)
        rows = schedule.rows(step, rank, world_size)
        loss_sum = torch.zeros((), device=engine.device)
        for first in range(0, len(rows), settings.micro_rows):
            loss = _sum_of_losses(engine, rows[first : first + settings.micro_rows])
            # DeepSpeed takes the mean over the ranks, hence the factor; and it must not divide by accumulation steps.
            engine.backward(loss * (world_size / target_tokens), scale_wrt_gas=False)
            engine.step()
            loss_sum += loss.detach()

        dist.all_reduce(loss_sum)
        record = Step(
            stage=stage,
            step=step,
            loss=float(loss_sum) / target_tokens,
            grad_norm=float(engine.get_global_grad_norm() or 0.0),
            learning_rate=learning_rate,
            tokens=tokens,
            target_tokens=target_tokens,
            seconds=time.monotonic() - started,
        )
        if not (math.isfinite(record.loss) and math.isfinite(record.grad_norm)):
            raise ConfigError(
                f"{stage} diverged: the loss is {record.loss} and the gradient norm {record.grad_norm} at step {step}: "
                f"lower train.{stage}.learning_rate (now {optimization.learning_rate:g}) or train.max_grad_norm"
            )
        steps.append(record)
        caller.stepped(record)
        done = len(steps)
        if done % settings.checkpoint_every == 0 and done < schedule.steps:
            caller.save(done, lambda folder: _write_checkpoint(engine, settings, steps, folder))

    return Trained(model, _full_weights(engine, settings.zero_stage), steps)


def _sum_of_losses(engine: Any, rows: list[PackedRow]) -> torch.Tensor:
    """The summed loss of the target tokens of some rows, as one sequence.

    Position ids that restart keep attention inside each example, but only without a cache: with one,
    transformers takes them for one long sequence. Logits exist at target positions only.
    """
    ids, positions, labels = (
        torch.tensor([value for row in rows for value in getattr(row, name)], device=engine.device)
        for name in ("input_ids", "position_ids", "labels")
    )
    targets = (labels != IGNORED).nonzero().squeeze(1)
    output = engine(input_ids=ids[None], position_ids=positions[None], logits_to_keep=targets, use_cache=False)
    return cross_entropy(output.logits[0].float(), labels[targets], reduction="sum")


def _learning_rate(optimization: Optimization, step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to a tenth."""
    warmup = math.ceil(optimization.warmup * steps)
    if step < warmup:
        return optimization.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return optimization.learning_rate * (FINAL_LEARNING_RATE + (1 - FINAL_LEARNING_RATE) * cosine)


def _engine(settings: Train, optimization: Optimization, model: Any, world_size: int, dtype: torch.dtype) -> Any:
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if settings.activation_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},  # norms and biases are not shrunk
    ]
    # Its shared-memory reduction would be compiled with the machine's C++ compiler on first use.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    with contextlib.redirect_stdout(io.StringIO()):  # it prints memory figures at any log level
        engine, *_ = deepspeed.initialize(
            model=model,
            model_parameters=[group for group in groups if group["params"]],
            config=_deepspeed_config(settings, optimization, world_size, dtype),
            dist_init_required=False,
        )
    return engine


def _deepspeed_config(
    settings: Train, optimization: Optimization, world_size: int, dtype: torch.dtype
) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": settings.zero_stage}
    if settings.offload:
        zero["offload_optimizer"] = {"device": "cpu"}
    return {
        "train_batch_size": optimization.rows_per_step,
        "train_micro_batch_size_per_gpu": settings.micro_rows,
        "gradient_accumulation_steps": optimization.rows_per_step // (settings.micro_rows * world_size),
        "zero_optimization": zero,
        "bf16": {"enabled": dtype == torch.bfloat16},
        # Sums of many bf16 gradients lose the small ones.
        "data_types": {"grad_accum_dtype": "fp32"},
        # torch's own Adam: DeepSpeed's would compile itself with nvcc on first use.
        "optimizer": {"type": "AdamW", "params": {"lr": optimization.learning_rate, "torch_adam": True, "fused": True}},
        # DeepSpeed clips at 1.0 where this is not set.
        "gradient_clipping": settings.max_grad_norm,
        "steps_per_print": None,
    }


# --- checkpoints and weights ----------------------------------------------------------------------


def _write_checkpoint(engine: Any, settings: Train, steps: list[Step], folder: Path) -> None:
    engine.save_checkpoint(str(folder), tag="deepspeed")
    if dist.get_rank() == 0:
        state = {"writers": _writers(settings, dist.get_world_size()), "steps": [asdict(step) for step in steps]}
        (folder / STATE_FILE).write_text(json.dumps(state))


def _resume(engine: Any, settings: Train, folder: Path, world_size: int) -> list[Step]:
    """Load a checkpoint into the engine; returns the steps behind it."""
    state = json.loads((folder / STATE_FILE).read_text())
    writers = _writers(settings, world_size)
    if state["writers"] != writers:
        raise ConfigError(
            f"the last checkpoint of this stage was written with {_text(state['writers'])}, now there is {_text(writers)}: "
            f"set these back, or delete 5_train/checkpoints of the run to train the stage from its start"
        )
    engine.load_checkpoint(str(folder), tag="deepspeed")
    return [Step(**step) for step in state["steps"]]


def _writers(settings: Train, world_size: int) -> dict[str, Any]:
    return {"train.workers": world_size, "train.zero_stage": settings.zero_stage, "train.offload": settings.offload}


def _text(writers: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in writers.items())


def _full_weights(engine: Any, zero_stage: int) -> dict[str, torch.Tensor] | None:
    """The model's whole weights in CPU memory, on rank 0 only; the ranks must call this together."""
    parameters = dict(engine.module.named_parameters())
    weights: dict[str, torch.Tensor] = {}
    for name, parameter in parameters.items():
        # ZeRO-3 holds a part of each parameter on each rank: gather one at a time, so that a rank never holds all.
        gathered = deepspeed.zero.GatheredParameters(parameter) if zero_stage == 3 else contextlib.nullcontext()
        with gathered:
            if dist.get_rank() == 0:
                weights[name] = cast(torch.Tensor, parameter.data.detach().to("cpu", copy=True))
    return weights or None
