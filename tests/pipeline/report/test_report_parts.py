"""Votes, ablation, Pareto front, the paper's table, levels, lengths and the answers to browse are those counted by hand."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import synthetic_run as made

from pipeline import statistics
from pipeline.config import Config
from pipeline.records import Generation, Score, Vote
from pipeline.report import pareto, render
from pipeline.report.answers import MAX_CHARS
from pipeline.report.basis import basis
from pipeline.report.reference import TABLE_1, paper_table
from pipeline.report.results import Results
from pipeline.report.summary import Summary, summarize
from pipeline.report.tables import RunTables
from pipeline.report.terminal import WIDTH, results_table
from pipeline.report.votes import voting
from pipeline.stage import StageFolder, root_of
from ray_jobs import report

NATURAL = {"curve": "natural"}


def summary_of(config: Config) -> Summary:
    return summarize(config, RunTables(root_of(config)))


def written(config: Config, name: str) -> str:
    return (StageFolder(root_of(config), "report").place / name).read().decode()


def answered(
    root: Path, right: dict[str, Iterable[int]], problems: int = 10, benchmark: str = "arithmetic", **settings: Any
) -> Config:
    """Each model answers the problems that are named, at natural length; its tokens are 100 and the problem's number."""
    config = made.config(root, {"benchmarks": [{"name": benchmark, "path": "b.jsonl"}]}, **settings)
    rows = [made.generation(model, benchmark, n, f"{model} on {n}") for model in right for n in range(problems)]
    made.write_evaluation(config, rows, [_graded(row, right[row.model]) for row in rows])
    return config


def _graded(row: Generation, right: Iterable[int]) -> Score:
    number = int(row.problem_id[1:])
    return made.score(row, 256, "correct" if number in right else "incorrect", 100 + number, **NATURAL)


# --- votes ----------------------------------------------------------------------------------------


def voted(root: Path) -> Config:
    """Two problems, four answers to each: of the first three are right, of the second one."""
    config = made.config(root, {"samples": 4, "temperature": 0.7})
    rows = [made.generation("base", "arithmetic", p, "…", sample_index=s) for p in range(2) for s in range(4)]
    verdicts = ["correct"] * 3 + ["incorrect"] + ["correct"] + ["incorrect"] * 3
    scores = [made.score(row, 256, verdict, 10, **NATURAL) for row, verdict in zip(rows, verdicts, strict=True)]
    votes = [
        Vote("base", "arithmetic", f"p{p:03d}", "final_answer", k, 4, majority, passed, 10.0 * k)
        for k, majorities, passes in ((2, (0.75, 0.25), (1.0, 0.5)), (4, (1.0, 0.0), (1.0, 1.0)))
        for p, (majority, passed) in enumerate(zip(majorities, passes, strict=True))
    ]
    made.write_evaluation(config, rows, scores, votes)
    return config


def test_votes_are_averaged_over_problems_with_the_intervals_of_accuracies(tmp_path: Path) -> None:
    two, four = summary_of(voted(tmp_path)).results.votes
    assert (two.k, two.n, two.answers, two.accuracy, two.passed, two.tokens) == (2, 2, 8, 0.5, 0.75, 20)
    assert (two.low, two.high) == (statistics.accuracy([0.75, 0.25]).low, statistics.accuracy([0.75, 0.25]).high)
    assert two.passed_low == statistics.accuracy([1.0, 0.5]).low
    assert (four.k, four.accuracy, four.passed, four.tokens) == (4, 0.5, 1.0, 40)


def test_votes_are_told_everywhere_and_never_as_a_point_of_another_curve(tmp_path: Path) -> None:
    config = voted(tmp_path)
    report.run(config)
    assert {p["curve"] for p in json.loads(written(config, "report.json"))["results"]["points"]} == {"natural"}
    table = results_table(report.results(config))
    assert [line.split()[:3] for line in table.splitlines() if line.startswith(" Base")][1:] == [
        ["Base", "2", "50.0"],
        ["Base", "4", "50.0"],
    ]
    assert max(map(len, table.splitlines())) <= WIDTH
    assert "| Base | 4 | 50.0% [" in written(config, "report.md")
    assert "By majority of 4 answers of natural length base is right on 50% [" in written(config, "index.html")


def test_votes_of_one_model_are_about_the_same_problems_and_not_about_those_that_never_fail() -> None:
    def vote(problem: int, k: int, n: int) -> Vote:
        return Vote("base", "arithmetic", f"p{problem:03d}", "final_answer", k, n, 0.5, 0.5, 9.0)

    one_failed = [vote(p, k, n) for p in range(20) for n in (7 if p == 0 else 8,) for k in (1, 2, 4, n)]
    assert [(of_k[0].k, len(of_k)) for of_k in voting(one_failed)] == [(1, 19), (2, 19), (4, 19), (8, 19)]
    many_failed = [vote(p, k, n) for p in range(20) for n in (7 if p < 9 else 8,) for k in (1, 2, 4, n)]
    assert [(of_k[0].k, len(of_k)) for of_k in voting(many_failed)] == [(1, 20), (2, 20), (4, 20)]
    assert voting(vote(p, 1, 1) for p in range(20)) == [], "one answer is no vote"


def test_without_votes_nothing_is_said_of_them(tmp_path: Path) -> None:
    config = answered(tmp_path, {"base": range(5)})
    report.run(config)
    assert summary_of(config).results.votes == []
    assert 'id="votes"' not in written(config, "index.html")
    assert "maj@k" not in written(config, "report.md")


# --- ablation and Pareto front --------------------------------------------------------------------


def test_each_pair_of_stages_is_compared_and_what_is_not_significant_is_said(tmp_path: Path) -> None:
    right = {
        "base": range(2),
        "stage1": range(18),
        "stage2_alone": range(19),
        "stage2": range(30),
        "o1-mini": range(30),
    }
    config = answered(tmp_path, right, problems=30)
    report.run(config)
    page, text = written(config, "index.html"), written(config, "report.md")
    ablated = page[page.index('id="ablation"') : page.index('id="equal"')]
    assert ablated.count("<tr>") == 1 + 6
    assert "The difference between stage 2 alone and stage 1 is not significant (n = 30, p = 1.00)." in ablated
    assert "What does stage 1 add before stage 2?" in ablated
    assert "o1-mini" not in ablated[: ablated.index('class="fine"')]
    assert "| What do both stages add? | Base → Stage 2 | +93.3 [" in text
    assert "Stage 2 is better than base." in text
    line = next(
        line for line in results_table(report.results(config)).splitlines() if "Stage 1 → Stage 2 alone" in line
    )
    assert line.split()[-3:] == ["1.00", "30", "no"]


def test_the_pareto_front_holds_what_no_other_point_beats(tmp_path: Path) -> None:
    results = summary_of(answered(tmp_path, {"base": range(4), "stage1": range(7), "stage2": range(6)})).results
    cheap, good, beaten = results.points
    assert pareto.front([beaten, good, cheap]) == [good], "all cost the same"
    dear = results.points[1].__class__(**{**vars(good), "model": "stage2", "tokens": 900.0, "accuracy": 0.8})
    assert pareto.front([dear, beaten, good]) == [good, dear]
    assert [pareto.name(p) for p in pareto.front([dear, good])] == [
        "Stage 1 at natural length",
        "Stage 2 at natural length",
    ]


def test_models_are_compared_where_both_spend_as_much(tmp_path: Path) -> None:
    config = made.config(tmp_path)
    rows, scores = [], []
    for model, by_budget in (("base", ((10, 1), (30, 2))), ("stage2", ((20, 2), (40, 6)))):
        for n in range(8):
            rows.append(made.generation(model, "arithmetic", n, "…"))
            for budget, (tokens, right) in zip((64, 256), by_budget, strict=True):
                scores.append(made.score(rows[-1], budget, "correct" if n < right else "incorrect", tokens))
    made.write_evaluation(config, rows, scores)
    (found,) = summary_of(config).equal_tokens
    assert (found.curve, found.before, found.after, found.tokens, found.n) == ("budget_forced", "base", "stage2", 30, 8)
    assert (found.accuracy_before, found.accuracy_after) == (2 / 8, 4 / 8), "half-way between 2 and 6 of 8"
    assert found.difference == 0.25
    report.run(config)
    assert 'id="equal"' in written(config, "index.html")
    assert "| arithmetic | final_answer | Base → Stage 2 | budget-forced | 30 | 25.0% → 50.0% |" in written(
        config, "report.md"
    )


def test_votes_go_on_from_the_natural_length_where_models_are_compared_at_equal_tokens(tmp_path: Path) -> None:
    config = made.config(tmp_path)
    rows = [made.generation(model, "arithmetic", n, "…") for model in ("base", "stage2") for n in range(4)]
    natural = {"base": ("incorrect", 10), "stage2": ("correct", 30)}
    scores = [made.score(row, 256, *natural[row.model], **NATURAL) for row in rows]
    votes = [
        Vote("base", "arithmetic", f"p{n:03d}", "final_answer", k, 4, majority, majority, 10.0 * k)
        for n in range(4)
        for k, majority in ((1, 0.0), (2, 0.5), (4, 1.0))
    ]
    made.write_evaluation(config, rows, scores, votes)
    (found,) = summary_of(config).equal_tokens
    assert (found.curve, found.tokens, found.n) == ("natural", 30, 4)
    assert (found.accuracy_before, found.accuracy_after) == (0.75, 1.0), "half-way between 2 and 4 votes"


def test_curves_that_do_not_overlap_are_not_compared_at_equal_tokens(tmp_path: Path) -> None:
    config = made.config(tmp_path)
    rows = [made.generation(model, "arithmetic", n, "…") for model in ("base", "stage2") for n in range(4)]
    tokens = {"base": 10, "stage2": 50}
    made.write_evaluation(config, rows, [made.score(row, 256, "correct", tokens[row.model], **NATURAL) for row in rows])
    report.run(config)
    assert summary_of(config).equal_tokens == []
    assert 'id="equal"' not in written(config, "index.html")


# --- the paper ------------------------------------------------------------------------------------


def test_the_papers_table_stands_beside_ours_where_its_benchmark_was_evaluated(tmp_path: Path) -> None:
    config = answered(tmp_path / "aime", {"base": range(3), "stage2": range(12)}, 30, "aime2024")
    paper = paper_table(summary_of(config).results, "final_answer")
    assert paper
    assert paper.benchmarks == ["aime2024"]
    cells = [(row.model, round(30 * row.cells[0].accuracy), row.cells[0].tokens) for row in paper.rows if row.cells[0]]
    theirs = [("o1-preview", 12, 9083), ("o1-mini", 21, 9903), ("Paper, 72B", 13, 8016)]
    assert cells == [*theirs, ("Base", 3, 114.5), ("Stage 2", 12, 114.5)]
    assert (TABLE_1[0].low, TABLE_1[0].high) == (statistics.wilson(12, 30).low, statistics.wilson(12, 30).high)
    report.run(config)
    assert "| o1-mini (paper) | 70.0% [" in written(config, "report.md")
    assert 'class="paper"' in written(config, "index.html")
    assert paper_table(summary_of(answered(tmp_path / "other", {"base": range(3)})).results, "final_answer") is None


def test_only_answers_of_natural_length_come_beside_the_papers(tmp_path: Path) -> None:
    config = made.config(tmp_path, {"benchmarks": [{"name": "math500", "path": "m.jsonl"}]})
    rows = [made.generation("base", "math500", n, "…") for n in range(4)]
    made.write_evaluation(config, rows, [made.score(row, 256, "correct", 9) for row in rows])
    paper = paper_table(summary_of(config).results, "final_answer")
    assert paper
    assert [row.model for row in paper.rows] == ["o1-preview", "o1-mini", "Paper, 72B"]


# --- levels and lengths ---------------------------------------------------------------------------


def test_levels_and_subjects_are_counted_apart(tmp_path: Path) -> None:
    by_level, by_subset = summary_of(answered(tmp_path, {"base": (0, 5, 6), "stage1": range(10)})).groupings
    assert (by_level.by, [(group.name, group.n) for group in by_level.groups]) == (
        "level",
        [(str(i), 2) for i in range(1, 6)],
    )
    first = by_level.groups[0].rates
    assert [(rate.model, rate.n, rate.accuracy) for rate in first] == [("base", 2, 1.0), ("stage1", 2, 1.0)]
    assert (first[0].low, first[0].high) == (statistics.wilson(2, 2).low, 1.0)
    assert by_level.groups[1].rates[0].accuracy == 0.5
    assert [(group.name, group.n) for group in by_subset.groups] == [("algebra", 5), ("geometry", 5)]


def test_levels_are_in_their_natural_order_and_few_ones_are_left_out(tmp_path: Path) -> None:
    config = made.config(tmp_path)
    levels = [
        "Level 10",
        "Level 2",
        None,
        *(f"Level {n}" for n in range(20, 60)),
        *(f"Level {n}" for n in range(20, 41)),
    ]
    rows = [made.generation("base", "arithmetic", n, "…", level=level, subset=None) for n, level in enumerate(levels)]
    made.write_evaluation(config, [*rows], [_graded(row, ()) for row in rows])
    (grouping,) = summary_of(config).groupings
    names = [group.name for group in grouping.groups]
    assert names == ["Level 2", "Level 10", *(f"Level {n}" for n in range(20, 41)), "not told"]
    assert grouping.left_out == 43 - len(names)


def test_without_levels_and_subjects_there_is_no_such_section(tmp_path: Path) -> None:
    config = made.config(tmp_path)
    rows = [made.generation("base", "arithmetic", n, "…", level=None, subset="all") for n in range(4)]
    made.write_evaluation(config, rows, [_graded(row, ()) for row in rows])
    report.run(config)
    assert 'id="groups"' not in written(config, "index.html")


def test_lengths_of_right_and_wrong_answers_are_apart_and_truncated_ones_marked(tmp_path: Path) -> None:
    config = made.config(tmp_path)
    rows = [made.generation("base", "arithmetic", n, "…") for n in range(6)]
    ended = [("correct", 10, False), ("correct", 30, False), ("incorrect", 40, False)]
    given = [*ended, ("unparsable", 900, True), ("timeout", 900, True), ("correct", 900, True)]
    scores = [
        made.score(row, 900, verdict, tokens, truncated=cut, **NATURAL)
        for row, (verdict, tokens, cut) in zip(rows, given, strict=True)
    ]
    made.write_evaluation(config, rows, scores)
    (histogram,) = summary_of(config).lengths
    right, wrong = histogram.models[0].right, histogram.models[0].wrong
    assert (right.answers, sum(right.ended), sum(right.cut)) == (3, 2, 1)
    assert (wrong.answers, sum(wrong.ended), sum(wrong.cut)) == (3, 1, 2)
    assert (right.median, wrong.median) == (30, 900)
    assert histogram.logarithmic
    assert histogram.edges[0] <= 10 < 900 < histogram.edges[-1]
    assert (right.ended[0], right.cut[-1], wrong.cut[-1]) == (1, 1, 2)
    assert len(right.ended) == len(wrong.cut) == len(histogram.edges) - 1


# --- the answers ----------------------------------------------------------------------------------


def test_at_most_so_many_problems_are_browsed_at_equal_steps_of_all(tmp_path: Path) -> None:
    config = answered(tmp_path, {"base": range(5), "stage2": range(9)}, browse=4)
    found = summary_of(config).browse
    assert (found.problems, [entry.problem_id for entry in found.entries]) == (10, ["p000", "p002", "p005", "p007"])
    assert [(a.model, a.verdict, a.response) for a in found.entries[2].answers] == [
        ("base", "incorrect", "base on 5"),
        ("stage2", "correct", "stage2 on 5"),
    ]
    report.run(config)
    assert "4 of 10 problems, at equal steps of all;" in written(config, "index.html")
    assert "browse" not in json.loads(written(config, "report.json")), "the answers are in the evaluation's tables"


def test_of_several_answers_the_first_that_did_not_fail_is_shown_with_how_many_are_right(tmp_path: Path) -> None:
    config = made.config(tmp_path)
    states = [("failed", "correct"), ("ok", "incorrect"), ("ok", "correct"), ("ok", "correct")]
    rows = [
        made.generation("base", "arithmetic", 1, f"answer {i}", sample_index=i, status=status)
        for i, (status, _) in enumerate(states)
    ]
    scores = [made.score(row, 256, state[1], 9, **NATURAL) for row, state in zip(rows, states, strict=True)]
    made.write_evaluation(config, rows, scores)
    (answer,) = summary_of(config).browse.entries[0].answers
    assert (answer.response, answer.verdict, answer.correct, answer.samples) == ("answer 1", "incorrect", 2, 3)


def test_a_long_thought_is_cut_in_its_middle_and_the_page_says_so(tmp_path: Path) -> None:
    config = made.config(tmp_path)
    row = made.generation("base", "arithmetic", 1, f"<think>\n{'a' * 9_000}{'b' * 9_000}\n</think>\n\nThe end.")
    made.write_evaluation(config, [row], [made.score(row, 256, "correct", 9, **NATURAL)])
    (answer,) = summary_of(config).browse.entries[0].answers
    assert answer.thought
    assert len(answer.thought) < MAX_CHARS + 60
    assert answer.thought[0] + answer.thought[-1] == "ab"
    assert "[… 14,000 characters left out …]" in answer.thought
    assert answer.response == "The end."


# --- what the numbers rest on ---------------------------------------------------------------------


def test_every_chart_and_table_says_what_its_numbers_rest_on(tmp_path: Path) -> None:
    config = voted(tmp_path)
    summary = summary_of(config)
    line = basis(summary.results.natural("arithmetic", "final_answer"), summary.conditions.drawn)
    assert line == (
        "At natural length, n = 2 problems, 4 answers to each, temperature 0.7, seeds 0 to 3. "
        "Truncated and unparsable: Base 0.0% and 0.0%."
    )
    report.run(config)
    assert written(config, "index.html").count(line) == 4, "below chart, votes, levels and lengths"
    assert line in written(config, "report.md")


def test_sampling_is_told_as_it_was(tmp_path: Path) -> None:
    rows = [made.generation("base", "arithmetic", n, "…") for n in range(2)]
    config = made.config(tmp_path, {"samples": 4, "temperature": 0.6})
    made.write_evaluation(config, rows, [_graded(row, ()) for row in rows])
    assert summary_of(config).conditions.drawn == "4 answers to each, temperature 0.6, seeds 0 to 3"


def test_all_numbers_survive_the_json(tmp_path: Path) -> None:
    config = voted(tmp_path)
    report.run(config)
    again = render.results_from_json(written(config, "report.json").encode())
    assert isinstance(again, Results)
    assert again == summary_of(config).results
