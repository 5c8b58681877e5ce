"""Answers to show, before and after training.

In: the tallies and streams of generations and scores. Out: a few `Sample`s: problems where the first model
is wrong and the last one right, and one where the last one fails. They are the first in the order of their
ids: chosen for what they are, and not for how they look.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from pipeline import prompts
from pipeline.records import Generation, Score, VerdictName
from pipeline.report.results import Key, Results, Tallies

MAX_CHARS = 6_000
"""Longest text of an answer on the page; the middle of a longer one is left out, and the page says so."""


@dataclass(frozen=True)
class Answer:
    """One model's answer. `forced`: it was cut at the budget and asked for its final answer."""

    model: str
    thought: str | None
    response: str
    verdict: VerdictName
    extracted: str | None
    tokens: int
    truncated: bool
    forced: bool


@dataclass(frozen=True)
class Sample:
    """A problem and what each model answered at the headline's largest budget."""

    kind: Literal["gained", "missed"]
    benchmark: str
    problem_id: str
    problem: str
    gold: str
    budget: int
    answers: list[Answer]


def choose(tallies: Tallies, results: Results, count: int) -> dict[str, Literal["gained", "missed"]]:
    """Problem ids: at most `count` gained ones, and one that was missed; right and wrong in every sample."""
    points = results.headline()
    keys = [Key(p.benchmark, p.convention, p.curve, p.budget, p.model) for p in points]
    first, last = tallies[keys[0]], tallies[keys[-1]]
    both = sorted(first.answers.keys() & last.answers.keys())
    wrong_before = {p for p in both if len(keys) == 1 or not first.correct[p]}
    gained = [p for p in both if p in wrong_before and last.correct[p] == last.answers[p]]
    missed = [p for p in both if not last.correct[p]]
    return {**dict.fromkeys(gained[:count], "gained"), **dict.fromkeys(missed[:1], "missed")}


def collect(
    chosen: dict[str, Literal["gained", "missed"]],
    results: Results,
    generations: Callable[[], Iterable[Generation]],
    scores: Callable[[], Iterable[Score]],
) -> list[Sample]:
    """Read the chosen problems' answers; of several samples the first that did not fail."""
    points = results.headline()
    benchmark, budget = points[0].benchmark, points[0].budget
    found: dict[tuple[str, str], Generation] = {}
    for row in generations():
        if row.benchmark == benchmark and row.problem_id in chosen and row.status != "failed":
            held = found.get((row.problem_id, row.model))
            if held is None or row.sample_index < held.sample_index:
                found[row.problem_id, row.model] = row
    shown = {row.generation_id for row in found.values()}
    headline = (benchmark, points[0].convention, points[0].curve, budget)
    grades = {
        score.generation_id: score
        for score in scores()
        if score.generation_id in shown and (score.benchmark, score.convention, score.curve, score.budget) == headline
    }
    return [
        Sample(kind, benchmark, problem_id, rows[0].problem, rows[0].answer, budget, list(_answers(rows, grades)))
        for problem_id, kind in chosen.items()
        if (rows := [found[problem_id, m] for m in results.models if (problem_id, m) in found])
    ]


def _answers(rows: Iterable[Generation], grades: dict[str, Score]) -> Iterator[Answer]:
    for row in rows:
        grade = grades.get(row.generation_id)
        if grade is None:
            continue
        thought, response = prompts.split_thought(row.response)
        yield Answer(
            model=row.model,
            thought=_clipped(thought) if thought else None,
            response=_clipped(response),
            verdict=grade.verdict,
            extracted=grade.extracted,
            tokens=grade.tokens,
            truncated=grade.truncated,
            forced=grade.forced,
        )


def _clipped(text: str) -> str:
    if len(text) <= MAX_CHARS:
        return text
    half = MAX_CHARS // 2
    return f"{text[:half]}\n\n[… {len(text) - 2 * half} characters left out …]\n\n{text[-half:]}"
