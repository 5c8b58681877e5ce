"""The long proofs, on the demo itself: it learns, it survives kill -9 in three stages, and it runs as a submitted job.

Each takes ten minutes and more on two cores: `make test-slow`.
"""

import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import datasets
import pandas
import pyarrow.parquet
import pytest
import small
from local_servers import Teacher

from pipeline.config import STAGES
from pipeline.records import Score, Step
from pipeline.responses import read_segment
from pipeline.stage import Manifest, StageFolder
from pipeline.storage import Place, read_rows
from ray_jobs import cli

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.train, pytest.mark.serve, pytest.mark.timeout(3600)]

RUN = [sys.executable, "-m", "ray_jobs", "run", "--config", "configs/demo.yaml"]
KILLS = (
    ("distill", r"\[distill\] (\d+) of", 30),
    ("train", r"stage=stage2 (\d+)/", 20),
    ("evaluate", r"\[evaluate\] (\d+) of", 60),
)
"""Where the driver is killed: in this stage, once its log tells of so many answers (or steps of the second training)."""


def manifests(root: Place) -> dict[str, Manifest]:
    return {stage: StageFolder(root, stage).require() for stage in STAGES}


def accuracy(root: Place, model: str, convention: str) -> float:
    scores = [
        score
        for score in read_rows(StageFolder(root, "evaluate").table("scores"), Score)
        if (score.model, score.convention, score.curve) == (model, convention, "budget_forced")
    ]
    largest = max(score.budget for score in scores)
    at_largest = [score.verdict == "correct" for score in scores if score.budget == largest]
    assert len(at_largest) >= 150
    return sum(at_largest) / len(at_largest)


def test_the_demo_learns_and_survives_a_killed_driver_in_distill_train_and_evaluate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Place(str(tmp_path / "run"))
    teacher = Teacher(small.REPO / "configs/demo/traces.jsonl", "--latency", "0.3")
    settings = [f"storage.root={root.uri}", f"teacher.base_url={teacher.url}", "teacher.max_in_flight=8"]
    durable: dict[str, list[str]] = {}
    command = [*RUN, *(flag for setting in settings for flag in ("--set", setting))]
    try:
        for stage, shown, progress in KILLS:
            log = tmp_path / f"{stage}.log"
            with log.open("wb") as output:
                driver = subprocess.Popen(command, cwd=small.REPO, stdout=output, stderr=subprocess.STDOUT)
                wait_for(shown, progress, log, driver)
                os.kill(driver.pid, signal.SIGKILL)
                driver.wait()
            time.sleep(5)
            durable[stage] = stored(root, stage)
            if stage == "distill":
                served = teacher.answered()
                assert len(durable[stage]) >= progress
        subprocess.run(command, cwd=small.REPO, check=True)

        again = teacher.answered()
        assert all(again[request] == served[request] for request in durable["distill"]), (
            "a durable answer was bought twice"
        )
    finally:
        teacher.end()

    made = manifests(root)
    assert len(durable["evaluate"]) >= 60
    assert made["evaluate"].stored_replies >= len(durable["evaluate"])
    assert len(stored(root, "evaluate")) == len(set(stored(root, "evaluate"))), "an answer was generated twice"
    resumed_at = int(re.findall(r"stage=stage2 (\d+)/", (tmp_path / "evaluate.log").read_text())[0])
    assert resumed_at > 15, "training begins again after its last checkpoint, not at its start"
    steps = read_rows(StageFolder(root, "train").table("steps"), Step)
    for stage in ("stage1", "stage2"):
        numbers = [step.step for step in steps if step.stage == stage]
        assert numbers == list(range(len(numbers)))
    for convention in ("final_answer", "last_number"):
        base, first, second = (accuracy(root, model, convention) for model in ("base", "stage1", "stage2"))
        assert second - base >= 0.30
        assert second >= first
    for stage, name, count in tables_shown(root, capsys):
        files = f"{StageFolder(root, stage).table(name).path}/*.parquet"
        assert len(pandas.read_parquet(Path(files).parent)) == count, name
        if count:  # `datasets` loads no table without rows, whoever wrote it
            loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))["train"]
            assert len(loaded) == count, name


def stored(root: Place, stage: str) -> list[str]:
    """The request ids of all durable replies of a stage, but for the requests that only tokenize (one token)."""
    files = (StageFolder(root, stage).place / "responses").files(".jsonl")
    replies = (reply for file in files for reply in read_segment(file))
    return [reply.request_id for reply in replies if len(reply.token_ids) != 1]


def tables_shown(root: Place, capsys: pytest.CaptureFixture[str], *options: str) -> Iterator[tuple[str, str, int]]:
    """Every table of every stage with its number of rows, after `longthought show` printed one of them."""
    for stage, made in manifests(root).items():
        for name, count in made.tables.items():
            capsys.readouterr()
            cli.main(["show", root.uri, stage, name, "--n", "1", *options])
            printed = capsys.readouterr().out
            columns = pyarrow.parquet.read_schema(
                StageFolder(root, stage).table(name).files(".parquet")[0].path, filesystem=root.filesystem
            ).names
            assert all(column in printed for column in columns) if count else "no row" in printed, name
            yield stage, name, count


def wait_for(shown: str, count: int, log: Path, driver: subprocess.Popen[bytes]) -> None:
    """Until the log shows so much progress."""
    deadline = time.monotonic() + 1500
    while True:
        seen = re.findall(shown, log.read_text(errors="replace"))
        if seen and int(seen[-1]) >= count:
            return
        assert driver.poll() is None, log.read_text(errors="replace")[-3000:]
        assert time.monotonic() < deadline, f"no {count} of {shown}: {log.read_text(errors='replace')[-2000:]}"
        time.sleep(0.5)


def test_the_demo_runs_as_a_submitted_job_with_everything_in_object_storage(
    s3: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bin_folder = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "AWS_ENDPOINT_URL": s3,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_TMPDIR": "/tmp/ray-submitted",
    }

    def ray(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(bin_folder / "ray"), *arguments], cwd=small.REPO, env=environment, text=True, capture_output=True
        )

    started = ray("start", "--head", "--port=6399", "--dashboard-port=8269", "--num-cpus=2")
    assert started.returncode == 0, started.stderr
    try:
        submitted = ray(
            *("job", "submit", "--address", "http://127.0.0.1:8269", "--working-dir", ".", "--"),
            *("python", "-m", "ray_jobs", "run", "--config", "configs/demo.yaml"),
            *("--set", "storage.root=s3://bucket/submitted"),
        )
        assert submitted.returncode == 0, submitted.stdout[-3000:] + submitted.stderr[-3000:]
        assert "succeeded" in submitted.stdout
    finally:
        end_own_cluster()
    made = manifests(Place("s3://bucket/submitted", s3))
    assert list(made) == list(STAGES)
    assert len(list(tables_shown(Place("s3://bucket/submitted", s3), capsys, "--endpoint", s3))) > 10


def end_own_cluster() -> None:
    """End the processes of the cluster started here, known by their environment, and no other's."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"RAY_TMPDIR=/tmp/ray-submitted" in (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
