"""Models compared where both spend the same number of tokens: as far to the right as both of their curves reach.

In: `Results`, `Tallies` and votes. Out: `EqualTokens`, for the budget-forced curves and, where there are votes, for those
of natural length, which go on with them (paper, section 3.2). How a place between two points is read is left to
`pipeline.statistics.paired_at`.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline import statistics
from pipeline.records import Convention, Curve, Vote
from pipeline.report.results import Results
from pipeline.report.tallies import Key, Tallies
from pipeline.statistics import CurvePoint

OneProblem = tuple[float, float]
"""The accuracy on a problem, and the tokens spent on it."""


@dataclass(frozen=True)
class EqualTokens:
    """`after` against `before` where each spends `tokens` on average over the same `n` problems, on one kind of curve.

    `difference`, `low` and `high` are shares, not points.
    """

    benchmark: str
    convention: Convention
    curve: Curve
    before: str
    after: str
    tokens: float
    n: int
    accuracy_before: float
    accuracy_after: float
    difference: float
    low: float
    high: float
    p_value: float
    significant: bool


def equal_tokens(results: Results, tallies: Tallies, votes: Sequence[Sequence[Vote]]) -> list[EqualTokens]:
    """Every pair of models whose curves overlap. `votes` are those of `votes.voting`: a sequence for each model and k."""
    return [
        found
        for benchmark in results.benchmarks
        for convention in results.conventions
        for curve in results.curves
        for before, after in itertools.combinations(results.models, 2)
        for found in _compared(
            (benchmark, convention, curve),
            {
                model: _points(results, tallies, votes, (benchmark, convention, curve), model)
                for model in (before, after)
            },
        )
    ]


def _points(
    results: Results,
    tallies: Tallies,
    votes: Sequence[Sequence[Vote]],
    where: tuple[str, Convention, Curve],
    model: str,
) -> Sequence[Mapping[str, OneProblem]]:
    """The points of a model's curve, by problem."""
    benchmark, convention, curve = where
    shown = [Key.of(p) for p in results.view(benchmark, convention, model) if p.curve == curve]
    single = [
        {p: (tally.correct[p] / n, tally.tokens[p] / n) for p, n in tally.answers.items()}
        for tally in (tallies[key] for key in shown)
    ]
    if curve == "budget_forced":
        return single
    voted = [
        {vote.problem_id: (vote.majority, vote.tokens) for vote in of_k}
        for of_k in votes
        if (of_k[0].benchmark, of_k[0].convention, of_k[0].model) == (benchmark, convention, model) and of_k[0].k > 1
    ]
    return [*single, *voted]


def _compared(
    where: tuple[str, Convention, Curve], curves: Mapping[str, Sequence[Mapping[str, OneProblem]]]
) -> Iterator[EqualTokens]:
    (before, first), (after, second) = curves.items()
    both = sorted(set.intersection(*(set(point) for point in (*first, *second)))) if first and second else []
    if not both:
        return
    points_before, points_after = ([_point(point, both) for point in curve] for curve in (first, second))
    shared = statistics.shared_tokens(points_before, points_after)
    if shared is None:
        return
    tokens = shared[1]
    paired = statistics.paired_at(tokens, points_before, points_after)
    yield EqualTokens(
        *where,
        before=before,
        after=after,
        tokens=tokens,
        n=paired.n,
        accuracy_before=float(statistics.at(tokens, points_before)[0].mean()),
        accuracy_after=float(statistics.at(tokens, points_after)[0].mean()),
        difference=paired.difference.value,
        low=paired.difference.low,
        high=paired.difference.high,
        p_value=paired.p_value,
        significant=paired.significant,
    )


def _point(point: Mapping[str, OneProblem], problems: Sequence[str]) -> CurvePoint:
    accuracies, tokens = zip(*(point[problem] for problem in problems), strict=True)
    return CurvePoint(accuracies, tokens)
