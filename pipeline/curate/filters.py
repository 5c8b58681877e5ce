"""The rules that look at one row: keep it as a `Problem`, or drop it with a reason.

In: `RawRow`s. Out: `Problem` or `Rejected`. To add a rule, write a function from a row to a detail (or None)
and put it into `RULES`; its reason must be one of `records.RejectReason`.
"""

import re
from collections.abc import Callable, Collection

from pipeline.config import Source
from pipeline.grading import last_boxed
from pipeline.records import AnswerType, Problem, Rejected, RejectReason, problem_id, to_json
from pipeline.sources import RawRow

_IMAGE = re.compile(
    r"\[asy\]|<img\b|<image|!\[[^\]]{0,300}\]\(|\\includegraphics"
    r"|\b(?:in|from|see|as shown in|shown in) the (?:figure|diagram|picture|image|graph)\b"
    r"|\b(?:the|this) (?:figure|diagram|picture) shows\b|\busing the (?:figure|diagram|picture)\b"
    r"|\b(?:figure|diagram|picture|image) (?:below|above|shown)\b|\bas shown\b|如图",
    re.IGNORECASE,
)
_PROOF = re.compile(
    r"\bprove (?:that|the|or disprove)\b|(?:^|[.:;,?!\])$]\s*|\n[ \t]*|\b(?:and|then|to)\s+)show (?:that|the)\b"
    r"|\bgive a proof\b|\bwith proof\b|证明|求证",
    re.IGNORECASE,
)


def needs_image(row: RawRow) -> str | None:
    """The problem points to a picture."""
    return _matched(_IMAGE, row.problem)


def proof(row: RawRow) -> str | None:
    """The problem asks for a proof, which has no final answer to check."""
    return _matched(_PROOF, row.problem)


def no_answer(row: RawRow) -> str | None:
    """Neither the answer column nor a box in the solution holds an answer."""
    return None if answer_of(row) else "no answer column and no box in the solution"


RULES: tuple[tuple[RejectReason, Callable[[RawRow], str | None]], ...] = (
    ("needs_image", needs_image),
    ("proof", proof),
    ("no_answer", no_answer),
)
"""In the order in which they are asked: the first that applies gives the reason."""


def examine(row: RawRow, source: Source, answer_types: Collection[AnswerType]) -> Problem | Rejected:
    """The row as a problem, or why it is dropped."""
    if row.error is not None or not row.problem:
        return _rejected(row, "malformed_row", row.error or "no problem text")
    for reason, rule in RULES:
        detail = rule(row)
        if detail is not None:
            return _rejected(row, reason, detail)
    answer = answer_of(row)
    assert answer is not None
    kind = answer_type(answer)
    if kind not in answer_types:
        return _rejected(row, "non_numeric", f"the answer is a {kind}: {answer[:80]}")
    return Problem(
        problem_id(row.problem), row.problem, answer, kind, row.solution, source.name, source.license, row.level
    )


def answer_of(row: RawRow) -> str | None:
    r"""The answer column, or the last `\boxed{}` of the solution."""
    return row.answer or (last_boxed(row.solution) if row.solution else None) or None


_TYPES: tuple[tuple[AnswerType, re.Pattern[str]], ...] = (
    ("choice", re.compile(r"\(?[A-E]\)?")),
    ("integer", re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d+)")),
    ("decimal", re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d*)\.\d+")),
    ("percentage", re.compile(r"[+-]?\d+(?:\.\d+)?\s*\\?%")),
    ("fraction", re.compile(r"[+-]?(?:\d+\s*/\s*\d+|\\[dt]?frac\s*\{?-?\d+\}?\s*\{?\d+\}?)")),
    ("tuple", re.compile(r"[(\[{](?=[^,\n]*,).*[)\]}]|\\\{.*\\\}")),
)
_WORDS = re.compile(r"[A-Za-z]{2,}")


def answer_type(answer: str) -> AnswerType:
    """What kind of answer it is, by its spelling alone."""
    bare = answer.strip().strip("$").strip()
    for kind, pattern in _TYPES:
        if pattern.fullmatch(bare):
            return kind
    words = [
        word
        for word in _WORDS.findall(re.sub(r"\\[A-Za-z]+", " ", bare))
        if word not in ("sin", "cos", "tan", "log", "ln")
    ]
    return "text" if words else "expression"


def _matched(pattern: re.Pattern[str], text: str | None) -> str | None:
    found = pattern.search(text or "")
    return f"says {found.group().strip()!r}" if found else None


def _rejected(row: RawRow, reason: RejectReason, detail: str) -> Rejected:
    return Rejected(row.place, "curate", reason, detail, to_json(row))
