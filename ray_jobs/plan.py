"""`longthought plan`: what training will need, before anything is started. Arithmetic alone: no cluster, no network."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.plan import shapes, training
from pipeline.plan.devices import DEVICES, GB, Device
from pipeline.plan.shapes import Shape
from pipeline.plan.training import Data, StagePlan


def plan(config: Config, gpu: str | None, examples: int, tokens: float) -> None:
    """Print memory of each worker, steps and hours of both stages."""
    settings = config.train
    device = _device(config, gpu)
    shape = _shape(config)
    plans = training.of_run(settings, shape, device, dict.fromkeys(settings.stages, Data(examples, tokens)))
    name = gpu or settings.accelerator_type or "CPU"
    print(
        f"{settings.model}: {shape.weights / 1e9:,.2f} billion weights, {settings.workers} workers "
        f"({name}{f', {device.memory / GB:,.0f} GB' if device else ''}), ZeRO-{settings.zero_stage}, {settings.dtype}"
    )
    print(f"{examples:,} examples of {tokens:,.0f} tokens in each stage (--examples, --tokens)")
    Console(highlight=False).print(_table(plans, device))


def _device(config: Config, gpu: str | None) -> Device | None:
    name = gpu or config.train.accelerator_type
    if not config.train.worker_gpus:
        return None
    if name is None or name not in DEVICES:
        what = "train.accelerator_type is not set" if name is None else f"unknown GPU {name!r}"
        raise ConfigError(f"{what}: set it, or give --gpu: one of {', '.join(DEVICES)}")
    return DEVICES[name]


def _shape(config: Config) -> Shape:
    known = shapes.known(config.train.model)
    if known:
        return known
    from pipeline.train import model

    return shapes.of_config(model.load_config(model.find(config.train.model, config.storage.endpoint, weights=False)))


def _table(plans: Sequence[StagePlan], device: Device | None) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for each in plans:
        table.add_column(each.stage, justify="right")

    def row(name: str, values: Sequence[str]) -> None:
        table.add_row(name, *values)

    row("tokens of a sequence", [f"{each.max_length:,}" for each in plans])
    row("steps", [f"{each.steps:,}" for each in plans])
    row("tokens read", [f"{each.tokens / 1e6:,.1f} M" for each in plans])
    for name in ("weights", "optimizer", "gradients", "activations", "loss", "step", "process"):
        if any(getattr(each.memory, name) for each in plans):
            row(
                f"GB: {name}{', instead of the two above' if name == 'step' else ''}",
                [f"{getattr(each.memory, name) / GB:,.1f}" for each in plans],
            )
    row("GB of each worker", [f"{each.memory.total / GB:,.1f}" for each in plans])
    if device:
        row("of which can be used", [f"{training.USABLE * device.memory / GB:,.1f}" for _ in plans])
    row("hours", ["not foretold on CPUs" if each.hours is None else f"{each.hours:,.1f}" for each in plans])
    return table
