"""Runs stage 5 on Ray Train: packing by actors, then a group of DeepSpeed workers for each of the two stages (`train_worker`).

A stage whose exported model is complete is skipped, so a restart redoes nothing. Inside a stage, Ray Train
starts a lost worker's group again from the last checkpoint, and a run of the same name goes on from there,
too: the name holds a hash of all that decides the model, so that a changed setting starts anew.
"""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.train import (
    Checkpoint,
    CheckpointConfig,
    FailureConfig,
    RunConfig,
    ScalingConfig,
)
from ray.train.v2._internal.constants import WORKER_GROUP_START_TIMEOUT_S_ENV_VAR
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError
from ray.train.v2.api.callback import UserCallback
from ray.train.v2.api.config import LoggingConfig
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError

from pipeline.config import Config, Train
from pipeline.errors import DataError, ResourceError, UserError
from pipeline.records import Step, TrainStage, digest
from pipeline.stage import Manifest, StageFolder, StageRun, model_place
from pipeline.storage import Place, write_rows
from pipeline.train import marker
from pipeline.train.job import StageJob
from ray_jobs import cluster, stopping, worked
from ray_jobs.packing import pack
from ray_jobs.progress import Progress, Reporter

RAYS_LIST, OUR_LIST = "checkpoint_manager_snapshot.json", "checkpoints_noted.json"
"""Ray Train's list of a stage's checkpoints, and the copy of it that is written whole."""
LONGEST_WAIT_S = 4 * 3600
"""How long ranks may wait for one another: one fetches and converts a checkpoint of hundreds of GB."""
GONE = (WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError)
LOST = "lost_workers"
"""The figure of workers that ended, or hung, before their work was done."""
LOOK_S = 2.0
"""How often it is looked for workers."""
START_S, NOTE_S = 60.0, 10.0
"""How long none may be seen at least, for a group that starts; and at a stop, for the last checkpoint to be noted."""
ELASTIC_START_S = 60
"""A group of any size that finds no room in such a time is made anew, of the size that there is room for."""
BASE_OF: dict[TrainStage, str] = {"stage1": "base", "stage2": "stage1", "stage2_alone": "base"}
"""Which model each stage starts from."""
ROWS_OF: dict[TrainStage, TrainStage] = {"stage1": "stage1", "stage2": "stage2", "stage2_alone": "stage2"}
"""Whose packed rows it learns from."""


@dataclass(frozen=True)
class RayJob:
    """What the workers of one stage need. Local places are absolute: each worker has its own working folder."""

    stage: StageJob
    board: Place
    checkpoints: Place
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
    cluster.require(config, "train", count=1, cpus=settings.worker_cpus, setting="train.worker_cpus")
    labels = config.cluster.cpu_node_labels
    mistake = ray.get(_base.options(num_cpus=settings.worker_cpus, label_selector=labels).remote(settings, run.root))
    if mistake is not None:
        raise mistake
    recipes = _recipes(run)
    # The second stage's recipe is a hash of all that decides the rows of both.
    packed = pack(config, model_place(config, "base"), StageFolder(run.root, "train"), recipes["stage2"])
    run.rejected.update(packed.reasons)

    folder = run.folder.place
    steps: list[Step] = []
    total = sum(packed.steps[ROWS_OF[stage]] for stage in settings.stages)
    with Progress("train", total, "steps") as progress, stopping.ends_by(progress.ask_to_end):
        for stage in settings.stages:
            stopping.check()
            recipe = recipes[stage]
            job = RayJob(
                StageJob(
                    stage,
                    settings,
                    model=model_place(config, BASE_OF[stage]),
                    rows=folder / f"packed_{ROWS_OF[stage]}",
                    target=folder / "models" / stage,
                    recipe=recipe,
                ),
                board=folder / "tensorboard" / stage,
                checkpoints=folder / "checkpoints" / f"{stage}-{recipe}",
                steps_behind=len(steps),
                reporter=progress.reporter,
            )
            steps += _steps_of(job, config)

    (folder / "checkpoints").delete()
    tables = {f"packed_{stage}": count for stage, count in packed.rows.items()}
    return run.finish(
        rows_in=packed.examples,
        rows_out=packed.examples - len(packed.reasons),
        tables={**tables, "steps": write_rows(run.folder.table("steps"), Step, steps)},
        **worked.figures(int(progress.figures().get(LOST, 0))),
    )


def _recipes(run: StageRun) -> dict[TrainStage, str]:
    """A hash of all that decides each model: settings and inputs, and for the second the first."""
    shared = {
        key: value
        for key, value in run.settings.items()
        if not key.startswith(("train.stage1.", "train.stage2.", "train.stage2_alone"))
    }
    own = {
        stage: {key: value for key, value in run.settings.items() if key.startswith(f"train.{stage}.")}
        for stage in ("stage1", "stage2")
    }
    first = digest(shared, own["stage1"], run.inputs["reformat"])
    second = (shared, own["stage2"], run.inputs["verify"])
    return {"stage1": first, "stage2": digest(*second, first), "stage2_alone": digest(*second)}


@ray.remote
def _base(settings: Train, root: Place) -> UserError | None:
    """Have the base model as a folder, in a task: a driver on a head node should not load models."""
    from pipeline.train.prepare import base

    try:
        base(settings, StageFolder(root, "train").place / "models" / "base", root.endpoint)
    except UserError as error:
        return error
    return None


def _steps_of(job: RayJob, config: Config) -> list[Step]:
    """The steps of one stage, which is trained where its model is not there yet."""
    made = marker.read(job.stage.target)
    if made is not None and made.recipe == job.stage.recipe:
        job.reporter.put(done=job.steps_behind + len(made.steps))
    else:
        _require_workers(config)
        _fit(job, config.cluster.wait_s)
        made = marker.read(job.stage.target)
        assert made is not None
    # Only now, and of this stage only: until its export is whole, the checkpoint is all there is.
    job.checkpoints.delete()
    return made.steps


def _require_workers(config: Config) -> None:
    """Only now that all is packed: GPUs cost money from the moment they are there."""
    settings = config.train
    cluster.require(
        config,
        "train",
        count=settings.min_workers or settings.workers,
        cpus=settings.worker_cpus,
        gpus=settings.worker_gpus,
        accelerator=settings.accelerator_type,
        setting="train.workers, worker_cpus, worker_gpus or accelerator_type",
    )


def _fit(job: RayJob, wait_s: float) -> None:
    """Train. A group that lost workers waits so long for room."""
    from ray.train.torch import TorchConfig

    settings = job.stage.settings
    patience = max(wait_s, START_S)
    os.environ[WORKER_GROUP_START_TIMEOUT_S_ENV_VAR] = str(ELASTIC_START_S if settings.min_workers else 2 * patience)
    _mend_list(job.checkpoints)
    parent = Place(job.checkpoints.uri.rpartition("/")[0], job.checkpoints.endpoint)
    resources = {"CPU": settings.worker_cpus, **({"GPU": settings.worker_gpus} if settings.worker_gpus else {})}
    trainer = _trainer()(
        _work,
        train_loop_config={"job": job},
        torch_config=TorchConfig(timeout_s=LONGEST_WAIT_S),
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
            failure_config=FailureConfig(settings.max_failures),
            callbacks=[_Controller(job.checkpoints, job.reporter)],
            worker_runtime_env={"env_vars": {} if settings.worker_gpus else allocator()},
            # What Ray Train mends it tells with tracebacks; what it does not is said below.
            logging_config=LoggingConfig(log_level="CRITICAL"),
        ),
    )
    try:
        with _watched(trainer, patience) as given_up:
            mistake = trainer.fit().return_value
    except RayActorError as error:
        if not given_up.is_set():
            raise
        stopping.check()
        fewer = "lower" if settings.min_workers else "set"
        raise ResourceError(
            f"{job.stage.stage} lost workers, and no room for {settings.min_workers or settings.workers} came within {patience:g} s "
            f"(cluster.wait_s, and {START_S:g} at least): add nodes, or {fewer} train.min_workers, and run again, to go on from the last checkpoint"
        ) from error
    except TrainingFailedError as error:
        failures = error.worker_failures.values() if isinstance(error, WorkerGroupError) else ()
        last = _in_one_line(next(iter(failures), error))
        raise ResourceError(
            f"{job.stage.stage} lost its workers more often than train.max_failures = {settings.max_failures} allows, the last time "
            f"by: {last}: mend it and run again, to go on from the last checkpoint"
        ) from error
    if isinstance(mistake, UserError):
        raise mistake


def _trainer() -> Any:
    from ray.train.torch import TorchTrainer

    class Trainer(TorchTrainer):
        """Leaves Ctrl-C to `stopping`: Ray's own handler would end the whole run with exit status 0, long after the training."""

        controller: Any = None

        def _register_sigint_handler(self, controller: Any) -> None:
            self.controller = controller

    return Trainer


@contextmanager
def _watched(trainer: Any, patience: float) -> Iterator[threading.Event]:
    """End a training in which no worker is seen for so long, and say so by the event: what it lost does not come again.

    Ray Train would wait for ever. At a stop there is less to wait for: `NOTE_S`.
    """
    over, given_up = threading.Event(), threading.Event()

    def watch() -> None:
        seen = time.monotonic()
        while not over.wait(LOOK_S):
            if trainer.controller is None or worked.any_trains():
                seen = time.monotonic()
            elif time.monotonic() - seen > (NOTE_S if stopping.asked() else patience):
                given_up.set()
                ray.kill(trainer.controller)
                return

    threading.Thread(target=watch, name="watch", daemon=True).start()
    try:
        yield given_up
    finally:
        over.set()


def allocator() -> dict[str, str]:
    """Environment variables of a CPU worker: jemalloc, which Ray brings along. glibc's malloc keeps up to half as much again as a
    training holds, and is slower (benchmarks/results/train.md).
    """
    library = Path(ray.__file__).parent / "core" / "libjemalloc.so"
    return {"LD_PRELOAD": str(library)} if library.exists() and "LD_PRELOAD" not in os.environ else {}


def _in_one_line(error: Exception) -> str:
    """Ray Train's error of a worker is a whole traceback: what was raised stands at its end."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]


def _mend_list(folder: Place) -> None:
    """Ray Train writes its list of checkpoints in place: one cut by a crash could not be read and would stop the run."""
    ours, rays = folder / OUR_LIST, folder / RAYS_LIST
    if not rays.exists():
        return
    try:
        json.loads(rays.read())
    except ValueError:
        if ours.exists():
            rays.write(ours.read())
        else:
            print(f"[train] {rays.uri} was cut by a crash: training the stage from its start", flush=True)
            folder.delete()


class _Controller(UserCallback):
    """Called by Ray Train's controller."""

    def __init__(self, folder: Place, reporter: Reporter) -> None:
        self._folder, self._reporter = folder, reporter

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None) -> None:
        """A checkpoint is noted: keep a copy of the list, for `_mend_list`."""
        del run_context, metrics
        if checkpoint is not None:
            with suppress(DataError):  # the copy may be an older one
                (self._folder / OUR_LIST).write((self._folder / RAYS_LIST).read())

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """One line for a failure that Ray Train mends by itself, in place of its log of the whole run."""
        del run_context
        if lost := sum(isinstance(error, GONE) for error in worker_exceptions.values()):
            self._reporter.add(**{LOST: lost})
            self._reporter.flush()
        for rank, error in sorted(worker_exceptions.items()):
            again = "where train.max_failures allows, the group starts again from the last checkpoint"
            print(f"[train] worker {rank} failed: {_in_one_line(error)}: {again}", flush=True)


# --- in the workers -------------------------------------------------------------------------------


def _work(config: dict[str, RayJob]) -> UserError | None:
    """One worker's whole life. The user's mistakes are returned: raised, they would be tried again."""
    job = config["job"]
    if not job.stage.settings.worker_gpus:
        os.environ["DS_ACCELERATOR"] = "cpu"  # else DeepSpeed takes a GPU that this worker was not given
    from ray_jobs.train_worker import train

    try:
        train(job)
    except UserError as error:
        return error
    return None
