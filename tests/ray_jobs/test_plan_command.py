"""`longthought plan` reads what there is: problem files, tables, recordings; it starts nothing, and asks nobody."""

import socket
from pathlib import Path
from typing import Any

import pytest
import small
from local_servers import Teacher

from pipeline.config import Config
from pipeline.plan.estimate import exactly
from pipeline.plan.run import Need, Run
from pipeline.records import Example, Message, Problem, Trace, problem_id
from pipeline.stage import StageRun
from pipeline.storage import write_rows
from ray_jobs import cli, plan, rehearsal
from ray_jobs.known import Told, endpoints

CONFIGS = sorted(str(path) for path in (small.REPO / "configs").glob("*.yaml"))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection to another machine, nor to this one."""

    def refused(self: socket.socket, address: Any) -> None:
        raise AssertionError(f"a connection to {address}")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.chdir(small.REPO)


def config(sums: Path, *more: str, replay: bool = True) -> Config:
    settings = small.overrides(sums, str(sums / "run"), "http://127.0.0.1:1/v1")
    recorded = [f"{name}.replay={sums / 'traces.jsonl'}" for name in ("teacher", "rewriter")] if replay else []
    return small.config([*settings, *recorded, *more])


def needs(config: Config, told: Told | None = None) -> dict[str, Need]:
    return {need.stage: need for need in planned(config, told).needs}


def planned(config: Config, told: Told | None = None) -> Run:
    made, _, _ = plan.of_config(config, None, told or Told(), probed=False)
    return made


def complete(config: Config, stage: str, inputs: tuple[str, ...] = (), **tables: tuple[type, list[Any]]) -> None:
    """Make a stage's tables and manifest as its job does."""
    run = StageRun(config, stage, inputs=inputs)
    made = {name: write_rows(run.folder.table(name), record, rows) for name, (record, rows) in tables.items()}
    run.finish(rows_in=0, rows_out=0, tables=made)


def problems(count: int) -> list[Problem]:
    texts = [f"What is {n} + {n}?" for n in range(count)]
    return [
        Problem(problem_id(text), text, str(2 * n), "integer", f"{n} + {n} = {2 * n}", "sums", "MIT", None)
        for n, text in enumerate(texts)
    ]


@pytest.mark.parametrize("file", CONFIGS, ids=[Path(file).stem for file in CONFIGS])
def test_every_shipped_config_is_planned_without_a_network(file, offline, capsys):
    cli.main(["plan", "--config", file])
    said = capsys.readouterr().out
    assert all(f"\n{stage} " in said for stage in ("reformat", "distill", "verify", "train", "evaluate"))
    assert "\nbottleneck: " in said and "decided by" in said


def test_a_million_problems_are_planned_with_every_figure(offline, capsys):
    flags = ["--problems", "1000000", "--tokens", "9000", "--right", "0.8"]
    flags += ["--set", "distill.keep=8", "--set", "distill.max_samples=8"]
    flags += ["--set", "teacher.limits.tokens_per_minute=1000000"]
    cli.main(["plan", "--config", "configs/paper_72b.yaml", *flags])
    lines = capsys.readouterr().out.splitlines()
    distill = [line.split() for line in lines if line.startswith("distill")]
    assert "8,000,000" in distill[0] and "72" in distill[0]
    assert any(
        line.startswith("bottleneck: distill, ") and line.endswith("teacher.limits.tokens_per_minute") for line in lines
    )
    assert "- 1,000,000 problems: --problems" in lines


def test_what_recordings_tell_is_exact_from_the_problem_files_on(offline, sums):
    stages = needs(config(sums))
    assert stages["reformat"].asked.requests == exactly(64 + 16)  # the first answer to every fourth sum is wrong
    assert stages["distill"].asked.requests == exactly(64 + 16)
    assert stages["verify"].rows == exactly(80)
    assert stages["train"].asked.prompt.exact and stages["train"].rows == exactly(64 + 64)


def test_without_recordings_the_requests_are_a_range_over_the_problems_that_are_counted(offline, sums):
    stages = needs(config(sums, replay=False))
    assert stages["reformat"].rows == exactly(64)
    assert (stages["reformat"].asked.requests.low, stages["reformat"].asked.requests.high) == (64, 128)
    assert (stages["distill"].asked.requests.low, stages["distill"].asked.requests.high) == (64, 192)


def test_the_tables_of_a_complete_stage_take_the_place_of_its_inputs(offline, sums):
    settings = config(sums, "distill.max_samples=1", replay=False)
    complete(settings, "curate", problems=(Problem, problems(10)))
    (sums / "problems.jsonl").unlink()  # not even looked at
    stages = needs(settings)
    assert "curate" not in stages
    assert stages["distill"].asked.requests == exactly(10)  # no answer can change it


def test_examples_that_exist_are_counted_by_the_students_tokenizer(offline, sums):
    settings = config(sums, replay=False)
    told = problems(10)
    complete(settings, "curate", problems=(Problem, told))
    said = [Message("user", "What is 1 + 1?"), Message("assistant", "It is \\boxed{2}.")]
    examples = [Example(f"{n}", "stage1", "p", "t", said) for n in range(120)]
    complete(settings, "reformat", ("curate",), examples=(Example, examples), traces=(Trace, []))
    made = planned(settings)
    from pipeline.train import model
    from pipeline.train.conversations import tokenize

    tokenizer = model.load_tokenizer(model.find(settings.train.model))
    length = len(tokenize(examples[0], tokenizer).ids)
    assert made.training[0].tokens == 96 * length  # train.stage1.max_examples


def test_what_the_user_says_takes_the_place_of_what_could_be_counted(offline, sums):
    stages = needs(config(sums), Told(problems=1000, tokens=500, right=1.0, examples=20))
    assert stages["distill"].asked.requests.likely == 1000
    assert stages["distill"].asked.completion.likely == 500_000
    assert stages["train"].rows == exactly(20 + 20)


def test_a_probe_that_finds_nobody_says_so_and_the_plan_goes_on(sums, capsys):
    """Without GPUs, and with endpoints that do not answer."""
    settings = [
        "teacher.unreachable_s=0.5",
        "rewriter.unreachable_s=0.5",
        "train.worker_gpus=1",
        "train.accelerator_type=H100",
    ]
    made, _, said = plan.of_config(config(sums, *settings, replay=False), None, Told(), probed=True)
    assert any(line.startswith("teacher: not measured: ") for line in said)
    assert any(line.startswith("not measured: train asks for 2 GPUs") for line in said)
    assert made.needs[2].time is not None


def test_the_probe_asks_the_endpoints_themselves(sums, start_teacher):
    from ray_jobs import probe

    teacher: Teacher = start_teacher(sums / "traces.jsonl", "--latency", "0.2")
    settings = [f"{name}.base_url={teacher.url}" for name in ("teacher", "rewriter")]
    told = config(sums, *settings, replay=False)
    asked = endpoints(told, done=())
    token_s, said = probe._answers(told, rehearsal_problems(told), asked)
    assert set(token_s) == {"teacher", "rewriter"} and all("measured" in line for line in said)
    assert 0.2 / 100 < token_s["teacher"].likely < 0.2 / 5
    assert set(endpoints(told, done={"curate", "distill"})) == {"rewriter"}, "what is done is not asked any more"


def rehearsal_problems(config: Config) -> list[Problem]:
    from pipeline.sources import files_of

    files = [(0, file) for file in files_of(config.curate.sources[0], None)]
    return rehearsal.curated(config, files, [])[:4]
