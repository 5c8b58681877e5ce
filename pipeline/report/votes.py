"""Voting: what k answers of natural length come to together, over all problems (paper, section 3.2).

In: `Vote`s, one for each problem and k. Out: `VotePoint`s. On a chart they go on from the natural length, which is one
vote, and never from a budget-forced point: a vote is over answers that ended by themselves.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline import statistics
from pipeline.records import Convention, Vote

ENOUGH = 0.9
"""The share of the problems that must have k answers. Where a request failed one has fewer, and a vote over the problems that
never fail would be about easier ones."""


@dataclass(frozen=True)
class VotePoint:
    """A model's votes of `k` answers, as means over `n` problems with 95% intervals.

    `accuracy` is the share of problems whose majority is right (maj@k), `passed` that of those where any of the k is
    (pass@k), `tokens` what all k cost together; `answers` counts the answers that the votes are taken of.
    """

    benchmark: str
    convention: Convention
    model: str
    k: int
    n: int
    answers: int
    accuracy: float
    low: float
    high: float
    passed: float
    passed_low: float
    passed_high: float
    tokens: float
    tokens_low: float
    tokens_high: float


def voting(votes: Iterable[Vote]) -> list[list[Vote]]:
    """The votes that count: for each benchmark, convention and model and each k, rising, one of each problem.

    A model's are about the same problems at every k: those that have each k which enough problems have. There are none
    where no two answers can vote.
    """
    by_model: dict[tuple[str, Convention, str], dict[str, dict[int, Vote]]] = defaultdict(lambda: defaultdict(dict))
    for vote in votes:
        by_model[vote.benchmark, vote.convention, vote.model][vote.problem_id][vote.k] = vote
    return [of_k for _, problems in sorted(by_model.items()) for of_k in _by_k(list(problems.values()))]


def _by_k(problems: Sequence[dict[int, Vote]]) -> list[list[Vote]]:
    having = Counter(k for of_one in problems for k in of_one)
    shown = sorted(k for k, n in having.items() if n >= ENOUGH * len(problems))
    kept = [of_one for of_one in problems if of_one.keys() >= set(shown)]
    return [[of_one[k] for of_one in kept] for k in shown] if max(shown) > 1 else []


def vote_point(votes: Sequence[Vote]) -> VotePoint:
    """The means over the problems of one model's votes of k."""
    first = votes[0]
    majority = statistics.accuracy([vote.majority for vote in votes])
    passed = statistics.accuracy([vote.passed for vote in votes])
    tokens = statistics.mean([vote.tokens for vote in votes])
    return VotePoint(
        benchmark=first.benchmark,
        convention=first.convention,
        model=first.model,
        k=first.k,
        n=len(votes),
        answers=sum(vote.n for vote in votes),
        accuracy=majority.value,
        low=majority.low,
        high=majority.high,
        passed=passed.value,
        passed_low=passed.low,
        passed_high=passed.high,
        tokens=tokens.value,
        tokens_low=tokens.low,
        tokens_high=tokens.high,
    )
