"""A provider's batch API: submitted once, whatever dies between; lines that failed go into another batch."""

import asyncio
import json
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from servers import endpoint, running, teacher

from pipeline import chat, prompts
from pipeline.chat.dispatch import Dispatcher
from pipeline.config import Batch, Endpoint, Price
from pipeline.errors import EndpointError
from pipeline.replay import Behaviour, Recordings, ReplayTeacher
from pipeline.responses import Segment
from pipeline.storage import Place

COUNT = 60
ROWS = [{"model": "teacher", "problem": f"What is {n}?", "content": f"\\boxed{{{n}}}"} for n in range(COUNT)]
QUICK = Batch(gather_s=0.1, poll_s=0.1)


def in_batches(url: str, **settings: Any) -> Endpoint:
    return endpoint(url, batch=QUICK, **settings)


async def bought(settings: Endpoint, folder: Path, numbers: range = range(COUNT)) -> list[chat.Outcome]:
    place = Place(str(folder))
    async with Segment(place, "0", "f") as segment, chat.ChatClient(settings, None, place) as client:
        asked = (client.buy(chat.chat_request(settings, prompts.student(f"What is {n}?"), 0), segment) for n in numbers)
        return await chat.all_of(asked)


def submissions(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]


async def test_requests_that_come_together_are_one_batch(tmp_path: Path) -> None:
    async with teacher(ROWS, batch_s=0.2) as url:
        outcomes = await bought(in_batches(url), tmp_path)
        assert await bought(in_batches(url), tmp_path) == [
            chat.Outcome(outcome.reply, stored=True) for outcome in outcomes
        ]
    assert [outcome.reply.text for outcome in outcomes if outcome.reply] == [f"\\boxed{{{n}}}" for n in range(COUNT)]
    (submission,) = submissions(tmp_path)
    assert len(submission["requests"]) == COUNT and submission["batch_id"].startswith("batch_")


async def test_a_batch_holds_no_more_than_it_may(tmp_path: Path) -> None:
    async with teacher(ROWS, batch_s=0.2) as url:
        settings = endpoint(url, batch=Batch(gather_s=0.1, poll_s=0.1, max_requests=25))
        outcomes = await bought(settings, tmp_path)
    assert all(outcome.reply for outcome in outcomes)
    assert all(len(submission["requests"]) <= 25 for submission in submissions(tmp_path))
    assert sum(len(submission["requests"]) for submission in submissions(tmp_path)) == COUNT


async def test_lines_that_failed_go_into_another_batch(tmp_path: Path) -> None:
    async with teacher(ROWS, batch_s=0.1, faults={"500": 0.3}) as url:
        outcomes = await bought(in_batches(url, max_attempts=30), tmp_path)
    assert all(outcome.reply for outcome in outcomes)
    first, *later = sorted(submissions(tmp_path), key=lambda each: -len(each["requests"]))
    assert len(first["requests"]) == COUNT and later
    assert {name for each in later for name in each["requests"]} < set(first["requests"])


async def test_a_request_that_is_refused_for_itself_is_the_rows_fault(tmp_path: Path) -> None:
    async with teacher(ROWS[:1], batch_s=0.1) as url:
        known, unknown = await bought(in_batches(url), tmp_path, range(2))
    assert known.reply and unknown.reply is None and "no answer is recorded" in (unknown.error or "")


async def test_usage_in_a_batch_counts_for_the_budget(tmp_path: Path) -> None:
    async with teacher(ROWS, batch_s=0.1) as url:
        settings = in_batches(url, price=Price(prompt=1, completion=10), budget_usd=0.9, max_tokens=1000)
        dispatcher = chat.Dispatcher(settings)
        async with chat.ChatClient(settings, dispatcher, Place(str(tmp_path))) as client:
            asked = (
                client.buy(chat.chat_request(settings, prompts.student(f"What is {n}?"), 0), None) for n in range(40)
            )
            assert all(outcome.reply for outcome in await chat.all_of(asked))
        assert dispatcher.budget.spent.usd == pytest.approx(client.usd) and client.usd < 0.02


@pytest.mark.parametrize("moment", ["before the batch", "before we know of it", "while it runs"])
async def test_a_crash_submits_nothing_twice(moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recordings = Recordings()
    for row in ROWS:
        recordings.add(row)
    server = ReplayTeacher(recordings, Behaviour(batch_s=1.0))
    app = server.app()
    created: list[str] = []

    @web.middleware
    async def watched(request: web.Request, handler: Any) -> web.StreamResponse:
        submitting = request.method == "POST" and request.path == "/v1/batches"
        if submitting and moment == "before the batch" and not created:
            created.append("never")
            await asyncio.sleep(60)
        response: web.StreamResponse = await handler(request)
        if submitting:
            created.append("batch")
            if moment == "before we know of it" and len(created) == 1:
                await asyncio.sleep(60)  # made, and its answer never comes
        return response

    app.middlewares.append(watched)
    async with running(app) as url:
        killed = asyncio.create_task(bought(in_batches(url), tmp_path))
        while not created:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
        killed.cancel()
        await asyncio.gather(killed, return_exceptions=True)
        outcomes = await bought(in_batches(url), tmp_path)
    assert all(outcome.reply for outcome in outcomes)
    assert created.count("batch") == 1 and max(server._answered.values()) == 1


async def test_a_batch_that_is_refused_ends_the_run(tmp_path: Path) -> None:
    async def refuses(_: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"message": "billing hard limit"}}, status=400)

    app = web.Application()
    app.add_routes([web.post("/v1/files", refuses)])
    async with running(app) as url:
        with pytest.raises(EndpointError, match="billing hard limit"):
            await bought(in_batches(url), tmp_path, range(3))


@pytest.mark.parametrize("status", ["queued", "IN_PROGRESS", "something new"])
async def test_a_batch_goes_on_until_it_is_done(status: str, tmp_path: Path) -> None:
    recordings = Recordings()
    for row in ROWS:
        recordings.add(row)
    app = ReplayTeacher(recordings, Behaviour(batch_s=0.5)).app()
    created: list[str] = []

    @web.middleware
    async def renamed(request: web.Request, handler: Any) -> web.StreamResponse:
        response: Any = await handler(request)
        created.extend(["batch"] * (request.method == "POST" and request.path == "/v1/batches"))
        if request.path.startswith("/v1/batches/") and b'"in_progress"' in response.body:
            return web.json_response({**json.loads(response.body), "status": status})
        return response  # type: ignore[no-any-return]

    app.middlewares.append(renamed)
    async with running(app) as url:
        assert all(outcome.reply for outcome in await bought(in_batches(url), tmp_path))
    assert created == ["batch"]


# --- what may have been paid ----------------------------------------------------------------------

PRICED = Price(prompt=1.0, completion=10.0)
PAID_ROWS = [{**row, "completion_tokens": 900} for row in ROWS]


@asynccontextmanager
async def unreliable(fault: Callable[[web.Request, web.StreamResponse | None], web.StreamResponse | None]):
    """The replay teacher behind something that changes its responses: asked before (None) and after it answers."""
    recordings = Recordings()
    for row in PAID_ROWS:
        recordings.add(row)
    server = ReplayTeacher(recordings, Behaviour(batch_s=0.2))
    app = server.app()

    @web.middleware
    async def between(request: web.Request, handler: Any) -> web.StreamResponse:
        instead = fault(request, None)
        if instead is not None:
            return instead
        response = await handler(request)
        return fault(request, response) or response

    app.middlewares.append(between)
    async with running(app) as url:
        yield server, url


async def tried(settings: Endpoint, dispatcher: Dispatcher, folder: Path, numbers: range) -> list[Any]:
    place = Place(str(folder))
    async with Segment(place, "0", "f") as segment, chat.ChatClient(settings, dispatcher, place) as client:
        asked = (client.buy(chat.chat_request(settings, prompts.student(f"What is {n}?"), 0), segment) for n in numbers)
        return await asyncio.gather(*asked, return_exceptions=True)


async def test_a_batch_whose_making_nobody_confirmed_is_still_to_be_paid(tmp_path: Path) -> None:
    lost: list[int] = []

    def fault(request: web.Request, response: web.StreamResponse | None) -> None:
        if response is not None and (request.method, request.path) == ("POST", "/v1/batches") and not lost:
            lost.append(1)
            assert request.transport
            request.transport.abort()

    async with unreliable(fault) as (server, url):
        settings = in_batches(url, price=PRICED, budget_usd=1.0)
        first = Dispatcher(settings, Place(str(tmp_path / "budget")))
        outcomes = await tried(settings, first, tmp_path / "responses", range(COUNT))
        assert all(isinstance(outcome, EndpointError) for outcome in outcomes)
        assert first.budget.reserved.usd >= COUNT * 0.01
        await first.stop()
        second = Dispatcher(settings, Place(str(tmp_path / "budget")))
        outcomes = await tried(settings, second, tmp_path / "responses", range(COUNT))
        assert all(outcome.reply for outcome in outcomes) and server._counts["answered_again"] == 0
        assert second.budget.spent.usd == pytest.approx(COUNT * 0.009, rel=0.1)
        assert len(submissions(tmp_path / "responses")) == 1
        await second.stop()


async def test_a_batch_that_goes_on_while_nobody_may_look_keeps_its_money(tmp_path: Path) -> None:
    def fault(request: web.Request, response: web.StreamResponse | None) -> web.StreamResponse | None:
        looked = request.method == "GET" and request.path.startswith("/v1/batches/")
        return web.json_response({"error": {"message": "down"}}, status=401) if looked and response is None else None

    async with unreliable(fault) as (_, url):
        settings = in_batches(url, price=PRICED, budget_usd=1.0)
        dispatcher = Dispatcher(settings)
        outcomes = await tried(settings, dispatcher, tmp_path, range(COUNT))
        assert all(isinstance(outcome, EndpointError) for outcome in outcomes)
        assert dispatcher.budget.spent.usd >= COUNT * 0.01


async def test_a_batch_that_is_not_taken_costs_nothing(tmp_path: Path) -> None:
    def fault(request: web.Request, _: web.StreamResponse | None) -> web.StreamResponse | None:
        making = (request.method, request.path) == ("POST", "/v1/batches")
        error = {"error": {"message": f"no quota for {request.headers.get('Authorization')}"}}
        return web.json_response(error, status=402) if making else None

    async with unreliable(fault) as (_, url):
        settings = in_batches(url, price=PRICED, budget_usd=1.0)
        dispatcher = Dispatcher(settings)
        outcomes = await tried(settings, dispatcher, tmp_path, range(COUNT))
        assert all(isinstance(outcome, EndpointError) for outcome in outcomes) and dispatcher.budget.spent.usd < 1e-9


async def test_a_batch_that_is_gone_from_the_provider_is_submitted_anew(tmp_path: Path) -> None:
    gone = True

    def fault(request: web.Request, response: web.StreamResponse | None) -> web.StreamResponse | None:
        nonlocal gone
        looked = request.method == "GET" and request.path.startswith("/v1/batches/")
        if looked and response is None and gone:
            gone = False
            return web.json_response({"error": {"message": "no such batch"}}, status=404)
        return None

    async with unreliable(fault) as (_, url):
        settings = in_batches(url, price=PRICED, budget_usd=2.0)
        dispatcher = Dispatcher(settings)
        outcomes = await tried(settings, dispatcher, tmp_path, range(5))
    assert all(outcome.reply for outcome in outcomes)
    assert sum(len(submission["requests"]) for submission in submissions(tmp_path)) == 5
    assert dispatcher.budget.spent.usd > 5 * (0.01 + 0.009), "the one that is gone may have been billed"


async def test_a_key_that_a_server_repeats_is_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED", "sk-planted-4f9a")

    def refuses(request: web.Request, response: web.StreamResponse | None) -> web.StreamResponse | None:
        said = {"error": {"message": f"not with {request.headers['Authorization']}"}}
        return web.json_response(said, status=401) if response is None and request.method == "POST" else None

    def fails(request: web.Request, response: web.StreamResponse | None) -> web.StreamResponse | None:
        looked = request.method == "GET" and request.path.startswith("/v1/batches/")
        error = {"message": f"key {request.headers['Authorization']} has no quota"}
        return web.json_response({"status": "failed", "errors": {"data": [error]}}) if looked and response else None

    for fault, batch in ((refuses, None), (refuses, QUICK), (fails, QUICK)):
        async with unreliable(fault) as (_, url):
            settings = endpoint(url, batch=batch, api_key_env="PLANTED")
            outcomes = await tried(settings, Dispatcher(settings), tmp_path, range(3))
        assert all("Bearer ***" in str(outcome) and "sk-planted" not in str(outcome) for outcome in outcomes)
