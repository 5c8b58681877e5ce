"""Object storage that is busy, silent, or closed to us."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import small
import small_run
from nodes import Driver, Nodes, until

sys.path.append(str(Path(__file__).parents[1] / "pipeline"))

from bad_line import BadLine

from pipeline.config import STAGES
from pipeline.stage import StageFolder
from pipeline.storage import Place

pytestmark = [pytest.mark.ray]


@pytest.mark.train
@pytest.mark.serve
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_stage_finishes_where_storage_refuses_a_tenth_and_leaves_a_fiftieth_unanswered(
    tmp_path: Path, s3: str, start_teacher: Any
) -> None:
    small_run.write(tmp_path)
    teacher = start_teacher(tmp_path / "traces.jsonl")
    with BadLine(s3, busy=0.10, silent=0.02) as line, Nodes(workers=1, cpus=2) as nodes:
        root = Place(f"s3://bucket/bad-{tmp_path.name}", line.url)
        arguments = small.arguments("run", small_run.settings(tmp_path, root, teacher.url))
        driver = Driver(nodes, tmp_path / "said.log", arguments)
        until(driver.ended, driver.log)
        assert driver.process.returncode == 0, driver.log()[-5000:]
        assert line.refused > 0.07 * line.asked and line.lost > 0.01 * line.asked, (line.asked, line.refused, line.lost)
    straight = Place(root.uri, s3)
    made = {stage: StageFolder(straight, stage).require() for stage in STAGES}
    assert made["distill"].rows_out == made["verify"].rows_out == len(small_run.SUMS)
    assert teacher.stats()["answered_again"] == 0


@pytest.mark.parametrize("denied", [("PUT", "POST", "DELETE"), ("GET", "HEAD", "PUT", "POST", "DELETE")])
def test_a_bucket_that_may_not_be_written_is_said_before_the_teacher_is_asked(
    tmp_path: Path, s3: str, start_teacher: Any, denied: tuple[str, ...]
) -> None:
    small_run.write(tmp_path)
    teacher = start_teacher(tmp_path / "traces.jsonl")
    with BadLine(s3, denied=denied) as line:
        settings = small_run.settings(tmp_path, Place("s3://bucket/denied", line.url), teacher.url)
        command = small.command("run", settings)
        done = subprocess.run(command, cwd=small.REPO, text=True, capture_output=True)
    assert done.returncode == 2 and done.stdout == ""
    (said,) = done.stderr.splitlines()
    assert said.startswith("error: cannot use 's3://bucket/denied") and "check bucket, credentials and endpoint" in said
    assert teacher.stats()["requests"] == 0
