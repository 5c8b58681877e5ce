"""Checkpoints: the whole state of a training, and going on from one on another number of workers.

In: an engine, or a checkpoint's folder. Out: a folder with every rank's part and the steps taken so far, or an engine that
goes on. The data position is the number of steps, and the noise of dropout is a function of it, so neither is stored.
"""

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist

from pipeline.config import Train
from pipeline.errors import ConfigError, DataError
from pipeline.records import Step

STATE_FILE = "longthought.json"
TAG, UNIVERSAL = "deepspeed", "universal"


@dataclass(frozen=True)
class Behind:
    """What lies behind a training that goes on: its steps, and whether others wrote its checkpoint."""

    folder: Path
    steps: list[Step]
    universal: bool


def write(engine: Any, settings: Train, steps: Sequence[Step], folder: Path) -> None:
    """This rank's files of a checkpoint; all ranks together.

    Raises DataError on all of them where one cannot write; nothing of it is left then.
    """
    failures: list[str] = []
    with _remembering(engine.checkpoint_engine, failures):
        engine.save_checkpoint(str(folder), tag=TAG)
    everyones: list[list[str]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(everyones, failures)
    if first := next((each[0] for each in everyones if each), None):
        shutil.rmtree(folder, ignore_errors=True)
        raise DataError(f"the checkpoint after step {len(steps)} cannot be written to {str(folder)!r} ({first})")
    if dist.get_rank() == 0:
        state = {"writers": _writers(settings), "steps": [asdict(step) for step in steps]}
        (folder / STATE_FILE).write_text(json.dumps(state))


@contextlib.contextmanager
def _remembering(files: Any, failures: list[str]) -> Iterator[None]:
    """Have DeepSpeed go on where a file cannot be written: a rank that left would leave the others waiting for it."""
    save = files.save

    def careful(*arguments: Any, **options: Any) -> Any:
        try:
            return save(*arguments, **options)
        except (OSError, RuntimeError) as error:  # torch's own writer knows no OSError
            failures.append(" ".join(str(error).split())[:200])

    files.save = careful
    try:
        yield
    finally:
        files.save = save


def find(folder: Path | None, settings: Train) -> Behind | None:
    """What a checkpoint's folder holds; it is converted where another number of workers wrote it, or (1 and 2) another ZeRO stage.

    Raises ConfigError where it cannot be used.
    """
    if folder is None:
        return None
    state = json.loads((folder / STATE_FILE).read_text())
    steps = [Step(**step) for step in state["steps"]]
    wrote, now = state["writers"], _writers(settings)
    if wrote == now:
        return Behind(folder, steps, universal=False)
    kinds = {_KIND[each["train.zero_stage"]] for each in (wrote, now)}
    if wrote["train.dtype"] != now["train.dtype"] or len(kinds) > 1 or None in kinds:
        raise ConfigError(
            f"the last checkpoint of this stage was written with {_text(wrote)}, now there is {_text(now)}: "
            "set these back, or delete 5_train/checkpoints of the run to train the stage from its start"
        )
    _convert(folder)
    return Behind(folder, steps, universal=True)


_KIND = {0: None, 1: "weights whole", 2: "weights whole", 3: "weights shared out"}
"""ZeRO stages whose checkpoints can be converted for one another."""


def load(engine: Any, behind: Behind) -> None:
    """Bring an engine to where a checkpoint was written."""
    engine.load_checkpoint(str(behind.folder), tag=UNIVERSAL if behind.universal else TAG)
    if behind.universal:
        # DeepSpeed 0.19.8 gives all parameters one counter of steps, which each of them would count up.
        for state in engine.optimizer.optimizer.state.values():
            state["step"] = state["step"].clone()


def _convert(folder: Path) -> None:
    """Make DeepSpeed's universal form of a checkpoint: each parameter whole. Once on each node."""
    from filelock import FileLock

    target = folder / UNIVERSAL
    with FileLock(str(folder / "universal.lock")):
        if not (target / "done").exists():
            command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state"]
            command += ["--input_folder", str(folder / TAG), "--output_folder", str(target)]
            command += ["--num_extract_workers", "1", "--num_merge_workers", "1"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                last = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
                raise DataError(f"the checkpoint in {str(folder)!r} cannot be converted for other workers: {last[0]}")
            (target / "done").write_text("")


def _writers(settings: Train) -> dict[str, Any]:
    return {
        "workers": dist.get_world_size(),
        "train.zero_stage": settings.zero_stage,
        "train.offload": settings.offload,
        "train.dtype": settings.dtype,
    }


def _text(writers: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in writers.items())
