"""The page: nothing from outside, nothing hostile alive, no secrets; and the Markdown beside it."""

import re
from pathlib import Path

import pytest
import synthetic_run as made

from pipeline.config import Config
from pipeline.records import Step
from pipeline.report import curves
from pipeline.stage import StageFolder, root_of
from ray_jobs import report

HOSTILE = '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=2"><!-- {{ 7*7 }} | `x` "\''


def hostile_run(root: Path) -> Config:
    """A run whose every free text attacks the page."""
    config = made.config(root, title=HOSTILE, notes=[HOSTILE])
    rows = [
        made.generation(m, "arithmetic", p, HOSTILE, problem=HOSTILE, answer=HOSTILE, generation_id=f"{m}{p}")
        for m in ("base", HOSTILE)
        for p in range(3)
    ]
    grades = [
        made.score(row, 256, "correct" if row.model != "base" else "incorrect", 9, extracted=HOSTILE) for row in rows
    ]
    made.write_evaluation(config, rows, grades)
    report.run(config)
    return config


def written(config: Config, name: str) -> str:
    return (StageFolder(root_of(config), "report").place / name).read().decode()


@pytest.fixture
def demo(tmp_path: Path) -> Config:
    config = made.config(tmp_path, notes=["The traces are generated."])
    made.demo(config, problems=30)
    report.run(config)
    return config


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    page = written(hostile_run(tmp_path), "index.html")
    assert page.count("<script") == 2, "the data and the page's own script"
    assert page.count("</script>") == 2
    assert "<img" not in page
    assert "<!--" not in page
    assert "&lt;/script&gt;&lt;script&gt;window.hacked=1" in page
    assert r"\u003c/script\u003e" in page


def test_hostile_text_is_no_markup_in_markdown(tmp_path: Path) -> None:
    text = written(hostile_run(tmp_path), "report.md")
    assert not re.search(r"(?<!\\)<", text)
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables if "256" in line} == {10}


def test_the_page_loads_nothing(demo: Config) -> None:
    page = written(demo, "index.html")
    assert not re.search(r"""(src|href|action|data)\s*=\s*["']?\s*(https?:)?//""", page)
    assert not re.search(r"url\(|@import|@font-face", page)
    assert set(re.findall(r'href="([^"]*)"', page)) <= {"data:,"} | {f"#{i}" for i in re.findall(r'id="(\w+)"', page)}
    assert "default-src 'none'" in page


def test_the_page_says_what_was_rejected_and_why(demo: Config) -> None:
    page = written(demo, "index.html")
    for text in (
        "The traces are generated.",
        "duplicate",
        "contaminated",
        "wrong answer",
        "too long",
        "RayTrainWorker",
    ):
        assert text in page
    assert re.search(r"<b>940</b> in .*<b>770</b> out, <b>170</b> rejected", page)


def test_long_training_is_thinned_and_keeps_its_means() -> None:
    steps = [
        Step("stage1", i, float(i), 1.0, 1e-4, 10, 5, 0.5, 1.0, None, 1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        for i in range(1, 2001)
    ]
    (curve,) = curves.curves(reversed(steps))
    assert len(curve.steps) == curves.MAX_POINTS
    assert (curve.steps[0], curve.loss[0]) == (5, 3.0)
    assert (curve.total_steps, curve.first_loss, curve.last_loss) == (2000, 1.0, 1900.5)
    assert (curve.tokens, curve.target_tokens, curve.seconds) == (20_000, 10_000, 1000.0)
