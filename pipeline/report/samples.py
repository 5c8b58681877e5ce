"""Answers to show first, before and after training.

In: the tallies. Out: the problems of a few samples: those where the first model is wrong and the last one right, and one
where the last one fails. They are the first in the order of their ids: chosen for what they are, and not for how
they look.
"""

from dataclasses import dataclass
from typing import Literal

from pipeline.report.answers import Entry
from pipeline.report.results import Results
from pipeline.report.tallies import Key, ProblemKey, Tallies

Change = Literal["gained", "missed"]


@dataclass(frozen=True)
class Sample:
    """A problem of the first benchmark, and what it shows."""

    change: Change
    entry: Entry


def choose(tallies: Tallies, results: Results, count: int) -> dict[ProblemKey, Change]:
    """At most `count` gained problems, and one that was missed; right and wrong in every sample."""
    benchmark = results.benchmarks[0]
    points = results.as_written(benchmark, results.conventions[0])
    first, last = tallies[Key.of(points[0])], tallies[Key.of(points[-1])]
    both = sorted(first.answers.keys() & last.answers.keys())
    wrong_before = {p for p in both if len(points) == 1 or not first.correct[p]}
    gained = [p for p in both if p in wrong_before and last.correct[p] == last.answers[p]]
    missed = [p for p in both if not last.correct[p]]
    chosen: dict[str, Change] = {**dict.fromkeys(gained[:count], "gained"), **dict.fromkeys(missed[:1], "missed")}
    return {ProblemKey(benchmark, problem): change for problem, change in chosen.items()}
