"""Any endpoint can be evaluated: a faulty one, and one whose evaluation was killed half-way."""

import json
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import small

from pipeline.records import Generation, Rejected, Score, Vote
from pipeline.stage import StageFolder, root_of
from pipeline.storage import read_rows
from ray_jobs import cli

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

PROBLEMS, SAMPLES = 60, 4
RIGHT = 3
"""Samples of each problem that are right."""


def settings(folder: Path, url: str, *more: str) -> list[str]:
    """An evaluation of the replay teacher, with its recorded answers to 60 sums: of each three are right."""
    rows = [{"problem": small.problem(a, 99), "answer": str(a + 99)} for a in range(PROBLEMS)]
    small.write_jsonl(folder / "heldout.jsonl", rows)
    endpoint = {
        "model": "teacher", "base_url": url, "api_key_env": None, "sampling": {"temperature": 1.0, "max_tokens": 160},
        "max_in_flight": 8,
    }  # fmt: skip
    return [
        *small.overrides(folder, str(folder / "run"), url), f"evaluate.endpoint={json.dumps(endpoint)}", f"evaluate.samples={SAMPLES}",
        "evaluate.conventions=[final_answer]", *more,
    ]  # fmt: skip


def write_traces(folder: Path) -> Path:
    answers = [
        {"model": "teacher", "problem": small.problem(a, 99), "content": f"\\boxed{{{a + 99 + (sample == RIGHT)}}}"}
        for a in range(PROBLEMS)
        for sample in range(SAMPLES)
    ]
    return small.write_jsonl(folder / "traces.jsonl", answers)


def test_requests_that_fail_are_told_as_failed_and_never_as_wrong(
    ray_cluster: None, tmp_path: Path, start_teacher: Any
) -> None:
    faults = ["--fault", "drop=0.05", "--fault", "no_choices=0.2", "--fault", "500=0.1", "--latency", "0.1"]
    teacher = start_teacher(write_traces(tmp_path), *faults)
    chosen = settings(tmp_path, teacher.url, "evaluate.endpoint.max_attempts=2")
    cli.main(small.arguments("evaluate", chosen))
    folder = StageFolder(root_of(small.config(chosen)), "evaluate")
    generations = {row.generation_id: row for row in read_rows(folder.table("generations"), Generation)}
    assert len(generations) == PROBLEMS * SAMPLES
    failed = {name for name, row in generations.items() if row.status == "failed"}
    assert 0 < len(failed) < len(generations) / 2
    assert folder.require().rejected == {"request_failed": len(failed)}
    rejected = read_rows(folder.table("rejected"), Rejected)
    assert {row.row_id for row in rejected} == failed and all(row.detail for row in rejected)
    scores = read_rows(folder.table("scores"), Score)
    assert {score.generation_id for score in scores} == generations.keys() - failed
    for score in scores:
        assert (score.verdict == "correct") == (score.sample_index != RIGHT)
    answered = Counter(row.problem_id for row in generations.values() if row.status != "failed")
    votes = read_rows(folder.table("votes"), Vote)
    assert {vote.n == answered[vote.problem_id] for vote in votes} == {True}
    whole = [vote for vote in votes if vote.n == SAMPLES]
    assert {(vote.k, vote.majority, vote.passed) for vote in whole} == {(1, 0.75, 0.75), (2, 0.75, 1.0), (4, 1.0, 1.0)}
    cli.main(small.arguments("report", chosen))


@pytest.mark.slow
def test_an_evaluation_that_is_killed_half_way_makes_no_answer_twice(tmp_path: Path, start_teacher: Any) -> None:
    log = tmp_path / "served.log"
    teacher = start_teacher(write_traces(tmp_path), "--latency", "1.0", "--log", str(log))
    chosen = settings(tmp_path, teacher.url)
    command = small.command("evaluate", chosen)
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    quiet |= {"cwd": small.REPO, "env": small.alone()}
    driver = subprocess.Popen(command, **quiet)
    deadline = time.monotonic() + 200
    try:
        while teacher.stats()["answers"] < PROBLEMS * SAMPLES // 2:
            assert time.monotonic() < deadline and driver.poll() is None
            time.sleep(0.1)
        under_way = teacher.stats()["in_flight"]
    finally:
        driver.kill()
        driver.wait()
    time.sleep(8)  # what the workers still do when their driver is gone
    before = len(log.read_text().splitlines())
    subprocess.run(command, check=True, timeout=300, **quiet)
    times = Counter(json.loads(line)["request"] for line in log.read_text().splitlines())
    made = StageFolder(root_of(small.config(chosen)), "evaluate").require()
    assert len(times) == PROBLEMS * SAMPLES == made.rows_out
    assert made.requests + before >= PROBLEMS * SAMPLES
    assert sum(times.values()) - len(times) <= under_way
    scores = read_rows(StageFolder(root_of(small.config(chosen)), "evaluate").table("scores"), Score)
    assert Counter(score.verdict for score in scores) == {"correct": PROBLEMS * RIGHT, "incorrect": PROBLEMS}
