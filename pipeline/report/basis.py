"""The line below a chart or a table that says what its numbers rest on.

In: the points that it shows. Out: one sentence or two: n, answers to each problem, temperature, seeds, and what could not
be read or had not ended.
"""

from collections.abc import Sequence

from pipeline.figures import count, percent
from pipeline.report.formats import label
from pipeline.report.results import Point

SIGNIFICANCE = (
    "Significant: the interval excludes zero and p is below 0.05. No correction is made for the number of comparisons."
)
"""What stands under every table of differences."""


def basis(points: Sequence[Point], drawn: str) -> str:
    """`points` are one of each model, all at the same length; `drawn` is that of `Conditions`."""
    if not points:
        return ""
    at = points[0]
    where = "At natural length" if at.curve == "natural" else f"Budget-forced at {count(at.budget)} tokens"
    least, most = min(p.n for p in points), max(p.n for p in points)
    n = count(most) if least == most else f"{count(least)} to {count(most)}"
    rates = (
        f"{label(p.model)} {percent(p.truncated, 1)} and {percent(p.unparsable, 1)}"
        + (f", {count(p.failed)} failed" if p.failed else "")
        for p in points
    )
    return f"{where}, n = {n} problems, {drawn}. Truncated and unparsable: {'; '.join(rates)}."
