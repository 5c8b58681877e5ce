"""Majority voting over k samples of a problem: how often it is right, and what it costs (paper, section 3.2).

In: the scores of a problem's samples. Out: `Vote`s of k of them. Which answers say the same is left to `grading.voting`,
means over problems and intervals to `pipeline.statistics`.

Of a problem's n samples any k could have voted. Every number is the mean over all these sets, counted and not drawn:
no seed, no error but the samples' own.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from pipeline.grading.voting import classes
from pipeline.records import Score, Vote

MOST_SAMPLES = 1000
"""Of a problem: with more the numbers of sets leave the range of a double."""


@dataclass(frozen=True)
class Sample:
    """One answer to a problem: its class among the problem's answers, None where there is no answer to vote for."""

    answer: int | None
    correct: bool
    tokens: int


def samples_of(scores: Sequence[Score], same: Callable[[str, str], bool]) -> list[Sample]:
    """The samples of one problem from their scores at one budget, under one convention. `same` is such as `Grader.same`.

    An unparsable answer is none. One that the grader had no time for has its vote, and is not right.
    """
    answers = [None if score.verdict == "unparsable" else score.extracted for score in scores]
    return [
        Sample(answer, score.verdict == "correct", score.tokens)
        for answer, score in zip(classes(answers, same), scores, strict=True)
    ]


def votes(scores: Sequence[Score], same: Callable[[str, str], bool]) -> list[Vote]:
    """The votes of a problem's natural-length answers, under each convention: of 1, 2, 4, ... of its samples, and of all.

    Raises ValueError where there are more than `MOST_SAMPLES`.
    """
    natural = [score for score in scores if score.curve == "natural"]
    conventions = dict.fromkeys(score.convention for score in natural)
    return [
        vote
        for convention in conventions
        for vote in _votes([score for score in natural if score.convention == convention], same)
    ]


def _votes(scores: Sequence[Score], same: Callable[[str, str], bool]) -> list[Vote]:
    n, asked = len(scores), scores[0]
    if n > MOST_SAMPLES:
        raise ValueError(f"a problem of {n} samples: give it at most {MOST_SAMPLES}")
    samples = samples_of(scores, same)
    ks = sorted({n, *(1 << i for i in range(n.bit_length()))})
    return [
        Vote(
            model=asked.model,
            benchmark=asked.benchmark,
            problem_id=asked.problem_id,
            convention=asked.convention,
            k=k,
            n=n,
            majority=right,
            passed=pass_at(k, n, sum(sample.correct for sample in samples)),
            tokens=k * fmean(sample.tokens for sample in samples),
        )
        for k, right in zip(ks, majority(samples, ks), strict=True)
    ]


def pass_at(k: int, n: int, correct: int) -> float:
    """The chance that any of k samples is right, where `correct` of n are: unbiased (Chen et al. 2021, section 2.1)."""
    return 1 - math.comb(n - correct, k) / math.comb(n, k)


def majority(samples: Sequence[Sample], ks: Sequence[int]) -> list[float]:
    """The chance that the majority of k samples is right, for each k: the mean over all sets of k of the samples.

    A tie is broken by lot: of the answers with most votes the share that is right counts. Samples without an answer do
    not vote, and where none of the k votes nothing is right. Where the grader disagrees with itself about one class (it
    ran out of time on some of its answers), the class is right by the share of its samples that are.

    So one vote is the accuracy, and of samples that all have an answer two are no better: where they differ they tie.
    """
    votes = Counter(sample.answer for sample in samples if sample.answer is not None)
    right = Counter(sample.answer for sample in samples if sample.answer is not None and sample.correct)
    won = np.zeros(max(ks, default=0) + 1)
    for answer, count in right.items():
        rivals = [size for other, size in votes.items() if other != answer]
        won += count / votes[answer] * _won(votes[answer], rivals, len(samples) - votes.total(), len(won) - 1)
    return [float(won[k] / math.comb(len(samples), k)) for k in ks]


def _won(size: int, rivals: Sequence[int], silent: int, largest: int) -> NDArray[np.float64]:
    """In how many sets of k samples, for each k up to the largest, a class of this size has most votes; where j classes
    have, 1/j of the set is its.

    Counted by the number of votes that wins. The class has so many and each rival at most as many; samples without
    a vote, and rivals that are too small to have so many, are drawn freely.
    """
    won = np.zeros(largest + 1)
    for most in range(1, min(size, largest) + 1):
        able = [rival for rival in rivals if rival >= most]
        free = silent + sum(rivals) - sum(able)
        ways = np.zeros((min(len(able) + 1, largest // most), largest + 1))  # by rivals that tie, and samples drawn
        ways[0] = _choices(free, range(largest + 1))
        for rival in able:
            ways = _joined_by(rival, most, ways)
        shared = (ways / np.arange(1, len(ways) + 1)[:, None]).sum(axis=0)
        won[most:] += math.comb(size, most) * shared[: largest + 1 - most]
    return won


def _joined_by(rival: int, most: int, ways: NDArray[np.float64]) -> NDArray[np.float64]:
    """The ways when a further class has up to `most` votes among the samples drawn; with `most` it ties."""
    drawn = ways.shape[1]
    found = np.zeros_like(ways)
    for votes, choices in enumerate(_choices(rival, range(min(most, drawn)))):
        found[:, votes:] += choices * ways[:, : drawn - votes]
    found[1:, most:] += math.comb(rival, most) * ways[:-1, : drawn - most]
    return found


def _choices(size: int, counts: range) -> NDArray[np.float64]:
    """In how many ways so many can be drawn of a class, for each of the counts."""
    return np.array([math.comb(size, count) for count in counts], dtype=np.float64)
