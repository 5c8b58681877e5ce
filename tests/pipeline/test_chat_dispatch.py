"""One dispatcher for many clients: a budget that holds, keys that share the work, and its memory after a crash."""

import asyncio
import random
import shutil
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import pytest
from aiohttp import web
from servers import endpoint, free_port, running, says, scripted, teacher

from pipeline import chat, prompts
from pipeline.chat.budget import Budget, Cost, Usage
from pipeline.chat.dispatch import Ask, Dispatcher, Permit, Report
from pipeline.config import Endpoint, Price, RateLimits, Route
from pipeline.errors import BudgetError, DataError, EndpointError
from pipeline.storage import Place

PRICE = Price(prompt=1.0, completion=10.0)
"""A request of 100 and 1,000 tokens costs 1.01 cents."""
MOST = Usage(100, 1000)


TAKEN: WeakKeyDictionary[Dispatcher, dict[str, list[int]]] = WeakKeyDictionary()


async def collected(dispatcher: Dispatcher, client: str) -> list[Permit]:
    """What a client is given, which has what it was given before."""
    taken = TAKEN.setdefault(dispatcher, {})
    found = (await dispatcher.collect(client, taken.get(client, [])))[1]
    taken[client] = [permit.number for permit in found]
    return found


async def permits(dispatcher: Dispatcher, client: str, count: int) -> list[Permit]:
    found: list[Permit] = []
    while len(found) < count:
        found += await collected(dispatcher, client)
    return found


def asks(*numbers: int, most: Usage = MOST) -> list[Ask]:
    return [Ask(number, f"r{number}", most) for number in numbers]


async def test_no_more_goes_out_than_the_budget_may_have_to_pay() -> None:
    dispatcher = Dispatcher(endpoint("http://x", price=PRICE, budget_usd=0.05))
    await dispatcher.tell("a", asks(*range(9)), [])
    given = await permits(dispatcher, "a", 4)
    assert [permit.number for permit in given] == [0, 1, 2, 3] and dispatcher.budget.spent.usd == pytest.approx(0.0404)
    assert await collected(dispatcher, "a") == []
    cheap = [Report(permit.number, permit.ticket, "answered", Usage(100, 90)) for permit in given[:2]]  # 0.1 cents each
    await dispatcher.tell("a", [], cheap)
    assert [permit.number for permit in await permits(dispatcher, "a", 1)] == [4, 5]
    await dispatcher.stop()


@pytest.mark.parametrize(
    ("outcome", "used", "cents"),
    [
        ("answered", Usage(100, 500), 0.51),
        ("answered", None, 1.01),  # an answer that does not tell its tokens
        ("unknown", None, 1.01),
        ("limited", None, 0.0),
        ("failed", None, 0.0),
        ("unreachable", None, 0.0),
        ("limited, perhaps billed", None, 1.01),
        ("closed, perhaps billed", None, 1.01),
    ],
)
async def test_what_came_of_a_request_says_what_it_cost(outcome: Any, used: Usage | None, cents: float) -> None:
    dispatcher = Dispatcher(endpoint("http://x", price=PRICE, budget_usd=1.0))
    await dispatcher.tell("a", asks(1), [])
    (permit,) = await permits(dispatcher, "a", 1)
    outcome, _, billed = outcome.partition(", ")
    await dispatcher.tell("a", [], [Report(1, permit.ticket, outcome, used, perhaps_billed=bool(billed))])
    assert dispatcher.budget.spent.usd == pytest.approx(
        cents / 100
    ) and dispatcher.budget.reserved.usd == pytest.approx(0)
    await dispatcher.stop()


def test_each_kind_of_token_has_its_price() -> None:
    price = Price(prompt=2, cached_prompt=1, completion=10, reasoning=20)
    assert Usage(100, 50, cached=40, reasoning=30).cost(price) == Cost((60 * 2 + 40 + 20 * 10 + 30 * 20) / 1e6, 150)
    assert Usage(100, 50, cached=40, reasoning=30).cost(Price(prompt=2, completion=10)) == Cost(700 / 1e6, 150)
    assert Usage(100, 50).worst_cost(price) == Cost((100 * 2 + 50 * 20) / 1e6, 150)


async def test_a_budget_in_tokens_holds_too() -> None:
    dispatcher = Dispatcher(endpoint("http://x", budget_tokens=2500))
    await dispatcher.tell("a", asks(1, 2, 3), [])
    given = await permits(dispatcher, "a", 2)
    await dispatcher.tell("a", [], [Report(each.number, each.ticket, "answered", Usage(100, 700)) for each in given])
    (refused,) = await permits(dispatcher, "a", 1)
    assert isinstance(refused.refused, BudgetError) and "budget_tokens 2,500" in str(refused.refused)
    assert "1,600 tokens are spent" in str(refused.refused)
    await dispatcher.stop()


async def test_a_crash_forgets_nothing_that_may_have_been_billed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.chat.dispatch.SILENT_S", 0.2)
    settings = endpoint("http://x", price=PRICE, budget_usd=0.05)
    first = Dispatcher(settings, Place(str(tmp_path)))
    await first.tell("a", asks(1, 2, 3, 4), [])
    given = await permits(first, "a", 4)
    await first.tell("a", asks(5), [Report(1, given[0].ticket, "answered", Usage(100, 0))])
    await permits(first, "a", 1)
    # killed here: four are under way
    second = Dispatcher(settings, Place(str(tmp_path)))
    assert sorted(await second.unsettled()) == ["r2", "r3", "r4", "r5"]
    assert second.budget.spent.usd == pytest.approx(4 * 0.0101 + 0.0001)
    await second.tell("b", asks(6), [])
    (refused,) = await permits(second, "b", 1)
    assert isinstance(refused.refused, BudgetError)
    # the answer of one of them was stored before the crash: it is settled by its usage
    (ticket,) = (await second.unsettled())["r2"]
    third = Dispatcher(settings.model_copy(update={"budget_usd": 0.06}), Place(str(tmp_path)))
    await third.tell("c", [], [Report(-1, ticket, "answered", Usage(100, 0))])
    assert third.budget.spent.usd == pytest.approx(3 * 0.0101 + 0.0002)
    await third.tell("c", asks(7, 8), [])
    assert [permit.refused for permit in await permits(third, "c", 2)] == [None, None]
    await third.stop()


def test_a_line_that_a_crash_cut_is_passed_over() -> None:
    budget = Budget(1.0, None)
    budget.reserve("t1", "r1", Cost(0.1, 10))
    line = budget.line() or ""
    budget.settle("t1", Cost(0.02, 3))
    later = budget.line() or ""
    for lines, spent in (([line, later], 0.02), ([line, later[:-3]], 0.1), ([line, "", "[]", "null", later], 0.02)):
        fresh = Budget(1.0, None)
        fresh.replay(lines)
        assert fresh.spent.usd == pytest.approx(spent)


async def test_a_dead_client_gives_back_its_places_but_not_its_money(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.chat.dispatch.SILENT_S", 0.3)
    monkeypatch.setattr("pipeline.chat.dispatch.LISTEN_S", 0.1)
    settings = endpoint("http://x", price=PRICE, budget_usd=1.0, limits=RateLimits(concurrent=2))
    dispatcher = Dispatcher(settings)
    await dispatcher.tell("dead", asks(1, 2), [])
    await permits(dispatcher, "dead", 2)
    await dispatcher.tell("alive", asks(1), [])
    given = await asyncio.wait_for(permits(dispatcher, "alive", 1), 5)
    assert given[0].refused is None and dispatcher.budget.spent.usd == pytest.approx(3 * 0.0101)
    await dispatcher.stop()


async def test_permits_that_the_network_lost_are_given_again() -> None:
    class Lossy(Dispatcher):
        """Every other reply gets lost, and Ray calls again."""

        async def collect(self, client: str, taken: Collection[int]) -> tuple[str, list[Permit]]:
            await super().collect(client, taken)
            return await super().collect(client, taken)

    gate = chat.Gate(Lossy(endpoint("http://x", limits=RateLimits(concurrent=3))))
    sent: list[int] = []

    async def send(request: int) -> None:
        permit = await gate.permit(f"r{request}", MOST)
        sent.append(request)
        gate.report(Report(permit.number, permit.ticket, "answered", Usage(1, 1)))

    async with asyncio.timeout(20):
        await asyncio.gather(*map(send, range(40)))
    assert sorted(sent) == list(range(40))
    await gate.close()


async def test_who_asked_a_dispatcher_that_is_no_more_asks_the_next_one() -> None:
    class Restarted:
        """Forgets what it was asked after the first call, as an actor that is started anew."""

        def __init__(self) -> None:
            self.now = Dispatcher(endpoint("http://x"))
            self.told = 0

        async def tell(self, *told: Any) -> str:
            self.told += 1
            return await self.now.tell(*told) if self.told > 1 else "the first"

        async def collect(self, *asked: Any) -> tuple[str, list[Permit]]:
            return await self.now.collect(*asked)

        async def unsettled(self) -> dict[str, list[str]]:
            return {}

    gate = chat.Gate(Restarted())
    async with asyncio.timeout(10):
        waiting = asyncio.create_task(gate.permit("r1", MOST))
        await asyncio.sleep(0.1)
        second = await gate.permit("r2", MOST)
        first = await waiting
    assert first.refused is None and second.refused is None and first.number != second.number
    await gate.close()


# --- clients against real servers -----------------------------------------------------------------


def rows(count: int, most: int) -> list[dict[str, Any]]:
    rng = random.Random(0)
    return [
        {"model": "teacher", "problem": f"{n}?", "content": "4", "completion_tokens": rng.randrange(1, most)}
        for n in range(count)
    ]


async def bought(settings: Endpoint, dispatcher: Dispatcher, numbers: range) -> list[Any]:
    async with chat.ChatClient(settings, dispatcher) as client:
        asked = (client.buy(chat.chat_request(settings, prompts.student(f"{n}?"), 0), None) for n in numbers)
        return await asyncio.gather(*asked, return_exceptions=True)


async def test_two_clients_spend_one_budget_to_its_end_and_not_beyond() -> None:
    async with teacher(rows(800, 1000), latency_s=0.02) as url:
        settings = endpoint(url, price=PRICE, budget_usd=1.0, max_in_flight=512)
        dispatcher = Dispatcher(settings)
        found = await asyncio.gather(
            bought(settings, dispatcher, range(400)), bought(settings, dispatcher, range(400, 800))
        )
        await dispatcher.stop()
    outcomes = found[0] + found[1]
    answered = [each.reply for each in outcomes if not isinstance(each, Exception)]
    spent = sum((reply.prompt_tokens * 1.0 + reply.completion_tokens * 10.0) / 1e6 for reply in answered)
    assert 0.95 <= spent <= 1.0 and dispatcher.budget.spent.usd == pytest.approx(spent)
    refused = [each for each in outcomes if isinstance(each, Exception)]
    assert len(answered) + len(refused) == 800 and all(isinstance(each, BudgetError) for each in refused)


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


async def test_where_the_dispatcher_is_gone_nobody_waits() -> None:
    class Gone:
        async def tell(self, *_: Any) -> str:
            raise ConnectionError("the actor is dead")

        async def collect(self, *_: Any) -> tuple[str, list[Permit]]:
            await asyncio.sleep(60)
            return "", []

        async def unsettled(self) -> dict[str, list[str]]:
            return {}

    gate = chat.Gate(Gone())
    async with asyncio.timeout(5):
        with pytest.raises(ConnectionError, match="the actor is dead"):
            await gate.permit("r1", MOST)
        await gate.close()


async def test_a_journal_that_cannot_be_written_ends_the_run(tmp_path: Path) -> None:
    settings = endpoint("http://x", price=PRICE, budget_usd=1.0)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot use"):
        await Dispatcher(settings, Place(str(tmp_path / "file" / "below"))).tell("a", asks(1, 2), [])
    dispatcher = Dispatcher(settings, Place(str(tmp_path / "budget")))
    await dispatcher.tell("a", asks(1), [])
    await permits(dispatcher, "a", 1)
    shutil.rmtree(tmp_path / "budget")
    await dispatcher.tell("a", asks(2, 3), [])
    async with asyncio.timeout(5):
        refused = [permit.refused for permit in await permits(dispatcher, "a", 2)]
    assert all(isinstance(each, DataError) for each in refused)


async def test_who_takes_over_a_budget_has_it_alone(tmp_path: Path) -> None:
    settings = endpoint("http://x", price=PRICE, budget_usd=0.05)
    first, second = (Dispatcher(settings, Place(str(tmp_path))) for _ in range(2))
    await first.tell("a", asks(1, 2), [])
    assert [permit.refused for permit in await permits(first, "a", 2)] == [None, None]
    await second.tell("b", asks(3, 4), [])
    assert [permit.refused for permit in await permits(second, "b", 2)] == [None, None]
    assert second.budget.spent.usd == pytest.approx(4 * 0.0101)
    await first.tell("a", asks(5), [])
    (refused,) = await permits(first, "a", 1)
    assert isinstance(refused.refused, DataError) and "another process took over" in str(refused.refused)
    await second.stop()


async def test_a_new_dispatcher_waits_for_what_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.chat.dispatch.SILENT_S", 1.5)
    settings = endpoint("http://x", price=PRICE, budget_usd=0.045)
    first, second = (Dispatcher(settings, Place(str(tmp_path))) for _ in range(2))
    await first.tell("a", asks(1, 2, 3, 4), [])
    given = await permits(first, "a", 4)
    await second.tell("a", asks(5), [])
    assert await collected(second, "a") == []
    await second.tell("a", [], [Report(each.number, each.ticket, "answered", Usage(100, 90)) for each in given[:1]])
    (permit,) = await permits(second, "a", 1)
    assert permit.refused is None
    await second.tell("a", asks(6), [Report(5, permit.ticket, "answered", MOST)])
    async with asyncio.timeout(10):
        (refused,) = await permits(second, "a", 1)
    assert isinstance(refused.refused, BudgetError), "nobody has told of the other three"
    await second.stop()


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


def test_lines_that_are_found_twice_count_once() -> None:
    budget = Budget(1.0, None)
    budget.reserve("t1", "r1", Cost(0.1, 10))
    budget.reserve("t2", "r2", Cost(0.1, 10))
    first = budget.line() or ""
    budget.settle("t1", Cost(0.02, 3))
    second = budget.line() or ""
    fresh = Budget(1.0, None)
    fresh.replay([first, second, first, second])
    assert fresh.spent.usd == pytest.approx(0.12) and list(fresh.open_requests()) == ["r2"]


def test_lines_count_in_any_order() -> None:
    budget = Budget(1.0, None)
    budget.reserve("t1", "r1", Cost(0.1, 10))
    first = budget.line() or ""
    budget.settle("t1", Cost(0.02, 3))
    second = budget.line() or ""
    fresh = Budget(1.0, None)
    fresh.replay([second, first])
    assert fresh.spent.usd == pytest.approx(0.02)


async def test_a_call_that_is_repeated_asks_once() -> None:
    dispatcher = Dispatcher(endpoint("http://x"))
    for _ in range(2):
        await dispatcher.tell("a", asks(1, 2), [])
    assert [permit.number for permit in await permits(dispatcher, "a", 2)] == [1, 2]
    assert await collected(dispatcher, "a") == []
    await dispatcher.stop()
