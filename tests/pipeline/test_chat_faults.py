"""The table of faults: what a provider may do, and what follows for the row and the run."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from aiohttp import web
from servers import Handler, answers, ask, endpoint, says, scripted
from test_chat_streams import WHOLE, streams

from pipeline import chat, prompts
from pipeline.chat.traces import Outcome
from pipeline.config import Price
from pipeline.errors import EndpointError

AGAIN, ROW, RUN = "asked again", "the row is rejected", "the run stops"


def error(status: int, message: str = "no", **headers: str) -> Handler:
    return says(status, headers=headers, error={"message": message})


async def hangs(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    return web.Response()


async def drops(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def cut_json(_: web.Request) -> web.StreamResponse:
    return web.Response(text='{"choices": [{"message": {"content": "4', content_type="application/json")


@pytest.mark.parametrize(
    ("fault", "follows", "said", "settings"),
    [
        (error(429, **{"Retry-After": "0.1"}), AGAIN, "", {}),
        (error(500), AGAIN, "", {}),
        (error(502), AGAIN, "", {}),
        (error(503, **{"Retry-After": "0.1"}), AGAIN, "", {}),
        (error(529), AGAIN, "", {}),
        (hangs, AGAIN, "", {"timeout_s": 0.5}),
        (drops, AGAIN, "", {}),
        (streams(*WHOLE[:4], abort=True), AGAIN, "", {"stream": True}),
        (cut_json, AGAIN, "", {}),
        (says(choices=[]), AGAIN, "", {}),
        (error(400, "bad"), ROW, "HTTP 400: bad (None)", {}),
        (error(413, "too large"), ROW, "HTTP 413: too large (None)", {}),
        (error(422, "bad"), ROW, "HTTP 422: bad (None)", {}),
        (error(403, "flagged by moderation"), ROW, "flagged by moderation", {}),
        (error(401), RUN, "check the key", {}),
        (error(402), RUN, "check the account's balance", {}),
        (error(403), RUN, "check what the key", {}),
        (error(404), RUN, "check the model's name", {}),
        (error(429, "insufficient_quota"), RUN, "check the account's balance", {}),
    ],
    ids=[
        "429", "500", "502", "503", "529", "time-out", "dropped", "dropped mid-stream", "malformed JSON", "empty choices",
        "400", "413", "422", "moderation", "401", "402", "403", "404 model", "no quota",
    ],
)  # fmt: skip
async def test_what_follows_from_a_fault(fault: Handler, follows: str, said: str, settings: dict[str, Any]) -> None:
    async with scripted(fault, answers()) as (url, seen):
        if follows == RUN:
            with pytest.raises(EndpointError, match=said):
                await ask(endpoint(url, **settings))
        else:
            outcome = await ask(endpoint(url, **settings))
            assert (outcome.reply is not None) == (follows == AGAIN) and said in (outcome.error or "")
    assert len(seen) == (2 if follows == AGAIN else 1)


@pytest.mark.parametrize(
    ("handler", "status"),
    [
        (answers(), "ok"),
        (answers(finish="length"), "truncated"),
        (answers(finish="content_filter"), "refused"),
        (answers(None, refusal="I cannot"), "refused"),
        (answers(""), "ok"),
    ],
    ids=["stop", "length", "content filter", "refusal", "empty"],
)
async def test_an_answer_is_kept_as_it_ended_and_not_asked_for_again(handler: Handler, status: str) -> None:
    async with scripted(handler) as (url, seen):
        settings = endpoint(url)
        outcome: Outcome = await ask(settings)
    request = chat.chat_request(settings, prompts.student("2 + 2?"), 0)
    assert chat.to_trace(outcome, request, "p", 0, "distill", settings.price).status == status and len(seen) == 1


async def test_thought_tokens_that_only_the_total_has_are_counted() -> None:
    usage = {"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 1135,
             "completion_tokens_details": {"reasoning_tokens": 1094}}  # fmt: skip
    whole = says(choices=[{"message": {"content": "4"}, "finish_reason": "stop"}], usage=usage)
    async with scripted(whole) as (url, _):
        outcome = await ask(endpoint(url))
    assert outcome.reply and (outcome.reply.completion_tokens, outcome.reply.reasoning_tokens) == (1103, 1094)


async def test_an_answer_may_come_in_parts() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    async with scripted(answers([thinking, {"type": "text", "text": "4"}])) as (url, _):  # type: ignore[arg-type]
        outcome = await ask(endpoint(url))
    assert outcome.reply and (outcome.reply.text, outcome.reply.reasoning) == ("4", "hm")


async def test_an_answer_that_cannot_be_read_is_paid_for_a_few_times_only() -> None:
    async with scripted(answers([1, 2])) as (url, seen):  # type: ignore[arg-type]
        outcome = await ask(endpoint(url, max_attempts=12))
    assert outcome.reply is None and "malformed" in (outcome.error or "") and len(seen) == 4


async def test_an_error_inside_of_a_200_may_have_been_billed() -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 900}
    for code in (429, 503, 402, 500):
        async with scripted(says(200, error={"code": code, "message": "half-way"}, usage=usage)) as (url, _):
            settings = endpoint(url, price=Price(prompt=1, completion=10), budget_usd=1.0, max_attempts=1)
            dispatcher = chat.Dispatcher(settings)
            async with chat.ChatClient(settings, dispatcher) as client:
                with suppress(EndpointError):
                    await client.buy(chat.chat_request(settings, prompts.student("?"), 0), None)
            assert dispatcher.budget.spent.usd > 0.01, code


async def test_an_answer_that_does_not_tell_its_tokens_costs_what_it_may() -> None:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "4" * 5000}}
    async with scripted(says(choices=[choice], usage={"prompt_tokens": 50})) as (url, _):
        settings = endpoint(url, price=Price(prompt=1, completion=10), budget_usd=1.0)
        dispatcher = chat.Dispatcher(settings)
        async with chat.ChatClient(settings, dispatcher) as client:
            outcome = await client.buy(chat.chat_request(settings, prompts.student("?"), 0), None)
    assert outcome.reply and dispatcher.budget.spent.usd > 0.01


@pytest.mark.parametrize("tokens", [1e999, -1e999, "many"])
async def test_odd_counts_of_tokens_are_a_broken_answer(tokens: Any) -> None:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "4"}}
    async with scripted(says(choices=[choice], usage={"prompt_tokens": tokens}), answers()) as (url, seen):
        outcome = await ask(endpoint(url))
    assert outcome.reply and len(seen) == 2


@pytest.mark.parametrize("odd", ["data: null", 'data: {"choices": [null]}', 'data: {"choices": [{"delta": "x"}]}'])
async def test_an_odd_piece_of_a_stream_is_a_broken_answer(odd: str) -> None:
    async with scripted(streams(odd), streams(*WHOLE)) as (url, seen):
        outcome = await ask(endpoint(url, stream=True))
    assert outcome.reply and outcome.reply.text == "\\boxed{4}" and len(seen) == 2
