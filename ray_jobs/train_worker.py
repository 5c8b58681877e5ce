"""A worker of stage 5 inside Ray Train: the loop of `pipeline.train`, its checkpoints, its figures.

In: a `RayJob`. Out: checkpoints noted by Ray Train, progress on the driver, TensorBoard's files, a trained model.
"""

import contextlib
import logging
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
from ray.train import Checkpoint, CheckpointUploadMode, get_checkpoint, get_context, get_preemption_info, report

from pipeline import log, storage
from pipeline.errors import DataError, StoppedError
from pipeline.records import Step
from pipeline.storage import Place
from pipeline.train import model, stage
from pipeline.train.loop import Caller
from pipeline.train.trackers import Trackers
from ray_jobs.train import RayJob

ON_THEIR_WAY = 2
"""Checkpoints that may lie on a node's disk, waiting for storage or going there."""


def train(job: RayJob) -> None:
    """One worker's part of a stage. Raises a UserError on all workers where one meets it."""
    settings = job.stage.settings
    job.reporter.keep_log()
    # Ray Train lets every library log at INFO, and DeepSpeed calls what torch is about to rename: no news here.
    logging.getLogger().setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    torch.set_num_threads(max(1, int(settings.worker_cpus)))
    first = dist.get_rank() == 0
    if first:
        version = metadata.version("deepspeed")
        print(
            f"{job.stage.stage}: {dist.get_world_size()} workers over {dist.get_backend()}, DeepSpeed {version}, "
            f"ZeRO-{settings.zero_stage}",
            flush=True,
        )
    with _trackers(job) if first else contextlib.nullcontext() as trackers:
        stage.run(job.stage, RayTrain(job, trackers), _last_checkpoint())


@contextlib.contextmanager
def _last_checkpoint() -> Iterator[Path | None]:
    """Its files on this node, as long as they are read."""
    checkpoint = get_checkpoint()
    if checkpoint is None:
        yield None
        return
    with checkpoint.as_directory() as folder:
        yield Path(folder)


@contextlib.contextmanager
def _trackers(job: RayJob) -> Iterator[Trackers]:
    settings = job.stage.settings
    with TemporaryDirectory(prefix="longthought-tensorboard-") as board:
        trackers = Trackers(Path(board), settings.trackers, job.checkpoints.name, settings.model_dump(mode="json"))
        try:
            yield trackers
        finally:
            trackers.close()
            _show(trackers.folder, job.board)


def _show(folder: Path, board: Place) -> None:
    """Figures that cannot be stored are no reason to stop."""
    if not folder.exists():  # a last checkpoint arrives when the training has ended and shown them
        return
    try:
        storage.upload(folder, board)
    except DataError as error:
        print(f"[train] TensorBoard's files are not stored: {error}", flush=True)


class RayTrain(Caller):
    """Hands checkpoints to Ray Train, and where there are trackers (on the first rank) progress to the driver."""

    def __init__(self, job: RayJob, trackers: Trackers | None) -> None:
        self._job, self._trackers = job, trackers
        self._steps = 0
        self._left_at = -1
        self._to_end = False
        self._arrived: list[float] = []
        self._room = threading.Semaphore(ON_THEIR_WAY)
        self._disk = model.cache_folder().parent / "checkpoints" / job.checkpoints.name
        if get_context().get_local_rank() == 0:
            shutil.rmtree(self._disk, ignore_errors=True)  # what killed workers left

    def started(self, done: int, steps: int) -> None:
        """The loop begins."""
        self._steps = steps
        if self._trackers:
            self._job.reporter.put(done=self._job.steps_behind + done)
            if done:
                log.note("goes on", training=self._job.stage.stage, step=done)
                print(f"{self._job.stage.stage}: goes on after step {done} of {steps}", flush=True)

    def stepped(self, step: Step) -> None:
        """A step is done."""
        if self._trackers:
            self._trackers.step(step)
            self._job.reporter.put(
                done=self._job.steps_behind + step.step + 1,
                stage=f"{step.stage} {step.step + 1}/{self._steps}",
                loss=f"{step.loss:.3f}",
                **{"tok/s": f"{step.tokens / step.seconds:,.0f}"},
            )

    def leaving(self) -> bool:
        """Whether a node is about to be taken away, once for each notice; or the user asked for an end."""
        asked = [dist.get_rank() == 0 and self._job.reporter.is_to_end()]
        dist.broadcast_object_list(asked, src=0)
        self._to_end = asked[0]
        if self._to_end:
            return True
        notice = get_preemption_info()
        if notice is None or notice.deadline_ms == self._left_at:
            return False
        self._left_at = notice.deadline_ms
        log.warn("a node is to be taken away", deadline_ms=notice.deadline_ms)
        return True

    def save(self, done: int, write: Callable[[Path], None]) -> bool:
        """Every rank's files go into one folder of the run's storage; Ray Train notes it when all are there.

        The training goes on while they are brought there, unless storage is so slow that they would fill the disk.
        """
        self._room.acquire()
        folder = self._disk / f"step_{done}_rank_{dist.get_rank()}"
        write(folder)
        report(
            {"step": done},
            checkpoint=Checkpoint.from_directory(str(folder)),
            # A folder that was left half-written by more workers would hold files of theirs.
            checkpoint_dir_name=f"step_{done:06d}_of_{dist.get_world_size()}",
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=True,
            checkpoint_upload_fn=self._upload,
        )
        if self._to_end:
            raise StoppedError  # Ray Train waits until the checkpoint is stored
        return True

    def _upload(self, checkpoint: Checkpoint, name: str) -> Checkpoint:
        """In a thread. Ray Train tries it again where storage is busy."""
        started, target = time.monotonic(), self._job.checkpoints / name
        storage.upload(Path(checkpoint.path), target)
        self._room.release()
        self._arrived.append(time.monotonic() - started)
        log.note("checkpoint stored", place=target.uri, seconds=round(self._arrived[-1], 3))
        if self._trackers:
            self._trackers.flush()
            _show(self._trackers.folder, self._job.board)
        return Checkpoint(target.path, target.filesystem)

    def uploaded(self) -> float:
        """Seconds of the uploads that ended since this was last asked."""
        return sum(self._arrived.pop() for _ in range(len(self._arrived)))
