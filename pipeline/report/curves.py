"""Training as curves, short enough for a page.

In: the optimizer steps. Out: one `Curve` a training stage, of at most MAX_POINTS points.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from pipeline.records import Step, TrainStage

MAX_POINTS = 400
"""A page is about 400 pixels wide where a curve stands; more points would only make it heavy."""


@dataclass(frozen=True)
class Curve:
    """One stage of training. The lists have the same length: each entry is the mean of neighbouring steps,
    where there are more than MAX_POINTS. `last_loss` is the mean over the last tenth of the steps."""

    stage: TrainStage
    steps: list[int]
    loss: list[float]
    grad_norm: list[float]
    learning_rate: list[float]
    total_steps: int
    first_loss: float
    last_loss: float
    tokens: int
    target_tokens: int
    seconds: float


def curves(steps: Iterable[Step]) -> list[Curve]:
    """The curves of stage 1 and stage 2, where they were trained."""
    ordered = sorted(steps, key=lambda step: (step.stage, step.step))
    stages = dict.fromkeys(step.stage for step in ordered)
    return [_curve(stage, [step for step in ordered if step.stage == stage]) for stage in stages]


def _curve(stage: TrainStage, steps: Sequence[Step]) -> Curve:
    size = -(-len(steps) // MAX_POINTS)
    buckets = [steps[i : i + size] for i in range(0, len(steps), size)]
    tail = steps[-max(1, len(steps) // 10) :]
    return Curve(
        stage=stage,
        steps=[bucket[-1].step for bucket in buckets],
        loss=[fmean(s.loss for s in bucket) for bucket in buckets],
        grad_norm=[fmean(s.grad_norm for s in bucket) for bucket in buckets],
        learning_rate=[fmean(s.learning_rate for s in bucket) for bucket in buckets],
        total_steps=len(steps),
        first_loss=steps[0].loss,
        last_loss=fmean(s.loss for s in tail),
        tokens=sum(s.tokens for s in steps),
        target_tokens=sum(s.target_tokens for s in steps),
        seconds=sum(s.seconds for s in steps),
    )
