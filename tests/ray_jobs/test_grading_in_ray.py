"""The grader inside of Ray, where Math-Verify's time-outs score 0 or hang (verl#5635): the verdicts of the main thread."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import ray
import small

from pipeline.grading import Grader

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def labelled() -> Rows:
    folder = small.REPO.parent / "shared" / "data" / "grading"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: it holds public data that is no part of the repository")
    files = sorted(folder.glob("*.jsonl"))
    rows = [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]
    return [row for row in rows if "label" in row]


@pytest.mark.ray
@pytest.mark.shared
def test_threads_and_event_loops_of_ray_actors_give_the_verdicts_of_the_main_thread(ray_cluster, labelled):
    # Defined here, so that Ray ships them by value: its workers cannot import this module.
    def verdict(grade: Any) -> tuple[str, str | None, str]:
        return grade.verdict, grade.extracted, grade.matched_by

    class Threaded:
        def __init__(self) -> None:
            self.grader = Grader()

        def grade(self, rows: Rows) -> list[Any]:
            with ThreadPoolExecutor(8) as pool:
                return [verdict(grade) for grade in pool.map(self.one, rows)]

        def one(self, row: dict[str, Any]) -> Any:
            return self.grader.grade(row["gold"], row["response"])

    class EventLoop:
        def __init__(self) -> None:
            self.grader = Grader()

        async def grade(self, rows: Rows) -> list[Any]:
            grades = await asyncio.gather(*(self.grader.agrade(row["gold"], row["response"]) for row in rows))
            return [verdict(grade) for grade in grades]

    with Grader() as grader:
        expected = [verdict(grader.grade(row["gold"], row["response"])) for row in labelled]
    assert len(expected) > 5000
    for actor in (ray.remote(num_cpus=1, max_concurrency=8)(Threaded), ray.remote(num_cpus=1)(EventLoop)):
        handle = actor.remote()
        first, second = ray.get([handle.grade.remote(labelled[start::2]) for start in (0, 1)])
        assert first == expected[0::2] and second == expected[1::2]
        ray.kill(handle)
