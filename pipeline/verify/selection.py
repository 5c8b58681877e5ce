"""Which traces the student learns from.

In: traces and their verdicts. Out: training examples for the chosen ones, and for all others the reason why not.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import prompts
from pipeline.config import Verify
from pipeline.grading import Grader
from pipeline.records import Example, Message, Problem, Rejected, RejectReason, Trace, Verdict, digest, to_json
from pipeline.verify.quality import Quality, similarity


async def verdict_of(trace: Trace, answer: str, grader: Grader) -> Verdict:
    """The symbolic verdict on a trace. One that did not end well is unparsable, however it reads."""
    if trace.status != "ok":
        return Verdict(trace.trace_id, "symbolic", "unparsable", None, trace.status, 0.0)
    grade = await grader.agrade(answer, trace.response)
    return Verdict(trace.trace_id, "symbolic", grade.verdict, grade.extracted, grade.matched_by, grade.seconds)


def right_traces(verdicts: pa.Table) -> pa.Array:
    """Ids of the traces that may be learnt from, by all verdicts (`Verdict`'s columns) on them.

    The judge decides only where the symbolic grader could not read the answer.
    """
    graded = verdicts.filter(pc.field("grader") == "symbolic")
    approved = verdicts.filter((pc.field("grader") == "judge") & (pc.field("verdict") == "correct"))
    by_judge = pc.is_in(graded["trace_id"], approved["trace_id"].combine_chunks())
    correct, unread = (pc.equal(graded["verdict"], name) for name in ("correct", "unparsable"))
    return graded["trace_id"].filter(pc.or_(correct, pc.and_(unread, by_judge))).combine_chunks()


@dataclass(frozen=True)
class Fate:
    """Of a right trace why it is not learnt from; without a reason it is."""

    trace_id: str
    reason: RejectReason | None
    detail: str


def choose(qualities: Iterable[Quality], config: Verify) -> Iterator[Fate]:
    """The fate of each right trace. Those of a problem must come one after the other.

    Of each problem the preferred ones, ties broken by id, each unlike those before it.
    """
    for _, group in groupby(qualities, lambda each: each.problem_id):
        chosen: list[Quality] = []
        for each in sorted(group, key=lambda each: (*_PREFERENCES[config.prefer](each), each.trace_id)):
            fate = _fate(each, chosen, config)
            if fate.reason is None:
                chosen.append(each)
            yield fate


_PREFERENCES: Mapping[str, Callable[[Quality], tuple[int, ...]]] = {
    "longest": lambda each: (-each.thought_chars,),
    "shortest": lambda each: (each.thought_chars,),
    "reflective": lambda each: (-each.reflections, -each.thought_chars),
}


def _fate(each: Quality, chosen: Sequence[Quality], config: Verify) -> Fate:
    """Of one of a problem's traces, after those that were chosen before it."""
    shortcoming = _shortcoming(each, config)
    if shortcoming is not None:
        return Fate(each.trace_id, *shortcoming)
    if len(chosen) == config.max_per_problem:
        return Fate(each.trace_id, "not_selected", "right, but enough others of this problem were chosen")
    alike, other = max(((similarity(each, other), other.trace_id) for other in chosen), default=(0.0, ""))
    if alike > config.max_similarity:
        return Fate(each.trace_id, "too_similar", f"to {other}: {alike:.2f}")
    return Fate(each.trace_id, None, "")


def _shortcoming(each: Quality, config: Verify) -> tuple[RejectReason, str] | None:
    if each.thought_chars < config.min_thought_chars:
        return (
            "too_short",
            f"a thought of {each.thought_chars} characters, at least {config.min_thought_chars} are wanted",
        )
    if config.max_thought_chars is not None and each.thought_chars > config.max_thought_chars:
        return (
            "too_long",
            f"a thought of {each.thought_chars} characters, at most {config.max_thought_chars} are wanted",
        )
    if each.reflections < config.min_reflections:
        return "no_reflection", f"{each.reflections} reflections, at least {config.min_reflections} are wanted"
    return None


def example_of(trace: Trace, problem: Problem, config: Verify) -> Example:
    """The training conversation of a chosen trace."""
    text = prompts.training_text(trace.response, trace.reasoning, think=config.training_text == "think")
    messages = [*prompts.student(problem.problem), Message("assistant", text)]
    return Example(digest(trace.trace_id, "stage2"), "stage2", problem.problem_id, trace.trace_id, messages)


def rejected_of(trace: Trace, symbolic: Verdict, fate: Fate | None) -> Rejected:
    """Why a trace is not learnt from: its `fate` where it is right."""
    reason, detail = (fate.reason, fate.detail) if fate and fate.reason else _reason(trace, symbolic)
    return Rejected(trace.trace_id, "verify", reason, detail, to_json(trace))


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
