"""`longthought plan`: what a run will need, before anything is started. No cluster, no GPU; no network, unless it is asked for."""

import time as clock
from collections.abc import Callable, Sequence
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from pipeline import precision
from pipeline.config import STAGES, Config
from pipeline.errors import ConfigError
from pipeline.plan import assumptions as assumed
from pipeline.plan import run, shapes, training
from pipeline.plan.devices import DEVICES, GB, Device
from pipeline.plan.estimate import NOTHING, Estimate
from pipeline.plan.run import Known, Need, Run
from pipeline.plan.shapes import Shape
from pipeline.plan.training import StagePlan
from ray_jobs.known import Told, endpoints, find

WIDTH = 124
"""Of what is printed where no terminal says how wide it is."""
LIMITS = ("requests_per_minute", "tokens_per_minute", "input_tokens_per_minute", "output_tokens_per_minute")


def plan(config: Config, gpu: str | None, told: Told, *, probed: bool) -> None:
    """Print what each stage takes, what decides it, and the memory of each worker in training."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    made, known, said = of_config(config, gpu, told, probed=probed)
    if known.done:
        print(f"complete already: {', '.join(stage for stage in STAGES if stage in known.done)}")
    console.print(_asked(made.needs))
    console.print(_spent(made.needs))
    if (slowest := made.bottleneck) and slowest.time:
        whole = total(made.needs, seconds)
        print(
            f"bottleneck: {slowest.stage}, {duration(slowest.time.seconds.likely)} of {duration(whole.likely)}, "
            f"decided by {slowest.time.bound}"
        )
    if "train" not in known.done:
        _print_training(config, gpu, made, console)
    print()
    for line in said:
        console.print(f"- {line}", soft_wrap=True, markup=False)


def _print_training(config: Config, gpu: str | None, made: Run, console: Console) -> None:
    settings, device, shape = config.train, _device(config, gpu), shape_of(config)
    name = gpu or settings.accelerator_type or "CPU"
    print(
        f"\n{settings.model}: {shape.weights / 1e9:,.2f} billion weights, {settings.workers} workers "
        f"({name}{f', {device.memory / GB:,.0f} GB' if device else ''}), ZeRO-{settings.zero_stage}, "
        f"{precision.computed(settings.dtype, settings.worker_gpus)}"
    )
    console.print(_memory(made.training, device))


def of_config(config: Config, gpu: str | None, told: Told, *, probed: bool) -> tuple[Run, Known, list[str]]:
    """The plan of a run, what it is made from, and lines that say what was counted, measured and assumed."""
    device, shape = _device(config, gpu), shape_of(config)
    found = find(config, told)
    known, said = found.known, found.said
    if probed:
        from ray_jobs.probe import probe

        started = clock.monotonic()
        asked = endpoints(config, known.done)
        speed, measured = probe(config, found.problems, found.heldout, found.rows, asked)
        known = replace(known, speed=speed)
        said += [*measured, f"the probe took {duration(clock.monotonic() - started)}"]
    made = run.of_config(config, known, shape, device)
    return made, known, [*said, *_assumed(config, known, made, device)]


def _device(config: Config, gpu: str | None) -> Device | None:
    name = gpu or config.train.accelerator_type
    if not config.train.worker_gpus:
        return None
    if name is None or name not in DEVICES:
        what = "train.accelerator_type is not set" if name is None else f"unknown GPU {name!r}"
        raise ConfigError(f"{what}: set it, or give --gpu: one of {', '.join(DEVICES)}")
    return DEVICES[name]


def shape_of(config: Config) -> Shape:
    """The shape of the model that is trained."""
    known = shapes.known(config.train.model)
    if known:
        return known
    from pipeline.train import model

    return shapes.of_config(model.load_config(model.find(config.train.model, config.storage.endpoint, weights=False)))


def _asked(needs: Sequence[Need]) -> Table:
    """What is asked: a row for each stage that asks or reads."""
    table = _table("rows", "requests", "tokens in", "tokens out", "$")
    figures: tuple[Figure, ...] = (
        (lambda need: need.asked.requests, count),
        (lambda need: need.asked.prompt, count),
        (lambda need: need.asked.completion, count),
        (lambda need: need.usd, count),
    )
    for need in needs:
        table.add_row(need.stage, cell(need.rows, count), *(cell(value(need), words) for value, words in figures))
    table.add_row("all", "", *(cell(total(needs, value), words) for value, words in figures))
    return table


def _spent(needs: Sequence[Need]) -> Table:
    """What it takes beside money: a row for each stage."""
    table = _table("stored", "time", "GPU hours")
    table.add_column("decided by")
    for need in needs:
        time = cell(need.time.seconds, duration) if need.time else "not foretold"
        bound = need.time.bound if need.time else ""
        table.add_row(need.stage, cell(need.bytes, stored), time, cell(gpu_hours(need), count), bound)
    time = cell(total(needs, seconds), duration)
    more = "" if all(need.time for need in needs) else " and more"
    table.add_row(
        "all", cell(total(needs, lambda need: need.bytes), stored), time + more, cell(total(needs, gpu_hours), count)
    )
    return table


Figure = tuple[Callable[[Need], Estimate], Callable[[float], str]]
"""What of a stage is shown, and how it is written."""


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    return table


def total(needs: Sequence[Need], value: Callable[[Need], Estimate]) -> Estimate:
    """A figure of all stages."""
    return sum((value(need) for need in needs), NOTHING)


def seconds(need: Need) -> Estimate:
    """Of a stage whose time is foretold."""
    return need.time.seconds if need.time else NOTHING


def gpu_hours(need: Need) -> Estimate:
    """The same in hours of GPUs."""
    return seconds(need) * (need.gpus / 3600)


def cell(estimate: Estimate, words: Callable[[float], str]) -> str:
    """A figure as it is printed: nothing for 0, all digits of a count that is known, else the likely one before its range."""
    if estimate.high == 0:
        return ""
    if words is count and estimate.exact and estimate.low < 1e9 and estimate.low == int(estimate.low):
        return f"{estimate.low:,.0f}"
    low, likely, high = (words(each) for each in (estimate.low, estimate.likely, estimate.high))
    if low == high:
        return likely
    unit = high.partition(" ")[2]
    return f"{likely} ({low.removesuffix(f' {unit}') if unit else low}-{high})"


def count(number: float) -> str:
    """Three figures of a number, with its unit."""
    unit, size = next(((unit, size) for least, unit, size in UNITS if number >= least), ("", 1.0))
    number /= size
    short = f"{number:,.0f}" if number >= 100 or number == int(number) else f"{number:.3g}"
    return f"{short} {unit}" if unit else short


UNITS = ((1e9, "G", 1e9), (1e6, "M", 1e6), (1e4, "k", 1e3))
"""From which number on, by which letter, how many."""


def stored(number: float) -> str:
    """Bytes."""
    words = count(number)
    return f"{words}B" if " " in words else f"{words} B"


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    if seconds < 90:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:,.3g} h"


def _memory(plans: Sequence[StagePlan], device: Device | None) -> Table:
    """What each worker holds in training, and what it does."""
    table = _table(*(each.stage for each in plans))
    table.add_row("tokens of a sequence", *(f"{each.max_length:,}" for each in plans))
    table.add_row("steps", *(f"{each.steps:,}" for each in plans))
    table.add_row("tokens read", *(f"{each.tokens / 1e6:,.1f} M" for each in plans))
    for name, words in PARTS.items():
        if any(getattr(each.memory, name) for each in plans):
            table.add_row(f"GB: {words}", *(f"{getattr(each.memory, name) / GB:,.1f}" for each in plans))
    table.add_row("GB of each worker", *(f"{each.memory.total / GB:,.1f}" for each in plans))
    if device:
        table.add_row("of which can be used", *(f"{training.USABLE * device.memory / GB:,.1f}" for _ in plans))
        table.add_row("hours", *(f"{each.hours:,.1f}" for each in plans if each.hours is not None))
    return table


PARTS = {
    "weights": "weights",
    "optimizer": "optimizer",
    "gradients": "gradients",
    "activations": "activations",
    "loss": "loss",
    "step": "step, instead of the two above",
    "process": "process",
}
"""The parts of a worker's memory, in words."""


def _assumed(config: Config, found: Known, made: Run, device: Device | None) -> list[str]:
    """What the plan takes for granted about time, and how to know better."""
    lines, speed = [], found.speed
    left = {need.stage for need in made.needs}
    for name, endpoint in endpoints(config, found.done).items():
        if endpoint.replay:
            continue
        if name not in speed.token_s and not endpoint.batch:
            low, high = (f"{1 / each:,.0f}" for each in (assumed.SECONDS_PER_TOKEN.high, assumed.SECONDS_PER_TOKEN.low))
            lines.append(f"{name}: an answer comes at {low} to {high} tokens a second: guessed (--probe)")
        if not any(getattr(endpoint.limits, limit) for limit in LIMITS):
            lines.append(f"{name}.limits names no requests or tokens per minute: the provider's own may decide instead")
        if endpoint.batch:
            lines.append(f"{name}.price is taken for the price of batches, each of which takes 1 to 24 hours: assumed")
    if device is None and (speed.trained_s is None or speed.served_s is None):
        lines.append("on CPUs the time of training and of serving is not foretold without --probe")
    if device is not None and "train" in left and speed.trained_s is None:
        lines.append(
            f"training gets {training.MFU:.0%} of the GPUs' operations, three quarters of it where activations are computed again"
        )
    if device is not None and "evaluate" in left and speed.served_s is None and config.evaluate.endpoint is None:
        lines.append(f"serving gets {assumed.SERVED_SHARE:.0%} of the GPUs' operations: guessed (--probe)")
    if (
        "evaluate" in left
        and not speed.base.lengths
        and "base" in config.evaluate.models
        and config.evaluate.endpoint is None
    ):
        lines.append(
            "the untrained model's answers may have any length up to the largest of evaluate.budgets (--probe)"
        )
    if "evaluate" in left and config.evaluate.endpoint is None:
        lines.append(
            "a trained model's answers are as long as what it learned from, give or take 30%: assumed, 2% in the demo"
        )
    if "train" in left:
        lines.append(
            f"stored by train: the models; at most with {config.train.keep_checkpoints} checkpoints, which are deleted at its end"
        )
    return lines
