"""A client and its dispatcher: what a lost call, a dead client and a dead dispatcher cost."""

import asyncio
from collections.abc import Collection
from typing import Any

import pytest
from permits import MOST, PRICE, asks, collected, permits
from servers import endpoint

from pipeline import chat
from pipeline.chat.budget import Usage
from pipeline.chat.dispatch import Dispatcher, Permit, Report
from pipeline.config import RateLimits


async def test_a_call_that_is_repeated_asks_once() -> None:
    dispatcher = Dispatcher(endpoint("http://x"))
    for _ in range(2):
        await dispatcher.tell("a", asks(1, 2), [])
    assert [permit.number for permit in await permits(dispatcher, "a", 2)] == [1, 2]
    assert await collected(dispatcher, "a") == []
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


async def test_a_permit_that_comes_too_late_is_given_back() -> None:
    gate = chat.Gate(chat.Dispatcher(endpoint("http://x", limits=RateLimits(concurrent=1))))
    asked = asyncio.create_task(gate.permit("r1", Usage(1, 1)))
    while not gate._waiting or not gate._waiting[0][1].done():
        await asyncio.sleep(0)
        if 0 not in gate._waiting and not asked.done():
            break
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    async with asyncio.timeout(10):
        assert (await gate.permit("r2", Usage(1, 1))).refused is None
    await gate.close()


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
