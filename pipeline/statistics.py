"""Numbers with their uncertainty: proportions, means, and two models compared over the same problems.

In: one value per problem (an accuracy between 0 and 1 where several answers were sampled, a token count).
Out: `Estimate`s with a 95% interval, and `Paired` comparisons. Which rows count is left to the caller.

The problem is the unit everywhere: several answers to one problem are no independent evidence, so they
are averaged first and the spread between problems is what widens an interval.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, variance

import numpy as np

CONFIDENCE = 0.95
Z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
RESAMPLES = 10_000
"""Of the bootstrap: the ends of its interval then move by about a tenth of a point between seeds."""


@dataclass(frozen=True)
class Estimate:
    """A value and its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Paired:
    """`after` minus `before` over the same `n` problems. `gains` and `losses` count the problems where it is
    better and worse; `p_value` is the exact one of McNemar's test."""

    n: int
    difference: Estimate
    gains: int
    losses: int
    p_value: float

    @property
    def significant(self) -> bool:
        """Both the test and the interval exclude "no difference"."""
        excludes_zero = self.difference.low > 0 or self.difference.high < 0
        return excludes_zero and self.p_value < 1 - CONFIDENCE


def wilson(successes: float, n: float) -> Estimate:
    """A proportion with Wilson's score interval (Wilson 1927), which stays honest near 0 and 1 and at small `n`.

    Raises ValueError where `n` is not positive: no trials, no proportion.
    """
    if n <= 0:
        raise ValueError(f"a proportion of {n} trials: give at least one")
    p = successes / n
    centre = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
    # At p = 0 and p = 1 the end is exact; the subtraction would leave 1e-17.
    return Estimate(p, 0.0 if p == 0 else max(0.0, centre - half), 1.0 if p == 1 else min(1.0, centre + half))


def accuracy(per_problem: Sequence[float]) -> Estimate:
    """The mean of per-problem accuracies with a Wilson interval that knows about the clusters.

    With one answer a problem it is Wilson's interval. With several, `n` is replaced by the number of
    independent answers that would spread as much (Korn and Graubard 1998): never fewer than the problems,
    and exactly them where all problems agree, where the data say nothing about the spread.
    """
    n = len(per_problem)
    p = fmean(per_problem) if n else 0.0
    effective = float(n)
    if n > 1 and 0 < p < 1:
        spread = variance(per_problem) * (n - 1) / n
        if spread > 0:
            effective = max(effective, n * p * (1 - p) / spread)
    return wilson(p * effective, effective)


def mean(values: Sequence[float]) -> Estimate:
    """A mean with Student's interval; one value alone gets no width."""
    n = len(values)
    if n == 0:
        raise ValueError("the mean of no values: give at least one")
    centre = fmean(values)
    half = _student_quantile(n - 1) * math.sqrt(variance(values) / n) if n > 1 else 0.0
    return Estimate(centre, centre - half, centre + half)


def _student_quantile(freedom: int) -> float:
    """The 97.5% quantile of Student's t: exact for 1 and 2, else its expansion about the normal one
    (Abramowitz and Stegun 26.7.5), within 0.3% from 3 degrees of freedom on."""
    if freedom == 1:
        return math.tan(math.pi * CONFIDENCE / 2)
    if freedom == 2:
        return CONFIDENCE * math.sqrt(2 / (1 - CONFIDENCE**2))
    z, v = Z, freedom
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * v**4)
    )


def paired(before: Sequence[float], after: Sequence[float], seed: int = 0) -> Paired:
    """Compare two models problem by problem: `before[i]` and `after[i]` are accuracies on the same problem.

    The interval is the percentile bootstrap over problems. With several answers a problem the p-value is
    the exact sign test on per-problem means, of which McNemar's is the case of one answer.
    """
    if len(before) != len(after) or not before:
        raise ValueError(f"{len(before)} and {len(after)} values: give one of each model for every problem")
    differences = [b - a for a, b in zip(before, after, strict=True)]
    gains, losses = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    low, high = bootstrap(differences, seed)
    return Paired(
        n=len(differences),
        difference=Estimate(fmean(differences), low, high),
        gains=gains,
        losses=losses,
        p_value=mcnemar(gains, losses),
    )


def bootstrap(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """The ends of the percentile bootstrap's 95% interval of the mean.

    Drawing n of n values with replacement is drawing how often each distinct one comes: a multinomial of
    three outcomes where the values are -1, 0 and 1, whatever n is.
    """
    distinct, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    n = len(values)
    draws = np.random.default_rng(seed).multinomial(n, counts / n, size=RESAMPLES)
    means = draws @ distinct / n
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def mcnemar(gains: int, losses: int) -> float:
    """McNemar's exact two-sided p-value: were the discordant problems tosses of a fair coin?"""
    n = gains + losses
    tail = sum(math.comb(n, k) for k in range(min(gains, losses) + 1))
    return float(min(1.0, 2 * tail / 2**n))
