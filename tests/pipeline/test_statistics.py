"""Statistics against closed forms and published values, and the coverage that the intervals promise."""

import itertools
import math
from collections.abc import Callable
from statistics import fmean

import numpy as np
import pytest

from pipeline import statistics
from pipeline.statistics import CurvePoint, Estimate, Values

TENTHS = [tenths / 10 for tenths in range(1, 10)]


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
    for right in range(31):
        assert statistics.accuracy([1.0] * right + [0.0] * (30 - right)) == statistics.wilson(right, 30)


def test_equal_answers_to_the_same_problem_are_no_more_evidence() -> None:
    once = statistics.accuracy([1.0, 0.0] * 15)
    eight_times_the_same = statistics.accuracy([8 / 8, 0 / 8] * 15)
    independent = statistics.accuracy([0.5, 0.625, 0.375, 0.5, 0.5] * 6)
    assert eight_times_the_same == once
    assert independent.high - independent.low < (once.high - once.low) / 2


def coverage(interval: Callable[[np.random.Generator, float], tuple[Estimate, float]]) -> float:
    """How often the interval holds the truth, over p from 0.1 to 0.9 alike, with a standard error of 0.4 points."""
    chance = np.random.default_rng(0)
    drawn = [interval(chance, p) for p in TENTHS for _ in range(350)]
    return fmean(estimate.low <= truth <= estimate.high for estimate, truth in drawn)


def problems(chance: np.random.Generator, n: int, p: float, alike: float) -> Values:
    """The chance of a right answer to each of n problems, p on average: Beta(alike p, alike (1 - p))."""
    return chance.beta(alike * p, alike * (1 - p), n)


# One answer a problem, and several where problems are either hard or easy, differ much, or hardly differ.
CASES = [(30, 1, 1.0), (30, 4, 0.5), (30, 8, 2.0), (30, 16, 20.0), (500, 1, 1.0), (500, 8, 2.0)]


@pytest.mark.parametrize(("n", "samples", "alike"), CASES)
def test_an_accuracy_covers_the_truth_as_often_as_it_says(n: int, samples: int, alike: float) -> None:
    def interval(chance: np.random.Generator, p: float) -> tuple[Estimate, float]:
        answers = chance.binomial(samples, problems(chance, n, p, alike)) / samples
        return statistics.accuracy(answers.tolist()), p

    assert 0.93 < coverage(interval) < 0.97


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


@pytest.mark.parametrize("p", [0.02, 0.98])
def test_an_accuracy_near_0_or_1_is_not_taken_for_certain(p: float) -> None:
    chance, runs = np.random.default_rng(0), 1000
    found = [statistics.accuracy((chance.binomial(64, problems(chance, 30, p, 2)) / 64).tolist()) for _ in range(runs)]
    assert sum(each.low <= p <= each.high for each in found) / runs > 0.93


def changed(chance: np.random.Generator, n: int, samples: int, p: float, alike: float) -> tuple[Values, Values, float]:
    """Two models on the same problems: of what it got wrong the second mends a fifth, of what was right it spoils a
    twentieth, here more and there less. And how much better it truly is."""
    skill = problems(chance, n, p, alike)
    mended = problems(chance, n, 0.2, 2)
    spoiled = problems(chance, n, 0.05, 2)
    before, after = (
        chance.binomial(samples, chances) / samples for chances in (skill, skill * (1 - spoiled) + (1 - skill) * mended)
    )
    return before, after, 0.2 * (1 - p) - 0.05 * p


@pytest.mark.parametrize(("n", "samples", "alike"), CASES)
def test_a_difference_covers_the_truth_as_often_as_it_says(n: int, samples: int, alike: float) -> None:
    def interval(chance: np.random.Generator, p: float) -> tuple[Estimate, float]:
        before, after, truth = changed(chance, n, samples, p, alike)
        return statistics.difference(before, after), truth

    assert 0.93 < coverage(interval) < 0.97


def bootstrap(statistic: Callable[[Values], float], n: int, chance: np.random.Generator, resamples: int) -> Estimate:
    """The percentile bootstrap over n problems: `statistic` is given which problems are drawn."""
    drawn = [statistic(chance.integers(n, size=n)) for _ in range(resamples)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(statistic(np.arange(n)), float(low), float(high))


def test_the_percentile_bootstrap_would_say_too_much() -> None:
    def interval(chance: np.random.Generator, p: float) -> tuple[Estimate, float]:
        before, after, truth = changed(chance, 30, 1, p, 1.0)
        changes, counts = np.unique(after - before, return_counts=True)
        means = chance.multinomial(30, counts / 30, size=1000) @ changes / 30
        low, high = np.quantile(means, [0.025, 0.975])
        return Estimate(fmean(changes), float(low), float(high)), truth

    assert coverage(interval) < 0.93


def test_no_change_at_all_is_still_uncertain() -> None:
    nothing = statistics.paired([1.0] * 30, [1.0] * 30)
    # Agresti and Min's table of a half, a half and 31: a standard deviation of 1 / 32.
    assert nothing.difference == Estimate(0.0, pytest.approx(-1.96 / 32, abs=1e-5), pytest.approx(1.96 / 32, abs=1e-5))
    assert nothing.p_value == 1.0
    everything = statistics.paired([0.0] * 3, [1.0] * 3)
    assert everything.difference.value == everything.difference.high == 1.0


def test_the_permutation_test_is_mcnemars_where_there_is_one_answer_a_problem() -> None:
    differences = np.array([1.0] * 10 + [-1.0] * 2 + [0.0] * 20)
    assert statistics.permutation_test(differences) == statistics.mcnemar(10, 2)
    assert statistics.permutation_test(differences / 3) == statistics.mcnemar(10, 2)
    assert statistics.permutation_test(np.zeros(5)) == 1.0


def test_the_permutation_test_weighs_changes_by_their_size() -> None:
    differences = np.array([1.0, 0.75, 0.5, 0.5, 0.25, -0.25, -0.125, 0.0])
    signs = itertools.product((-1, 1), repeat=len(differences))
    exact = fmean(abs(np.dot(sign, differences)) >= differences.sum() for sign in signs)
    assert statistics.permutation_test(differences) == pytest.approx(exact, abs=0.01)
    assert statistics.permutation_test(differences, seed=4) == statistics.permutation_test(differences, seed=4)
    # A quarter right everywhere against all right in a quarter: means alike, though most problems are worse.
    assert statistics.permutation_test(np.array([0.75] * 25 + [-0.25] * 75)) == 1.0
    assert statistics.mcnemar(25, 75) < 1e-6


def test_equal_models_are_told_apart_as_seldom_as_the_test_says() -> None:
    chance, found, runs = np.random.default_rng(3), 0, 300
    for _ in range(runs):
        skill = problems(chance, 30, 0.4, 2)
        before, after = chance.binomial(8, skill) / 8, chance.binomial(8, skill) / 8
        found += statistics.permutation_test(after - before) < 0.05
    assert 0.03 < found / runs < 0.075


def curve(
    chance: np.random.Generator, skill: Values, length: Values, reach: list[float], cost: list[float]
) -> list[CurvePoint]:
    """A model at several budgets. At each it answers a problem right with chance skill x reach, after length x cost
    tokens, more or less; what it knows at a budget it knows at a larger one."""
    luck, pace = chance.random((4, len(skill))), chance.lognormal(-0.02, 0.2, (4, len(skill)))
    return [
        CurvePoint(
            tuple(np.mean(luck < skill * share, axis=0).tolist()), tuple(np.mean(length * pace * c, axis=0).tolist())
        )
        for share, c in zip(reach, cost, strict=True)
    ]


def two_curves(chance: np.random.Generator, n: int, p: float) -> tuple[list[CurvePoint], list[CurvePoint], float]:
    """Two models on n problems, the harder the longer, and the difference of their true curves at 600 tokens.

    The length of a problem has the mean 100 (1.5 - p) / (1.5 - p) = 100 tokens.
    """
    skill = problems(chance, n, p, 2)
    length = 100 * (1.5 - skill) / (1.5 - p) * chance.lognormal(-0.125, 0.5, n)
    before = curve(chance, skill, length, [0.2, 0.5, 0.6], [2, 4, 12])
    after = curve(chance, skill, length, [0.1, 0.4, 1.0], [1, 3, 12])
    return before, after, p * ((0.4 + 0.6 / 3) - (0.5 + 0.1 / 4))


@pytest.mark.parametrize("n", [30, 500])
def test_a_difference_at_equal_tokens_covers_the_truth_as_often_as_it_says(n: int) -> None:
    def interval(chance: np.random.Generator, p: float) -> tuple[Estimate, float]:
        before, after, truth = two_curves(chance, n, p)
        (low, low_error), (high, high_error) = statistics.at(600, before), statistics.at(600, after)
        return statistics.difference(low, high, high_error - low_error), truth

    assert 0.93 < coverage(interval) < 0.97


def test_a_comparison_at_equal_tokens_is_the_one_of_the_bootstrap_where_problems_are_many() -> None:
    chance = np.random.default_rng(8)
    before, after, _ = two_curves(chance, 500, 0.5)
    found = statistics.paired_at(600, before, after)

    def accuracy_at_600(points: list[CurvePoint], drawn: Values) -> float:
        means = [(np.mean(np.take(each.tokens, drawn)), np.mean(np.take(each.accuracies, drawn))) for each in points]
        return float(np.interp(600, *zip(*means, strict=True)))

    expected = bootstrap(
        lambda drawn: accuracy_at_600(after, drawn) - accuracy_at_600(before, drawn), 500, chance, 2000
    )
    assert found.difference.value == pytest.approx(expected.value)
    assert found.difference.low == pytest.approx(expected.low, abs=0.005)
    assert found.difference.high == pytest.approx(expected.high, abs=0.005)


def test_between_two_points_a_model_tosses_a_coin() -> None:
    cheap, dear = CurvePoint((0.0, 1.0, 0.5), (50, 100, 150)), CurvePoint((1.0, 1.0, 0.0), (300, 300, 300))
    accuracies, error = statistics.at(150, [dear, cheap])
    assert accuracies.tolist() == [0.25, 1.0, 0.375]
    assert error.tolist() == pytest.approx([(0.5 / 3) / 200 * 37.5, 0.0, -(0.5 / 3) / 200 * 37.5])
    for point in (cheap, dear):
        assert statistics.at(point.mean_tokens, [cheap, dear])[0].tolist() == list(point.accuracies)
        assert statistics.at(point.mean_tokens, [point])[0].tolist() == list(point.accuracies)


def test_a_curve_says_nothing_beyond_its_ends() -> None:
    short, long = ([CurvePoint((0.0, 1.0), (t, t)) for t in ends] for ends in ((10, 100), (50, 500)))
    assert statistics.shared_tokens(short, long) == (50, 100)
    assert statistics.shared_tokens(short, long[1:]) is None
    with pytest.raises(ValueError, match="from 50 to 500"):
        statistics.paired_at(49, short, long)
    with pytest.raises(ValueError, match="without a point"):
        statistics.at(49, [])
    with pytest.raises(ValueError, match="2 and 1 values"):
        statistics.paired_at(70, short, [CurvePoint((0.0,), (70,))])


def test_nothing_has_no_statistics() -> None:
    with pytest.raises(ValueError, match="at least one"):
        statistics.wilson(0, 0)
    with pytest.raises(ValueError, match="at least one"):
        statistics.mean([])
    with pytest.raises(ValueError, match="every problem"):
        statistics.paired([1.0], [])
