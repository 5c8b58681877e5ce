"""The accuracy on each level and each subject of a benchmark, where it tells them.

In: `Results`, `Tallies` and what was asked. Out: a `Grouping` for each benchmark, convention and kind of group, of every
model at the largest budget of the headline's curve.
"""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Literal

from pipeline import statistics
from pipeline.records import Convention
from pipeline.report.results import Results
from pipeline.report.tallies import Key, Kind, ProblemKey, Tallies, Tally

MOST_GROUPS = 24
"""The groups with most problems are shown: a set may know hundreds of subjects, and few problems say nothing about one."""
UNKNOWN = "not told"


@dataclass(frozen=True)
class Rate:
    """A model's accuracy over the `n` problems of a group that it answered, with its 95% interval."""

    model: str
    n: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Group:
    """A level or a subject with so many problems."""

    name: str
    n: int
    rates: list[Rate]


@dataclass(frozen=True)
class Grouping:
    """A benchmark by level or by subset; `left_out` counts the groups that are not shown."""

    benchmark: str
    convention: Convention
    by: Literal["level", "subset"]
    groups: list[Group]
    left_out: int


def groupings(results: Results, tallies: Tallies, problems: dict[ProblemKey, Kind]) -> list[Grouping]:
    """Every benchmark by level and by subset; not where all problems are of one."""
    found = []
    for benchmark in results.benchmarks:
        for by in ("level", "subset"):
            members: dict[str, list[str]] = defaultdict(list)
            for key, kind in problems.items():
                if key.benchmark == benchmark:
                    members[getattr(kind, by) or UNKNOWN].append(key.problem_id)
            if len(members) > 1:
                found += [_grouping(results, tallies, benchmark, name, by, members) for name in results.conventions]
    return found


def _grouping(
    results: Results,
    tallies: Tallies,
    benchmark: str,
    convention: Convention,
    by: Literal["level", "subset"],
    members: dict[str, list[str]],
) -> Grouping:
    kept = Counter({name: len(ids) for name, ids in members.items()}).most_common(MOST_GROUPS)
    shown = {point.model: tallies[Key.of(point)] for point in results.largest(benchmark, convention)}
    groups = [
        Group(name, n, [rate for model, tally in shown.items() if (rate := _rate(model, tally, members[name]))])
        for name, n in sorted(kept, key=lambda item: _natural_order(item[0]))
    ]
    return Grouping(benchmark, convention, by, groups, left_out=len(members) - len(kept))


def _rate(model: str, tally: Tally, problems: list[str]) -> Rate | None:
    answered = [problem for problem in problems if problem in tally.answers]
    if not answered:
        return None
    estimate = statistics.accuracy(tally.accuracies(answered))
    return Rate(model, len(answered), estimate.value, estimate.low, estimate.high)


def _natural_order(name: str) -> list[tuple[int, float, str]]:
    """Level 2 before level 10, and what is not told last."""
    if name == UNKNOWN:
        return [(2, 0.0, "")]
    parts = re.findall(r"\d+(?:\.\d+)?|\D+", name)
    return [(0, float(part), "") if part[0].isdecimal() else (1, 0.0, part.casefold()) for part in parts]
