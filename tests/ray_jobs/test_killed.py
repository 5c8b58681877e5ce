"""An actor killed every few seconds, then the driver, then the same again: nothing durable is bought twice."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
import small
from local_servers import Teacher

from pipeline.responses import read_segment
from pipeline.stage import StageFolder, root_of
from pipeline.storage import Place

PROBLEMS, IN_FLIGHT = 600, 12
KILLS, EVERY_S = 3, 5.0

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]


def durable(folder: Place) -> set[str]:
    """The requests whose replies are stored, and those that a killed process left on this node for the store."""
    stored = {reply.request_id for file in folder.files(".jsonl") for reply in read_segment(file)}
    here = Path(tempfile.gettempdir()) / f"longthought-{os.getuid()}"
    kept = [] if folder.is_local else [Place(str(path)) for path in here.rglob("*.jsonl")]
    return stored | {reply.request_id for file in kept for reply in read_segment(file)}


def actors_of(driver: "subprocess.Popen[Any]") -> list[psutil.Process]:
    """The processes of the actors that ask the teacher."""
    found = []
    for process in psutil.Process(driver.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "DistillActor" in " ".join(process.cmdline()):
                found.append(process)
    return found


@pytest.mark.parametrize("storage", ["local", "s3"])
def test_kills_cost_what_was_under_way_and_nothing_durable(
    storage: str, tmp_path: Path, start_teacher: Any, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")  # its sockets want a short path
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sums = [(a, b) for a in range(10, 40) for b in range(21, 41)][:PROBLEMS]
    small.write_problems(tmp_path, sums)
    small.write_heldout(tmp_path)
    recorded = [{"model": "teacher", "problem": small.problem(a, b), "content": f"\\boxed{{{a + b}}}"} for a, b in sums]
    small.write_jsonl(tmp_path / "traces.jsonl", recorded)
    log = tmp_path / "served.log"
    teacher: Teacher = start_teacher(tmp_path / "traces.jsonl", "--latency", "0.6", "--log", str(log))
    root = str(tmp_path / "run") if storage == "local" else f"s3://bucket/killed-{tmp_path.name}"
    settings = [
        *small.overrides(tmp_path, root, teacher.url), "curate.duplicate_threshold=null", "distill.max_samples=1",
        f"teacher.max_in_flight={IN_FLIGHT // 2}", "teacher.price.completion=1", "teacher.budget_usd=1",
        *([f"storage.endpoint={s3}"] if storage == "s3" else []),
    ]  # fmt: skip
    stage = StageFolder(root_of(small.config(settings)), "distill")
    said = tmp_path / "said.txt"
    with said.open("w") as stream:
        quiet = {"stdout": stream, "stderr": subprocess.STDOUT, "cwd": small.REPO, "env": small.alone()}
        subprocess.run(small.command("curate", settings), check=True, **quiet)
        driver = subprocess.Popen(small.command("distill", settings), **quiet)
        deadline = time.monotonic() + 200
        while teacher.stats()["answers"] < 20:
            assert time.monotonic() < deadline and driver.poll() is None, said.read_text()[-2000:]
            time.sleep(0.2)
        second = subprocess.Popen(
            small.command("distill", settings), cwd=small.REPO, env=small.alone(), stderr=subprocess.PIPE, text=True
        )
        under_way = 0
        asked_again_before: list[tuple[float, set[str]]] = []
        for kill in range(KILLS + 1):
            time.sleep(EVERY_S)
            assert driver.poll() is None, f"the job ended before kill {kill}: {said.read_text()[-2000:]}"
            there = durable(stage.place / "responses")
            asked_again_before.append((time.time(), there))
            under_way += teacher.stats()["in_flight"]
            if kill < KILLS:
                victims = actors_of(driver)
                assert victims
                victims[kill % len(victims)].kill()
            else:
                os.kill(driver.pid, signal.SIGKILL)
                driver.wait()
        _, refusal = second.communicate(timeout=60)
        assert second.returncode == 2 and refusal.count("\n") == 1, refusal
        assert "is held by another run: " in refusal and f"(process {driver.pid})" in refusal
        time.sleep(5)  # what the workers still do when their driver is gone
        subprocess.run(small.command("distill", settings), check=True, timeout=300, **quiet)

    made = stage.require()
    assert made.rows_in == made.rows_out == PROBLEMS
    served = [json.loads(line) for line in log.read_text().splitlines()]
    times: dict[str, list[float]] = {}
    for answer in served:
        times.setdefault(answer["request"], []).append(answer["at"])
    distinct = durable(stage.place / "responses")
    assert len(distinct) == PROBLEMS == len(times)
    assert len(served) - len(distinct) <= under_way, (Counter(map(len, times.values())), under_way)
    for at, there in asked_again_before:
        assert len(there) > 10
        assert not [name for name in there if max(times[name]) > at], "bought again though it was durable"
