"""The Pareto front: the points that no other point beats, being at least as accurate for at most as many tokens.

In: points of all models and curves on one benchmark. Out: those on the front, the cheapest first.
"""

from collections.abc import Iterable

from pipeline.figures import count
from pipeline.report.formats import label
from pipeline.report.results import Point
from pipeline.report.votes import VotePoint


def front(points: Iterable[Point | VotePoint]) -> list[Point | VotePoint]:
    """The front; of points that are equal in both the first one."""
    found: list[Point | VotePoint] = []
    for point in sorted(points, key=lambda p: (p.tokens, -p.accuracy)):
        if not found or point.accuracy > found[-1].accuracy:
            found.append(point)
    return found


def name(point: Point | VotePoint) -> str:
    """Stage 2 at 256."""
    if isinstance(point, VotePoint):
        how = f"by majority of {point.k}"
    else:
        how = "at natural length" if point.curve == "natural" else f"at {count(point.budget)}"
    return f"{label(point.model)} {how}"
