"""Stage 2: solutions rewritten step by step (paper, section 2.3), each checked against the gold answer.

In: problems with their solutions. Out: for each problem its attempts as traces, and the checked rewriting as a
training example of stage 1, or the reason why there is none.
"""

from dataclasses import dataclass

from pipeline import prompts
from pipeline.chat import ChatClient, chat_request, to_trace
from pipeline.config import Reformat
from pipeline.grading import Grader
from pipeline.records import Example, Message, Problem, Rejected, RejectReason, Trace, digest, to_json
from pipeline.responses import Segment


@dataclass(frozen=True)
class Rewriting:
    """What became of one problem: exactly one of `example` and `rejected` is set."""

    traces: list[Trace]
    example: Example | None
    rejected: Rejected | None


async def rewrite(
    problem: Problem, config: Reformat, client: ChatClient, segment: Segment, grader: Grader
) -> Rewriting:
    """Ask until a rewriting passes the checks, at most `attempts` times."""
    messages = prompts.rewrite(problem.problem, problem.solution or "(none is recorded)", problem.answer)
    traces: list[Trace] = []
    fault: tuple[RejectReason, str] = "request_failed", ""
    for attempt in range(config.attempts):
        request = chat_request(client.endpoint, messages, attempt)
        outcome = await client.buy(request, segment)
        trace = to_trace(outcome, request, problem.problem_id, attempt, "rewrite", client.endpoint.price)
        traces.append(trace)
        found = await _fault(trace, problem, config, grader)
        if found is None:
            return Rewriting(traces, _example(problem, trace), None)
        fault = found
    row = to_json(problem)
    return Rewriting(traces, None, Rejected(problem.problem_id, "reformat", *fault, row))


async def _fault(trace: Trace, problem: Problem, config: Reformat, grader: Grader) -> tuple[RejectReason, str] | None:
    """Why a rewriting cannot be used; None where it can."""
    if trace.status != "ok":
        reasons: dict[str, RejectReason] = {"truncated": "truncated", "refused": "refused"}
        return reasons.get(trace.status, "request_failed"), trace.error or f"the model's answer was {trace.status}"
    grade = await grader.agrade(problem.answer, trace.response)
    if grade.verdict != "correct":
        return REASONS[grade.verdict], f"{grade.verdict}: {grade.extracted}"
    if len(trace.response) < config.min_chars:
        return "too_short", f"{len(trace.response)} characters"
    return None


REASONS: dict[str, RejectReason] = {"incorrect": "wrong_answer", "unparsable": "no_final_answer", "timeout": "timeout"}


def _example(problem: Problem, trace: Trace) -> Example:
    answer = Message("assistant", trace.response.strip())
    messages = [*prompts.student(problem.problem), answer]
    return Example(digest(trace.trace_id, "stage1"), "stage1", problem.problem_id, trace.trace_id, messages)
