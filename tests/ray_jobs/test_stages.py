"""Stages 1 to 4 on a real Ray, with a real teacher over HTTP, and what happens when either fails."""

import errno
import json
import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pandas
import pytest
import small
from local_servers import Teacher

from pipeline.errors import DataError
from pipeline.records import Example, Fault, PassRate, Problem, Rejected, Trace, Verdict, to_table
from pipeline.stage import Manifest, StageFolder, root_of
from pipeline.storage import Place, read_rows
from pipeline.verify.by_id import ById
from ray_jobs import cli, tables, verify

QUIET: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

pytestmark = pytest.mark.ray

STAGES = ("curate", "reformat", "distill", "verify")


def run(stages: tuple[str, ...], settings: list[str]) -> dict[str, Manifest]:
    for stage in stages:
        cli.main(small.arguments(stage, settings))
    root = root_of(small.config(settings))
    return {stage: StageFolder(root, stage).require() for stage in stages}


def rows(settings: list[str], stage: str, table: str, record: type) -> list:
    return read_rows(StageFolder(root_of(small.config(settings)), stage).table(table), record)


def test_the_first_four_stages_account_for_every_row(ray_cluster, sums, start_teacher):
    teacher: Teacher = start_teacher(sums / "traces.jsonl")
    settings = small.overrides(sums, str(sums / "run"), teacher.url)
    made = run(STAGES, settings)

    assert made["curate"].rows_out == len(small.SUMS)
    wrong_first = len(small.SUMS) // 4
    assert made["reformat"].requests == made["distill"].requests == len(small.SUMS) + wrong_first
    assert made["verify"].rejected == {"wrong_answer": wrong_first}
    rates = Counter((rate.samples, rate.correct) for rate in rows(settings, "verify", "pass_rates", PassRate))
    assert rates == {(1, 1): len(small.SUMS) - wrong_first, (2, 1): wrong_first}
    examples = rows(settings, "verify", "examples", Example)
    problems = {problem.problem_id: problem for problem in rows(settings, "curate", "problems", Problem)}
    assert {example.problem_id for example in examples} == set(problems)
    for example in examples:
        question, answer = example.messages
        assert problems[example.problem_id].problem in question.content
        assert (
            answer.content.startswith("<think>")
            and f"\\boxed{{{problems[example.problem_id].answer}}}" in answer.content
        )
    assert any("DistillActor" in name for name in made["distill"].ray_actors)
    assert teacher.stats()["answered_again"] == 0

    for stage, table in (("curate", "problems"), ("distill", "traces"), ("verify", "examples"), ("verify", "rejected")):
        folder = sums / "run" / f"{STAGES.index(stage) + 1}_{stage}" / table
        count = made[stage].tables[table]
        assert len(pandas.read_parquet(folder)) == count
        loaded = datasets.load_dataset("parquet", data_files=f"{folder}/*.parquet", cache_dir=str(sums / "cache"))
        assert len(loaded["train"]) == count


def test_faulty_rewritings_are_kept_out_and_every_attempt_is_counted(ray_cluster, sums, start_teacher):
    """Of each eight problems one for each plan below, and the other three right at once."""
    right = "We add {a} and {b}. First the tens, then the units. Together that is {c}. The answer is \\boxed{{{c}}}."
    said = {
        "right": right,
        "wrong": right.replace("boxed{{{c}}}", "boxed{{{c}7}}"),
        "sorry": "I'm sorry, but I can't help with that.",
        "cut": right,
        "filtered": right,
        "tells": f"As stated in the solution, {right}",
        "short": "So: \\boxed{{{c}}}.",
    }
    finish = {"cut": "length", "filtered": "content_filter"}
    plans = [("wrong", "wrong"), ("sorry", "right"), ("cut", "sorry"), ("tells", "short"), ("filtered", "right")]
    plans += [("right", "wrong")] * 3
    recorded = [
        {
            "model": "rewriter",
            "problem": small.problem(a, b),
            "content": said[kind].format(a=a, b=b, c=a + b),
            "finish_reason": finish.get(kind, "stop"),
        }
        for index, (a, b) in enumerate(small.SUMS)
        for kind in plans[index % 8]
    ]
    small.write_jsonl(sums / "planted.jsonl", recorded)
    teacher: Teacher = start_teacher(sums / "planted.jsonl")
    settings = small.overrides(sums, str(sums / "run"), teacher.url)
    made = run(("curate", "reformat"), settings)["reformat"]

    eighth = len(small.SUMS) // 8
    assert made.rejected == {"refused": eighth, "too_short": eighth, "wrong_answer": eighth}
    assert made.rows_in == made.rows_out + sum(made.rejected.values()) == len(small.SUMS)
    assert made.faults == {
        "mentions_original": eighth, "refused": 3 * eighth, "too_short": eighth, "truncated": eighth,
        "wrong_answer": 2 * eighth,
    }  # fmt: skip
    assert made.requests == made.tables["traces"] == made.rows_out + sum(made.faults.values())
    answers = {
        example.trace_id: example.messages[-1].content for example in rows(settings, "reformat", "examples", Example)
    }
    assert len(answers) == 5 * eighth
    assert all(text.startswith("We add") and text.endswith("}.") for text in answers.values())
    traces = {trace.trace_id: trace for trace in rows(settings, "reformat", "traces", Trace)}
    faults = rows(settings, "reformat", "faults", Fault)
    assert {fault.trace_id for fault in faults} == set(traces) - set(answers)
    assert all(traces[fault.trace_id].problem_id == fault.problem_id for fault in faults)


def test_a_judge_reads_what_the_grader_cannot_and_both_verdicts_are_kept(ray_cluster, sums, start_teacher):
    """Every answer is in words; of every fourth the judge says that it is another number, of the next nothing clear."""
    opinions = ["SAME", "DIFFERENT", "SAME", "I cannot say"] * (len(small.SUMS) // 4)
    recorded = []
    for (a, b), opinion in zip(small.SUMS, opinions, strict=True):
        problem = small.problem(a, b)
        recorded.append({"model": "teacher", "problem": problem, "content": r"It is \boxed{that\ number^}."})
        recorded.append({"model": "judge", "problem": problem, "content": opinion})
    small.write_jsonl(sums / "words.jsonl", recorded)
    teacher: Teacher = start_teacher(sums / "words.jsonl")
    judge = {
        "endpoint": {"model": "judge", "base_url": teacher.url, "api_key_env": None, "sampling": {"max_tokens": 50}}
    }
    settings = [
        *small.overrides(sums, str(sums / "run"), teacher.url),
        "distill.max_samples=1",
        f"verify.judge={json.dumps(judge)}",
    ]
    made = run(("curate", "distill", "verify"), settings)["verify"]
    quarter = len(small.SUMS) // 4
    assert made.rows_out == 2 * quarter and made.rejected == {"no_final_answer": 2 * quarter}
    assert made.agreement == {
        "unparsable, judged correct": 2 * quarter,
        "unparsable, judged incorrect": quarter,
        "unparsable, judged unparsable": quarter,
    }
    verdicts = rows(settings, "verify", "verdicts", Verdict)
    assert Counter(verdict.grader for verdict in verdicts) == {"symbolic": 4 * quarter, "judge": 4 * quarter}
    assert {verdict.verdict for verdict in verdicts if verdict.grader == "symbolic"} == {"unparsable"}
    assert made.requests == 4 * quarter and made.completion_tokens > 0


def test_a_complete_stage_is_not_run_again(ray_cluster, sums, start_teacher, capsys):
    teacher: Teacher = start_teacher(sums / "traces.jsonl")
    settings = small.overrides(sums, str(sums / "run"), teacher.url)
    first = run(("curate", "distill"), settings)
    asked = teacher.stats()["requests"]
    assert run(("curate", "distill"), settings) == first
    assert teacher.stats()["requests"] == asked
    assert "complete already" in capsys.readouterr().out


def test_a_faulty_teacher_loses_no_problem(ray_cluster, sums, start_teacher):
    faults = [flag for fault in ("429=0.2", "500=0.05", "drop=0.03", "malformed=0.02") for flag in ("--fault", fault)]
    teacher: Teacher = start_teacher(sums / "traces.jsonl", "--retry-after", "0.1", *faults)
    settings = small.overrides(sums, str(sums / "run"), teacher.url)
    made = run(("curate", "distill"), settings)["distill"]
    assert made.rows_in == made.rows_out + sum(made.rejected.values()) == len(small.SUMS)
    assert {trace.problem_id for trace in rows(settings, "distill", "traces", Trace)} | {
        row.row_id for row in rows(settings, "distill", "rejected", Rejected)
    } == {problem.problem_id for problem in rows(settings, "curate", "problems", Problem)}
    stats = teacher.stats()
    assert {"429", "500"} <= set(stats["by_fault"]) and sum(stats["by_fault"].values()) > 5
    assert made.rows_out == len(small.SUMS), "every fault here passes when asked again"


def test_problems_the_teacher_cannot_answer_are_rejected_with_the_reason(ray_cluster, sums, start_teacher):
    small.write_traces(sums, small.SUMS[:40])
    teacher: Teacher = start_teacher(sums / "traces.jsonl")
    settings = small.overrides(sums, str(sums / "run"), teacher.url)
    made = run(("curate", "distill"), settings)["distill"]
    assert made.rejected == {"request_failed": len(small.SUMS) - 40}
    assert all("no answer is recorded" in row.detail for row in rows(settings, "distill", "rejected", Rejected))


@pytest.mark.parametrize("scheme", ["s3", pytest.param("gs", marks=pytest.mark.slow)])
def test_all_tables_may_lie_in_object_storage(ray_cluster, sums, start_teacher, s3, capsys, scheme):
    teacher: Teacher = start_teacher(sums / "traces.jsonl")
    root = f"{scheme}://bucket/stages"
    settings = [*small.overrides(sums, root, teacher.url), f"storage.endpoint={s3}"]
    made = run(STAGES, settings)
    assert made["verify"].rows_out == len(small.SUMS)
    run(STAGES, settings)
    assert teacher.stats()["answered_again"] == 0
    capsys.readouterr()
    cli.main(
        [
            "show",
            root,
            "verify",
            "rejected",
            "--n",
            "1",
            "--endpoint",
            s3,
            "--where",
            "reason=wrong_answer",
        ]
    )
    assert "wrong_answer" in capsys.readouterr().out


def distilling(sums: Path, teacher: Teacher, answers: int) -> tuple[subprocess.Popen[bytes], list[str]]:
    """A driver in the middle of `distill`, once the teacher gave so many answers; and its settings, the last two of which slow it."""
    settings = [
        *small.overrides(sums, str(sums / "run"), teacher.url), "teacher.max_in_flight=2", "distill.actors=1"
    ]  # fmt: skip
    small.run("curate", settings)
    driver = subprocess.Popen(small.command("distill", settings), cwd=small.REPO, env=small.alone(), **QUIET)
    deadline = time.monotonic() + 120
    while teacher.stats()["answers"] < answers:
        assert time.monotonic() < deadline and driver.poll() is None
        time.sleep(0.2)
    return driver, settings


@pytest.mark.slow
def test_a_killed_driver_buys_nothing_twice_that_was_durable(sums, start_teacher):
    teacher: Teacher = start_teacher(sums / "traces.jsonl", "--latency", "1")
    driver, settings = distilling(sums, teacher, 12)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    time.sleep(3)  # what the workers still do when their driver is gone

    durable = durable_requests(sums / "run/3_distill/responses")
    before = teacher.answered()
    assert 8 <= len(durable) <= len(before) < len(small.SUMS)
    small.run("distill", settings[:-2])
    after = teacher.answered()
    assert all(after[request] == before[request] for request in durable)
    assert StageFolder(root_of(small.config(settings)), "distill").require().rows_out == len(small.SUMS)


@pytest.mark.slow
def test_a_driver_that_is_asked_to_end_stores_what_is_under_way_and_pays_for_nothing_twice(sums, start_teacher):
    teacher: Teacher = start_teacher(sums / "traces.jsonl", "--latency", "1")
    driver, settings = distilling(sums, teacher, 8)
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(60) == 130
    stage = StageFolder(root_of(small.config(settings)), "distill")
    before = teacher.stats()
    assert before["in_flight"] == 0 and before["requests"] == before["answers"], "what was asked was waited for"
    assert stage.manifest() is None and (stage.place / "interrupted.json").exists()
    assert durable_requests(sums / "run/3_distill/responses") == set(answered := teacher.answered())

    small.run("distill", settings[:-2])
    assert teacher.stats()["answered_again"] == 0
    assert stage.require().stored_replies == len(answered) < len(small.SUMS)
    assert not (stage.place / "interrupted.json").exists()


def durable_requests(folder: Path) -> set[str]:
    from pipeline.responses import read_segment

    return {reply.request_id for file in Place(str(folder)).files(".jsonl") for reply in read_segment(file)}


def test_a_full_disk_of_a_worker_is_not_said_of_the_table(tmp_path):
    class Dataset:
        def write_parquet(self, path, filesystem):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/somewhere/else")

    with pytest.raises(DataError, match=r"cannot use '/somewhere/else': .*the free space"):
        tables.write_parts(Dataset(), Place(str(tmp_path / "table")))


def test_a_trace_of_a_problem_that_is_not_there_is_named():
    problem = Problem("p1", "1 + 1?", "2", "integer", None, "sums", "MIT", None)
    problems = ById(to_table(Problem, [problem]), "problem_id")
    traces = to_table(
        Trace,
        [
            Trace(f"t{name}", "r", name, 0, "distill", "", "", None, "ok", None, 1, 1, 0.0, 0.0, "m")
            for name in ("p1", "p2")
        ],
    )
    assert [known for _, known in verify._with_problems(traces.slice(0, 1), problems)] == [problem]
    with pytest.raises(DataError, match="answers the problem 'p2', which curate does not have: redo distill"):
        verify._with_problems(traces, problems)
