"""Scores counted: the accuracy of each model at each budget, and models compared problem by problem.

In: streams of generations and scores. Out: `Results`. A request that failed is counted apart and is no
wrong answer; a grader's time-out is no right one. Intervals and tests are left to `pipeline.statistics`.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pipeline import statistics
from pipeline.config import Evaluate
from pipeline.errors import DataError
from pipeline.records import Convention, Curve, Generation, Score

STUDENTS = ("base", "stage1", "stage2")
"""Models of the run itself come first, in the order in which they are trained."""


@dataclass(frozen=True)
class Point:
    """One model at one budget. `accuracy` and `tokens` are means over `n` problems, with 95% intervals; the
    rates are shares of the `answers`; `failed` requests are in none of them."""

    benchmark: str
    convention: Convention
    curve: Curve
    budget: int
    model: str
    n: int
    answers: int
    failed: int
    accuracy: float
    low: float
    high: float
    tokens: float
    tokens_low: float
    tokens_high: float
    truncated: float
    forced: float
    unparsable: float
    timeout: float


@dataclass(frozen=True)
class Comparison:
    """`after` against `before` at the same budget, over the problems both have answered. `difference`, `low`
    and `high` are shares, not points; `gains` and `losses` count problems."""

    benchmark: str
    convention: Convention
    curve: Curve
    budget: int
    before: str
    after: str
    n: int
    accuracy_before: float
    accuracy_after: float
    tokens_before: float
    tokens_after: float
    difference: float
    low: float
    high: float
    gains: int
    losses: int
    p_value: float
    significant: bool


@dataclass(frozen=True)
class Requests:
    """How many answers of a model were asked for, and how many never came."""

    model: str
    benchmark: str
    asked: int
    failed: int


@dataclass(frozen=True)
class Results:
    """All numbers of an evaluation. The first benchmark, convention and curve are the headline's."""

    models: list[str]
    benchmarks: list[str]
    conventions: list[Convention]
    curves: list[Curve]
    points: list[Point]
    comparisons: list[Comparison]
    requests: list[Requests]

    def view(self, benchmark: str, convention: str, model: str | None = None) -> list[Point]:
        """The points to show: every budget of the budget-forced curve, and the natural length as it is
        without any cut but the last."""
        found = [p for p in self.points if p.benchmark == benchmark and p.convention == convention]
        last = max((p.budget for p in found if p.curve == "natural"), default=0)
        shown = (p for p in found if p.curve != "natural" or p.budget == last)
        return [p for p in shown if model in (None, p.model)]

    def compared(self, benchmark: str, convention: str) -> list[Comparison]:
        """The comparisons to show beside `view`."""
        return [c for c in self.comparisons if c.benchmark == benchmark and c.convention == convention]

    def headline(self, convention: str | None = None) -> list[Point]:
        """Every model at the headline's largest budget."""
        found = [
            p for p in self.view(self.benchmarks[0], convention or self.conventions[0]) if p.curve == self.curves[0]
        ]
        largest = max((p.budget for p in found), default=0)
        return [p for p in found if p.budget == largest]

    def headline_comparisons(self, convention: str | None = None) -> list[Comparison]:
        """The models compared at the headline's largest budget."""
        points = self.headline(convention)
        compared = self.compared(self.benchmarks[0], convention or self.conventions[0])
        return [c for c in compared if points and (c.curve, c.budget) == (self.curves[0], points[0].budget)]


class Key(NamedTuple):
    """What one accuracy is about."""

    benchmark: str
    convention: Convention
    curve: Curve
    budget: int
    model: str


@dataclass
class Tally:
    """The counts behind one accuracy; lists and counts are by problem."""

    correct: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, score: Score) -> None:
        """Count one grade."""
        self.correct[score.problem_id] += score.verdict == "correct"
        self.tokens[score.problem_id] += score.tokens
        self.answers[score.problem_id] += 1
        self.kinds.update({score.verdict: 1, "truncated": score.truncated, "forced": score.forced})

    def accuracies(self, problems: Iterable[str]) -> list[float]:
        """The share of right answers to each problem."""
        return [self.correct[p] / self.answers[p] for p in problems]

    def mean_tokens(self, problems: Iterable[str]) -> list[float]:
        """The mean length of the answers to each problem."""
        return [self.tokens[p] / self.answers[p] for p in problems]


Tallies = dict[Key, Tally]


def failed_requests(generations: Iterable[Generation]) -> tuple[set[str], list[Requests]]:
    """The ids of the generations that never came, and the counts by model and benchmark."""
    failed: set[str] = set()
    asked: Counter[tuple[str, str]] = Counter()
    missing: Counter[tuple[str, str]] = Counter()
    for row in generations:
        asked[row.model, row.benchmark] += 1
        if row.status == "failed":
            failed.add(row.generation_id)
            missing[row.model, row.benchmark] += 1
    return failed, [Requests(*key, asked=n, failed=missing[key]) for key, n in asked.items()]


def tally(scores: Iterable[Score], failed: set[str]) -> Tallies:
    """Count the grades of the requests that did not fail."""
    tallies: Tallies = defaultdict(Tally)
    for score in scores:
        if score.generation_id not in failed:
            key = Key(score.benchmark, score.convention, score.curve, score.budget, score.model)
            tallies[key].add(score)
    if not tallies:
        raise DataError("the evaluation holds no graded answer: look at 7_evaluate/generations for the errors")
    return dict(tallies)


def results(tallies: Tallies, requests: Sequence[Requests], settings: Evaluate) -> Results:
    """Every accuracy and every comparison, in the order in which they are shown."""
    models = _order((r.model for r in requests), STUDENTS)
    benchmarks = _order((key.benchmark for key in tallies), [b.name for b in settings.benchmarks])
    conventions = _order((key.convention for key in tallies), settings.conventions)
    curves = _order((key.curve for key in tallies), ("budget_forced", "natural"))
    failed = {(r.model, r.benchmark): r.failed for r in requests}
    keys = sorted(
        tallies,
        key=lambda k: (
            benchmarks.index(k.benchmark),
            conventions.index(k.convention),
            models.index(k.model),
            curves.index(k.curve),
            k.budget,
        ),
    )
    return Results(
        models=[m for m in models if any(key.model == m for key in keys)],
        benchmarks=benchmarks,
        conventions=conventions,
        curves=curves,
        points=[_point(key, tallies[key], failed[key.model, key.benchmark]) for key in keys],
        comparisons=list(_comparisons(keys, tallies)),
        requests=sorted(requests, key=lambda r: (models.index(r.model), r.benchmark)),
    )


def _order(found: Iterable[Any], first: Sequence[Any]) -> list[Any]:
    """The distinct values: those of `first` in its order, then the others as they were met."""
    distinct = list(dict.fromkeys(found))
    return [v for v in first if v in distinct] + [v for v in distinct if v not in first]


def _point(key: Key, tally: Tally, failed: int) -> Point:
    answers = tally.answers.total()
    accuracy = statistics.accuracy(tally.accuracies(tally.answers))
    tokens = statistics.mean(tally.mean_tokens(tally.answers))
    return Point(
        **key._asdict(),
        n=len(tally.answers),
        answers=answers,
        failed=failed,
        accuracy=accuracy.value,
        low=accuracy.low,
        high=accuracy.high,
        tokens=tokens.value,
        tokens_low=tokens.low,
        tokens_high=tokens.high,
        truncated=tally.kinds["truncated"] / answers,
        forced=tally.kinds["forced"] / answers,
        unparsable=tally.kinds["unparsable"] / answers,
        timeout=tally.kinds["timeout"] / answers,
    )


def _comparisons(keys: list[Key], tallies: Tallies) -> Iterator[Comparison]:
    """Every pair of models, the later one against the earlier, wherever both have a point to show."""
    natural = max((key.budget for key in keys if key.curve == "natural"), default=0)
    shown = [key for key in keys if key.curve != "natural" or key.budget == natural]
    for first, second in itertools.combinations(shown, 2):
        if first.model != second.model and first[:4] == second[:4]:
            both = sorted(tallies[first].answers.keys() & tallies[second].answers.keys())
            if both:
                yield _comparison(first, second, tallies, both)


def _comparison(first: Key, second: Key, tallies: Tallies, problems: list[str]) -> Comparison:
    before, after = tallies[first], tallies[second]
    paired = statistics.paired(before.accuracies(problems), after.accuracies(problems))
    return Comparison(
        benchmark=first.benchmark,
        convention=first.convention,
        curve=first.curve,
        budget=first.budget,
        before=first.model,
        after=second.model,
        n=paired.n,
        accuracy_before=statistics.mean(before.accuracies(problems)).value,
        accuracy_after=statistics.mean(after.accuracies(problems)).value,
        tokens_before=statistics.mean(before.mean_tokens(problems)).value,
        tokens_after=statistics.mean(after.mean_tokens(problems)).value,
        difference=paired.difference.value,
        low=paired.difference.low,
        high=paired.difference.high,
        gains=paired.gains,
        losses=paired.losses,
        p_value=paired.p_value,
        significant=paired.significant,
    )
