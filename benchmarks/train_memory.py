"""`longthought plan` against reality: the memory that a training was predicted to need and what it took, on this machine.

    python benchmarks/train_memory.py [--only NAME] [--all]

Random models of several shapes are trained for three steps by `python -m pipeline.train`, one worker or two, and the most that
a worker's process ever held is compared with `pipeline.plan`. The formula's constants were set on the cases marked
`fitted`; the others are the proof. Recorded in `benchmarks/results/train.md`.
"""

import argparse
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import training

from pipeline.plan import memory
from pipeline.plan.shapes import KNOWN, Shape

SMALL = KNOWN["SmolLM2-135M"]
STEPS, LENGTH_OF_EXAMPLE = 3, 256


@dataclass(frozen=True)
class Case:
    """A training to be measured."""

    shape: Shape
    max_length: int
    train: dict[str, Any] = field(default_factory=dict)
    fitted: bool = False


CASES = {
    "135M, ZeRO-1": Case(SMALL, 1024, {"zero_stage": 1}, fitted=True),
    "135M, ZeRO-2, long": Case(SMALL, 4096, {"zero_stage": 2}, fitted=True),
    "wide, ZeRO-3": Case(replace(SMALL, layers=6, hidden=1024, intermediate=4096, heads=16, key_heads=4), 1024, {"zero_stage": 3}, fitted=True),
    "135M, float32": Case(SMALL, 512, {"zero_stage": 1, "dtype": "float32"}, fitted=True),
    "135M, LoRA": Case(SMALL, 1024, {"zero_stage": 1, "lora": {"rank": 8}}, fitted=True),
    "wide, ZeRO-3, two workers, activations again": Case(
        replace(SMALL, layers=12, hidden=1024, intermediate=2560, heads=16, key_heads=4), 2048,
        {"zero_stage": 3, "workers": 2, "activation_checkpointing": True}, fitted=True,
    ),
    "360M, ZeRO-2, two workers": Case(KNOWN["SmolLM2-360M"], 1024, {"zero_stage": 2, "workers": 2}),
    "deep, ZeRO-3, two workers, activations again": Case(
        replace(SMALL, layers=40, hidden=768, intermediate=2048, heads=12, key_heads=4), 4096,
        {"zero_stage": 3, "workers": 2, "activation_checkpointing": True},
    ),
    "360M, LoRA": Case(KNOWN["SmolLM2-360M"], 2048, {"zero_stage": 1, "lora": {"rank": 16}}),
}  # fmt: skip


def measure(case: Case, folder: Path) -> float:
    """Bytes of the fullest worker."""
    workers = case.train.get("workers", 1)
    row = training.full_row(case.shape.vocabulary, [LENGTH_OF_EXAMPLE] * (case.max_length // LENGTH_OF_EXAMPLE))
    place = training.random_model(folder, case.shape)
    steps = training.loop(folder, place, [row] * (STEPS * workers * 2), case.max_length, 2 * workers, **case.train)
    return float(max(step["memory"] for step in steps))


def predicted(case: Case) -> memory.Memory:
    """By the formula alone."""
    from pipeline.config import Train

    stage = {"max_length": case.max_length, "epochs": 1, "learning_rate": 1e-5, "rows_per_step": 64}
    settings = Train.model_validate({"model": "random", "stage1": stage, "stage2": stage, **case.train})
    return memory.of_training(case.shape, settings, settings.stage1, mean_length=LENGTH_OF_EXAMPLE)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose names contain this")
    parser.add_argument("--all", action="store_true", help="those that the constants were set on too")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        with tempfile.TemporaryDirectory() as folder:
            print(f"result {measure(CASES[given.one], Path(folder))}", flush=True)
        return 0
    print("| training | predicted, GB | measured, GB | ratio |\n|---|---|---|---|", flush=True)
    for name, case in CASES.items():
        if given.only not in name or (case.fitted and not given.all):
            continue
        measured = training.alone(__file__, "--one", name) / 1e9
        expected = predicted(case).total / 1e9
        kind = " (fitted)" if case.fitted else ""
        print(f"| {name}{kind} | {expected:.2f} | {measured:.2f} | {expected / measured:.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
