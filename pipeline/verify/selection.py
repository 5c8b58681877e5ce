"""Which traces the student learns from.

In: traces and their verdicts. Out: training examples for the chosen ones, and for all others the reason why not.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline import prompts
from pipeline.config import Verify
from pipeline.grading import Grader
from pipeline.records import Example, Message, Problem, Rejected, RejectReason, Trace, Verdict, digest, to_json


@dataclass(frozen=True)
class Candidate:
    """What the choice needs to know of a correct trace."""

    trace_id: str
    problem_id: str
    thought_chars: int


async def verdict_of(trace: Trace, answer: str, grader: Grader) -> Verdict:
    """The symbolic verdict on a trace. One that did not end well is unparsable, however it reads."""
    if trace.status != "ok":
        return Verdict(trace.trace_id, "symbolic", "unparsable", None, trace.status, 0.0)
    grade = await grader.agrade(answer, trace.response)
    return Verdict(trace.trace_id, "symbolic", grade.verdict, grade.extracted, grade.matched_by, grade.seconds)


def is_right(verdicts: Iterable[Verdict]) -> bool:
    """Whether a trace may be learnt from, by all verdicts on it.

    The judge decides only where the symbolic grader could not read the answer.
    """
    by_grader = {verdict.grader: verdict.verdict for verdict in verdicts}
    symbolic = by_grader["symbolic"]
    return symbolic == "correct" or (symbolic == "unparsable" and by_grader.get("judge") == "correct")


def choose(candidates: Iterable[Candidate], config: Verify) -> set[str]:
    """The ids of the traces to learn from: of each problem the longest thoughts, ties broken by id."""
    by_problem: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        by_problem[candidate.problem_id].append(candidate)
    chosen: set[str] = set()
    for group in by_problem.values():
        group.sort(key=lambda candidate: (-candidate.thought_chars, candidate.trace_id))
        chosen.update(candidate.trace_id for candidate in group[: config.max_per_problem])
    return chosen


def example_of(trace: Trace, problem: Problem, config: Verify) -> Example:
    """The training conversation of a chosen trace."""
    text = prompts.training_text(trace.response, trace.reasoning, think=config.training_text == "think")
    messages = [*prompts.student(problem.problem), Message("assistant", text)]
    return Example(digest(trace.trace_id, "stage2"), "stage2", problem.problem_id, trace.trace_id, messages)


def rejected_of(trace: Trace, verdicts: list[Verdict]) -> Rejected:
    """Why a trace that was not chosen is not learnt from."""
    if is_right(verdicts):
        reason, detail = _ENOUGH
    else:
        reason, detail = _reason(trace, next(verdict for verdict in verdicts if verdict.grader == "symbolic"))
    return Rejected(trace.trace_id, "verify", reason, detail, to_json(trace))


_ENOUGH: tuple[RejectReason, str] = "not_selected", "right, but enough others of this problem were chosen"


def _reason(trace: Trace, verdict: Verdict) -> tuple[RejectReason, str]:
    by_status: dict[str, RejectReason] = {"truncated": "truncated", "refused": "refused", "failed": "request_failed"}
    if trace.status in by_status:
        return by_status[trace.status], trace.error or f"the answer was {trace.status}"
    by_verdict: dict[str, tuple[RejectReason, str]] = {
        "incorrect": ("wrong_answer", f"answered {verdict.extracted}"),
        "unparsable": ("no_final_answer", f"{verdict.matched_by}: {verdict.extracted}"),
        "timeout": ("timeout", f"grading {verdict.extracted} hit its {verdict.matched_by}"),
    }
    return by_verdict[verdict.verdict]
