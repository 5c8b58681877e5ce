"""`ray job stop` in each stage of a run, and the same submitted again: it finishes, and nothing is paid for or trained twice."""

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import small
import small_run
from nodes import Job, Nodes, until

sys.path.append(str(Path(__file__).parents[1] / "pipeline"))

from bad_line import BadLine
from board import scalars

from pipeline.config import STAGES
from pipeline.records import Step
from pipeline.responses import read_segment
from pipeline.stage import StageFolder
from pipeline.storage import Place, read_rows

pytestmark = [pytest.mark.ray, pytest.mark.train, pytest.mark.serve, pytest.mark.slow, pytest.mark.timeout(3600)]

STOPS = (
    ("curate", r"\[curate\] (\d+)"),
    ("reformat", r"\[reformat\] (\d+) of"),
    ("distill", r"\[distill\] (\d+) of"),
    ("verify", r"\[distill\] done"),
    ("train", r"stage=stage1 (\d+)/"),
    ("train", r"stage=stage2 (\d+)/"),
    ("serve", r"\[serve\] 0 of 1"),
    ("evaluate", r"\[evaluate\] ([1-9]\d*) of"),
    ("report", r"\[evaluate\] done"),
)
"""The stages that are stopped, once the log shows this."""


def test_a_run_that_is_stopped_in_each_stage_finishes_and_pays_for_nothing_twice(
    tmp_path: Path, s3: str, start_teacher: Any
) -> None:
    small_run.write(tmp_path)
    log = tmp_path / "served.log"
    teacher = start_teacher(tmp_path / "traces.jsonl", "--latency", "1.5", "--log", str(log))
    root = Place(f"s3://bucket/stopped-{tmp_path.name}", s3)
    trained: dict[str, int] = {}
    resumed = 0
    # Else it is made before a stop comes; AWS's client gives up what is silent for three seconds.
    slow = {"8_report": 2.0}
    with BadLine(s3, slow=slow) as line, Nodes(workers=1, cpus=2) as nodes:
        # No checkpoint but those of the stops.
        settings = [*small_run.settings(tmp_path, Place(root.uri, line.url), teacher.url), "train.checkpoint_every=100"]
        arguments = small.arguments("run", settings)
        for number, (name, shown) in enumerate(STOPS):
            job = Job(nodes, f"stopped-{number}-{name}", arguments)
            job.until_shown(shown)
            if name == "report":  # it says nothing before its end
                before = line.slowed
                until(lambda before=before, job=job: line.slowed > before or job.ended(), job.log)
            job.stop()
            said = job.log()
            assert "interrupted: the next run goes on from here" in said, said[-3000:]
            folder = StageFolder(root, name)
            assert folder.manifest() is None and (folder.place / "interrupted.json").exists(), said[-3000:]
            for trained_stage in ("stage1", "stage2"):
                for went_on in re.findall(rf"{trained_stage}: goes on after step (\d+) of", said):
                    assert int(went_on) >= trained[trained_stage]
                    resumed += 1
                if numbers := re.findall(rf"stage={trained_stage} (\d+)/", said):
                    trained[trained_stage] = int(numbers[-1])
        assert resumed >= 2, "both trainings went on from where they were stopped"
        last = Job(nodes, "goes-on", arguments)
        until(last.ended, last.log)
        assert last.status() == "SUCCEEDED", last.log()[-4000:]

    made = {name: StageFolder(root, name).require() for name in STAGES}
    assert not any((StageFolder(root, name).place / "interrupted.json").exists() for name in STAGES)
    answered = Counter(json.loads(line)["request"] for line in log.read_text().splitlines())
    counted = teacher.stats()
    assert counted["requests"] == counted["answers"] == len(answered), "an answer that was paid for was not waited for"
    assert len(answered) >= 2 * len(small_run.SUMS) and set(answered.values()) == {1}, "an answer was bought twice"
    assert (
        made["distill"].requests
        < made["distill"].stored_replies + made["distill"].requests
        == made["distill"].tables["traces"]
    )
    generated = stored(root, "evaluate")
    assert max(Counter(generated).values()) == 1 and made["evaluate"].stored_replies > 0
    train = StageFolder(root, "train")
    steps = read_rows(train.table("steps"), Step)
    for name in ("stage1", "stage2"):
        every_step = list(range(len(steps) // 2))
        assert [step.step for step in steps if step.stage == name] == every_step
        shown = scalars(train.place / "tensorboard" / name)[f"{name}/loss"]  # by all jobs
        assert sorted(step for step, _ in shown) == every_step, "a step was trained twice"


def stored(root: Place, stage: str) -> list[str]:
    """The ids of the replies that a stage keeps."""
    files = (StageFolder(root, stage).place / "responses").files(".jsonl")
    return [reply.request_id for file in files for reply in read_segment(file)]
