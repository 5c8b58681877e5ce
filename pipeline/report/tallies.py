"""Scores counted, by problem: what every number of the report is made of.

In: streams of generations and scores. Out: `Asked`, what was asked and what failed, and `Tallies`, the grades of what
did not. A request that failed is counted apart and is no wrong answer; a grader's time-out is no right one. Means
and intervals are left to `results`, `votes`, `groups` and `lengths`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pipeline.errors import DataError
from pipeline.records import Convention, Curve, Generation, Score


@dataclass(frozen=True)
class Requests:
    """How many answers of a model were asked for, and how many never came."""

    model: str
    benchmark: str
    asked: int
    failed: int


class ProblemKey(NamedTuple):
    """A problem of a benchmark; two benchmarks may share one."""

    benchmark: str
    problem_id: str


class Kind(NamedTuple):
    """Where a benchmark puts a problem."""

    level: str | None
    subset: str | None


@dataclass(frozen=True)
class Asked:
    """What was asked. `failed` holds the ids of the generations that never came, `problems` every problem that was asked."""

    failed: set[str]
    requests: list[Requests]
    problems: dict[ProblemKey, Kind]


class Key(NamedTuple):
    """What one accuracy is about."""

    benchmark: str
    convention: Convention
    curve: Curve
    budget: int
    model: str

    @classmethod
    def of(cls, row: Any) -> "Key":
        """The key of a score, or of a point."""
        return cls(row.benchmark, row.convention, row.curve, row.budget, row.model)


class Length(NamedTuple):
    """An answer of natural length as the histograms see it; `tokens` is its length."""

    tokens: int
    correct: bool
    truncated: bool


@dataclass
class Tally:
    """The counts behind one accuracy. The first three are by problem; `lengths` are of the natural curve only."""

    correct: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    lengths: Counter[Length] = field(default_factory=Counter)

    def add(self, score: Score) -> None:
        """Count one grade."""
        right = score.verdict == "correct"
        self.correct[score.problem_id] += right
        self.tokens[score.problem_id] += score.tokens
        self.answers[score.problem_id] += 1
        self.kinds.update({score.verdict: 1, "truncated": score.truncated, "forced": score.forced})
        if score.curve == "natural":
            self.lengths[Length(score.tokens, right, score.truncated)] += 1

    def accuracies(self, problems: Iterable[str]) -> list[float]:
        """The share of right answers to each problem."""
        return [self.correct[p] / self.answers[p] for p in problems]

    def mean_tokens(self, problems: Iterable[str]) -> list[float]:
        """The mean length of the answers to each problem."""
        return [self.tokens[p] / self.answers[p] for p in problems]


Tallies = dict[Key, Tally]


def asked(generations: Iterable[Generation]) -> Asked:
    """What was asked of every model, in the order in which it is met."""
    failed: set[str] = set()
    problems: dict[ProblemKey, Kind] = {}
    wanted: Counter[tuple[str, str]] = Counter()
    missing: Counter[tuple[str, str]] = Counter()
    for row in generations:
        problems[ProblemKey(row.benchmark, row.problem_id)] = Kind(row.level, row.subset)
        wanted[row.model, row.benchmark] += 1
        if row.status == "failed":
            failed.add(row.generation_id)
            missing[row.model, row.benchmark] += 1
    return Asked(failed, [Requests(*key, asked=n, failed=missing[key]) for key, n in wanted.items()], problems)


def tally(scores: Iterable[Score], failed: set[str]) -> Tallies:
    """Count the grades of the requests that did not fail."""
    tallies: Tallies = defaultdict(Tally)
    for score in scores:
        if score.generation_id not in failed:
            tallies[Key.of(score)].add(score)
    if not tallies:
        raise DataError("the evaluation holds no graded answer: look at 7_evaluate/generations for the errors")
    return dict(tallies)
