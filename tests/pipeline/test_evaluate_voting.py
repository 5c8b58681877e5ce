"""Votes against counting all sets of k, and against closed forms of answers drawn with known chances."""

import itertools
import math
from collections import Counter
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest

from pipeline import statistics
from pipeline.evaluate.voting import Sample, majority, pass_at, samples_of, votes
from pipeline.grading import Grader
from pipeline.records import Score, VerdictName


def sampled(*answers: int | None, right: tuple[int, ...] = (0,), tokens: int = 100) -> list[Sample]:
    """Samples whose class says whether they are right."""
    return [Sample(answer, answer in right, tokens) for answer in answers]


def counted(samples: list[Sample], k: int) -> float:
    """maj@k from every set of k: the lot among the answers with most votes, then among the samples of that answer."""
    chances = []
    for drawn in itertools.combinations(samples, k):
        votes = Counter(sample.answer for sample in drawn if sample.answer is not None)
        winners = [answer for answer, count in votes.items() if count == max(votes.values())]
        correct = [fmean(s.correct for s in samples if s.answer == winner) for winner in winners]
        chances.append(fmean(correct) if winners else 0.0)
    return fmean(chances)


def test_a_vote_is_the_mean_over_all_sets_of_k() -> None:
    chance = np.random.default_rng(0)
    for _ in range(40):
        n = int(chance.integers(1, 10))
        answers = [None if answer == 4 else int(answer) for answer in chance.integers(5, size=n)]
        samples = [Sample(a, a is not None and bool(chance.random() < (0.9 if a < 2 else 0.1)), 1) for a in answers]
        ks = range(1, n + 1)
        assert majority(samples, ks) == pytest.approx([counted(samples, k) for k in ks], abs=1e-12)


# Right answers of n, k; by the hypergeometric distribution.
@pytest.mark.parametrize(("right", "n", "k"), [(3, 5, 3), (40, 64, 33), (250, 500, 101), (900, 1000, 999)])
def test_a_vote_between_two_answers_is_a_tail_of_the_hypergeometric_distribution(right: int, n: int, k: int) -> None:
    samples = sampled(*[0] * right, *[1] * (n - right))
    exact = sum(math.comb(right, i) * math.comb(n - right, k - i) for i in range(k // 2 + 1, k + 1)) / math.comb(n, k)
    assert majority(samples, [k]) == pytest.approx([exact], rel=1e-9)


def test_one_vote_is_the_accuracy_and_two_are_no_better() -> None:
    samples = sampled(0, 0, 0, 1, 1, 2, 3, 3)
    assert majority(samples, [1, 2]) == pytest.approx([3 / 8, 3 / 8])


def test_a_tie_is_broken_by_lot() -> None:
    assert majority(sampled(0, 1), [2]) == [0.5]
    assert majority(sampled(0, 0, 1, 1, 2, 2), [6]) == pytest.approx([1 / 3])
    assert majority(sampled(0, 0, 1, 1, 2, 2, right=(0, 2)), [6]) == pytest.approx([2 / 3])
    assert majority(sampled(*range(64)), [64]) == pytest.approx([1 / 64])


def test_a_sample_without_an_answer_costs_tokens_and_does_not_vote() -> None:
    samples = [*sampled(0, 1, 1, tokens=10), *sampled(None, None, tokens=100)]
    # Of the 10 sets of 3: {0, 1, none} 4 times is a tie, {0, none, none} once right, all others wrong.
    assert majority(samples, [3]) == [pytest.approx((4 / 2 + 1) / 10)]
    assert majority(sampled(None, None), [1, 2]) == [0.0, 0.0]


def test_answers_of_one_class_that_were_graded_apart_are_right_by_their_share() -> None:
    samples = [Sample(0, True, 1), Sample(0, False, 1), Sample(0, True, 1)]
    assert majority(samples, [1, 2, 3]) == pytest.approx([2 / 3] * 3)


# Chen et al. 2021: 1 - C(n - c, k) / C(n, k), by hand.
@pytest.mark.parametrize(
    ("k", "n", "correct", "chance"), [(1, 5, 2, 0.4), (2, 5, 2, 0.7), (4, 5, 2, 1.0), (3, 5, 0, 0.0), (5, 5, 1, 1.0)]
)
def test_pass_at_k_is_the_published_estimate(k: int, n: int, correct: int, chance: float) -> None:
    assert pass_at(k, n, correct) == pytest.approx(chance)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_both_are_unbiased(p: float) -> None:
    """Their means over the number of right answers of n are what k fresh answers would give."""
    n, k = 12, 5
    weights = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    passes = [pass_at(k, n, c) for c in range(n + 1)]
    votes = [majority(sampled(*[0] * c, *[1] * (n - c)), [k])[0] for c in range(n + 1)]
    assert np.dot(weights, passes) == pytest.approx(1 - (1 - p) ** k)
    assert np.dot(weights, votes) == pytest.approx(sum(math.comb(k, i) * p**i * (1 - p) ** (k - i) for i in (3, 4, 5)))


def answered(right: int) -> list[Sample]:
    """Eight samples, so many of them right; no two wrong ones say the same."""
    return sampled(*[0] * right, *range(1, 9 - right))


def generations(chance: np.random.Generator, n: int, a: float, b: float) -> list[list[Sample]]:
    """Eight samples of n problems, each with a chance of its own to be answered right, drawn from Beta(a, b)."""
    return [answered(right) for right in chance.binomial(8, chance.beta(a, b, n))]


def truth(a: float, b: float) -> tuple[float, float, float]:
    """Accuracy, pass@3 and maj@3 of `generations`, from the moments of the Beta distribution.

    Of three votes two or three right ones win, and one right one ties with two wrong ones:
    3 p^2 (1 - p) + p^3 + 3 p (1 - p)^2 / 3 = p + p^2 - p^3.
    """
    first = a / (a + b)
    second = first * (a + 1) / (a + b + 1)
    third = second * (a + 2) / (a + b + 2)
    return first, 3 * first - 3 * second + third, first + second - third


@pytest.mark.parametrize(("a", "b"), [(0.4, 0.6), (2.0, 1.0), (1.0, 4.0)])
def test_generations_of_known_truth_give_it_back(a: float, b: float) -> None:
    problems = generations(np.random.default_rng(0), 3000, a, b)
    one, three = zip(*(majority(samples, [1, 3]) for samples in problems), strict=True)
    passed = [pass_at(3, 8, sum(sample.correct for sample in samples)) for samples in problems]
    for values, expected in zip((one, passed, three), truth(a, b), strict=True):
        estimate = statistics.accuracy(values)
        assert estimate.low < expected < estimate.high
        assert estimate.high - estimate.low < 0.04


@pytest.mark.parametrize("n", [30, 500])
def test_the_intervals_of_votes_cover_the_truth_as_often_as_they_say(n: int) -> None:
    by_right = np.array([[majority(answered(right), [3])[0], pass_at(3, 8, right)] for right in range(9)]).T
    chance, held = np.random.default_rng(1), []
    for p in (tenths / 10 for tenths in range(1, 10)):
        _, passed, won = truth(2 * p, 2 * (1 - p))
        for _ in range(400):
            found = by_right[:, chance.binomial(8, chance.beta(2 * p, 2 * (1 - p), n))]
            for values, expected in zip(found, (won, passed), strict=True):
                estimate = statistics.accuracy(values.tolist())
                held.append(estimate.low <= expected <= estimate.high)
    assert 0.93 < fmean(held[::2]) < 0.97  # maj@3
    assert 0.93 < fmean(held[1::2]) < 0.97  # pass@3


def score(extracted: str | None, verdict: VerdictName) -> Score:
    return Score("id", "model", "set", "problem", 0, "natural", 64, "final_answer", verdict, extracted, 7, False, False)


def test_votes_are_by_value_and_not_by_spelling(grader: Grader) -> None:
    scores = [
        score("0.5", "correct"),
        score("2", "incorrect"),
        score(r"\frac12", "correct"),
        score("1/2", "timeout"),
        score(None, "unparsable"),
        score("2" * 9000, "unparsable"),
    ]
    samples = samples_of(scores, grader.same)
    assert [sample.answer for sample in samples] == [0, 1, 0, 0, None, None]
    assert [sample.correct for sample in samples] == [True, False, True, False, False, False]
    assert {sample.tokens for sample in samples} == {7}


def test_a_problems_votes_are_of_one_two_four_and_all_of_its_natural_answers(grader: Grader) -> None:
    answers = ["1/2", "0.5", "3", "3", "4", "1/2"]
    natural = [
        replace(
            score(answer, "correct" if answer in ("1/2", "0.5") else "incorrect"), sample_index=index, tokens=10 * index
        )
        for index, answer in enumerate(answers)
    ]
    cut = [replace(each, curve="budget_forced", verdict="incorrect") for each in natural]
    other = [replace(each, convention="last_number", verdict="incorrect") for each in natural]
    found = votes([*cut, *natural, *other], grader.same)
    assert [(vote.convention, vote.k) for vote in found] == [
        (convention, k) for convention in ("final_answer", "last_number") for k in (1, 2, 4, 6)
    ]
    first, second, fourth, whole = found[:4]
    assert first.majority == first.passed == 0.5 and whole.majority == whole.passed == 1.0
    assert (second.n, second.passed) == (6, pytest.approx(1 - 3 / 15)) and second.majority < fourth.majority < 1
    assert [vote.tokens for vote in found[:4]] == [25, 50, 100, 150]
    assert {vote.majority for vote in found[4:]} == {0.0}
    assert votes([], grader.same) == []


def test_more_samples_than_can_be_counted_are_refused(grader: Grader) -> None:
    with pytest.raises(ValueError, match="a problem of 1001 samples"):
        votes([score("1", "correct")] * 1001, grader.same)
