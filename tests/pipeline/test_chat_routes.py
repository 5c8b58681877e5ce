"""Several keys and places for one model: they share the work, and one that refuses, is down or slow is left out."""

import asyncio
from collections import Counter

import pytest
from aiohttp import web
from permits import asks, permits
from servers import bought, endpoint, free_port, running, says, scripted

from pipeline import chat
from pipeline.chat.dispatch import Dispatcher, Report
from pipeline.config import Route
from pipeline.errors import EndpointError


def counting(seen: Counter[str], name: str, status: int = 200) -> web.Application:
    async def answer(_: web.Request) -> web.StreamResponse:
        seen[name] += 1
        body = {"choices": [{"message": {"content": name}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1}}
        return web.json_response(body if status == 200 else {"error": {"message": "no"}}, status=status)

    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", answer), web.get("/v1/models", answer)])
    return app


async def test_routes_share_the_work_by_their_weights() -> None:
    seen: Counter[str] = Counter()
    async with running(counting(seen, "own")) as own, running(counting(seen, "other")) as other:
        settings = endpoint(own, routes=(Route(base_url=f"{other}/v1", weight=3),), max_in_flight=40)
        await bought(settings, Dispatcher(settings), range(400))
    assert seen.total() == 400 and 0.6 <= seen["other"] / 400 <= 0.9


@pytest.mark.parametrize("status", [401, 402, 404])
async def test_a_route_that_refuses_us_is_left_out(status: int) -> None:
    seen: Counter[str] = Counter()
    async with running(counting(seen, "own", status)) as own, running(counting(seen, "other")) as other:
        settings = endpoint(own, routes=(Route(base_url=f"{other}/v1"),), max_in_flight=8)
        outcomes = await bought(settings, Dispatcher(settings), range(100))
        await chat.preflight(settings)
    assert all(outcome.reply.text == "other" for outcome in outcomes) and seen["own"] <= 9


async def test_a_route_where_nobody_is_is_left_out() -> None:
    seen: Counter[str] = Counter()
    async with running(counting(seen, "other")) as other:
        settings = endpoint(
            f"http://127.0.0.1:{free_port()}", routes=(Route(base_url=f"{other}/v1"),), unreachable_s=1, max_attempts=30
        )
        outcomes = await bought(settings, Dispatcher(settings), range(100))
    assert all(outcome.reply.text == "other" for outcome in outcomes)


async def test_a_limited_route_does_not_hold_up_the_others() -> None:
    seen: Counter[str] = Counter()
    later = says(429, headers={"Retry-After": "30"}, error={"message": "slow down"})
    async with scripted(later) as (limited, asked), running(counting(seen, "other")) as other:
        settings = endpoint(limited, routes=(Route(base_url=f"{other}/v1"),), max_in_flight=8)
        async with asyncio.timeout(10):
            outcomes = await bought(settings, Dispatcher(settings), range(100))
    assert all(outcome.reply.text == "other" for outcome in outcomes) and len(asked) <= 8


async def test_where_every_route_refuses_the_run_ends() -> None:
    async with scripted(says(401, error={"message": "no"})) as (url, _):
        settings = endpoint(url, routes=(Route(base_url=f"{url}/v1"),))
        outcomes = await bought(settings, Dispatcher(settings), range(20))
    assert all(isinstance(outcome, EndpointError) for outcome in outcomes)


async def test_a_long_outage_is_no_overflow() -> None:
    dispatcher = Dispatcher(endpoint("http://x", unreachable_s=1e9))
    for start in range(0, 1200, 200):
        dispatcher._routes[0].limits.paused_until = 0.0
        await dispatcher.tell("a", asks(*range(start, start + 200)), [])
        given = await permits(dispatcher, "a", 200)
        await dispatcher.tell(
            "a", [], [Report(each.number, each.ticket, "unreachable", error="down") for each in given]
        )
    assert dispatcher._routes[0].failures == 1200
    await dispatcher.stop()
