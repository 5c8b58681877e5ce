"""Statistics against closed forms and published values, and the coverage that the intervals promise."""

import math
import random
from statistics import fmean

import pytest

from pipeline import statistics


def binomial(n: int, k: int, p: float) -> float:
    return math.exp(
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p)
    )


# Newcombe 1998, Statistics in Medicine 17, table I, method 3 (score, no continuity correction).
@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_wilson_gives_the_published_intervals(successes: int, n: int, low: float, high: float) -> None:
    estimate = statistics.wilson(successes, n)
    assert estimate.value == successes / n
    assert (estimate.low, estimate.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@pytest.mark.parametrize("n", [30, 500])
def test_wilson_covers_the_truth_as_often_as_it_says(n: int) -> None:
    coverage = []
    for tenths in range(1, 10):
        p = tenths / 10
        held = [k for k in range(n + 1) if statistics.wilson(k, n).low <= p <= statistics.wilson(k, n).high]
        coverage.append(sum(binomial(n, k, p) for k in held))
    assert 0.93 < fmean(coverage) < 0.97


def test_an_accuracy_of_one_answer_a_problem_is_wilsons() -> None:
    assert statistics.accuracy([1.0] * 12 + [0.0] * 18) == statistics.wilson(12, 30)


def test_equal_answers_to_the_same_problem_are_no_more_evidence() -> None:
    once = statistics.accuracy([1.0, 0.0] * 15)
    eight_times_the_same = statistics.accuracy([8 / 8, 0 / 8] * 15)
    independent = statistics.accuracy([0.5, 0.625, 0.375, 0.5, 0.5] * 6)
    assert eight_times_the_same == once
    assert independent.high - independent.low < (once.high - once.low) / 2


def test_clustered_intervals_cover_the_truth() -> None:
    chance, held, runs = random.Random(0), 0, 400
    for _ in range(runs):
        skills = [chance.betavariate(1, 1.5) for _ in range(60)]  # mean 0.4, and problems differ much
        answers = [sum(chance.random() < p for _ in range(4)) / 4 for p in skills]
        estimate = statistics.accuracy(answers)
        held += estimate.low <= 0.4 <= estimate.high
    assert 0.92 < held / runs < 0.98


@pytest.mark.parametrize(
    ("n", "quantile"), [(2, 12.7062), (3, 4.30265), (4, 3.18245), (6, 2.57058), (30, 2.04523), (1000, 1.96234)]
)
def test_a_mean_has_students_interval(n: int, quantile: float) -> None:
    values = [float(i) for i in range(n)]
    spread = math.sqrt(sum((v - fmean(values)) ** 2 for v in values) / (n - 1) / n)
    estimate = statistics.mean(values)
    assert estimate.value == fmean(values)
    assert estimate.high - estimate.value == pytest.approx(quantile * spread, rel=2e-3)


def test_one_value_is_its_own_mean_without_width() -> None:
    assert statistics.mean([7.0]) == statistics.Estimate(7.0, 7.0, 7.0)


# Two-sided binomial tails, by hand: 2 * (C(n,0) + ... + C(n,k)) / 2^n.
@pytest.mark.parametrize(
    ("gains", "losses", "p"),
    [(0, 0, 1.0), (1, 1, 1.0), (5, 0, 2 / 32), (0, 5, 2 / 32), (9, 1, 22 / 1024), (10, 2, 2 * (1 + 12 + 66) / 4096)],
)
def test_mcnemar_is_exact(gains: int, losses: int, p: float) -> None:
    assert statistics.mcnemar(gains, losses) == pytest.approx(p, rel=1e-12)


def test_mcnemar_does_not_overflow_on_thousands_of_problems() -> None:
    assert statistics.mcnemar(3000, 2000) < 1e-40
    assert statistics.mcnemar(2500, 2500) == 1.0


def test_a_paired_comparison_counts_the_problems_that_changed() -> None:
    before = [0.0] * 60 + [1.0] * 40
    after = [1.0] * 30 + [0.0] * 30 + [1.0] * 35 + [0.0] * 5
    found = statistics.paired(before, after)
    assert (found.n, found.gains, found.losses) == (100, 30, 5)
    assert found.difference.value == pytest.approx(0.25)
    assert found.p_value == statistics.mcnemar(30, 5)
    # The normal interval of a mean of 30 ones, 5 minus ones and 65 zeros.
    half = 1.96 * math.sqrt((0.35 - 0.25**2) / 100)
    assert found.difference.low == pytest.approx(0.25 - half, abs=0.015)
    assert found.difference.high == pytest.approx(0.25 + half, abs=0.015)
    assert found.significant


def test_no_change_is_not_significant() -> None:
    found = statistics.paired([1.0, 0.0] * 20, [0.0, 1.0] * 20)
    assert found.difference.low < 0 < found.difference.high
    assert not found.significant
    assert not statistics.paired([1.0] * 9, [1.0] * 9).significant


def test_the_bootstrap_repeats_with_its_seed_and_covers_the_truth() -> None:
    values = [0.0, 0.25, 1.0, -0.5] * 10
    assert statistics.bootstrap(values, seed=4) == statistics.bootstrap(values, seed=4)
    chance, held, runs = random.Random(5), 0, 200
    for _ in range(runs):
        low, high = statistics.bootstrap([float(chance.choice((-1, 0, 0, 1, 1))) for _ in range(80)])
        held += low <= 0.2 <= high
    assert 0.90 < held / runs < 0.99


def test_nothing_has_no_statistics() -> None:
    with pytest.raises(ValueError, match="at least one"):
        statistics.wilson(0, 0)
    with pytest.raises(ValueError, match="at least one"):
        statistics.mean([])
    with pytest.raises(ValueError, match="every problem"):
        statistics.paired([1.0], [])
