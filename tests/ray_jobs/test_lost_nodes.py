"""Nodes that are lost in the middle of a stage: the run ends with what an unbroken one gives."""

import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import small
import small_run
from nodes import Driver, Nodes, until
from test_train import prepare

sys.path.append(str(Path(__file__).parents[1] / "pipeline" / "train"))

import tiny

from pipeline.config import STAGES, as_yaml
from pipeline.journal import FLUSH_S
from pipeline.stage import StageFolder
from pipeline.storage import Place

pytestmark = [pytest.mark.ray, pytest.mark.train, pytest.mark.serve, pytest.mark.slow, pytest.mark.timeout(3600)]

KILLS = (
    ("distill", "DistillActor", r"\[distill\] [1-9]\d* of"),
    ("verify", "VerifyActor", r"\[distill\] done"),
    ("train", "RayTrainWorker", r"stage=stage2 ([6-9]|1\d)/"),
    ("evaluate", ":Server:", r"\[evaluate\] [1-9]\d* of"),
    ("evaluate", "EvaluateActor", r"\[evaluate\] [1-9]\d* of"),
)
"""The node that has such an actor is lost in this stage, once the log shows this. While there is no model, there is time for the last."""


def test_a_node_that_is_lost_in_distill_verify_train_and_evaluate_changes_nothing(
    tmp_path: Path, s3: str, start_teacher: Any
) -> None:
    small_run.write(tmp_path)
    teacher = start_teacher(tmp_path / "traces.jsonl", "--latency", "1")
    whole, broken = (Place(f"s3://bucket/{name}-{tmp_path.name}", s3) for name in ("whole", "broken"))
    with Nodes(workers=3, cpus=2) as nodes:
        for root in (whole, broken):
            slow = ["evaluate.max_in_flight=2"]  # so that there are answers under way when the first have come
            arguments = small.arguments("run", [*small_run.settings(tmp_path, root, teacher.url), *slow])
            driver = Driver(nodes, tmp_path / f"{root.name}.log", arguments)
            for stage, actor, shown in KILLS if root is broken else ():
                driver.until_shown(shown)
                victim = nodes.wait_for_host(actor, driver)
                assert StageFolder(broken, stage).manifest() is None, driver.log()[-3000:]
                nodes.kill(victim)
                nodes.add()
            until(driver.ended, driver.log)
            assert driver.process.returncode == 0, driver.log()[-5000:]

    assert small_run.rows(broken) == small_run.rows(whole)
    after, before = small_run.losses(broken), small_run.losses(whole)
    assert after.keys() == before.keys()
    assert all(after[step] == pytest.approx(before[step], rel=0.02) for step in before)
    for stage in STAGES:
        made, meant = (StageFolder(root, stage).require() for root in (broken, whole))
        killed = sum(stage == name for name, _, _ in KILLS)
        assert made.lost.get("nodes", 0) == killed and made.lost.get("actors", 0) >= killed and meant.lost == {}
        assert (made.rows_in, made.rows_out, made.rejected, made.tables) == (
            meant.rows_in,
            meant.rows_out,
            meant.rejected,
            meant.tables,
        )


@pytest.mark.parametrize(("stopped", "fewest"), [(False, None), (False, 2), (True, None)])
def test_a_training_whose_nodes_do_not_come_again_ends_in_one_line_and_hears_a_stop(
    tmp_path: Path, stopped: bool, fewest: int | None
) -> None:
    endless = {"epochs": 3000, "checkpoint_every": 20, "max_failures": 1, "max_spike": 1e6, "min_workers": fewest}
    config = prepare(tmp_path / "run", tiny.save(tmp_path / "model"), **endless)
    (tmp_path / "config.yaml").write_text(as_yaml(config))
    waits = ["--set", f"cluster.wait_s={600 if stopped else 10}"]
    with Nodes(workers=1, cpus=2) as nodes:
        driver = Driver(nodes, tmp_path / "said.log", ["train", "--config", str(tmp_path / "config.yaml"), *waits])
        driver.until_shown(r"stage=stage1 ([3-9]\d|\d\d\d+)/")
        nodes.kill(nodes.wait_for_host("RayTrainWorker", driver))
        driver.until_shown("starts again from the last checkpoint")
        if stopped:
            driver.process.send_signal(signal.SIGTERM)
        lost = time.monotonic()
        until(driver.ended, driver.log)
        assert time.monotonic() - lost < 120
    assert driver.process.returncode == (130 if stopped else 2), driver.log()[-3000:]
    said = "interrupted: " if stopped else "error: stage1 lost workers, and no room for 2 came within 60 s"
    assert driver.log().splitlines()[-1].startswith(said) and "Traceback" not in driver.log(), driver.log()[-3000:]
    assert list((tmp_path / "run/5_train/checkpoints").glob("stage1-*/step_*")), "from which the next run goes on"


def test_a_head_that_is_lost_costs_what_was_under_way(
    tmp_path: Path, s3: str, start_teacher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_run.write(tmp_path)
    teacher = start_teacher(tmp_path / "traces.jsonl", "--latency", "1")
    root = Place(f"s3://bucket/head-{tmp_path.name}", s3)
    in_flight = 8
    settings = [*small_run.settings(tmp_path, root, teacher.url), f"teacher.max_in_flight={in_flight}"]
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")  # Ray's own files: their paths must be short

    def machines(name: str) -> Nodes:
        (tmp_path / name).mkdir()
        monkeypatch.setenv("TMPDIR", str(tmp_path / name))  # their disks: what the lost ones hold is lost
        return Nodes(workers=2, cpus=2)

    def started(nodes: Nodes, stage: str) -> Driver:
        return Driver(nodes, tmp_path / f"{stage}.log", small.arguments(stage, settings))

    with machines("lost") as nodes:
        until((curate := started(nodes, "curate")).ended, curate.log)
        driver = started(nodes, "distill")
        driver.until_shown(r"\[distill\] 1\d\d of")
        driver.process.kill()
        nodes.kill_head()
    bought = teacher.stats()["answers"]
    assert StageFolder(root, "distill").manifest() is None
    with machines("new") as nodes:
        until((driver := started(nodes, "distill")).ended, driver.log)
    made = StageFolder(root, "distill").require()
    assert made.rows_out == len(small_run.SUMS)
    under_way_or_not_yet_in_the_bucket = (1 + int(FLUSH_S) + 1) * in_flight
    assert bought >= 100 and made.stored_replies >= bought - under_way_or_not_yet_in_the_bucket
    assert teacher.stats()["answered_again"] <= under_way_or_not_yet_in_the_bucket
