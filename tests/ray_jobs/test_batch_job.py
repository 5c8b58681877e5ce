"""`longthought distill` by a batch API, its driver killed between submission and collection."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import small
from local_servers import Teacher

from pipeline.stage import StageFolder, root_of

COUNT = 1_000

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_killed_driver_submits_nothing_twice(tmp_path: Path, start_teacher: Any) -> None:
    sums = [(a, b) for a in range(10, 50) for b in range(21, 46)]
    small.write_problems(tmp_path, sums)
    small.write_heldout(tmp_path)
    recorded = [{"model": "teacher", "problem": small.problem(a, b), "content": f"\\boxed{{{a + b}}}"} for a, b in sums]
    small.write_jsonl(tmp_path / "traces.jsonl", recorded)
    teacher: Teacher = start_teacher(tmp_path / "traces.jsonl", "--batch", "10", "--fault", "500=0.03")
    settings = [
        *small.overrides(tmp_path, str(tmp_path / "run"), teacher.url), "curate.duplicate_threshold=null",
        "distill.max_samples=1", "distill.actors=1", 'teacher.batch={"gather_s": 2, "poll_s": 1}',
    ]  # fmt: skip
    said = tmp_path / "said.txt"
    with said.open("w") as stream:
        quiet: dict[str, Any] = {"stdout": stream, "stderr": subprocess.STDOUT, "cwd": small.REPO, "env": small.alone()}
        subprocess.run(small.command("curate", settings), check=True, **quiet)
        driver = subprocess.Popen(small.command("distill", settings), **quiet)
        deadline = time.monotonic() + 200
        while not teacher.stats()["batches"]:
            assert time.monotonic() < deadline and driver.poll() is None, said.read_text()[-2000:]
            time.sleep(0.2)
        time.sleep(1)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        submitted = teacher.stats()["batches"]
        assert submitted == [COUNT] and teacher.stats()["answers"] == 0
        time.sleep(5)  # what the workers still do when their driver is gone
        subprocess.run(small.command("distill", settings), check=True, timeout=300, **quiet)
    counted = teacher.stats()
    made = StageFolder(root_of(small.config(settings)), "distill").require()
    assert made.rows_in == made.rows_out == COUNT
    assert counted["answers"] == COUNT and counted["answered_again"] == 0
    first, *later = counted["batches"]
    assert first == COUNT and later
    assert 0.01 * COUNT < later[0] < 0.06 * COUNT, "only lines that failed go out again"
