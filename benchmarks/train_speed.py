"""Tokens of loss per second in training: ours beside TRL's SFTTrainer and a plain loop of transformers, in one run.

    python benchmarks/train_speed.py [--steps 12] [--rounds 2] [--only "ours;TRL"]

SmolLM2-135M on all cores of this machine, in bf16; 400 conversations of 60 to 1,000 tokens, sequences of 1,024 tokens, four
of them (or the examples that make as many tokens) in a step. Each contender is a process of its own; the first two steps do not
count. TRL (1.16, `pip install trl`) is asked in each of its settings that packs or pads, and its best one is compared with.
Recorded in `benchmarks/results/train.md`.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import training

LENGTH, ROWS, EXAMPLES, WARM = 1024, 4, 400, 2
WORDS = "so the sum of both is then carried over and checked again because it must be even for every number".split()


def conversations() -> list[dict[str, str]]:
    """Questions, and thoughts of mixed length: many short ones, few long ones."""
    rng = random.Random(0)
    made = []
    for _ in range(EXAMPLES):
        question = " ".join(rng.choices(WORDS, k=rng.randrange(15, 60)))
        thought = " ".join(rng.choices(WORDS, k=min(900, int(rng.lognormvariate(5.3, 0.7)))))
        made.append({"question": question, "answer": thought})
    return made


def ours(folder: Path, steps: int, workers: int, micro_rows: int) -> float:
    """The loop of pipeline.train, by torchrun."""
    from pipeline.records import Example, Message
    from pipeline.train import conversations as made_by
    from pipeline.train import model
    from pipeline.train.packing import pack

    place = training.smollm2(folder)
    tokenizer = model.load_tokenizer(model.find(str(place)))
    examples = [
        Example(f"{n:04d}", "stage1", "", "", [Message("user", row["question"]), Message("assistant", row["answer"])])
        for n, row in enumerate(conversations())
    ]
    rows = pack([made_by.tokenize(example, tokenizer) for example in examples], LENGTH)
    random.Random(0).shuffle(rows)  # the longest examples come first
    rows = rows[: ROWS * steps]
    options = {"zero_stage": 1, "workers": workers, "micro_rows": micro_rows}
    done = training.loop(folder, place, rows, LENGTH, ROWS, **options)[WARM:]
    return float(sum(step["target_tokens"] for step in done) / sum(step["seconds"] for step in done))


def trl(folder: Path, steps: int, weights: str = "float32", **options: Any) -> float:
    """TRL's trainer; with weights of a type."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    place = training.smollm2(folder)
    tokenizer = AutoTokenizer.from_pretrained(place)
    rows = [
        {
            "prompt": [{"role": "user", "content": row["question"]}],
            "completion": [{"role": "assistant", "content": row["answer"]}],
        }
        for row in conversations()
    ]
    counted: list[tuple[float, int]] = []

    class Counting(SFTTrainer):
        def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any, **more: Any) -> Any:
            labels = inputs["labels"]
            targets = int((labels[..., 1:] != -100).sum())
            loss = super().training_step(model, inputs, *rest, **more)
            counted.append((time.monotonic(), targets))
            return loss

    options = {"max_length": LENGTH, **options}
    config = SFTConfig(
        output_dir=str(folder / "trl"), max_steps=steps, learning_rate=1e-5, report_to="none",
        gradient_checkpointing=False, use_cpu=True, bf16=True, optim="adamw_torch_fused", save_strategy="no",
        logging_steps=1000, **options,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(place, dtype=getattr(torch, weights), attn_implementation="sdpa")
    Counting(model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer).train()
    passes = WARM * options.get("gradient_accumulation_steps", 1)
    return sum(targets for _, targets in counted[passes:]) / (counted[-1][0] - counted[passes - 1][0])


def plain(folder: Path, steps: int, batch: int) -> float:
    """A loop as one writes it: padded batches, autocast, fused AdamW."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = training.smollm2(folder)
    tokenizer = AutoTokenizer.from_pretrained(place)
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    tokenizer.padding_side = "right"
    rows, done = conversations(), []
    for step in range(steps):
        part = rows[step * batch : (step + 1) * batch]
        chats = [
            [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
            for row in part
        ]
        tokens = tokenizer.apply_chat_template(
            chats, return_dict=True, return_tensors="pt", padding=True, truncation=True, max_length=LENGTH
        )
        labels = tokens["input_ids"].masked_fill(tokens["attention_mask"] == 0, -100)
        for index, chat in enumerate(chats):
            prompt = tokenizer.apply_chat_template(chat[:1], add_generation_prompt=True, return_dict=False)
            labels[index, : len(prompt)] = -100
        started = time.monotonic()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(**tokens, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        done.append((time.monotonic() - started, int((labels[:, 1:] != -100).sum())))
    return sum(targets for _, targets in done[WARM:]) / sum(seconds for seconds, _ in done[WARM:])


CONTENDERS: dict[str, Callable[[Path, int], float]] = {
    "ours, 1 x 4": lambda folder, steps: ours(folder, steps, 1, 1),
    "ours, 4 x 1": lambda folder, steps: ours(folder, steps, 1, ROWS),
    "ours, 2 workers x 2 x 1": lambda folder, steps: ours(folder, steps, 2, ROWS // 2),
    "TRL, packed, 1 x 4": lambda folder, steps: trl(
        folder, steps, packing=True, per_device_train_batch_size=1, gradient_accumulation_steps=ROWS
    ),
    "TRL, packed, 1 x 4, bf16 weights alone": lambda folder, steps: trl(
        folder, steps, "bfloat16", packing=True, per_device_train_batch_size=1, gradient_accumulation_steps=ROWS
    ),
    "TRL, packed, 4 x 1": lambda folder, steps: trl(folder, steps, packing=True, per_device_train_batch_size=ROWS),
    "TRL, padded, 12 x 1": lambda folder, steps: trl(folder, steps, per_device_train_batch_size=12),
    "TRL, padded, 4 x 3": lambda folder, steps: trl(
        folder, steps, per_device_train_batch_size=4, gradient_accumulation_steps=3
    ),
    "TRL, padding-free, 4 x 3": lambda folder, steps: trl(
        folder, steps, per_device_train_batch_size=4, gradient_accumulation_steps=3, padding_free=True, max_length=None
    ),
    "plain loop, padded, 12": lambda folder, steps: plain(folder, steps, 12),
    "plain loop, padded, 4": lambda folder, steps: plain(folder, steps, 4),
}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--only", default="", help="contenders whose names contain one of these, with semicolons between"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        with tempfile.TemporaryDirectory() as folder:
            print(f"result {CONTENDERS[given.one](Path(folder), given.steps)}", flush=True)
        return 0
    wanted = [name for name in CONTENDERS if any(part in name for part in given.only.split(";"))]
    best: dict[str, float] = dict.fromkeys(wanted, 0.0)
    for _ in range(given.rounds):
        for name in wanted:
            try:
                rate = training.alone(__file__, "--one", name, "--steps", str(given.steps))
            except RuntimeError as error:
                print(f"{name}: {error}", flush=True)
                continue
            best[name] = max(best[name], rate)
            print(f"{name}: {rate:,.0f} tokens of loss per second", flush=True)
    print("\n| contender | tokens of loss per second |\n|---|---|")
    for name, rate in best.items():
        print(f"| {name} | {rate:,.0f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
