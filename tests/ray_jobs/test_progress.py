"""What a long stage says of itself: lines in a log, and the same figures for Prometheus."""

import json
import re
import time
import urllib.request

import pytest
import ray
import small

from pipeline.errors import BudgetError, ConfigError
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
