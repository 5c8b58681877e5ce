"""Answers that come piece by piece: put together, kept alive, cut off, broken."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from servers import Handler, answers, ask, endpoint, scripted, teacher

USAGE = {"prompt_tokens": 7, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 5}}


def piece(finish: str | None = None, **delta: Any) -> str:
    return f"data: {json.dumps({'model': 'm', 'choices': [{'index': 0, 'delta': delta, 'finish_reason': finish}]})}"


LAST = "data: " + json.dumps({"choices": [], "usage": USAGE})
WHOLE = [
    piece(role="assistant", content=""), piece(reasoning_content="let "), piece(reasoning_content="me see"),
    piece(content="\\boxed"), piece(content="{4}"), piece("stop"), LAST, "data: [DONE]",
]  # fmt: skip


def streams(*lines: str | float, abort: bool = False) -> Handler:
    """A handler that sends lines as events; a number is a pause in seconds."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for line in lines:
            if isinstance(line, str):
                await response.write(f"{line}\n\n".encode())
            else:
                await asyncio.sleep(line)
        if abort and request.transport is not None:
            request.transport.abort()
        return response

    return handler


async def test_a_stream_is_asked_for_and_put_together() -> None:
    async with scripted(streams(*WHOLE)) as (url, seen):
        outcome = await ask(endpoint(url, stream=True))
    reply = outcome.reply
    assert reply and (reply.text, reply.reasoning, reply.finish_reason) == ("\\boxed{4}", "let me see", "stop")
    assert (reply.prompt_tokens, reply.completion_tokens, reply.reasoning_tokens, reply.model) == (7, 9, 5, "m")
    assert seen[0]["body"]["stream"] is True and seen[0]["body"]["stream_options"] == {"include_usage": True}


async def test_the_thought_may_have_its_other_name() -> None:
    async with scripted(streams(piece(reasoning="hm"), piece("stop", content="4"), LAST)) as (url, _):
        outcome = await ask(endpoint(url, stream=True))
    assert outcome.reply and (outcome.reply.reasoning, outcome.reply.text) == ("hm", "4")


async def test_the_replay_teacher_streams_the_same_answer_as_it_gives_whole() -> None:
    row = {
        "model": "teacher",
        "problem": "2 + 2?",
        "content": "\\boxed{4}",
        "reasoning_content": "ein Gedanke é∑ " * 40,
    }
    async with teacher([row]) as url:
        whole, streamed = await ask(endpoint(url)), await ask(endpoint(url, stream=True))
    assert whole.reply and streamed.reply
    assert (whole.reply.text, whole.reply.reasoning) == (streamed.reply.text, streamed.reply.reasoning)
    assert whole.reply.completion_tokens == streamed.reply.completion_tokens


async def test_a_thought_may_take_longer_than_the_patience_for_one_piece() -> None:
    slow = [line for part in WHOLE for line in (part, 0.25)]
    async with scripted(streams(*slow)) as (url, seen):
        outcome = await ask(endpoint(url, stream=True, timeout_s=0.8))
    assert outcome.reply and outcome.reply.text == "\\boxed{4}" and len(seen) == 1


async def test_keep_alive_lines_are_no_part_of_an_answer() -> None:
    alive = [": keep-alive", "", ": OPENROUTER PROCESSING", "event: ping"]
    async with scripted(streams(*[line for part in WHOLE for line in (*alive, part)])) as (url, _):
        outcome = await ask(endpoint(url, stream=True))
    assert outcome.reply and outcome.reply.text == "\\boxed{4}"


async def test_nothing_but_keep_alive_lines_is_a_time_out() -> None:
    async with scripted(streams(*[": keep-alive", 0.1] * 30)) as (url, seen):
        outcome = await ask(endpoint(url, stream=True, timeout_s=0.5))
    assert outcome.reply is None and outcome.error == "no answer within 0.5 s, 2 times" and len(seen) == 2


async def test_blank_lines_before_an_answer_in_one_piece_are_none_of_it() -> None:
    async def late(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for _ in range(5):
            await response.write(b"\n")
            await asyncio.sleep(0.02)
        await response.write(json.dumps({"choices": [{"message": {"content": "4"}, "finish_reason": "stop"}]}).encode())
        return response

    async with scripted(late) as (url, seen):
        outcome = await ask(endpoint(url))
    assert outcome.reply and outcome.reply.text == "4" and len(seen) == 1


@pytest.mark.parametrize(
    "broken",
    [
        streams(*WHOLE[:4], abort=True),
        streams(*WHOLE[:5]),
        streams(*WHOLE[:4], 'data: {"choices": [{"delta'),
        streams(),
        streams('data: {"error": {"message": "overloaded", "code": 503}}'),
        streams(WHOLE[1], 'data: {"error": {"message": "overloaded", "code": 503}}'),
        streams(piece("error", content="x")),
    ],
    ids=["dropped", "no end", "broken line", "empty", "an error", "an error in the middle", "a finish that is one"],
)
async def test_a_stream_that_breaks_off_is_asked_for_again(broken: Handler) -> None:
    async with scripted(broken, streams(*WHOLE)) as (url, seen):
        outcome = await ask(endpoint(url, stream=True))
    assert outcome.reply and outcome.reply.text == "\\boxed{4}" and len(seen) == 2


async def test_a_provider_that_does_not_stream_is_understood() -> None:
    async with scripted(answers()) as (url, _):
        outcome = await ask(endpoint(url, stream=True))
    assert outcome.reply and outcome.reply.text == "\\boxed{4}"
