"""What both stages of a training need: memory of each worker, steps, hours.

In: the settings, a model's shape, how much there is to learn from. Out: a `StagePlan` for each stage. Refuses what cannot fit,
naming a setting with which it would.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline.config import Optimization, Train
from pipeline.errors import ConfigError
from pipeline.plan import memory, shapes
from pipeline.plan.devices import GB, Device
from pipeline.plan.memory import Memory
from pipeline.plan.shapes import Shape
from pipeline.records import TrainStage

USABLE = 0.92
"""Of a GPU's memory, what torch can give out: the rest are the driver's context, NCCL's buffers, and gaps."""
MFU = 0.40
"""Of a GPU's operations, those that training gets (Chowdhery et al. 2022, section 4.1); three quarters of it where activations
are computed again."""


@dataclass(frozen=True)
class Data:
    """What a stage learns from: examples, the tokens of one on average, and the sequences they were packed into, if they were."""

    examples: int
    tokens: float
    packed: int | None = None


@dataclass(frozen=True)
class StagePlan:
    """What a stage needs. `hours` are None where the device is not known."""

    stage: TrainStage
    max_length: int
    memory: Memory
    tokens: float
    steps: int
    hours: float | None


def of_run(settings: Train, shape: Shape, device: Device | None, data: Mapping[TrainStage, Data]) -> list[StagePlan]:
    """The plan of all stages. Raises ConfigError where a worker's memory does not suffice."""
    plans = []
    for name in settings.stages:
        stage = settings.optimization(name)
        positions = settings.rope.positions if settings.rope else shape.positions
        shapes.check_positions(f"train.{name}.max_length", stage.max_length, positions, settings.model)
        needed = memory.of_training(shape, settings, stage, mean_length=data[name].tokens)
        if device is not None:
            _refuse_too_little(name, settings, shape, stage, device, data[name], needed)
            if settings.min_workers:
                fewest = settings.model_copy(update={"workers": settings.min_workers})
                there = f"{name} with train.min_workers = {settings.min_workers}"
                most = memory.of_training(shape, fewest, stage, mean_length=data[name].tokens)
                _refuse_too_little(there, fewest, shape, stage, device, data[name], most)
        plans.append(_stage(name, settings, shape, stage, device, data[name], needed))
    return plans


def _refuse_too_little(
    name: str, settings: Train, shape: Shape, stage: Optimization, device: Device, data: Data, needed: Memory
) -> None:
    if needed.total > USABLE * device.memory:
        raise ConfigError(
            f"train.{name} needs {needed.total / GB:,.1f} GB of each GPU, and of its {device.memory / GB:,.0f} GB at most "
            f"{USABLE * device.memory / GB:,.1f} can be used: {_mend(settings, shape, stage, device, data)}"
        )


def _stage(
    name: TrainStage,
    settings: Train,
    shape: Shape,
    stage: Optimization,
    device: Device | None,
    data: Data,
    needed: Memory,
) -> StagePlan:
    examples = min(data.examples, stage.max_examples or data.examples)
    length = min(data.tokens, stage.max_length)
    tokens = stage.epochs * examples * length
    hours = None
    if device is not None:
        mfu = MFU * (0.75 if settings.activation_checkpointing else 1)
        operations = shape.operations(tokens, tokens * length, tokens)
        hours = operations / (device.flops * mfu * settings.workers) / 3600
    rows = tokens / stage.max_length if data.packed is None else data.packed * stage.epochs
    steps = max(1, math.ceil(rows / stage.rows_per_step))
    return StagePlan(name, stage.max_length, needed, tokens, steps, hours)


def _mend(settings: Train, shape: Shape, stage: Optimization, device: Device, data: Data) -> str:
    """The first of some changes, each added to those before it, with which the stage fits."""
    changes: dict[str, object] = {}
    for change in _changes(settings, shape):
        changes |= change
        settings = settings.model_copy(update=change)
        needed = memory.of_training(shape, settings, stage, mean_length=data.tokens).total
        if needed <= USABLE * device.memory:
            said = ", ".join(f"train.{key} to {str(value).lower()}" for key, value in changes.items())
            return f"set {said} ({needed / GB:,.1f} GB)"
    return "it needs more GPUs, larger ones, or a lower max_length"


def _changes(settings: Train, shape: Shape) -> Iterator[dict[str, object]]:
    if settings.micro_rows > 1:
        yield {"micro_rows": 1}
    if settings.zero_stage < 2 and settings.workers > 1:
        yield {"zero_stage": 2}
    if not settings.activation_checkpointing:
        yield {"activation_checkpointing": True}
    if settings.zero_stage < 3 and settings.workers > 1:
        yield {"zero_stage": 3}
    for parts in (2, 4, 8):
        if (
            not settings.min_workers
            and parts > settings.sequence_parallel
            and settings.workers % parts == 0
            and shape.can_share(parts)
        ):
            yield {"sequence_parallel": parts}
    if settings.offload is None:
        yield {"offload": "cpu"}
