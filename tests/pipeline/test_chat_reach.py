"""The client's requests and their names, the store behind it, and endpoints that nobody serves or that want a key."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from servers import Handler, answers, ask, endpoint, free_port, running, says, scripted, teacher

from pipeline import chat, prompts
from pipeline.config import Price, Sampling
from pipeline.errors import EndpointError
from pipeline.responses import Reply, Segment
from pipeline.storage import Place

KEY = "sk-hidden-0123456789"


def request_id(sample: int = 0, problem: str = "2 + 2?", **settings: Any) -> str:
    return chat.chat_request(endpoint("http://x", **settings), prompts.student(problem), sample).request_id


def test_a_request_id_names_question_model_sampling_and_sample_and_nothing_else() -> None:
    hot = Sampling(max_tokens=1000, temperature=0.5)
    effort = Sampling(max_tokens=1000, extra={"reasoning_effort": "high"})
    ids = [
        request_id(), request_id(1), request_id(problem="2 + 3?"), request_id(model="other"), request_id(max_tokens=999),
        request_id(sampling=hot), request_id(sampling=effort), request_id(token_limit_field="max_completion_tokens"),
    ]  # fmt: skip
    assert len(set(ids)) == len(ids)
    assert request_id(timeout_s=1, max_in_flight=9, price=Price(prompt=1), send_seed=False) == request_id()


def test_only_what_is_set_is_sent() -> None:
    sampling = Sampling(max_tokens=5, top_p=0.9, extra={"include_reasoning": True})
    settings = endpoint("http://x", sampling=sampling, token_limit_field="max_completion_tokens", send_seed=False)
    messages = [{"role": "user", "content": prompts.student("p")[0].content}]
    assert chat.chat_request(settings, prompts.student("p"), 3).body == {
        "model": "teacher", "messages": messages, "include_reasoning": True, "max_completion_tokens": 5, "top_p": 0.9,
    }  # fmt: skip
    assert chat.chat_request(endpoint("http://x"), prompts.student("p"), 3).body["seed"] == 3


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    return [
        {"model": "teacher", "problem": f"What is {n} + {n}?", "content": f"\\boxed{{{2 * n}}}"} for n in range(400)
    ]


@asynccontextmanager
async def shop(url: str, folder: Path, **settings: Any) -> AsyncIterator[tuple[chat.ChatClient, Segment]]:
    async with chat.ChatClient(endpoint(url, **settings)) as client, Segment(Place(str(folder)), "0", "f") as segment:
        yield client, segment


async def stats(url: str) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/stats") as response:
        return dict(await response.json())


async def buy_all(client: chat.ChatClient, segment: Segment, count: int) -> list[chat.Outcome]:
    requests = [chat.chat_request(client.endpoint, prompts.student(f"What is {n} + {n}?"), 0) for n in range(count)]
    return await asyncio.gather(*(client.buy(request, segment) for request in requests))


async def test_what_is_stored_is_not_asked_again(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    async with teacher(rows) as url:
        async with shop(url, tmp_path) as (client, segment):
            first = await buy_all(client, segment, 20)
        async with shop(url, tmp_path) as (client, segment):
            second = await buy_all(client, segment, 30)
            assert (client.counts["stored"], client.counts["requests"]) == (20, 10)
        served = await stats(url)
    assert [outcome.reply for outcome in second[:20]] == [outcome.reply for outcome in first]
    assert [outcome.stored for outcome in second] == [True] * 20 + [False] * 10
    assert (served["answers"], served["answered_again"]) == (30, 0)


async def test_a_failed_request_is_asked_again_by_the_next_run(tmp_path: Path) -> None:
    async with scripted(says(400, error={"message": "no"}), answers("4")) as (url, seen):
        async with Segment(Place(str(tmp_path)), "0", "f") as segment:
            assert (await ask(endpoint(url), segment=segment)).reply is None
            assert (await ask(endpoint(url), segment=segment)).reply is not None
        assert len(seen) == 2


async def test_hundreds_of_requests_are_in_flight_and_no_more_than_allowed(
    rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    async with teacher(rows, latency_s=0.5) as url, shop(url, tmp_path, max_in_flight=250) as (client, segment):
        outcomes = await buy_all(client, segment, 400)
        served = await stats(url)
    assert all(outcome.reply for outcome in outcomes)
    assert 200 <= served["most_in_flight"] <= 250


async def test_every_kind_of_fault_at_once_loses_and_doubles_nothing(
    rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    faults = {"429": 0.2, "500": 0.05, "drop": 0.03, "malformed": 0.02, "no_choices": 0.02}
    async with teacher(rows, faults=faults, retry_after_s=0.1) as url:
        async with shop(url, tmp_path, max_attempts=12) as (client, segment):
            outcomes = await buy_all(client, segment, 60)
        served = await stats(url)
    assert all(outcome.reply for outcome in outcomes)
    assert (served["answers"], served["distinct_answers"], served["answered_again"]) == (60, 60, 0)
    assert {"429", "500"} <= set(served["by_fault"])


@pytest.fixture
def dropping_port() -> Iterator[int]:
    """A port whose connections never come about, as behind a firewall that drops packets: its backlog is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield int(listener.getsockname()[1])
        for client in waiting:
            client.close()


@pytest.mark.parametrize("sign", ["refused", "dropped", "no such host"])
async def test_an_endpoint_that_nobody_serves_ends_the_run(sign: str, dropping_port: int) -> None:
    base = {
        "refused": f"http://127.0.0.1:{free_port()}",
        "dropped": f"http://127.0.0.1:{dropping_port}",
        "no such host": "http://no-such-host.invalid",
    }[sign]
    started = time.monotonic()
    with pytest.raises(EndpointError, match=r"cannot be reached \(.+\): start it, or correct base_url"):
        await ask(endpoint(base, unreachable_s=0.5, max_attempts=12))
    assert 0.5 < time.monotonic() - started < 8


async def test_an_endpoint_that_restarts_is_waited_for(tmp_path: Path) -> None:
    port = free_port()
    settings = endpoint(f"http://127.0.0.1:{port}", unreachable_s=10, max_attempts=12)
    asked = asyncio.create_task(ask(settings))
    await asyncio.sleep(0.4)
    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", answers("4"))])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    outcome = await asked
    await runner.cleanup()
    assert outcome.reply


async def test_a_client_that_waited_long_before_its_first_question_is_as_patient() -> None:
    settings = endpoint(f"http://127.0.0.1:{free_port()}", unreachable_s=1, max_attempts=2)
    async with chat.ChatClient(settings) as client:
        await asyncio.sleep(1.1)
        outcome = await client.buy(chat.chat_request(settings, prompts.student("p"), 0), None)
    assert outcome.error and outcome.error.startswith("no connection")


@pytest.mark.parametrize("key", [None, "", "  "])
def test_a_key_that_is_not_set_is_missed_before_anything_is_asked(
    key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("THE_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("THE_KEY", key)
    with pytest.raises(EndpointError, match=r"the environment variable THE_KEY is not set: set it .*, or name another"):
        chat.ChatClient(endpoint("http://x", api_key_env="THE_KEY"))


@pytest.mark.parametrize("key", [f"{KEY}\r\nX-Evil: 1", f"{KEY}é"])
def test_a_key_that_no_header_can_hold_is_refused_unseen(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", key)
    with pytest.raises(EndpointError, match="holds characters that no HTTP header may") as caught:
        chat.ChatClient(endpoint("http://x", api_key_env="THE_KEY"))
    assert "sk-" not in str(caught.value)


async def models(handler: Handler, **settings: Any) -> None:
    app = web.Application()
    app.add_routes([web.get("/v1/models", handler)])
    async with running(app) as url:
        await chat.preflight(endpoint(url, **settings))


async def test_preflight_passes_where_someone_answers() -> None:
    await models(says(200, data=[]))
    await models(says(404))
    await models(says(500))


@pytest.mark.parametrize("status", [401, 403])
async def test_preflight_stops_on_a_wrong_key(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", KEY)
    with pytest.raises(EndpointError, match="THE_KEY") as caught:
        await models(says(status, error={"message": KEY}), api_key_env="THE_KEY")
    assert KEY not in str(caught.value)


async def test_preflight_stops_where_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.chat.reach.PREFLIGHT_S", 1.0)
    with pytest.raises(EndpointError, match="cannot be reached"):
        await chat.preflight(endpoint(f"http://127.0.0.1:{free_port()}"))


async def test_token_ids_are_continued_and_counted() -> None:
    async def complete(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        assert body == {"model": "m", "prompt": [1, 2, 3], "max_tokens": 7, "stop": ["}"]}
        choice = {"text": "12}", "finish_reason": "stop", "token_ids": [8, 9], "prompt_token_ids": [1, 2, 3]}
        return web.json_response({"model": "m", "choices": [choice], "usage": {"completion_tokens": 2}})

    app = web.Application()
    app.add_routes([web.post("/v1/completions", complete)])
    async with running(app) as url, chat.ChatClient(endpoint(url)) as client:
        outcome = await client.buy(chat.completion_request("m", [1, 2, 3], 7, stop=["}"]), None)
    reply = outcome.reply
    assert isinstance(reply, Reply)
    assert (reply.text, reply.token_ids, reply.prompt_token_ids, reply.completion_tokens) == (
        "12}",
        [8, 9],
        [1, 2, 3],
        2,
    )


def test_a_question_of_any_characters_is_sent_as_json() -> None:
    request = chat.chat_request(endpoint("http://x"), prompts.student('"\\ \0 \ud800 é {x}'), 0)
    assert json.loads(json.dumps(request.body))["messages"] == request.body["messages"]
