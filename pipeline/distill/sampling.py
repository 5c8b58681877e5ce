"""Plain distillation: ask the teacher until enough of its answers are right.

In: problems. Out: all traces bought of each, right or wrong. Verdicts here only stop the sampling; the ones that
count are `verify`'s.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline import prompts
from pipeline.chat import ChatClient, all_of, chat_request, to_trace
from pipeline.config import Distill
from pipeline.distill.stopping import Tried, wanted
from pipeline.grading import Grader
from pipeline.records import Problem, Trace
from pipeline.responses import Segment


async def sample(
    problem: Problem, config: Distill, client: ChatClient, segment: Segment, grader: Grader
) -> list[Trace]:
    """Traces of a problem, until `stopping` wants no more. Answers after which none may be asked for are not graded."""
    messages = prompts.teacher(problem.problem, long_thought=config.long_thought_prompt)

    async def ask(sample_index: int, graded: bool) -> tuple[Trace, bool]:
        request = chat_request(client.endpoint, messages, sample_index)
        outcome = await client.buy(request, segment)
        trace = to_trace(outcome, request, problem.problem_id, sample_index, "distill", client.endpoint.price)
        if trace.status != "ok" or not graded:
            return trace, False
        grade = await grader.agrade(problem.answer, trace.response)
        return trace, grade.verdict == "correct"

    traces: list[Trace] = []
    tried = Tried()
    while count := wanted(tried, config):
        asked = len(traces) + count
        graded = asked < config.max_samples
        for trace, right in await all_of(ask(index, graded) for index in range(len(traces), asked)):
            traces.append(trace)
            tried.add(right=right, tokens=trace.prompt_tokens + trace.completion_tokens)
    return traces


def unanswered(outcomes: Iterable[Mapping[str, Any]]) -> tuple[int, dict[str, str]]:
    """How many problems have an answer, and for each of the others (by id) the last error.

    `outcomes` are the columns `problem_id`, `status` and `error` of all traces.
    """
    answered: set[str] = set()
    errors: dict[str, str] = {}
    for outcome in outcomes:
        if outcome["status"] == "failed":
            errors[outcome["problem_id"]] = outcome["error"]
        else:
            answered.add(outcome["problem_id"])
    return len(answered), {problem: error for problem, error in errors.items() if problem not in answered}
