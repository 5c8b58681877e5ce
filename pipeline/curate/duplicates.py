"""The rules that compare problems: with each other, and with the benchmarks.

In: problems and benchmark problems. Out: the survivors in the order of their ids, and the dropped ones. The
result does not depend on the order of the input.
"""

import re
from collections.abc import Iterable
from dataclasses import asdict

from pipeline.records import Problem, Rejected, RejectReason, digest, normalized, to_json

_STYLING = re.compile(
    r"\\(?:left|right|displaystyle|quad|qquad|text|mathrm)\b|\\[,;!]|\?"
    r"|(?<!\d)[\s.,:]|[\s.,:](?!\d)"  # between digits they are part of a number: 1.5 is not 15
    r"|(?<![\d)])!"  # after a number it is a factorial
)
_AROUND = re.compile(r"\s*([.,:])\s*")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")


def canonical(problem: str) -> str:
    """The text without what changes its look alone: case, white space, LaTeX styling, punctuation."""
    text = normalized(problem).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").replace("$", "")
    return _STYLING.sub("", _AROUND.sub(r"\1", _THOUSANDS.sub("", text)))


def separate(problems: Iterable[Problem], benchmarks: Iterable[Problem]) -> tuple[list[Problem], list[Rejected]]:
    """Drop copies of benchmark problems and all but one of equal problems.

    Of equal problems the one with the longest solution stays, of those the plainest text.
    """
    known = {canonical(item.problem): f"{item.source}/{item.problem_id}" for item in benchmarks}
    kept: dict[str, Problem] = {}
    rejected = []
    for problem in sorted(problems, key=_preference):
        text = canonical(problem.problem)
        if text in known:
            rejected.append(_rejected(problem, "contaminated", f"is {known[text]}"))
        elif text in kept:
            rejected.append(_rejected(problem, "duplicate", f"of {kept[text].problem_id}"))
        else:
            kept[text] = problem
    return sorted(kept.values(), key=lambda problem: problem.problem_id), rejected


def _preference(problem: Problem) -> tuple[int, int, str]:
    return -len(problem.solution or ""), len(problem.problem), digest(asdict(problem))


def _rejected(problem: Problem, reason: RejectReason, detail: str) -> Rejected:
    return Rejected(problem.problem_id, "curate", reason, detail, to_json(problem))
