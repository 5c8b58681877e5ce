"""Runs stage 5 on Ray Train: packing in a task, then a group of DeepSpeed workers for each of the two stages.

A stage whose exported model is complete is skipped, so a restart redoes nothing. Inside a stage, Ray Train
starts a lost worker's group again from the last checkpoint, and a run of the same name goes on from there,
too: the name holds a hash of all that decides the model, so that a changed setting starts anew.
"""

import contextlib
import json
import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, get_checkpoint, report
from ray.train.v2.api.callback import UserCallback
from ray.train.v2.api.config import LoggingConfig

from pipeline.config import Config, Optimization, Train
from pipeline.errors import UserError
from pipeline.records import PackedRow, Step, TrainStage, digest
from pipeline.stage import Manifest, StageRun, model_place
from pipeline.storage import Place, read_table, write_rows
from pipeline.train import marker
from ray_jobs import cluster
from ray_jobs.progress import Progress, Reporter

BASE_OF: dict[TrainStage, str] = {"stage1": "base", "stage2": "stage1"}
"""Which model each stage starts from."""

KEPT_CHECKPOINTS = 2
"""The last one, and the one before."""


@dataclass(frozen=True)
class StageJob:
    """What the workers of one stage need. Local places are absolute: each worker has its own working folder."""

    stage: TrainStage
    settings: Train
    model: str
    rows: Place
    target: Place
    recipe: str
    steps_behind: int
    reporter: Reporter


def run(config: Config) -> Manifest:
    """Make `5_train/models`, the packed tables, `steps` and `rejected`."""
    run = StageRun(config, "train", inputs=("reformat", "verify"))
    if run.complete:
        return run.complete
    settings = config.train
    cluster.connect()
    cluster.require(
        config,
        "train",
        count=settings.workers,
        cpus=settings.worker_cpus,
        gpus=settings.worker_gpus,
        setting="train.workers, worker_cpus or worker_gpus",
    )
    prepared = ray.get(_prepare.options(num_cpus=settings.worker_cpus).remote(settings, _absolute(run.root)))
    if isinstance(prepared, UserError):
        raise prepared

    folder = _absolute(run.folder.place)
    steps: list[Step] = []
    with Progress("train", sum(prepared.steps.values()), "steps") as progress:
        for stage, recipe in _recipes(run).items():
            job = StageJob(
                stage=stage,
                settings=settings,
                model=model_place(config, BASE_OF[stage]),
                rows=folder / f"packed_{stage}",
                target=folder / "models" / stage,
                recipe=recipe,
                steps_behind=len(steps),
                reporter=progress.reporter,
            )
            steps += _steps_of(job, folder / "checkpoints")

    (folder / "checkpoints").delete()
    run.reject(prepared.rejected)
    return run.finish(
        rows_in=prepared.examples,
        rows_out=prepared.examples - len(prepared.rejected),
        tables={**prepared.tables, "steps": write_rows(run.folder.table("steps"), Step, steps)},
        ray_actors=cluster.actors(),
    )


def _absolute(place: Place) -> Place:
    return Place(place.path, place.endpoint) if place.is_local else place


def _recipes(run: StageRun) -> dict[TrainStage, str]:
    """A hash of all that decides each model: settings and inputs, and for the second the first."""
    shared = {
        key: value for key, value in run.settings.items() if not key.startswith(("train.stage1.", "train.stage2."))
    }
    own = {
        stage: {key: value for key, value in run.settings.items() if key.startswith(f"train.{stage}.")}
        for stage in BASE_OF
    }
    first = digest(shared, own["stage1"], run.inputs["reformat"])
    return {"stage1": first, "stage2": digest(shared, own["stage2"], run.inputs["verify"], first)}


@ray.remote
def _prepare(settings: Train, root: Place) -> Any:
    """`prepare`, in a task: a driver on a head node should not load models."""
    from pipeline.train.prepare import prepare

    try:
        return prepare(settings, root)
    except UserError as error:
        return error


def _steps_of(job: StageJob, checkpoints: Place) -> list[Step]:
    """The steps of one stage, which is trained where its model is not there yet."""
    made = marker.read(job.target)
    if made is not None and made.recipe == job.recipe:
        job.reporter.put(done=job.steps_behind + len(made.steps))
    else:
        _fit(job, checkpoints)
        made = marker.read(job.target)
        assert made is not None
    # Only now, and of this stage only: until its export is whole, the checkpoint is all there is.
    (checkpoints / _run_name(job)).delete()
    return made.steps


def _run_name(job: StageJob) -> str:
    """Ray Train goes on with a run of the same name: the hash makes a changed setting start anew."""
    return f"{job.stage}-{job.recipe}"


def _fit(job: StageJob, checkpoints: Place) -> None:
    from ray.train.torch import TorchTrainer

    settings = job.settings
    name = _run_name(job)
    _drop_broken(checkpoints / name)
    resources = {"CPU": settings.worker_cpus, **({"GPU": settings.worker_gpus} if settings.worker_gpus else {})}
    trainer = TorchTrainer(
        _work,
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(
            num_workers=settings.workers, use_gpu=settings.worker_gpus > 0, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name=name,
            storage_path=checkpoints.path,
            storage_filesystem=checkpoints.filesystem,
            checkpoint_config=CheckpointConfig(num_to_keep=KEPT_CHECKPOINTS),
            failure_config=FailureConfig(max_failures=settings.max_failures),
            callbacks=[_TellFailures()],
            logging_config=LoggingConfig(log_level="ERROR"),  # its warnings come with tracebacks, on any busy machine
        ),
    )
    error = trainer.fit().return_value
    if isinstance(error, UserError):
        raise error


def _drop_broken(folder: Place) -> None:
    """Ray Train writes its list of checkpoints in place: one cut by a crash could not be read and would stop the run."""
    snapshot = folder / "checkpoint_manager_snapshot.json"
    try:
        if snapshot.exists():
            json.loads(snapshot.read())
    except ValueError:
        print(f"[train] {snapshot.uri} was cut by a crash: training the stage from its start", flush=True)
        folder.delete()


class _TellFailures(UserCallback):
    """One line for a failure that Ray Train mends by itself, in place of its log of the whole run."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called by Ray Train's controller."""
        del run_context
        for rank, error in sorted(worker_exceptions.items()):
            print(f"[train] worker {rank} failed: {' '.join(str(error).split())[:300]}", flush=True)


# --- in the workers -------------------------------------------------------------------------------


def _work(config: dict[str, StageJob]) -> UserError | None:
    """One worker's whole life. The user's mistakes are returned: raised, they would be tried again."""
    try:
        _train(config["job"])
    except UserError as error:
        return error
    return None


def _train(job: StageJob) -> None:
    settings = job.settings
    if not settings.worker_gpus:
        os.environ["DS_ACCELERATOR"] = "cpu"  # else DeepSpeed takes a GPU that this worker was not given
    import torch

    from pipeline.train import data, loop, model

    # Ray Train lets every library log at INFO, and DeepSpeed calls what torch is about to rename: no news here.
    logging.getLogger().setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    torch.set_num_threads(max(1, int(settings.worker_cpus)))
    source = model.find(job.model, job.rows.endpoint)
    optimization: Optimization = getattr(settings, job.stage)
    schedule = data.Schedule(
        read_table(job.rows, PackedRow),
        rows_per_step=optimization.rows_per_step,
        epochs=optimization.epochs,
        seed=settings.seed,
    )
    first = torch.distributed.get_rank() == 0
    if first:
        workers, backend = torch.distributed.get_world_size(), torch.distributed.get_backend()
        version = metadata.version("deepspeed")
        print(
            f"{job.stage}: {workers} workers over {backend}, DeepSpeed {version}, ZeRO-{settings.zero_stage}",
            flush=True,
        )
    checkpoint = get_checkpoint()
    with checkpoint.as_directory() if checkpoint else contextlib.nullcontext() as folder:
        trained = loop.train(
            job.stage,
            settings,
            model.load_model(source, torch.bfloat16),
            schedule,
            resume_from=Path(folder) if folder else None,
            caller=_caller(job, schedule.steps if first else None),
        )
    if first:
        made = marker.Made(job.recipe, trained.steps)
        model.export(job.target, trained.model, model.load_tokenizer(source), made, trained.state_dict)


def _caller(job: StageJob, steps: int | None) -> Any:
    """Hands checkpoints to Ray Train, and progress to the driver where `steps` (the stage's number) is given."""
    from pipeline.train.loop import Caller

    class RayTrain(Caller):
        def started(self, done: int) -> None:
            if steps:
                job.reporter.put(done=job.steps_behind + done)

        def stepped(self, step: Step) -> None:
            if steps:
                job.reporter.put(
                    done=job.steps_behind + step.step + 1,
                    stage=f"{step.stage} {step.step + 1}/{steps}",
                    loss=f"{step.loss:.3f}",
                    **{"tok/s": f"{step.tokens / step.seconds:,.0f}"},
                )

        def save(self, done: int, write: Callable[[Path], None]) -> None:
            # Every rank's files, in one folder of the run's storage; Ray Train notes it when all are there.
            with TemporaryDirectory(prefix="longthought-checkpoint-") as folder:
                write(Path(folder))
                checkpoint = Checkpoint.from_directory(folder)
                report({"step": done}, checkpoint=checkpoint, checkpoint_dir_name=f"step_{done:06d}")

    return RayTrain()
