"""The accuracy of each model at each budget, and models compared problem by problem.

In: `Tallies`, what was asked, and the votes. Out: `Results`. Intervals and tests are left to `pipeline.statistics`.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import statistics
from pipeline.config import Evaluate
from pipeline.records import Convention, Curve
from pipeline.report.tallies import Key, Requests, Tallies, Tally
from pipeline.report.votes import VotePoint

STUDENTS = ("base", "stage1", "stage2_alone", "stage2")
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
class Results:
    """All numbers of an evaluation. The first benchmark, convention and curve are the headline's."""

    models: list[str]
    benchmarks: list[str]
    conventions: list[Convention]
    curves: list[Curve]
    points: list[Point]
    comparisons: list[Comparison]
    requests: list[Requests]
    votes: list[VotePoint]

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

    def natural(self, benchmark: str, convention: str) -> list[Point]:
        """Every model at its natural length."""
        return [p for p in self.view(benchmark, convention) if p.curve == "natural"]

    def largest(self, benchmark: str, convention: str) -> list[Point]:
        """Every model at the largest budget of the headline's curve."""
        found = [p for p in self.view(benchmark, convention) if p.curve == self.curves[0]]
        largest = max((p.budget for p in found), default=0)
        return [p for p in found if p.budget == largest]

    def as_written(self, benchmark: str, convention: str) -> list[Point]:
        """Every model where its answers are graded as they were written: at natural length, if it was scored."""
        return self.natural(benchmark, convention) or self.largest(benchmark, convention)

    def headline(self, convention: str | None = None) -> list[Point]:
        """Every model at the headline's largest budget."""
        return self.largest(self.benchmarks[0], convention or self.conventions[0])

    def compared_at_largest(self, benchmark: str, convention: str) -> list[Comparison]:
        """The models compared where `largest` has them."""
        points = self.largest(benchmark, convention)
        compared = self.compared(benchmark, convention)
        return [c for c in compared if points and (c.curve, c.budget) == (self.curves[0], points[0].budget)]

    def headline_comparisons(self, convention: str | None = None) -> list[Comparison]:
        """The models compared at the headline's largest budget."""
        return self.compared_at_largest(self.benchmarks[0], convention or self.conventions[0])

    def voted(self, benchmark: str, convention: str) -> list[VotePoint]:
        """The votes to show beside `view`, by model and rising k."""
        return [v for v in self.votes if v.benchmark == benchmark and v.convention == convention]


def results(tallies: Tallies, requests: Sequence[Requests], votes: Sequence[VotePoint], settings: Evaluate) -> Results:
    """Every accuracy, comparison and vote, in the order in which they are shown."""
    models = _order((r.model for r in requests), STUDENTS)
    benchmarks = _order((key.benchmark for key in tallies), [b.name for b in settings.benchmarks])
    conventions = _order((key.convention for key in tallies), settings.conventions)
    curves = _order((key.curve for key in tallies), ("budget_forced", "natural"))
    asked = {(r.model, r.benchmark): r.asked for r in requests}
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
    answered = [model for model in models if any(key.model == model for key in keys)]
    return Results(
        models=answered,
        benchmarks=benchmarks,
        conventions=conventions,
        curves=curves,
        points=[_point(key, tallies[key], asked[key.model, key.benchmark]) for key in keys],
        comparisons=list(_comparisons(keys, tallies)),
        requests=sorted(requests, key=lambda r: (models.index(r.model), r.benchmark)),
        votes=sorted((v for v in votes if v.model in answered), key=lambda v: (answered.index(v.model), v.k)),
    )


def _order(found: Iterable[Any], first: Sequence[Any]) -> list[Any]:
    """The distinct values: those of `first` in its order, then the others as they were met."""
    distinct = list(dict.fromkeys(found))
    return [v for v in first if v in distinct] + [v for v in distinct if v not in first]


def _point(key: Key, tally: Tally, asked: int) -> Point:
    answers = tally.answers.total()
    accuracy = statistics.accuracy(tally.accuracies(tally.answers))
    tokens = statistics.mean(tally.mean_tokens(tally.answers))
    return Point(
        **key._asdict(),
        n=len(tally.answers),
        answers=answers,
        failed=asked - answers,
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
