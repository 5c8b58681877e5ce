"""A thought made longer: where the model would end it, the end is taken back and "Wait" put in its place (s1, section 3.1).

In: a generation that ended by itself below the largest budget. Out: the same, gone on with. Only budgets read it: what the
model says at its natural length stays what it is.
"""

from bisect import bisect_right
from dataclasses import replace

from pipeline import prompts
from pipeline.chat import ChatClient, continuation, status_of
from pipeline.config import Evaluate
from pipeline.records import Generation
from pipeline.responses import Segment


async def extended(generation: Generation, settings: Evaluate, client: ChatClient, segment: Segment) -> Generation:
    """Gone on with at most `evaluate.waits` times; one without a thought stays as it is. Raises RequestError."""
    longest = settings.budgets[-1]
    for _ in range(settings.waits):
        end = generation.response.rfind(prompts.END_OF_THOUGHT)
        if generation.status != "ok" or end < 0 or not generation.token_ends:
            break
        kept = bisect_right(generation.token_ends, end)
        wait = await client.tokenize(prompts.WAIT, segment)
        before = [*generation.tokens[:kept], *wait]
        if len(before) >= longest:
            break
        prompt = [*generation.prompt_tokens, *before]
        request = continuation(
            client.endpoint, prompt, longest - len(before), generation.sample_index, return_token_ids=True, logprobs=0
        )
        reply = await client.answer(request, segment)
        if not reply.token_ids:
            break
        text = generation.response[: generation.token_ends[kept - 1] if kept else 0] + prompts.WAIT
        ends = [
            *generation.token_ends[:kept],
            *[len(text)] * len(wait),
            *(len(text) + each for each in reply.token_ends),
        ]
        tokens = [*before, *reply.token_ids]
        generation = replace(
            generation,
            response=text + reply.text,
            status=status_of(reply),
            tokens=tokens,
            token_ends=ends if len(ends) == len(tokens) else [],
            completion_tokens=len(tokens),
        )
    return generation
