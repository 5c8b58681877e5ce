"""Sets of real numbers: finite unions of intervals and points, compared by the values of their ends.

In: ends as `values` gives them, or infinity. Out: sets in their one shortest form. sympy's sets do the same, but may
take minutes over the union of fifty intervals.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cmp_to_key

import mpmath

from pipeline.grading.values import Value, as_mp, same_value

INFINITY = mpmath.inf


@dataclass(frozen=True)
class Interval:
    """An interval; a point is one that is closed and whose ends are the same."""

    low: Value
    high: Value
    low_open: bool
    high_open: bool


RealSet = tuple[Interval, ...]
"""Disjoint intervals in rising order, none of which touches the next."""

REALS: RealSet = (Interval(-INFINITY, INFINITY, True, True),)


def point(number: Value) -> Interval:
    """The set of one number."""
    return Interval(number, number, False, False)


def compare(one: Value, other: Value) -> int:
    """-1, 0 or 1: which of two ends is the smaller."""
    one, other = as_mp(one), as_mp(other)
    if mpmath.isinf(one) or mpmath.isinf(other):
        return int(one > other) - int(one < other)
    return 0 if same_value(one, other) else -1 if one < other else 1


def union(intervals: Iterable[Interval]) -> RealSet:
    """The union of intervals, empty ones left out."""
    kept = [interval for interval in intervals if not _empty(interval)]
    kept.sort(key=cmp_to_key(lambda one, other: compare(one.low, other.low) or one.low_open - other.low_open))
    merged: list[Interval] = []
    for interval in kept:
        last = merged[-1] if merged else None
        gap = compare(last.high, interval.low) if last else -1
        if last is None or gap < 0 or (gap == 0 and last.high_open and interval.low_open):
            merged.append(interval)
            continue
        order = compare(last.high, interval.high)
        high_open = last.high_open and interval.high_open if order == 0 else (last if order > 0 else interval).high_open
        merged[-1] = Interval(last.low, last.high if order >= 0 else interval.high, last.low_open, high_open)
    return tuple(merged)


def complement(numbers: RealSet) -> RealSet:
    """All other real numbers."""
    low, low_open, gaps = -INFINITY, True, []
    for interval in numbers:
        gaps.append(Interval(low, interval.low, low_open, not interval.low_open))
        low, low_open = interval.high, not interval.high_open
    return union([*gaps, Interval(low, INFINITY, low_open, True)])


def intersection(one: RealSet, other: RealSet) -> RealSet:
    """What is in both."""
    return complement(union([*complement(one), *complement(other)]))


def same_set(one: RealSet, other: RealSet) -> bool:
    """Whether two sets hold the same numbers."""
    return len(one) == len(other) and all(
        compare(mine.low, theirs.low) == compare(mine.high, theirs.high) == 0
        and (mine.low_open, mine.high_open) == (theirs.low_open, theirs.high_open)
        for mine, theirs in zip(one, other, strict=True)
    )


def _empty(interval: Interval) -> bool:
    order = compare(interval.low, interval.high)
    return order > 0 or (order == 0 and (interval.low_open or interval.high_open))
