"""One answer of a model to one problem.

In: questions and an endpoint. Out: `Generation`s. A request that fails is a generation with status `failed`, and
is never counted as a wrong answer.
"""

from dataclasses import dataclass

from pipeline import prompts
from pipeline.chat import ChatClient, chat_request, status_of
from pipeline.config import Config, Endpoint, Sampling
from pipeline.records import Generation, Problem, digest
from pipeline.responses import Segment


@dataclass(frozen=True)
class Question:
    """A problem asked of a model for the n-th time."""

    model: str
    benchmark: str
    sample_index: int
    problem: Problem


def endpoint_of(config: Config, model: str, base_url: str) -> Endpoint:
    """The endpoint of one of the run's own models."""
    settings = config.evaluate
    return Endpoint(
        model=model,
        base_url=base_url,
        api_key_env=config.serve.api_key_env,
        sampling=Sampling(
            temperature=settings.temperature,
            max_tokens=settings.budgets[-1],
            extra={"return_token_ids": True, "logprobs": True, **settings.extra},  # to cut an answer at a budget
        ),
        max_in_flight=settings.max_in_flight,
        timeout_s=settings.timeout_s,
    )


async def generate(question: Question, client: ChatClient, segment: Segment | None) -> Generation:
    """Ask once; the stored answer where there is one."""
    problem = question.problem
    request = chat_request(client.endpoint, prompts.student(problem.problem), question.sample_index)
    outcome = await client.buy(request, segment)
    reply = outcome.reply
    text = reply.text if reply else ""
    if reply and reply.reasoning:
        text = prompts.training_text(reply.text, reply.reasoning, think=True)
    return Generation(
        generation_id=digest(question.benchmark, problem.problem_id, request.request_id),
        model=question.model,
        benchmark=question.benchmark,
        problem_id=problem.problem_id,
        sample_index=question.sample_index,
        problem=problem.problem,
        answer=problem.answer,
        level=problem.level,
        subset=problem.subset,
        response=text,
        status=status_of(reply) if reply else "failed",
        error=outcome.error,
        prompt_tokens=reply.prompt_token_ids if reply else [],
        # Where the thought came apart they do not spell the text: it cannot be cut.
        tokens=reply.token_ids if reply and text == reply.text else [],
        token_ends=reply.token_ends if reply and text == reply.text else [],
        completion_tokens=reply.completion_tokens if reply else 0,
        latency_s=reply.latency_s if reply else 0.0,
    )
