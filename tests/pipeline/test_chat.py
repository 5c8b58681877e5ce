"""The client against real HTTP: what is asked again, what is a row's fault, what ends the run."""

import asyncio
import time
from typing import Any

import pytest
from aiohttp import web
from servers import Handler, answers, ask, endpoint, says, scripted

from pipeline import chat, prompts
from pipeline.chat.client import FIRST_PAUSE_S
from pipeline.config import Price
from pipeline.errors import EndpointError
from pipeline.records import Trace

KEY = "sk-hidden-0123456789"
FREE = Price()


async def drops(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def half(request: web.Request) -> web.StreamResponse:
    """Promises more bytes than it sends."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"choices": [')
    assert request.transport is not None
    request.transport.close()
    return response


async def hangs(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


def sends(body: bytes, status: int = 200) -> Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body, status=status)

    return handler


def chooses(**choice: Any) -> Handler:
    return says(choices=[choice])


AGAIN = {
    "429": says(429, error={"message": "slow down", "code": "rate_limit_exceeded"}),
    "429 without a body": sends(b"", 429),
    "408": says(408),
    "409": says(409),
    "500": says(500, error="internal"),
    "502 of a proxy": sends(b"<html>Bad Gateway</html>", 502),
    "503": says(503, error={"message": "overloaded"}),
    "529": says(529),
    "dropped": drops,
    "cut": half,
    "malformed": sends(b'{"choices": [{"message": {"content": "cut sho'),
    "garbage": sends(b"\xff\xfe\x00\x01"),
    "nothing": sends(b""),
    "deep": sends(b"[" * 100_000),
    "a list": sends(b"[]"),
    "a string": sends(b'"ok"'),
    "no choices": says(choices=[]),
    "null choices": says(choices=None),
    "no message": says(choices=[{}, {}], usage="none"),
    "a choice that is text": says(choices=["4"]),
    "content that is no text": chooses(message={"content": {"text": "4"}}),
    "reasoning that is no text": chooses(message={"content": "4", "reasoning": [1]}),
    "tokens that are no number": says(choices=[{"message": {"content": "4"}}], usage={"completion_tokens": "many"}),
    "error in a 200": says(error={"message": "upstream timed out", "code": 504}),
    "error in a 200, by name": says(error={"message": "provider returned error", "code": "server_error"}),
    "error as text in a 200": says(error="upstream failed"),
    "error in a choice": chooses(message={"content": "half an ans"}, finish_reason="error", error={"code": 502}),
    "a choice that ended by error": chooses(message={"content": "half an ans"}, finish_reason="error"),
}  # fmt: skip


@pytest.mark.parametrize("fault", AGAIN)
async def test_a_passing_fault_is_asked_again_and_never_taken_for_an_answer(fault: str) -> None:
    async with scripted(AGAIN[fault], answers("\\boxed{4}")) as (url, seen):
        outcome = await ask(endpoint(url))
    assert outcome.reply and outcome.reply.text == "\\boxed{4}"
    assert len(seen) == 2 and seen[0]["body"] == seen[1]["body"]


async def test_a_request_that_hangs_is_given_up_and_asked_again() -> None:
    async with scripted(hangs, answers("4")) as (url, seen):
        outcome = await ask(endpoint(url, timeout_s=0.3))
    assert outcome.reply and len(seen) == 2


async def test_a_fault_that_stays_is_the_rows_after_the_last_attempt() -> None:
    async with scripted(says(500, error={"message": "broken", "code": "x"})) as (url, seen):
        outcome = await ask(endpoint(url, max_attempts=3))
    assert (outcome.reply, outcome.error, len(seen)) == (None, "HTTP 500: broken (x), 3 times", 3)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"Retry-After": "1"}, 1.0), ({"retry-after-ms": "700"}, 0.7), ({"Retry-After": "1", "retry-after-ms": "0"}, 0.0)],
)
async def test_retry_after_is_obeyed(headers: dict[str, str], seconds: float) -> None:
    async with scripted(says(429, headers), answers("4")) as (url, seen):
        await ask(endpoint(url))
    waited = seen[1]["at"] - seen[0]["at"]
    assert seconds <= waited < seconds + FIRST_PAUSE_S + 0.5


async def test_retry_after_may_be_a_date() -> None:
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 2))
    async with scripted(says(429, {"Retry-After": date}), answers("4")) as (url, seen):
        await ask(endpoint(url))
    assert seen[1]["at"] - seen[0]["at"] > 0.8


@pytest.mark.parametrize(
    ("status", "body", "mending"),
    [
        (401, {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}, "check the key in the environment variable THE_KEY"),
        (402, {"message": "Insufficient credits"}, "check the account's balance and limits"),
        (403, {"message": "not yours"}, "check what the key in THE_KEY may do"),
        (404, {"message": "no such model", "code": "model_not_found"}, "check the model's name and base_url"),
        (429, {"message": "You exceeded your quota", "code": "insufficient_quota"}, "check the account's balance and limits"),
        (200, {"message": "You exceeded your quota", "code": "insufficient_quota"}, "check the account's balance and limits"),
        (200, {"message": "No auth", "code": 401}, "check the key in the environment variable THE_KEY"),
    ],
)  # fmt: skip
async def test_what_every_request_would_meet_stops_the_run_at_once(
    status: int, body: dict[str, str], mending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_KEY", KEY)
    async with scripted(says(status, error=body)) as (url, seen):
        with pytest.raises(EndpointError) as caught:
            await ask(endpoint(url, api_key_env="THE_KEY"))
    message = str(caught.value)
    assert mending in message and url in message and "\n" not in message and KEY not in message
    assert len(seen) == 1 and seen[0]["headers"]["Authorization"] == f"Bearer {KEY}"


async def test_an_answer_that_never_comes_in_time_is_paid_for_twice_at_most() -> None:
    async with scripted(hangs) as (url, seen):
        outcome = await ask(endpoint(url, timeout_s=0.2, max_attempts=9))
    assert outcome.reply is None and outcome.error == "no answer within 0.2 s, 2 times" and len(seen) == 2


async def test_a_wrong_key_is_not_tried_by_the_requests_that_wait() -> None:
    async with scripted(says(401, error={"message": "no"})) as (url, seen):
        settings = endpoint(url, max_in_flight=4)
        async with chat.ChatClient(settings) as client:
            asked = [chat.chat_request(settings, prompts.student(str(n)), 0) for n in range(50)]
            with pytest.raises(EndpointError, match="HTTP 401"):
                await chat.all_of(client.buy(request, None) for request in asked)
    assert len(seen) <= 4


async def test_where_one_row_ends_the_run_the_others_are_still_awaited() -> None:
    done = []

    async def row(number: int) -> int:
        await asyncio.sleep(0.01 * number)
        if number == 0:
            raise EndpointError("nobody there")
        done.append(number)
        return number

    with pytest.raises(EndpointError):
        await chat.all_of(row(number) for number in range(4))
    assert done == [1, 2, 3]


async def test_a_prompt_that_a_providers_filter_caught_is_the_rows_fault() -> None:
    caught = {"message": "Your chosen model requires moderation and your input was flagged", "code": 403}
    async with scripted(says(403, error=caught)) as (url, seen):
        outcome = await ask(endpoint(url))
    assert outcome.reply is None and "flagged" in (outcome.error or "") and len(seen) == 1


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_request_that_is_refused_for_itself_is_the_rows_fault(status: int) -> None:
    async with scripted(says(status, error={"message": "context too long", "code": "x"})) as (url, seen):
        outcome = await ask(endpoint(url))
    assert (outcome.reply, outcome.error, len(seen)) == (None, f"HTTP {status}: context too long (x)", 1)


@pytest.mark.parametrize("padding", [0, 270, 285, 296, 5000])
async def test_a_key_that_a_server_repeats_is_hidden_wherever_it_stands(
    padding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_KEY", KEY)
    for body in (sends(b"x" * padding + KEY.encode(), 400), says(400, error={"message": "x" * padding + KEY})):
        async with scripted(body) as (url, _):
            outcome = await ask(endpoint(url, api_key_env="THE_KEY"))
        assert outcome.error and "sk-hid" not in outcome.error and len(outcome.error) < 400


@pytest.mark.parametrize(
    ("handler", "status", "response", "reasoning"),
    [
        (answers("4"), "ok", "4", None),
        (answers("4", finish="length"), "truncated", "4", None),
        (answers("", finish="content_filter"), "refused", "", None),
        (answers(None, refusal="I cannot"), "refused", "I cannot", None),
        (answers("4", reasoning_content="deep"), "ok", "4", "deep"),
        (answers("4", reasoning="open"), "ok", "4", "open"),
        (answers("<think>\ninline\n</think>\n\n4"), "ok", "4", "inline"),
        (answers("opened in the prompt\n</think>\n4"), "ok", "4", "opened in the prompt"),
        (answers("\\boxed{4}.</think>"), "ok", "\\boxed{4}.</think>", None),
        (answers("<think>never closed", finish="length"), "truncated", "", "never closed"),
        (answers("4 <think> is a tag </think>"), "ok", "4 <think> is a tag </think>", None),
        (answers(None), "ok", "", None),
        (answers("half \ud83d"), "ok", "half ?", None),
    ],
)
async def test_a_trace_holds_how_the_answer_ended_and_the_thought_apart(
    handler: Handler, status: str, response: str, reasoning: str | None
) -> None:
    trace = await traced(handler)
    assert (trace.status, trace.response, trace.reasoning) == (status, response, reasoning)


async def traced(handler: Handler, price: Price = FREE) -> Trace:
    async with scripted(handler) as (url, _):
        settings = endpoint(url, max_attempts=1)
        outcome = await ask(settings)
    request = chat.chat_request(settings, prompts.student("2 + 2?"), 0)
    return chat.to_trace(outcome, request, "p1", 0, "distill", price)


async def test_a_failed_request_is_a_trace_with_its_error() -> None:
    trace = await traced(says(400, error={"message": "no"}))
    assert (trace.status, trace.error, trace.cost_usd, trace.response) == ("failed", "HTTP 400: no (None)", 0.0, "")
    assert trace.prompt == prompts.student("2 + 2?")[-1].content


@pytest.mark.parametrize(
    ("price", "dollars"),
    [
        (Price(prompt=2, completion=8), (100 * 2 + 20 * 8) / 1e6),
        (Price(prompt=2, cached_prompt=0.5, completion=8), (60 * 2 + 40 * 0.5 + 20 * 8) / 1e6),
        (Price(), 0.0),
    ],
)
async def test_usage_and_cost_are_counted(price: Price, dollars: float) -> None:
    trace = await traced(answers("4"), price)
    assert (trace.prompt_tokens, trace.completion_tokens) == (100, 20)
    assert trace.cost_usd == pytest.approx(dollars)
