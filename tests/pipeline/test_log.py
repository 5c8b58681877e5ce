"""A log for machines: what a line has, and whose ids."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline import log


@pytest.fixture
def written(tmp_path: Path) -> Any:
    path = tmp_path / "log.jsonl"

    def read() -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text().splitlines()]

    log.to_file(path, run="runs/a", stage="distill")
    yield read
    log.to_file(Path("/dev/null"))


def test_a_line_tells_run_stage_row_and_facts(written):
    with log.about(row="r1"):
        log.warn("asked again", error="HTTP 503", tries=2)
    log.note("complete", rows_out=3)
    first, second = written()
    assert {name: first[name] for name in ("level", "event", "run", "stage", "row", "error", "tries")} == {
        "level": "WARNING", "event": "asked again", "run": "runs/a", "stage": "distill", "row": "r1", "error": "HTTP 503", "tries": 2,
    }  # fmt: skip
    assert second["level"] == "INFO" and "row" not in second and second["rows_out"] == 3


def test_rows_that_are_worked_on_at_once_keep_their_ids_apart(written):
    async def work(row: str) -> None:
        with log.about(row=row):
            for _ in range(5):
                await asyncio.sleep(0)
                log.note("step", of=row)

    async def all_rows() -> None:
        await asyncio.gather(*(work(f"r{index}") for index in range(10)))

    asyncio.run(all_rows())
    assert len(written()) == 50 and all(line["row"] == line["of"] for line in written())


def test_what_is_nearer_says_which(written):
    with log.about(stage="verify"):
        log.note("x")
    log.note("y")
    assert [line["stage"] for line in written()] == ["verify", "distill"]


def test_a_long_value_is_cut(written):
    log.warn("failed", error="x" * 10**6)
    assert len(written()[0]["error"]) == log.MOST_CHARS


def test_processes_share_a_file_line_by_line(tmp_path):
    path = tmp_path / "shared.jsonl"
    code = (
        "import sys; from pathlib import Path; from pipeline import log; log.to_file(Path(sys.argv[1]), run=sys.argv[2])\n"
        "for number in range(500): log.note('n', number=number, text='x' * 900)"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(path), str(name)]) for name in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for name in range(4):
        assert [line["number"] for line in lines if line["run"] == str(name)] == list(range(500))


def test_without_a_file_nothing_is_said(tmp_path):
    code = "from pipeline import log; log.warn('x')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
