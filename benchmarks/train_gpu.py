"""Training on one GPU: tokens per second, MFU and memory of ours beside TRL's SFTTrainer, in one run.

    python benchmarks/train_gpu.py [--steps 12] [--toy]

SmolLM2-135M and a random model of Qwen2.5-1.5B's shape, bf16, at sequences of 4,096 and 16,384 tokens (examples of a quarter of
that), 65,536 tokens a step. MFU is given against the card's data sheet and against the bf16 matrix rate measured here. Each
contender is a process of its own; the first three steps do not count. `--toy` runs the same at toy width on a CPU, which shows
that the script works and nothing else. Recorded in `benchmarks/results/train.md`.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import training

from pipeline.config import Train
from pipeline.plan import memory
from pipeline.plan.shapes import KNOWN, Shape

WARM, TOKENS = 3, 65_536
SHAPES = {"SmolLM2-135M": KNOWN["SmolLM2-135M"], "Qwen2.5-1.5B": KNOWN["Qwen2.5-1.5B"]}
LENGTHS = (4_096, 16_384)
SMALL = {"layers": 2, "hidden": 64, "intermediate": 128, "heads": 4, "key_heads": 2, "head_size": 16}


def sizes(name: str, length: int, toy: bool) -> tuple[Shape, int, int]:
    """The shape, tokens of a sequence, and tokens of a step."""
    shape = replace(SHAPES[name], positions=max(LENGTHS))
    return (replace(shape, **SMALL), length // 64, TOKENS // 64) if toy else (shape, length, TOKENS)


def matrix_rate(toy: bool) -> float:
    """bf16 operations a second of large matrix products."""
    import torch

    size, device = (512, "cpu") if toy else (8192, "cuda")
    left, right = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        started = time.monotonic()
        for _ in range(10):
            left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.monotonic() - started)
    return 10 * 2 * size**3 / best


def ours(name: str, length: int, steps: int, toy: bool, folder: Path) -> dict[str, float]:
    """The loop of pipeline.train under torchrun."""
    shape, length, tokens = sizes(name, length, toy)
    row = training.full_row(shape.vocabulary, [length // 4] * 4)
    count = tokens // length
    options = {"zero_stage": 1, "worker_gpus": 0 if toy else 1, "activation_checkpointing": _again(shape, length, toy)}
    place = training.random_model(folder, shape)
    done = training.loop(folder, place, [row] * (count * steps), length, count, **options)[WARM:]
    seconds = sum(step["seconds"] for step in done)
    return {"tokens": sum(step["tokens"] for step in done) / seconds, "memory": max(step["memory"] for step in done)}


def trl(name: str, length: int, steps: int, toy: bool, folder: Path) -> dict[str, float]:
    """TRL's trainer, packing the same examples."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    shape, length, tokens = sizes(name, length, toy)
    place, count = training.random_model(folder, shape), tokens // length
    ids = training.full_row(shape.vocabulary, [length // 4]).input_ids
    times: list[float] = []

    class Counting(SFTTrainer):
        def training_step(self, *arguments: Any, **more: Any) -> Any:
            loss = super().training_step(*arguments, **more)
            if not toy:
                torch.cuda.synchronize()
            times.append(time.monotonic())
            return loss

    config = SFTConfig(
        output_dir=str(folder / "trl"), max_length=length, max_steps=steps, learning_rate=1e-5, report_to="none", packing=True,
        per_device_train_batch_size=1, gradient_accumulation_steps=count, bf16=True, use_cpu=toy, save_strategy="no",
        gradient_checkpointing=_again(shape, length, toy), optim="adamw_torch_fused", logging_steps=1000,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, attn_implementation="sdpa")
    data = Dataset.from_list([{"input_ids": ids}] * (4 * count * steps))
    Counting(
        model=model, args=config, train_dataset=data, processing_class=AutoTokenizer.from_pretrained(place)
    ).train()
    seconds = times[-1] - times[WARM * count - 1]
    held = 0.0 if toy else float(torch.cuda.max_memory_allocated())
    return {"tokens": tokens * (steps - WARM) / seconds, "memory": held}


def _settings(length: int, toy: bool, again: bool) -> Train:
    stage = {"max_length": length, "epochs": 1, "learning_rate": 1e-5, "rows_per_step": 4}
    told = {"zero_stage": 1, "worker_gpus": 0 if toy else 1, "activation_checkpointing": again}
    return Train.model_validate({"model": "random", "stage1": stage, "stage2": stage, **told})


def _again(shape: Shape, length: int, toy: bool) -> bool:
    """Whether activations must be computed again: where 110 GB would not hold them."""
    settings = _settings(length, toy, False)
    return memory.of_training(shape, settings, settings.stage1).total > 110e9


CONTENDERS: dict[str, Callable[[str, int, int, bool, Path], dict[str, float]]] = {"ours": ours, "TRL": trl}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        who, name, length = given.one
        with tempfile.TemporaryDirectory() as folder:
            print("result " + json.dumps(CONTENDERS[who](name, int(length), given.steps, given.toy, Path(folder))))
        return 0
    rate = matrix_rate(given.toy)
    print(f"bf16 matrix products: {rate / 1e12:,.2f} TFLOP/s\n")
    print("| model | sequence | who | tokens/s | MFU, data sheet | MFU, matrix rate | memory, GB | foretold, GB |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    peak = _peak()
    for name in SHAPES:
        for length in LENGTHS:
            shape, tokens, _ = sizes(name, length, given.toy)
            again = _again(shape, tokens, given.toy)
            settings = _settings(tokens, given.toy, again)
            foretold = memory.of_training(shape, settings, settings.stage1, mean_length=tokens / 4).total
            for who in CONTENDERS:
                options = ["--one", who, name, str(length), "--steps", str(given.steps), *(["--toy"] * given.toy)]
                try:
                    result = training.alone(__file__, *options)
                except RuntimeError as error:
                    print(f"{who}, {name}, {length}: {error}", file=sys.stderr, flush=True)
                    continue
                spent = shape.operations(1, tokens / 4, 1) * result["tokens"]
                sheet = f"{spent / peak:.2f}" if peak else "none"
                told = f"{foretold / 1e9:.1f}" if who == "ours" else ""
                held = f"{result['memory'] / 1e9:.1f}" if result["memory"] else ""
                print(
                    f"| {name} | {tokens:,} | {who} | {result['tokens']:,.0f} | {sheet} | {spent / rate:.2f} | {held} | {told} |",
                    flush=True,
                )
    return 0


def _peak() -> float | None:
    import torch

    from pipeline.train.figures import peak_flops

    return peak_flops(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


if __name__ == "__main__":
    sys.exit(main())
