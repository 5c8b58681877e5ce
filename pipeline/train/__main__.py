"""The training loop without Ray, under torchrun: for a lone machine, and to measure it.

    torchrun --nproc-per-node 8 -m pipeline.train --config run.yaml --stage stage1 --rows 5_train/packed_stage1 --out model

The rows are a packed table as the stage `train` makes it. The base model is the config's, or `--model`.
Checkpoints lie in `--checkpoints`; the last one there is gone on from.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist

from pipeline.config import fingerprint, load
from pipeline.errors import ConfigError, UserError
from pipeline.records import Step, digest
from pipeline.storage import Place
from pipeline.train import loop, marker, model, prepare
from pipeline.train.job import StageJob
from pipeline.train.ranks import together
from pipeline.train.stage import run


class Watcher(loop.Caller):
    """Prints steps, and keeps checkpoints in a folder that all ranks share."""

    def __init__(self, folder: Path | None, kept: int) -> None:
        self._folder, self._kept, self._first = folder, kept, dist.get_rank() == 0

    def stepped(self, step: Step) -> None:
        """A step is done."""
        if self._first:
            mfu = f"  mfu {step.mfu:.3f}" if step.mfu is not None else ""
            print(
                f"{step.stage} {step.step + 1}: loss {step.loss:.4f}  {step.tokens / step.seconds:,.0f} tok/s{mfu}  "
                f"{step.memory / 2**30:.1f} GiB",
                flush=True,
            )

    def save(self, done: int, write: Callable[[Path], None]) -> bool:
        """A checkpoint is due."""
        if self._folder is None:
            return False
        target = self._folder / f"step_{done:06d}"
        unfinished = self._folder / "unfinished"
        if self._first:
            shutil.rmtree(unfinished, ignore_errors=True)  # what a killed run left, perhaps of more workers
        dist.barrier()
        write(unfinished)
        dist.barrier()
        if self._first:
            unfinished.rename(target)
            for old in sorted(self._folder.glob("step_*"))[: -self._kept]:
                shutil.rmtree(old)
        return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Train one stage."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override one value")
    parser.add_argument("--stage", choices=("stage1", "stage2", "stage2_alone"), required=True)
    parser.add_argument("--rows", required=True, help="a packed table: a folder, or any URI")
    parser.add_argument("--out", required=True, help="where the trained model goes: a folder, or any URI")
    parser.add_argument("--model", help="the model to start from; train.model where not given")
    parser.add_argument("--checkpoints", type=Path)
    given = parser.parse_args(arguments)
    try:
        _train(given)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    return 0


def _train(given: argparse.Namespace) -> None:
    config = load(given.config, given.set)
    settings = config.train
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if gpu else "gloo")
    job = StageJob(
        given.stage,
        settings,
        model=given.model or settings.model,
        rows=Place(given.rows, config.storage.endpoint),
        target=Place(given.out, config.storage.endpoint),
        recipe=digest(given.stage, given.model, given.rows, fingerprint(config, "train")),
    )
    if job.target.files() and marker.read(job.target) is None:
        raise ConfigError(
            f"--out is {given.out!r}, which holds other files than a model made here: name another folder"
        )
    with together():
        prepare.checked(model.find(job.model, job.rows.endpoint, weights=False), settings)
    earlier = sorted(given.checkpoints.glob("step_*")) if given.checkpoints else []
    run(job, Watcher(given.checkpoints, settings.keep_checkpoints), nullcontext(earlier[-1]) if earlier else None)


if __name__ == "__main__":
    sys.exit(main())
