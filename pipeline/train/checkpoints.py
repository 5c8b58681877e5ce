"""Checkpoints: the whole state of a training, and going on from one on another number of workers.

In: an engine, or a checkpoint's folder. Out: a folder with every rank's part and the steps taken so far, or an engine that
goes on. The data position is the number of steps, and the noise of dropout is a function of it, so neither is stored.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from pipeline.config import Train
from pipeline.errors import ConfigError, DataError
from pipeline.records import Step
from pipeline.train.ranks import together

STATE_FILE = "longthought.json"
TAG, UNIVERSAL = "deepspeed", "universal"
CONVERTERS = 8
"""Processes that make a checkpoint universal, each with a worker's part of it in memory."""


@dataclass(frozen=True)
class Behind:
    """What lies behind a training that goes on: its steps, and whether others wrote its checkpoint."""

    folder: Path
    steps: list[Step]
    universal: bool


def write(engine: Any, settings: Train, recipe: str, steps: Sequence[Step], folder: Path) -> None:
    """This rank's files of a checkpoint of the training that a `recipe` stands for; all ranks together.

    Raises DataError on all of them where one cannot write; nothing of it is left then.
    """
    try:
        with together(), _explained(steps, folder):
            folder.mkdir(parents=True, exist_ok=True)
        with together():
            with _remembering(engine.checkpoint_engine) as failures:
                engine.save_checkpoint(str(folder), tag=TAG, save_latest=False)
            with _explained(steps, folder):
                if failures:
                    raise OSError(failures[0])
                if dist.get_rank() == 0:
                    told = {"recipe": recipe, "writers": _writers(settings), "steps": [asdict(step) for step in steps]}
                    (folder / STATE_FILE).write_text(json.dumps(told))
    except DataError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextlib.contextmanager
def _explained(steps: Sequence[Step], folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = f"the checkpoint after step {len(steps)} cannot be written to {str(folder)!r}"
        raise DataError(f"{where} ({error})") from error


@contextlib.contextmanager
def _remembering(files: Any) -> Iterator[list[str]]:
    """Have DeepSpeed go on where a file cannot be written: a rank that left would leave the others waiting for it."""
    save = files.save
    failures: list[str] = []

    def careful(*arguments: Any, **options: Any) -> Any:
        try:
            return save(*arguments, **options)
        except (OSError, RuntimeError) as error:  # torch's own writer knows no OSError
            failures.append(" ".join(str(error).split())[:200])

    files.save = careful
    try:
        yield failures
    finally:
        files.save = save


def find(folder: Path | None, settings: Train, recipe: str) -> Behind | None:
    """What a checkpoint's folder holds; it is converted where another number of workers wrote it, or (1 and 2) another ZeRO stage.

    Raises ConfigError where it cannot be used.
    """
    if folder is None:
        return None
    state = json.loads((folder / STATE_FILE).read_text())
    if state["recipe"] != recipe:
        raise ConfigError(
            f"the checkpoint in {str(folder)!r} is of another training (stage, model, rows or settings): "
            "name another folder for checkpoints, or delete it"
        )
    steps = [Step(**step) for step in state["steps"]]
    wrote, now = state["writers"], _writers(settings)
    if wrote == now:
        return Behind(folder, steps, universal=False)
    kinds = {_kind(each) for each in (wrote, now)}
    if wrote["train.dtype"] != now["train.dtype"] or len(kinds) > 1 or None in kinds:
        raise ConfigError(
            f"the last checkpoint of this stage was written with {_text(wrote)}, now there is {_text(now)}: "
            "set these back, or delete 5_train/checkpoints of the run to train the stage from its start"
        )
    _convert(folder)
    return Behind(folder, steps, universal=True)


def _kind(writers: dict[str, Any]) -> str | None:
    """What stands in a checkpoint: those of one kind can be converted for one another, those of none cannot."""
    if writers["train.offload"] == "nvme":  # its states are no part of what is converted
        return None
    if writers["train.zero_stage"] == 3:
        return "weights shared out"
    # DeepSpeed 0.19.8 takes those who share a sequence for parts of a model.
    return None if writers["train.zero_stage"] == 0 or writers["train.sequence_parallel"] > 1 else "weights whole"


def load(engine: Any, behind: Behind) -> None:
    """Bring an engine to where a checkpoint was written."""
    groups = engine.optimizer.param_groups
    decays = [group["weight_decay"] for group in groups]
    engine.load_checkpoint(str(behind.folder), tag=UNIVERSAL if behind.universal else TAG)
    if behind.universal:
        # DeepSpeed 0.19.8 gives all parameters one counter of steps, on the CPU, which each of them would count up; and with
        # ZeRO-3 the settings of the first group.
        for parameter, state in engine.optimizer.optimizer.state.items():
            state["step"] = state["step"].to(parameter.device, torch.float32, copy=True)
        for group, decay in zip(engine.optimizer.param_groups, decays, strict=True):
            group["weight_decay"] = decay


def _convert(folder: Path) -> None:
    """Make DeepSpeed's universal form of a checkpoint: each parameter whole. Once on each node."""
    from filelock import FileLock

    target = folder / UNIVERSAL
    with FileLock(str(folder / "universal.lock")):
        if not (target / "done").exists():
            command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state"]
            command += ["--input_folder", str(folder / TAG), "--output_folder", str(target)]
            workers = str(min(CONVERTERS, os.cpu_count() or 1))
            command += ["--num_extract_workers", workers, "--num_merge_workers", workers]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                last = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
                raise DataError(f"the checkpoint in {str(folder)!r} cannot be converted for other workers: {last[0]}")
            (target / "done").write_text("")


def _writers(settings: Train) -> dict[str, Any]:
    return {
        "workers": dist.get_world_size(),
        "train.zero_stage": settings.zero_stage,
        "train.sequence_parallel": settings.sequence_parallel,
        "train.offload": settings.offload,
        "train.dtype": settings.dtype,
    }


def _text(writers: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in writers.items())
