"""Runs stage 5 on Ray Train: packing in a task, then a group of DeepSpeed workers for each of the two stages.

A stage whose exported model is complete is skipped, so a restart redoes nothing. Inside a stage, Ray Train
starts a lost worker's group again from the last checkpoint, and a run of the same name goes on from there,
too: the name holds a hash of all that decides the model, so that a changed setting starts anew.
"""

import contextlib
import json
import logging
import os
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import ray
from ray.train import (
    Checkpoint,
    CheckpointConfig,
    CheckpointUploadMode,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    get_checkpoint,
    get_preemption_info,
    report,
)
from ray.train.v2.api.callback import UserCallback
from ray.train.v2.api.config import LoggingConfig

from pipeline import storage
from pipeline.config import Config, Optimization, Train
from pipeline.errors import UserError
from pipeline.records import Step, TrainStage, digest
from pipeline.stage import Manifest, StageFolder, StageRun, model_place
from pipeline.storage import Place, write_rows
from pipeline.train import marker
from ray_jobs import cluster
from ray_jobs.packing import pack
from ray_jobs.progress import Progress, Reporter

ON_THEIR_WAY = 2
"""Checkpoints that may lie on a node's disk, waiting for storage or going there."""
BASE_OF: dict[TrainStage, str] = {"stage1": "base", "stage2": "stage1"}
"""Which model each stage starts from."""


@dataclass(frozen=True)
class StageJob:
    """What the workers of one stage need. Local places are absolute: each worker has its own working folder."""

    stage: TrainStage
    settings: Train
    model: str
    rows: Place
    target: Place
    board: Place
    checkpoints: Place
    recipe: str
    steps_behind: int
    reporter: Reporter


def run(config: Config) -> Manifest:
    """Make `5_train/models`, the packed tables, `steps` and `rejected`."""
    run = StageRun(config, "train", inputs=("reformat", "verify"))
    if run.complete:
        return run.complete
    settings = config.train
    import_module("pipeline.train.trackers").check(settings.trackers)
    cluster.connect()
    cluster.require(
        config,
        "train",
        count=settings.min_workers or settings.workers,
        cpus=settings.worker_cpus,
        gpus=settings.worker_gpus,
        setting="train.workers, worker_cpus or worker_gpus",
    )
    mistake = ray.get(_base.options(num_cpus=settings.worker_cpus).remote(settings, _absolute(run.root)))
    if mistake is not None:
        raise mistake
    packed = pack(config, model_place(config, "base"), StageFolder(_absolute(run.root), "train"))
    run.rejected.update(packed.reasons)

    folder = _absolute(run.folder.place)
    steps: list[Step] = []
    with Progress("train", sum(packed.steps.values()), "steps") as progress:
        for stage, recipe in _recipes(run).items():
            job = StageJob(
                stage=stage,
                settings=settings,
                model=model_place(config, BASE_OF[stage]),
                rows=folder / f"packed_{stage}",
                target=folder / "models" / stage,
                board=folder / "tensorboard" / stage,
                checkpoints=folder / "checkpoints" / f"{stage}-{recipe}",
                recipe=recipe,
                steps_behind=len(steps),
                reporter=progress.reporter,
            )
            steps += _steps_of(job)

    (folder / "checkpoints").delete()
    tables = {f"packed_{stage}": count for stage, count in packed.rows.items()}
    return run.finish(
        rows_in=packed.examples,
        rows_out=packed.examples - len(packed.reasons),
        tables={**tables, "steps": write_rows(run.folder.table("steps"), Step, steps)},
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
def _base(settings: Train, root: Place) -> UserError | None:
    """Have the base model as a folder, in a task: a driver on a head node should not load models."""
    from pipeline.train.prepare import base

    try:
        base(settings, StageFolder(root, "train").place / "models" / "base", root.endpoint)
    except UserError as error:
        return error
    return None


def _steps_of(job: StageJob) -> list[Step]:
    """The steps of one stage, which is trained where its model is not there yet."""
    made = marker.read(job.target)
    if made is not None and made.recipe == job.recipe:
        job.reporter.put(done=job.steps_behind + len(made.steps))
    else:
        _fit(job)
        made = marker.read(job.target)
        assert made is not None
    # Only now, and of this stage only: until its export is whole, the checkpoint is all there is.
    job.checkpoints.delete()
    return made.steps


def _fit(job: StageJob) -> None:
    from ray.train.torch import TorchTrainer

    settings = job.settings
    _drop_broken(job.checkpoints)
    parent = Place(job.checkpoints.uri.rpartition("/")[0], job.checkpoints.endpoint)
    resources = {"CPU": settings.worker_cpus, **({"GPU": settings.worker_gpus} if settings.worker_gpus else {})}
    trainer = TorchTrainer(
        _work,
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(
            num_workers=(settings.min_workers, settings.workers) if settings.min_workers else settings.workers,
            use_gpu=settings.worker_gpus > 0,
            accelerator_type=settings.accelerator_type,
            resources_per_worker=resources,
        ),
        run_config=RunConfig(
            name=job.checkpoints.name,  # Ray Train goes on with a run of the same name: the hash in it makes a change start anew
            storage_path=parent.path,
            storage_filesystem=parent.filesystem,
            checkpoint_config=CheckpointConfig(num_to_keep=settings.keep_checkpoints),
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

    from pipeline.train import engine, loop, model, model_card
    from pipeline.train.schedule import PackedTable, Schedule
    from pipeline.train.trackers import Trackers

    # Ray Train lets every library log at INFO, and DeepSpeed calls what torch is about to rename: no news here.
    logging.getLogger().setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    torch.set_num_threads(max(1, int(settings.worker_cpus)))
    optimization: Optimization = getattr(settings, job.stage)
    table = PackedTable(storage.fetch(job.rows, model.cache_folder().parent / "rows"))
    schedule = Schedule(table, rows_per_step=optimization.rows_per_step, epochs=optimization.epochs, seed=settings.seed)
    first = torch.distributed.get_rank() == 0
    if first:
        workers, backend = torch.distributed.get_world_size(), torch.distributed.get_backend()
        version = metadata.version("deepspeed")
        print(
            f"{job.stage}: {workers} workers over {backend}, DeepSpeed {version}, ZeRO-{settings.zero_stage}",
            flush=True,
        )
    source = model.find(job.model, job.rows.endpoint)
    student = engine.load(source, settings)
    checkpoint = get_checkpoint()
    with (
        checkpoint.as_directory() if checkpoint else contextlib.nullcontext() as folder,
        TemporaryDirectory(prefix="longthought-tensorboard-") as board,
    ):
        told = settings.model_dump(mode="json")
        trackers = Trackers(Path(board), settings.trackers, job.checkpoints.name, told) if first else None
        trained = loop.train(
            job.stage,
            settings,
            student,
            schedule,
            resume_from=Path(folder) if folder else None,
            caller=_caller(job, schedule.steps, trackers),
        )
        if trackers is not None:
            trackers.close()
            storage.upload(Path(board), job.board)
    if first:
        made = marker.Made(job.recipe, trained.steps)
        card = model_card.text(settings, job.stage, trained.steps)
        model.export(job.target, trained.model, model.load_tokenizer(source), made, trained.state_dict, card)


def _caller(job: StageJob, steps: int, trackers: Any) -> Any:
    """Hands checkpoints to Ray Train, and where there are trackers (on the first rank) progress to the driver."""
    from pipeline.train.loop import Caller

    arrived: list[float] = []
    room = threading.Semaphore(ON_THEIR_WAY)

    def upload(checkpoint: Checkpoint, name: str) -> Checkpoint:
        started, target = time.monotonic(), job.checkpoints / name
        try:
            storage.upload(Path(checkpoint.path), target)
        finally:
            room.release()
        arrived.append(time.monotonic() - started)
        return Checkpoint(target.path, target.filesystem)

    class RayTrain(Caller):
        _left_at = -1

        def started(self, done: int) -> None:
            if trackers:
                job.reporter.put(done=job.steps_behind + done)

        def stepped(self, step: Step) -> None:
            if trackers:
                trackers.step(step)
                job.reporter.put(
                    done=job.steps_behind + step.step + 1,
                    stage=f"{step.stage} {step.step + 1}/{steps}",
                    loss=f"{step.loss:.3f}",
                    **{"tok/s": f"{step.tokens / step.seconds:,.0f}"},
                )

        def leaving(self) -> bool:
            notice = get_preemption_info()
            news = notice is not None and notice.deadline_ms != self._left_at
            if notice is not None and news:
                self._left_at = notice.deadline_ms
            return news

        def save(self, done: int, write: Callable[[Path], None]) -> None:
            # Every rank's files, in one folder of the run's storage; Ray Train notes it when all are there. The training
            # goes on while they are brought there, unless storage is so slow that they would fill the disk.
            room.acquire()
            folder = mkdtemp(prefix="longthought-checkpoint-")
            write(Path(folder))
            report(
                {"step": done},
                checkpoint=Checkpoint.from_directory(folder),
                checkpoint_dir_name=f"step_{done:06d}",
                checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
                checkpoint_upload_fn=upload,
            )
            if trackers:
                trackers.flush()
                storage.upload(trackers.folder, job.board)

        def uploaded(self) -> float:
            return sum(arrived.pop() for _ in range(len(arrived)))

    return RayTrain()
