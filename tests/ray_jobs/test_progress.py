"""What a long stage says of itself: to a person, to Prometheus, and in a log for machines."""

import asyncio
import json
import os
import re
import signal
import threading
import time
import urllib.request
from pathlib import Path

import pytest
import ray
import small
from ray.util.state import list_actors

from pipeline.errors import BudgetError, ConfigError
from pipeline.records import Problem, Trace
from pipeline.stage import StageFolder
from pipeline.storage import Place, read_rows
from ray_jobs import cli, hanging, worked
from ray_jobs.progress import Progress


class Spending:
    """A budget of which 50 cents are spent."""

    def __init__(self, budget_usd):
        self.budget_usd = budget_usd

    def spent_usd(self):
        return 0.5


def test_a_log_line_tells_pace_money_and_time_left(ray_cluster, monkeypatch, capsys):
    monkeypatch.setattr("ray_jobs.progress.LOG_LINE_S", 1.0)
    with Progress("distill", 200, "problems", Spending(4.0)) as progress:
        progress.reporter.add(done=50, requests=80, tokens=4000, usd=0.25, http_429=3, loss="2.31")
        time.sleep(2)
    assert progress.figures() == {"done": 50, "requests": 80, "tokens": 4000, "usd": 0.25, "http_429": 3}
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(
        r"\[distill\] 50 of 200 problems \(25%, eta 0:00:\d\d\)  [\d.]+/s  0:00:0\d  "
        r"requests=80 \([\d.]+/s\)  tokens=4,000 \([\d,.e+]+/s\)  \$0\.50 of \$4\.00, \$2\.00 in all  http_429=3  loss=2\.31",
        line,
    ), line


def test_rows_that_are_done_again_are_no_more_than_all(ray_cluster, capsys):
    with Progress("distill", 200, "problems") as progress:
        progress.reporter.add(done=250)
    assert "[distill] 200 of 200 problems (100%)" in capsys.readouterr().err.splitlines()[-1]


def test_prometheus_reads_the_same_figures(ray_cluster):
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    deadline = time.monotonic() + 60
    with Progress("verify", 30, "traces", Spending(2.5)) as progress:
        progress.reporter.add(done=20, tokens=700, answer="text is no figure")
        progress.reporter.flush()
        wanted = {
            ("total", "done", 20.0),
            ("now", "done", 20.0),
            ("total", "tokens", 700.0),
            ("expected", "done", 30.0),
            ("expected", "usd", 2.5),
        }
        found: set[tuple[str, str, float]] = set()
        while not wanted <= found and time.monotonic() < deadline:
            time.sleep(0.5)
            with urllib.request.urlopen(url) as response:
                lines = [line for line in response.read().decode().splitlines() if 'stage="verify"' in line]
            for line in lines:
                name, figure = re.match(r"ray_longthought_(\w+)\{.*figure=\"(\w+)\"", line).groups()
                found.add((name, figure, float(line.rsplit(" ", 1)[1])))
    assert wanted <= found and "answer" not in {figure for _, figure, _ in found}


@pytest.mark.parametrize(
    ("mistake", "text"),
    [
        (ConfigError("set price"), "^set price$"),
        (BudgetError("the budget is reached"), r"^20 of 30 traces are done: the budget is reached$"),
    ],
)
def test_a_workers_mistake_is_the_drivers(ray_cluster, mistake, text):
    with pytest.raises(type(mistake), match=text), Progress("verify", 30, "traces") as progress:
        progress.reporter.add(done=20)
        with pytest.raises(type(mistake)), progress.reporter.telling():
            raise mistake


def test_the_dashboard_asks_for_metrics_that_there_are(ray_cluster):
    """But for those of GPUs and of served models, which Ray exports where there are some."""
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    panels = json.loads((small.REPO / "configs/grafana.json").read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    asked = {name for text in expressions for name in re.findall(r"\bray_(?!node_gpu|serve)\w+", text)}
    assert len(asked) >= 8
    there: set[str] = set()
    deadline = time.monotonic() + 60
    with Progress("distill", 30, "problems", Spending(2.5)) as progress:
        progress.reporter.add(done=20, requests=20)
        progress.reporter.flush()
        while not asked <= there and time.monotonic() < deadline:
            time.sleep(1)
            with urllib.request.urlopen(url) as response:
                there |= set(re.findall(r"^(ray_\w+)\{", response.read().decode(), re.MULTILINE))
    assert asked <= there, asked - there
    figures = {name for text in expressions for name in re.findall(r'figure="(\w+)"', text)}
    assert figures <= {"done", "requests", "usd"}


def test_what_is_tried_again_and_given_up_is_in_the_nodes_log_with_run_stage_and_row(ray_cluster, sums, start_teacher):
    teacher = start_teacher(sums / "traces.jsonl", "--fault", "503=0.2", "--fault", "drop=0.1")
    root = str(sums / "run")
    settings = [*small.overrides(sums, root, teacher.url), "teacher.max_attempts=2"]
    for stage in ("curate", "distill"):
        cli.main(small.arguments(stage, settings))
    path = Path(ray._private.worker._global_node.get_logs_dir_path()) / "longthought.jsonl"
    lines = [line for line in map(json.loads, path.read_text().splitlines()) if line.get("run") == root]
    assert [line["event"] for line in lines if line["stage"] == "curate"] == ["begins", "complete"]
    of_distill = [line for line in lines if line["stage"] == "distill"]
    problems = {row.problem_id for row in read_rows(StageFolder(Place(root), "curate").table("problems"), Problem)}
    traces = read_rows(StageFolder(Place(root), "distill").table("traces"), Trace)
    failed = sorted(trace.problem_id for trace in traces if trace.status == "failed")
    assert failed == sorted(line["row"] for line in of_distill if line["event"] == "given up")
    again = [line for line in of_distill if line["event"] == "asked again"]
    assert len(again) > len(failed) and {line["row"] for line in again} <= problems
    assert {line["process"] for line in again} != {os.getpid()}
    assert of_distill[-1]["event"] == "complete" and of_distill[-1]["rows_in"] == len(problems)


def test_an_actor_that_hangs_is_ended_and_its_rows_are_done_by_the_next(ray_cluster, sums, start_teacher, monkeypatch):
    monkeypatch.setattr(hanging, "BEAT_S", 0.5)
    monkeypatch.setattr(hanging, "HUNG_S", 3.0)
    teacher = start_teacher(sums / "traces.jsonl", "--latency", "1")
    settings = [*small.overrides(sums, str(sums / "run"), teacher.url), "teacher.max_in_flight=4"]
    cli.main(small.arguments("curate", settings))
    stopped: list[int] = []

    def stop() -> None:
        while teacher.stats()["answers"] < 10:
            time.sleep(0.1)
        (actor,) = [
            each
            for each in list_actors(filters=[("state", "=", "ALIVE")], detail=True, address=address)
            if "Distill" in each.class_name
        ]
        os.kill(actor.pid, signal.SIGSTOP)
        stopped.append(actor.pid)

    address = ray.get_runtime_context().gcs_address
    thread = threading.Thread(target=stop)
    thread.start()
    cli.main(small.arguments("distill", [*settings, "distill.actors=1"]))
    thread.join()
    made = StageFolder(Place(str(sums / "run")), "distill").require()
    assert stopped and made.lost == {"actors": 1} and made.rows_out == len(small.SUMS)


def test_an_actor_whose_event_loop_is_blocked_is_ended_and_one_that_waits_in_it_is_not(
    ray_cluster, tmp_path, monkeypatch
):
    monkeypatch.setattr(hanging, "BEAT_S", 0.5)
    monkeypatch.setattr(hanging, "HUNG_S", 3.0)

    @ray.remote(num_cpus=0, max_restarts=1, max_task_retries=1)
    class Worker:
        def __init__(self, reporter):
            with reporter.joins():
                self._reporter = reporter

        async def work(self, blocked_once):
            self._reporter.works_in(asyncio.get_running_loop())
            if not blocked_once.exists():
                blocked_once.touch()
                time.sleep(120)  # not awaited
            await asyncio.sleep(6)
            return os.getpid()

    worked.begin()
    with Progress("distill", 2, "problems") as progress:
        first, second = Worker.remote(progress.reporter), Worker.remote(progress.reporter)
        (tmp_path / "waits").touch()
        ray.get([first.work.remote(tmp_path / "blocks"), second.work.remote(tmp_path / "waits")], timeout=60)
    figures = worked.figures()
    assert list(figures["ray_actors"].values()) == [2] and figures["lost"] == {"actors": 1}
