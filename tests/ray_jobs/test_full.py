"""Nodes whose memory for Ray's objects is too small for a stage, and whose disks are full too."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import small
from nodes import Driver, Nodes, until

from pipeline.records import Problem, Trace, Verdict
from pipeline.stage import StageFolder, StageRun
from pipeline.storage import Place, read_rows, write_rows

pytestmark = [pytest.mark.ray, pytest.mark.slow]

STORE = 80 << 20
THOUGHT = "Wait, let me check that once more. " * 26_000
"""0.9 MB: those of 128 traces do not fit in the store."""


def traces(problems: list[Problem]) -> Iterator[Trace]:
    for problem in problems:
        for sample in range(2):
            yield Trace(
                f"{problem.problem_id}-{sample}", f"{problem.problem_id}-{sample}", problem.problem_id, sample, "distill",
                problem.problem, f"\\boxed{{{problem.answer}}}", f"{sample} {THOUGHT}", "ok", None, 10, 100_000, 0.0, 1.0, "teacher",
            )  # fmt: skip


@pytest.fixture
def settings(sums: Path) -> list[str]:
    """Of a run whose traces are there."""
    settings = small.overrides(sums, str(sums / "run"), "http://127.0.0.1:9/v1")
    config = small.config(settings)
    curated = StageRun(config, "curate")
    rows = [
        Problem(f"{a}-{b}", small.problem(a, b), str(a + b), "number", None, "sums", "Apache-2.0", None)
        for a, b in small.SUMS
    ]
    write_rows(curated.folder.table("problems"), Problem, rows)
    curated.finish(rows_in=len(rows), rows_out=len(rows), tables={"problems": len(rows)})
    distilled = StageRun(config, "distill", inputs=("curate",))
    write_rows(distilled.folder.table("traces"), Trace, traces(rows))
    distilled.finish(rows_in=len(rows), rows_out=len(rows), tables={"traces": 2 * len(rows)})
    return settings


def verify(nodes: Nodes, folder: Path, settings: list[str]) -> tuple[int, str]:
    driver = Driver(nodes, folder / "said.log", small.arguments("verify", settings))
    until(driver.ended, driver.log)
    return driver.process.returncode, driver.log()


def test_what_does_not_fit_in_memory_goes_by_the_disk_and_is_counted(tmp_path: Path, settings: list[str]) -> None:
    with Nodes(workers=1, cpus=2, store=STORE) as nodes:
        status, said = verify(nodes, tmp_path, settings)
    assert status == 0, said[-5000:]
    root = Place(str(tmp_path / "run"))
    made = StageFolder(root, "verify").require()
    assert made.spilled_bytes > STORE and "MiB did not fit in Ray's memory" in said
    assert {row.verdict for row in read_rows(StageFolder(root, "verify").table("verdicts"), Verdict)} == {"correct"}
    assert made.tables["verdicts"] == 2 * len(small.SUMS)


def test_a_full_disk_is_one_line_and_the_stage_is_done_when_there_is_room(tmp_path: Path, settings: list[str]) -> None:
    with Nodes(workers=1, cpus=2, store=STORE, system={"local_fs_capacity_threshold": 0.01}) as nodes:
        status, said = verify(nodes, tmp_path, settings)
    assert status == 2, said[-5000:]
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "memory for Ray's objects is full, and so is the disk" in error and "Traceback" not in said
    folder = StageFolder(Place(str(tmp_path / "run")), "verify")
    assert folder.manifest() is None
    with Nodes(workers=1, cpus=2) as nodes:
        assert verify(nodes, tmp_path, settings)[0] == 0
    assert folder.require().tables["verdicts"] == 2 * len(small.SUMS)
