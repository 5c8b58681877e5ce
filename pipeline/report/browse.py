"""The responses that a reader can browse.

In: all problems that were asked. Out: those that go into the page, at most `report.browse`, and `Browse`. A page of 500
problems and three models whose long thoughts are cut to `answers.MAX_CHARS` has some 7 MB; one such as the demo 0.3 MB.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.report.answers import Entry
from pipeline.report.results import Results
from pipeline.report.tallies import ProblemKey


@dataclass(frozen=True)
class Browse:
    """The entries, `len(entries)` of so many problems."""

    problems: int
    entries: list[Entry]


def choose(problems: Iterable[ProblemKey], results: Results, most: int) -> list[ProblemKey]:
    """All problems, or `most` of them at equal steps, by benchmark and in the order of their ids."""
    answered = (key for key in problems if key.benchmark in results.benchmarks)
    ordered = sorted(answered, key=lambda key: (results.benchmarks.index(key.benchmark), key.problem_id))
    kept = min(most, len(ordered))
    return [ordered[i * len(ordered) // kept] for i in range(kept)]
