"""What the models answered to chosen problems, with what the grader made of it.

In: the chosen problems and streams of generations and scores. Out: an `Entry` for each problem. An answer is shown and
graded as it was written, at natural length; of several samples the first that did not fail is shown.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from pipeline import prompts
from pipeline.records import Generation, Score, VerdictName
from pipeline.report.results import Results
from pipeline.report.tallies import Key, ProblemKey, Tallies, Tally

MAX_CHARS = 4_000
"""Longest thought, and longest answer, on the page; the middle of a longer one is left out, and the page says so.
A response then costs at most some 8 kB of the page, and one of a long thought and a short answer 5 kB."""


@dataclass(frozen=True)
class Answer:
    """One model's answer: the first of `samples` to the problem, of which so many are `correct`."""

    model: str
    thought: str | None
    response: str
    verdict: VerdictName
    extracted: str | None
    tokens: int
    truncated: bool
    samples: int
    correct: int


@dataclass(frozen=True)
class Entry:
    """A problem and what each model answered."""

    benchmark: str
    problem_id: str
    problem: str
    gold: str
    level: str | None
    subset: str | None
    answers: list[Answer]


def collect(
    chosen: Collection[ProblemKey],
    results: Results,
    tallies: Tallies,
    scores: Iterable[Score],
    generations: Iterable[Generation],
) -> dict[ProblemKey, Entry]:
    """The answers to the chosen problems, in the order in which these are given; graded by the first convention.

    `scores` are those of requests that did not fail.
    """
    grades = _first_grades(chosen, results, scores)
    entries: dict[ProblemKey, Entry] = {}
    for row in generations:
        if grade := grades.get(row.generation_id):
            problem = ProblemKey(row.benchmark, row.problem_id)
            entry = Entry(*problem, row.problem, row.answer, row.level, row.subset, [])
            entries.setdefault(problem, entry).answers.append(_answer(row, grade, tallies[Key.of(grade)]))
    for entry in entries.values():
        entry.answers.sort(key=lambda answer: results.models.index(answer.model))
    return {problem: entries[problem] for problem in chosen if problem in entries}


def _first_grades(chosen: Collection[ProblemKey], results: Results, scores: Iterable[Score]) -> dict[str, Score]:
    """The grade of each model's first answer to each chosen problem, by the id of the generation."""
    convention = results.conventions[0]
    shown = {Key.of(point) for benchmark in results.benchmarks for point in results.as_written(benchmark, convention)}
    wanted = set(chosen)
    first: dict[tuple[ProblemKey, str], Score] = {}
    for score in scores:
        problem = ProblemKey(score.benchmark, score.problem_id)
        if problem in wanted and Key.of(score) in shown:
            held = first.setdefault((problem, score.model), score)
            if score.sample_index < held.sample_index:
                first[problem, score.model] = score
    return {score.generation_id: score for score in first.values()}


def _answer(row: Generation, grade: Score, tally: Tally) -> Answer:
    thought, response = prompts.split_thought(row.response)
    return Answer(
        model=row.model,
        thought=_clipped(thought) if thought else None,
        response=_clipped(response),
        verdict=grade.verdict,
        extracted=None if grade.extracted is None else _clipped(grade.extracted),
        tokens=grade.tokens,
        truncated=grade.truncated,
        samples=tally.answers[row.problem_id],
        correct=tally.correct[row.problem_id],
    )


def _clipped(text: str) -> str:
    if len(text) <= MAX_CHARS:
        return text
    half = MAX_CHARS // 2
    return f"{text[:half]}\n\n[… {len(text) - 2 * half:,} characters left out …]\n\n{text[-half:]}"
