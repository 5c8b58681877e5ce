"""One generation read at every token budget: budget forcing (s1, section 3.1) from a single pass.

In: a generation of the largest budget. Out: `Score`s. At budget b the answer is cut after b tokens; where no final
answer stands before the cut, its thought is closed and the answer asked for, which is all that is generated
anew. The natural answer, never cut, is scored beside it as a curve of its own.
"""

from dataclasses import dataclass

from pipeline import prompts
from pipeline.chat import ChatClient, all_of, continuation, status_of
from pipeline.config import Evaluate
from pipeline.evaluate.conventions import grading
from pipeline.evaluate.extension import extended
from pipeline.grading import Grade, Grader, final_answer
from pipeline.records import Convention, Curve, Generation, Score
from pipeline.responses import Segment

STOPS = ("}.", "}\n", "}$", "} ")
"""After any of these the forced answer stands: its box is closed, and not inside of a \\frac{1}{2}."""


@dataclass(frozen=True)
class Reading:
    """What a model has said by a budget. `tokens` counts the forced answer in."""

    curve: Curve
    budget: int
    text: str
    tokens: int
    truncated: bool
    forced: bool


def natural(generation: Generation, settings: Evaluate) -> Reading:
    """The generation as it is."""
    truncated = generation.status == "truncated"
    tokens = generation.completion_tokens
    return Reading("natural", settings.budgets[-1], generation.response, tokens, truncated, False)


async def forced(generation: Generation, settings: Evaluate, client: ChatClient, segment: Segment) -> list[Reading]:
    """The generation at every budget, where the endpoint tells token ids. Raises RequestError where it fails."""
    if not generation.tokens:
        return []
    longer = await extended(generation, settings, client, segment)
    return await all_of(_at(budget, longer, settings, client, segment) for budget in settings.budgets)


async def _at(budget: int, generation: Generation, settings: Evaluate, client: ChatClient, segment: Segment) -> Reading:
    tokens = len(generation.tokens)
    if tokens <= budget and generation.status != "truncated":
        return Reading("budget_forced", budget, generation.response, tokens, False, False)
    cut = generation.tokens[:budget]
    text = prompts.opening(generation.response) + _text_of(generation, budget)
    if final_answer(text, cut=True) is not None:
        return Reading("budget_forced", budget, text, len(cut), True, False)
    begun = prompts.forced_answer(text)
    appended = await client.tokenize(begun, segment)
    prompt, most = [*generation.prompt_tokens, *cut, *appended], settings.forced_answer_tokens
    request = continuation(
        client.endpoint, prompt, most, generation.sample_index, stop=list(STOPS), include_stop_str_in_output=True
    )
    reply = await client.answer(request, segment)
    answer = begun + reply.text
    if status_of(reply) == "ok":  # a turn that ends inside of the box ends the box
        answer += "}" * (answer.count("{") - answer.count("}"))
    return Reading(
        "budget_forced", budget, text + answer, len(cut) + len(appended) + reply.completion_tokens, True, True
    )


def _text_of(generation: Generation, tokens: int) -> str:
    """What the first tokens say; nothing where they do not spell the response (broken UTF-8): the cut is by ids anyway."""
    if tokens >= len(generation.tokens):
        return generation.response
    return generation.response[: generation.token_ends[tokens - 1]] if generation.token_ends else ""


async def scores(
    generation: Generation, found: list[Reading], conventions: tuple[Convention, ...], grader: Grader
) -> list[Score]:
    """Every reading graded under every convention."""
    graded_by = {convention: grading(convention, grader) for convention in conventions}
    return [
        _score(generation, reading, convention, await grader.aside(grade, generation.answer, reading.text))
        for reading in found
        for convention, grade in graded_by.items()
    ]


def _score(generation: Generation, reading: Reading, convention: Convention, grade: Grade) -> Score:
    return Score(
        generation_id=generation.generation_id,
        model=generation.model,
        benchmark=generation.benchmark,
        problem_id=generation.problem_id,
        sample_index=generation.sample_index,
        curve=reading.curve,
        budget=reading.budget,
        convention=convention,
        verdict=grade.verdict,
        extracted=grade.extracted,
        tokens=reading.tokens,
        truncated=reading.truncated,
        forced=reading.forced,
    )
