"""The numbers of a report are those that one counts by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
import synthetic_run as made

from pipeline import statistics
from pipeline.config import Config
from pipeline.errors import ConfigError, DataError
from pipeline.records import Generation, Score
from pipeline.report import render
from pipeline.report.results import Comparison, Point, Results
from pipeline.report.terminal import WIDTH, results_table
from pipeline.stage import StageFolder, root_of
from ray_jobs import report


def ten_problems(root: Path, **settings: Any) -> Config:
    """Base answers problem 0 of ten, stage 2 answers 0 to 5; stage 2's request for problem 9 failed."""
    config = made.config(root, **settings)
    generations: list[Generation] = []
    scores: list[Score] = []
    for model, right, tokens in (("stage2", range(6), 40), ("base", range(1), 90)):
        for problem in range(10):
            failed = model == "stage2" and problem == 9
            row = made.generation(model, "arithmetic", problem, "…", status="failed" if failed else "ok")
            generations.append(row)
            verdict = "correct" if problem in right else "unparsable" if problem == 8 else "incorrect"
            for budget in (64, 256):
                cut = model == "base" and budget == 64
                spent = min(tokens, budget) + problem
                scores.append(made.score(row, budget, verdict, spent, truncated=cut, forced=cut))
    made.write_evaluation(config, generations, scores)
    return config


def read(config: Config) -> dict[str, Any]:
    place = StageFolder(root_of(config), "report").place / "report.json"
    return json.loads(place.read())  # type: ignore[no-any-return]


@pytest.fixture
def reported(tmp_path: Path) -> Config:
    config = ten_problems(tmp_path)
    report.run(config)
    return config


def test_accuracy_tokens_and_rates_are_those_counted_by_hand(reported: Config) -> None:
    points = [Point(**p) for p in read(reported)["results"]["points"]]
    assert [(p.model, p.budget) for p in points] == [("base", 64), ("base", 256), ("stage2", 64), ("stage2", 256)]
    base = points[0]
    expected = statistics.wilson(1, 10)
    assert (base.accuracy, base.low, base.high) == (expected.value, expected.low, expected.high)
    assert (base.n, base.answers, base.failed) == (10, 10, 0)
    assert base.tokens == 64 + 4.5  # 64 to 73
    assert (base.truncated, base.forced, base.unparsable, base.timeout) == (1.0, 1.0, 0.1, 0.0)
    assert (points[1].tokens, points[1].truncated) == (90 + 4.5, 0.0)


def test_a_failed_request_is_reported_and_counts_in_no_accuracy(reported: Config) -> None:
    report_json = read(reported)
    last = Point(**report_json["results"]["points"][-1])
    assert (last.n, last.failed) == (9, 1)
    assert last.accuracy == pytest.approx(6 / 9)
    assert last.unparsable == pytest.approx(1 / 9)
    assert "1 of 20 requests failed; they count in no accuracy." in report_json["headline"]["details"]
    assert "1 of 10 requests failed" in results_table(report.results(reported))


def test_models_are_compared_over_the_problems_both_answered(reported: Config) -> None:
    found = [Comparison(**c) for c in read(reported)["results"]["comparisons"]]
    assert [(c.before, c.after, c.budget) for c in found] == [("base", "stage2", 64), ("base", "stage2", 256)]
    c = found[1]
    assert (c.n, c.gains, c.losses) == (9, 5, 0)
    assert (c.accuracy_before, c.accuracy_after) == (pytest.approx(1 / 9), pytest.approx(6 / 9))
    assert (c.tokens_before, c.tokens_after) == (94, 44)
    assert c.difference == pytest.approx(5 / 9)
    assert c.p_value == pytest.approx(2 / 32)


def test_a_difference_that_is_not_significant_is_called_so(reported: Config) -> None:
    headline = read(reported)["headline"]
    assert headline["sentence"].startswith("Stage 2 answers 67% [")
    assert (
        "of 9 problems of arithmetic cut at 256 tokens, 44 on average with forced answers; base answers 10% ["
        in headline["sentence"]
    )
    assert "+56 points" in headline["details"][0]
    assert headline["details"][0].endswith("p = 0.062: the difference is not significant.")


def test_answers_shown_are_one_gained_set_and_one_missed(tmp_path: Path) -> None:
    config = ten_problems(tmp_path, samples=2)
    report.run(config)
    shown = [
        (s["change"], s["entry"]["problem_id"], [a["model"] for a in s["entry"]["answers"]])
        for s in read(config)["samples"]
    ]
    both = ["base", "stage2"]
    assert shown == [("gained", "p001", both), ("gained", "p002", both), ("missed", "p006", both)]


def test_several_answers_to_a_problem_are_averaged_before_anything_is_counted(tmp_path: Path) -> None:
    config = made.config(tmp_path)
    rows = [made.generation("o1-mini", "arithmetic", p, "…", sample_index=s) for p in range(4) for s in range(4)]
    scores = [
        made.score(r, 256, "correct" if r.sample_index < int(r.problem_id[1:]) else "incorrect", 10) for r in rows
    ]
    made.write_evaluation(config, rows, scores)
    report.run(config)
    (point,) = read(config)["results"]["points"]
    assert (point["n"], point["answers"]) == (4, 16)
    assert point["accuracy"] == (0 + 1 / 4 + 2 / 4 + 3 / 4) / 4
    assert point["low"] == statistics.accuracy([0, 0.25, 0.5, 0.75]).low


def test_an_endpoint_evaluated_alone_gets_a_report(tmp_path: Path) -> None:
    config = made.config(tmp_path)
    rows = [made.generation("o1-mini", "arithmetic", p, "…", tokens=[]) for p in range(4)]
    made.write_evaluation(config, rows, [made.score(r, 256, "correct", 10, curve="natural") for r in rows])
    manifest = report.run(config)
    assert manifest.inputs.keys() == {"evaluate"}
    assert read(config)["headline"]["sentence"].startswith("o1-mini answers 100% [51, 100] of 4 problems")
    page = (StageFolder(root_of(config), "report").place / "index.html").read().decode()
    assert 'id="comparisons"' not in page
    assert 'id="training"' not in page


def test_a_model_whose_requests_all_failed_is_named_and_has_no_accuracy(tmp_path: Path) -> None:
    config = made.config(tmp_path)
    good = [made.generation("base", "arithmetic", p, "…") for p in range(3)]
    bad = [made.generation("stage1", "arithmetic", p, "", status="failed") for p in range(3)]
    made.write_evaluation(config, good + bad, [made.score(r, 256, "incorrect", 10) for r in good + bad])
    report.run(config)
    assert read(config)["results"]["models"] == ["base"]
    assert "Stage 1 on arithmetic: 3 of 3 requests failed" in results_table(report.results(config))


def test_an_evaluation_without_answers_is_an_error_and_no_empty_report(tmp_path: Path) -> None:
    config = made.config(tmp_path)
    made.write_evaluation(config, [made.generation("base", "arithmetic", 1, "", status="failed")], [])
    with pytest.raises(DataError, match="no graded answer"):
        report.run(config)
    assert StageFolder(root_of(config), "report").manifest() is None


def test_a_report_before_evaluation_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run `longthought evaluate` first"):
        report.run(made.config(tmp_path))


def test_a_complete_report_is_not_made_again_and_its_table_is_read_back(reported: Config) -> None:
    page = StageFolder(root_of(reported), "report").place / "index.html"
    page.write(b"kept")
    assert report.run(reported).rows_out == 40
    assert page.read() == b"kept"
    assert isinstance(report.results(reported), Results)
    with pytest.raises(ConfigError, match=r"report\.title"):
        report.run(made.config(Path(reported.storage.root), title="another"))


def test_the_table_fits_a_log_of_a_hundred_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = made.config(tmp_path)
    made.demo(config, problems=20)
    report.run(config)
    report.show(config)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= WIDTH
    rows = [line.split() for line in lines if line.strip().startswith("Stage 2")]
    assert [row[2] for row in rows[:5]] == ["32", "64", "128", "256", "natural"]
    assert all(row[-1] in ("19", "20") for row in rows), "n is not cut off"
    assert "\x1b" not in "".join(lines)


def test_results_survive_the_json(reported: Config) -> None:
    data = (StageFolder(root_of(reported), "report").place / "report.json").read()
    again = render.results_from_json(data)
    assert again.view("arithmetic", "final_answer", "base")[0].tokens == 68.5
    assert [p.model for p in again.headline()] == ["base", "stage2"]
