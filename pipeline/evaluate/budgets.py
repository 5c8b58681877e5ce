"""One generation read at every token budget: budget forcing (s1, section 3.1) from a single pass.

In: a generation of the largest budget. Out: `Score`s. At budget b the answer is cut after b tokens; where no final
answer stands before the cut, its thought is closed and the answer asked for, which is all that is generated
anew. The natural answer, never cut, is scored beside it as a curve of its own.
"""

from dataclasses import dataclass

from pipeline import prompts
from pipeline.chat import ChatClient, all_of, completion_request
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


class ForcedAnswerError(Exception):
    """The endpoint gave no forced answer: the generation has no score at this budget, and no wrong one either."""


async def readings(generation: Generation, settings: Evaluate, client: ChatClient, segment: Segment) -> list[Reading]:
    """The generation at its natural length, and at every budget where the endpoint tells token ids.

    Raises ForcedAnswerError where the endpoint fails.
    """
    truncated = generation.status == "truncated"
    largest = settings.budgets[-1]
    found = [Reading("natural", largest, generation.response, generation.completion_tokens, truncated, False)]
    if generation.tokens:
        longer = await extended(generation, settings, client, segment)
        found += await all_of(_at(budget, longer, settings, client, segment) for budget in settings.budgets)
    return found


async def _at(budget: int, generation: Generation, settings: Evaluate, client: ChatClient, segment: Segment) -> Reading:
    tokens = len(generation.tokens)
    if tokens <= budget and generation.status != "truncated":
        return Reading("budget_forced", budget, generation.response, tokens, False, False)
    cut = generation.tokens[:budget]
    text = generation.response if tokens <= budget else _text_of(generation, budget)
    if final_answer(text, cut=True) is not None:
        return Reading("budget_forced", budget, text, len(cut), True, False)
    forced = prompts.forced_answer(text)
    appended = await client.tokenize(forced, segment)
    request = completion_request(
        client.endpoint.model,
        [*generation.prompt_tokens, *cut, *appended],
        settings.forced_answer_tokens,
        temperature=settings.temperature,
        seed=generation.sample_index,
        stop=list(STOPS),
        include_stop_str_in_output=True,
    )
    outcome = await client.buy(request, segment)
    if outcome.reply is None:
        raise ForcedAnswerError(f"no forced answer at {budget} tokens: {outcome.error}")
    spent = len(cut) + len(appended) + outcome.reply.completion_tokens
    return Reading("budget_forced", budget, text + forced + outcome.reply.text, spent, True, True)


def _text_of(generation: Generation, tokens: int) -> str:
    """What the first tokens say; nothing where they do not spell the response (broken UTF-8): the cut is by ids anyway."""
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
