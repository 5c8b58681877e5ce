r"""The labelled answer of a problem: the answer column, or what the solution ends with."""

from pipeline.grading import gold_answer, gsm8k_answer, last_boxed
from pipeline.sources import RawRow

NONE_KNOWN = frozenset(
    ["notfound", "not found", "no answer", "unknown", "n/a", "null", "nan", "-", "?", "see solution"]
)
"""What sets write where there is no answer; the first is NuminaMath-1.5's."""
A_PROOF = frozenset(["proof", "see proof", "proved", "proven", "qed"])


def answer_of(row: RawRow) -> str | None:
    r"""The answer column, or the last `\boxed{}` of the solution; None where neither holds one."""
    solution = row.solution or ""
    answer = gold_answer(row.answer) if row.answer else gsm8k_answer(solution) or last_boxed(solution) or ""
    answer = answer.strip()
    return None if answer.casefold().strip(" .") in NONE_KNOWN else answer or None
