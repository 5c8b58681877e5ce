"""One stage of training on one rank, from packed rows and a model to an exported folder.

In: where the rows and the model lie, and a caller that hears of steps and keeps checkpoints. Out: a model folder, written by
the first rank. `torch.distributed` must be set up.
"""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch.distributed as dist

from pipeline import precision, storage
from pipeline.config import Train
from pipeline.train import engine, loop, marker, model, model_card
from pipeline.train.job import StageJob
from pipeline.train.loop import Caller
from pipeline.train.ranks import together
from pipeline.train.schedule import PackedTable, Schedule


def _settled(settings: Train) -> Train:
    """With the type that all ranks compute in."""
    found = [""] * dist.get_world_size()
    dist.all_gather_object(found, precision.computed(settings.dtype, settings.worker_gpus))
    return settings.model_copy(update={"dtype": "float32" if "float32" in found else "bfloat16"})


def run(job: StageJob, caller: Caller, resume_from: AbstractContextManager[Path | None] | None = None) -> None:
    """Train and export what `prepare.checked` has accepted. Raises a UserError on all ranks where one meets it."""
    settings = _settled(job.settings)
    optimization = settings.optimization(job.stage)
    with together():
        engine.check(settings)
        source = model.fetched(model.find(job.model, job.rows.endpoint))
        table = PackedTable(storage.fetch(job.rows, model.cache_folder().parent / "rows"))
    schedule = Schedule(table, rows_per_step=optimization.rows_per_step, epochs=optimization.epochs, seed=settings.seed)
    # With ZeRO-3 the ranks load together, and one that fails could not be agreed on; all files are here by now.
    with together() if settings.zero_stage < 3 else nullcontext():
        student = engine.load(source, settings)
    trained = loop.train(
        job.stage, settings, student, schedule, recipe=job.recipe, resume_from=resume_from, caller=caller
    )
    if dist.get_rank() == 0:
        made = marker.Made(job.recipe, trained.steps)
        card = model_card.text(settings, job.stage, trained.steps)
        model.export(job.target, trained.model, model.load_tokenizer(source), made, trained.state_dict, card)
